"""mark_dirty.lua lists all keys of the ledger, and all fields of a mirror's hash."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import pytest

import autosync
from autosync.ledger.redis_keys import Names
from autosync.ledger.scripts import script_texts

pytestmark = pytest.mark.lint

LEDGER = Path(str(autosync.__file__)).parent / "ledger"


def test_the_list_of_the_ledger_is_complete() -> None:
    listed = set(re.findall(r"\w+", script_texts()["mark_dirty"].partition("-- ARGV")[0]))
    names = Names("m")
    properties = [name for name, value in vars(Names).items() if isinstance(value, cached_property)]
    parts = {value.partition("{m}")[2].split(":")[1] for name in properties if isinstance(value := getattr(names, name), str)}
    lines = re.findall(r"names\.definition, .*", "".join(path.read_text() for path in LEDGER.glob("*.py")))
    fields = {field for line in lines for field in re.findall(r'"(\w+)"', line)}

    assert len(parts) > 15
    assert len(fields) > 10
    assert (parts | fields) - listed == set()
