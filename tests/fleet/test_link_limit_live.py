"""Links to directories that multiply: what is beyond the limit is not sent, neither at the start nor while it is watched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.comparing import fill
from lab.programs import Program, Programs
from lab.servers import wait_until


@pytest.fixture
def options(tree: Path, tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "target").mkdir()
    return (
        "--actor=file", f"--target-container={tmp_path / 'target'}", f"--state-dir={tmp_path / 'state'}", "--name=m",
        f"--source-prefix={tree}/", "--max-links=100", str(tree),
    )  # fmt: skip


@pytest.fixture
def control(programs: Programs, tmp_path: Path) -> Callable[..., str]:
    def run(*command: str) -> str:
        return programs.run("autosync-ctl", f"--state-dir={tmp_path / 'state'}", *command).stdout

    return run


def packages(top: Path, count: int) -> None:
    """Packages with a file each, and with links to all later ones: 2 ** count - 1 keys."""
    names = [f"p{number:02}" for number in range(count)]
    fill(top, *(f"{name}/f" for name in names))
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            os.symlink(f"../{other}", top / name / other)


def sent(tmp_path: Path) -> dict[str, str]:
    target = tmp_path / "target"
    return {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}


def test_once_ends_with_3_and_the_next_time_sends_nothing_else(
    programs: Programs, options: tuple[str, ...], tree: Path, tmp_path: Path
) -> None:
    packages(tree, 9)
    first = programs.run("autosync", "--once", *options)
    assert first.returncode == 3
    assert first.stderr.count("start again with a larger --max-links; to leave links out, with --links=skip") == 1
    before = sent(tmp_path)
    assert len(before) == 9 + 100

    again = programs.run("autosync", "--once", *options)
    assert (again.returncode, sent(tmp_path)) == (3, before)
    cured = programs.run("autosync", "--once", *options, "--max-links=1000")
    assert (cured.returncode, len(sent(tmp_path))) == (0, 511)
    lowered = programs.run("autosync", "--once", *options)
    assert (lowered.returncode, len(sent(tmp_path))) == (3, 511), "what the target has is kept"


def test_while_it_is_watched_changes_are_sent_within_the_limit_only(
    programs: Programs, options: tuple[str, ...], control: Callable[..., str], tree: Path, tmp_path: Path
) -> None:
    packages(tree, 9)
    process = programs.start("autosync", "--rescan=0", *options)
    wait_until(lambda: "compared" in process.output() and len(sent(tmp_path)) == 109, 30, "the first scan has ended")
    before = sent(tmp_path)
    # At first the watcher does not know which directories behind links are mirrored, and has no room for all.
    wait_until(lambda: process.output().count("compared") == 2, 30, "these are watched, and then scanned")
    wait_until(lambda: json.loads(control("status", "--json"))[0]["unwatched"] == 0, 30, "none is left")

    (tree / "p08/f").write_text("changed")
    fill(tree, "p08/new")
    assert control("flush") == "m is flushed\n", process.output()
    after = sent(tmp_path)
    changed = {key for key in before if key.endswith("p08/f")}
    assert {key for key, content in after.items() if content == "changed"} == changed
    new = {key for key in after if key.endswith("/new")}
    assert "p08/new" in new
    assert {key.replace("/new", "/f") for key in new} - {*before} == set(), "only where its neighbour is sent"
    (status,) = json.loads(control("status", "--json"))
    assert status["skipped"] > 0


def test_what_multiplies_while_it_is_watched_is_bounded(
    programs: Programs, options: tuple[str, ...], control: Callable[..., str], tree: Path, tmp_path: Path
) -> None:
    fill(tree, "first")
    process: Program = programs.start("autosync", "--rescan=0", *options)
    wait_until(lambda: "first" in sent(tmp_path), 30, "the first scan has ended")

    packages(tree, 20)  # a million keys
    wait_until(lambda: "--links=skip" in process.output(), 60, "a scan of everything has found too many")
    assert control("flush") == "m is flushed\n", process.output()
    keys = sent(tmp_path)
    assert {f"p{number:02}/f" for number in range(20)} <= keys.keys()
    assert len(keys) <= 21 + 2 * 200, "ten times the files, and what was sent before that was decided"
