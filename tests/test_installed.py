"""`pip install .` into an empty environment brings all that autosync needs. In the environment of the tests there is more than that."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import Bucket, on_disk

ROOT = Path(__file__).resolve().parent.parent
#: Every module of the package that is installed there.
IMPORT_ALL = """
import importlib, pathlib, autosync
top = pathlib.Path(autosync.__file__).parent
names = [".".join(("autosync", *path.relative_to(top).with_suffix("").parts)) for path in sorted(top.rglob("*.py"))]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name.removesuffix(".__init__"))
print(len(names))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of an installed autosync are."""
    above = tmp_path_factory.mktemp("installed")
    copy = above / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "autosync", copy / "autosync", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", above / "venv"], check=True, timeout=300)
    pip = [above / "venv" / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", ROOT / "requirements-dev.txt", copy], check=True, timeout=900)
    return above / "venv" / "bin"


def said(*words: str | Path, environ: Mapping[str, str] | None = None, cwd: Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, env=environ, cwd=cwd, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_each_module_finds_what_it_imports(programs: Path, tmp_path: Path) -> None:
    count = len(list((ROOT / "autosync").rglob("*.py")))

    assert int(said(programs / "python", "-c", IMPORT_ALL, cwd=tmp_path)) == count


@pytest.mark.slow
def test_a_tree_is_mirrored_from_there(programs: Path, bucket: Bucket, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "autosync" / "ledger", tree)
    environ = {**bucket.server.environment(), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    said(programs / "autosync", "--once", *bucket.options(), f"--source-prefix={tree}/", tree, environ=environ, cwd=tmp_path)

    assert bucket.sizes() == on_disk(tree)
