"""`pip install .` into an empty environment brings all that autosync needs. In the environment of the tests there is more than that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab import ROOT
from lab.buckets import Bucket, on_disk

#: Every module of the package that is installed there: how many there are, and what those lack that cannot be imported.
IMPORT_ALL = """
import importlib, json, pathlib, autosync
top = pathlib.Path(autosync.__file__).parent
names = [".".join(("autosync", *path.relative_to(top).with_suffix("").parts)) for path in sorted(top.rglob("*.py"))]
lacking = {}
for name in [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        lacking[name] = error.name
print(json.dumps([len(names), lacking]))
"""
#: The modules, and folders of such, that need what an extra brings.
EXTRA = {
    "autosync.actors._obstore": "obstore",
    "autosync.actors.azure": "obstore",
    "autosync.actors.gcs": "obstore",
    "autosync.actors.http": "http_message_signatures",
    "autosync.actors.swift": "swiftclient",
    "autosync.testing": "pytest",
}


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


def with_extras(programs: Path) -> None:
    """Install what the extras bring, beside it."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = f"{programs.parent.parent / 'copy'}[{','.join(named)}]"
    pip = [programs / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", ROOT / "requirements-dev.txt", wanted], check=True, timeout=900)


def said(*words: str | Path, environ: Mapping[str, str] | None = None, cwd: Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, env=environ, cwd=cwd, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_module_finds_what_it_imports(programs: Path, tmp_path: Path) -> None:
    count = len(list((ROOT / "autosync").rglob("*.py")))

    found, lacking = json.loads(said(programs / "python", "-c", IMPORT_ALL, cwd=tmp_path))

    assert found == count
    assert {name: what for name, what in lacking.items() if name.rpartition(".")[0] not in EXTRA} == EXTRA


def test_a_tree_is_mirrored_from_there(programs: Path, bucket: Bucket, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "autosync" / "ledger", tree)
    environ = {**bucket.server.environment(), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    said(programs / "autosync", "--once", *bucket.options(), f"--source-prefix={tree}/", tree, environ=environ, cwd=tmp_path)

    assert bucket.sizes() == on_disk(tree)


def test_an_extra_brings_what_it_is_named_for(programs: Path, tmp_path: Path) -> None:
    for extra in ("azure", "gcs", "http", "swift"):
        done = subprocess.run([programs / "autosync", f"--actor={extra}", tmp_path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.endswith(f"install it with: pip install 'autosync[{extra}]'\n")

    with_extras(programs)

    assert json.loads(said(programs / "python", "-c", IMPORT_ALL, cwd=tmp_path))[1] == {}
