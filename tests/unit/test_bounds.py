"""The versions that pyproject.toml allows: the lowest are those that `make test-lowest` runs, the newest those of all other tests."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lab import ROOT

pytestmark = pytest.mark.lint

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {
    requirement.name: requirement
    for line in [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    for requirement in [Requirement(line)]
}
#: autosync replaces or calls inner parts of these.
INNER_PARTS = ("celery", "kombu", "redis")


def pinned(file: str) -> dict[str, Version]:
    """The versions in a file that `make lock` writes."""
    lines = (ROOT / file).read_text().splitlines()
    return {canonicalize_name(name): Version(version) for name, version in (re.split("==| ;", line)[:2] for line in lines)}


def bounds(name: str, operator: str) -> list[Version]:
    return [Version(one.version) for one in REQUIREMENTS[name].specifier if one.operator == operator]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_lowest_version_that_is_allowed_is_the_one_that_is_tested(name: str) -> None:
    assert bounds(name, ">=") == [pinned("requirements-lowest.txt")[canonicalize_name(name)]]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_newest_version_that_is_tested_is_allowed(name: str) -> None:
    assert pinned("requirements-dev.txt")[canonicalize_name(name)] in REQUIREMENTS[name].specifier


@pytest.mark.parametrize("name", INNER_PARTS)
def test_no_version_is_allowed_whose_inner_parts_nobody_has_seen(name: str) -> None:
    """The upper bound is the release line behind the newest that is tested: the next major version or, with two numbers, minor one."""
    (upper,) = bounds(name, "<")
    newest = pinned("requirements-dev.txt")[name]

    numbers = len(str(upper).split("."))
    assert upper.release == (*newest.release[: numbers - 1], newest.release[numbers - 1] + 1)


def test_the_tools_are_the_same_as_for_all_other_tests() -> None:
    tools = re.search(r"^TOOLS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tools is not None
    lowest, newest = pinned("requirements-lowest.txt"), pinned("requirements-dev.txt")

    assert {name: lowest.get(name) for name in tools[1].split("|")} == {name: newest[name] for name in tools[1].split("|")}
