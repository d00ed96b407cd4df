"""The state file of a mirror: what was written is read again, and a damaged file counts as empty."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from autosync.state.state_file import StateFile, state_files


def test_fields_are_replaced_one_by_one_and_none_removes_one(tmp_path: Path) -> None:
    file = StateFile(tmp_path, "m")
    assert file.read() == {}

    file.update(one=1, two={"a": ["\udcff"]})
    file.update(one=None, three="x")

    assert StateFile(tmp_path, "m").read() == {"two": {"a": ["\udcff"]}, "three": "x"}
    assert [one.path for one in state_files(tmp_path)] == [file.path], "and no temporary file is left"
    assert state_files(tmp_path / "none") == []


def test_an_update_without_a_change_writes_nothing(tmp_path: Path) -> None:
    file = StateFile(tmp_path, "m")
    file.update(one=1)
    before = os.stat(file.path).st_ino

    file.update(one=1)

    assert os.stat(file.path).st_ino == before


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_file_counts_as_empty_and_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: bytes) -> None:
    file = StateFile(tmp_path, "m")
    file.path.write_bytes(text)

    assert file.read() == {}
    assert "is damaged" in caplog.text
    file.update(one=1)
    assert file.read() == {"one": 1}


def test_a_file_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = StateFile(tmp_path / "none", "m")

    with caplog.at_level(logging.WARNING):
        file.update(one=1)
        file.update(one=2)

    assert caplog.text.count("cannot be written: No such file or directory") == 1
