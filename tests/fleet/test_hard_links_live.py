"""Files with several names (hard links): `autosync-ctl flush` is right about all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.programs import Programs
from lab.servers import wait_until


@pytest.fixture
def flush(programs: Programs, tree: Path, tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Starts autosync on the tree. Calling it flushes, and returns what the target holds."""
    target = tmp_path / "target"
    target.mkdir()
    state = tmp_path / "state"
    command = ("autosync", "--actor=file", f"--target-container={target}", f"--state-dir={state}", "--name=m", "--rescan=0")
    process = programs.start(*command, f"--source-prefix={tree}/", str(tree))

    def flush() -> dict[str, str]:
        done = programs.run("autosync-ctl", f"--state-dir={state}", "flush")
        assert (done.returncode, done.stdout) == (0, "m is flushed\n"), done.stderr + process.output()
        return {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}

    wait_until(lambda: "compared" in process.output(), 30, "the first scan has ended")
    return flush


def test_after_a_flush_all_names_of_a_file_are_as_it_is(flush: Callable[[], dict[str, str]], tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d/a").write_text("1")
    os.link(tree / "d/a", tree / "b")
    assert flush() == {"d/a": "1", "b": "1"}

    (tree / "b").write_text("22")
    assert flush() == {"d/a": "22", "b": "22"}
    os.link(tree / "b", tree / "c")
    (tree / "d/a").unlink()
    (tree / "c").write_text("333")
    assert flush() == {"b": "333", "c": "333"}


def test_a_name_that_had_no_event_since_the_start_is_found_by_a_flush(flush: Callable[[], dict[str, str]], tree: Path) -> None:
    """When a file gets its second name, nothing is known about the first."""
    (tree / "first").write_text("1")
    assert flush() == {"first": "1"}

    os.link(tree / "first", tree / "second")
    (tree / "second").write_text("22")
    assert flush() == {"first": "22", "second": "22"}
