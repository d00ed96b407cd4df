"""An environment in which autosync is installed as `pip install .` would do it: with what its metadata names, and nothing else.

The packages are those of the environment that runs the tests, linked file by file, so nothing is downloaded or compiled. autosync itself
is installed from a wheel. A module that is not in the wheel, or imports what the metadata does not name, is missing there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from . import ROOT

_BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
#: What setuptools reads, besides the package.
_PROJECT = ("pyproject.toml", "README.md", "MANIFEST.in")


class Installed:
    """An environment with autosync, and a folder beside it with what the extras bring.

    Args:
        directory: where it is made.
    """

    def __init__(self, directory: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True, timeout=100)
        self.bin = directory / "venv" / "bin"
        (site,) = (directory / "venv" / "lib").glob("python*/site-packages")
        self.extras = directory / "extras"
        self._install(_wheel(directory))
        (metadata,) = site.glob("autosync-*.dist-info")
        autosync = PathDistribution(metadata)
        self._needed = _closure(autosync, ())
        for one in self._needed.values():
            _link(one, site)
        with_extras = _closure(autosync, autosync.metadata.get_all("Provides-Extra") or ())
        for name in with_extras.keys() - self._needed.keys():
            _link(with_extras[name], self.extras)

    def _install(self, wheel: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True, timeout=100)


def _wheel(directory: Path) -> Path:
    """A wheel that is made of a copy of the project."""
    copy = directory / "copy"
    copy.mkdir()
    for name in _PROJECT:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "autosync", copy / "autosync", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", _BUILD, directory], cwd=copy, check=True, timeout=100, capture_output=True)
    (made,) = directory.glob("*.whl")
    return made


def _closure(of: Distribution, extras: Iterable[str]) -> dict[str, Distribution]:
    """All distributions that one needs, and those need, by their names.

    Raises:
        PackageNotFoundError: this environment lacks one.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(of, extra) for extra in ("", *extras)]
    while todo:
        one, extra = todo.pop()
        for text in one.requires or ():
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(needed.name)
            found[name] = distribution(name)
            version = found[name].version
            assert needed.specifier.contains(version, prereleases=True), f"{text}, but {name} {version} is installed"
            news = {(name, wanted) for wanted in ("", *needed.extras)} - seen
            seen |= news
            todo += [(found[name], wanted) for _, wanted in news]
    return found


def _link(one: Distribution, site: Path) -> None:
    """Link the files of a distribution, with their compiled forms. Scripts are left out: they would start this environment's Python."""
    folder = Path(str(one.locate_file("")))
    names = {str(name) for name in one.files or ()}
    for name in names:
        path = Path(name)
        if ".." in path.parts or path.is_absolute() or not (folder / path).exists():
            continue
        for linked in (path, path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"):
            if (folder / linked).exists() and not (site / linked).exists():
                (site / linked).parent.mkdir(parents=True, exist_ok=True)
                os.symlink(folder / linked, site / linked)
