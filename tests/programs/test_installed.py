"""What `pip install .` brings is all that autosync needs. In the environment of the tests there is more than that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab import ROOT
from lab.buckets import Bucket, on_disk
from lab.installed import Installed

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
    "autosync.actors.azure": "azure",
    "autosync.actors.gcs": "google",
    "autosync.actors.http": "http_message_signatures",
    "autosync.actors.swift": "swiftclient",
    "autosync.testing": "pytest",
}


#: Why each actor of an extra cannot be loaded.
LOAD_EXTRAS = """
import json, sys
from autosync.actors import load
from autosync.errors import ConfigurationError
errors = {}
for name in sys.argv[1:]:
    try:
        load(name)
    except ConfigurationError as error:
        errors[name] = str(error)
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


def output_of(*words: str | Path, environ: Mapping[str, str] | None = None, cwd: Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, env=environ, cwd=cwd, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_module_finds_what_it_imports(installed: Installed, tmp_path: Path) -> None:
    count = len(list((ROOT / "autosync").rglob("*.py")))

    found, lacking = json.loads(output_of(installed.bin / "python", "-c", IMPORT_ALL, cwd=tmp_path))

    assert found == count
    assert {name: what for name, what in lacking.items() if name.rpartition(".")[0] not in EXTRA} == EXTRA


def test_a_tree_is_mirrored_from_there(installed: Installed, bucket: Bucket, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "autosync" / "ledger", tree)
    environ = {**bucket.server.environment(), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    output_of(installed.bin / "autosync", "--once", *bucket.options(), f"--source-prefix={tree}/", tree, environ=environ, cwd=tmp_path)

    assert bucket.sizes() == on_disk(tree)


def test_an_extra_brings_what_it_is_named_for(installed: Installed, tmp_path: Path) -> None:
    extras = ("azure", "gcs", "http", "swift")
    refused = json.loads(output_of(installed.bin / "python", "-c", LOAD_EXTRAS, *extras, cwd=tmp_path))

    assert sorted(refused) == sorted(extras)
    for extra in extras:
        assert refused[extra].endswith(f"install it with: pip install 'autosync[{extra}]'")
    done = subprocess.run([installed.bin / "autosync", "--actor=swift", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"autosync: {refused['swift']}\n")

    with_extras = {**os.environ, "PYTHONPATH": str(installed.extras)}
    assert json.loads(output_of(installed.bin / "python", "-c", IMPORT_ALL, environ=with_extras, cwd=tmp_path))[1] == {}
