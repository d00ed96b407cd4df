"""Definitions that are signed, and boxes that take no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosync.errors import ConfigurationError
from autosync.model.definition_signature import SIGNING_KEY, is_signed, key_among, read_key, sign

KEY, OTHER = "k" * 32, "o" * 32


def test_a_signature_is_that_of_one_key_one_mirror_and_one_definition() -> None:
    signature = sign(KEY, "m", "definition \udcff")

    assert is_signed(KEY, "m", "definition \udcff", signature)
    assert not is_signed(OTHER, "m", "definition \udcff", signature)
    assert not is_signed(KEY, "n", "definition \udcff", signature)
    assert not is_signed(KEY, "m", "definition", signature)
    assert not is_signed(KEY, "m", "definition", "")
    assert not is_signed(KEY, "m", "definition", "\udcff")
    assert sign("", "m", "definition") == ""


def test_the_parts_of_what_is_signed_cannot_be_shifted() -> None:
    assert sign(KEY, "m", "x{}") != sign(KEY, "mx", "{}")


def test_a_key_is_read_from_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")

    assert read_key(f"@{file}") == read_key(KEY) == KEY
    assert read_key(None) == key_among({}) == ""
    assert key_among({SIGNING_KEY: f"@{file}", "password": ""}) == KEY


@pytest.mark.parametrize("passed", ["", " ", "short", "@/does/not/exist", "@/"])
def test_what_is_no_key_is_refused(passed: str) -> None:
    with pytest.raises(ConfigurationError, match=r"signing.key"):
        read_key(passed)


@pytest.mark.parametrize("passed", ["", None, KEY.encode(), 7, [KEY]])
def test_a_box_whose_key_is_nothing_does_not_go_without_one(passed: object) -> None:
    with pytest.raises(ConfigurationError, match=r"signing.key"):
        key_among({SIGNING_KEY: passed})
