"""The sdist holds all that its tests need: the project, file by file."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lab import ROOT
from lab.parts import lacking

BUILD = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
#: What setuptools adds.
MADE = {"PKG-INFO", "setup.cfg", "autosync.egg-info"}


def tracked() -> list[str]:
    """The files of the project: those that git tracks, or, in an unpacked sdist, those that it holds."""
    if (ROOT / "autosync.egg-info/SOURCES.txt").exists() and not (ROOT / ".git").exists():
        return [name for name in (ROOT / "autosync.egg-info/SOURCES.txt").read_text().splitlines() if name.partition("/")[0] not in MADE]
    words = ["git", "ls-files", "--cached"]
    try:
        listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        lacking("git, or a checkout of it that this user may read")
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist that is made of a copy of the project, unpacked."""
    above = tmp_path_factory.mktemp("sdist")
    for name in tracked():
        copy = above / "copy" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    made = subprocess.run([sys.executable, "-c", BUILD, str(above)], cwd=above / "copy", capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stderr
    with tarfile.open(above / made.stdout.split()[-1]) as archive:
        archive.extractall(above / "unpacked", filter="data")
    (top,) = (above / "unpacked").iterdir()
    return top


def test_the_sdist_holds_each_file_of_the_project_and_no_other(unpacked: Path) -> None:
    locked = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}

    assert {name for name in locked if name.partition("/")[0] not in MADE} == set(tracked())
