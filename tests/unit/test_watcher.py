"""The watcher on the real kernel: whatever happens on the disk is reported by a change, or by a scan at or above it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from autosync.daemon.state_directory import state_directory
from autosync.model.change import SCAN_ALL, Change, Kind
from autosync.model.keys import Keys, Source
from autosync.model.paths import slashed
from autosync.source.beneath import open_directory_beneath, resolve_beneath
from autosync.watch import symlinks, tree_placer, watched_tree
from autosync.watch.watcher import Watcher, identity_of
from lab import ROOT
from lab.descriptors import descriptors, opened_since
from lab.parts import lacking
from lab.servers import wait_until

LIMIT = 20.0
NUMBERS = itertools.count()


class Recorder:
    """Records the changes of a watcher. `files` is what an observer finds that scans wherever a change requests it."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.files: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        self.waits = threading.Event()
        self._lock = threading.Lock()
        self.roots: list[str] = []

    def __call__(self, changes: Iterable[Change]) -> None:
        changes = list(changes)
        if not self.open.is_set():
            self.waits.set()
            self.open.wait()
        with self._lock:
            self.changes += changes
            for kind, path in changes:
                if kind in (Kind.SCAN, Kind.LEFT):
                    self._scan(path)
                else:
                    (self.files.add if os.path.isfile(path) else self.files.discard)(path)

    def _scan(self, path: str) -> None:
        tops = [path] if path else self.roots
        self.files -= {path for path in self.files for top in tops if path.startswith(slashed(top))}
        for top in tops:
            self.files |= files_below(top)

    def has(self, kind: Kind, path: str | Path) -> bool:
        with self._lock:
            return Change(kind, str(path)) in self.changes

    def wait_for(self, kind: Kind, path: str | Path) -> None:
        wait_until(lambda: self.has(kind, path), LIMIT, f"{kind.value} {path}: {self.changes}")

    def kinds(self, path: str | Path) -> list[Kind]:
        with self._lock:
            return [kind for kind, at in self.changes if at == str(path)]

    def paths(self) -> set[str]:
        with self._lock:
            return {path for _, path in self.changes}

    def clear(self, path: Path | None = None) -> None:
        """Remove all recorded changes, or those of one path."""
        with self._lock:
            self.changes[:] = [change for change in self.changes if path is not None and change.path != str(path)]


def files_below(top: str) -> set[str]:
    return {f"{slashed(directory)}{name}" for directory, _, names in os.walk(top) for name in names}


Watch = Callable[..., tuple[Watcher, Recorder]]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Starts watchers, and waits until all their watches are placed."""
    started: list[tuple[Watcher, Recorder]] = []

    def start(*sources: Source | Path, excludes: tuple[str, ...] = (), state: tuple[str, ...] = ()) -> tuple[Watcher, Recorder]:
        wanted = [one if isinstance(one, Source) else Source(str(one)) for one in sources]
        keys = Keys(wanted, source_exclude=excludes, state_directories=state)
        recorder = Recorder()
        recorder.roots = [source.root for source in keys.sources]
        watcher = Watcher(keys, recorder)
        started.append((watcher, recorder))
        watcher.start()
        recorder.wait_for(*SCAN_ALL)
        recorder.clear()
        return watcher, recorder

    yield start
    for watcher, recorder in started:
        recorder.open.set()
        watcher.close()


def wait_until_processed(tree: Path, recorder: Recorder) -> None:
    """Wait until everything is reported that happened before: one thread reports events in their order."""
    last = tree / f"last {next(NUMBERS)}"
    last.touch()
    recorder.wait_for(Kind.SAVED, last)
    last.unlink()
    recorder.wait_for(Kind.DELETED, last)
    recorder.clear(last)


# Files

@pytest.mark.parametrize("name", [b"f", b"\xff\xfe", b"two\nlines", "é😀".encode(), b"x" * 255, b" ", b"-"])
def test_a_file_is_reported_by_its_exact_name(tree: Path, watch: Watch, name: bytes) -> None:
    _, recorder = watch(tree)
    path = os.fsdecode(os.fsencode(tree) + b"/" + name)

    with open(path, "wb") as file:
        recorder.wait_for(Kind.CREATED, path)
        assert not recorder.has(Kind.SAVED, path)
        file.write(b"content")
    recorder.wait_for(Kind.SAVED, path)
    os.unlink(path)
    recorder.wait_for(Kind.DELETED, path)

    assert recorder.kinds(path) == [Kind.CREATED, Kind.SAVED, Kind.DELETED]
    assert recorder.paths() == {path}


def test_a_file_that_is_saved_again_is_reported_again(tree: Path, watch: Watch) -> None:
    (tree / "f").touch()
    _, recorder = watch(tree)

    with open(tree / "f", "a") as file:
        file.write("more")

    recorder.wait_for(Kind.SAVED, tree / "f")
    assert recorder.kinds(tree / "f") == [Kind.SAVED]


def test_the_creation_of_a_file_is_reported_only_if_its_close_is_not_read_together_with_it(tree: Path, watch: Watch) -> None:
    _, recorder = watch(tree)
    recorder.open.clear()
    (tree / "holds up the reader").touch()
    recorder.waits.wait(LIMIT)
    (tree / "closed").touch()
    (tree / "closed, gone, and there again").touch()
    (tree / "closed, gone, and there again").unlink()
    with open(tree / "open", "w"), open(tree / "closed, gone, and there again", "w"):
        recorder.open.set()
        recorder.wait_for(Kind.CREATED, tree / "open")

        assert recorder.kinds(tree / "closed") == [Kind.SAVED]
        assert recorder.kinds(tree / "closed, gone, and there again") == [Kind.SAVED, Kind.DELETED]
        assert recorder.kinds(tree / "open") == [Kind.CREATED]


def test_a_file_renamed_within_the_tree_is_gone_here_and_saved_there(tree: Path, watch: Watch) -> None:
    (tree / "d").mkdir()
    (tree / "a").touch()
    (tree / "old").touch()
    _, recorder = watch(tree)

    (tree / "a").rename(tree / "d" / "b")
    (tree / "d" / "b").rename(tree / "old")

    recorder.wait_for(Kind.SAVED, tree / "old")
    assert recorder.changes == [
        Change(Kind.DELETED, f"{tree}/a"), Change(Kind.SAVED, f"{tree}/d/b"),
        Change(Kind.DELETED, f"{tree}/d/b"), Change(Kind.SAVED, f"{tree}/old"),
    ]  # fmt: skip


def test_a_file_moved_in_is_saved_and_one_moved_out_is_gone(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "in").touch()
    (tree / "out").touch()
    _, recorder = watch(tree)

    (tmp_path / "in").rename(tree / "in")
    (tree / "out").rename(tmp_path / "out")

    recorder.wait_for(Kind.SAVED, tree / "in")
    recorder.wait_for(Kind.DELETED, tree / "out")
    assert recorder.paths() == {f"{tree}/in", f"{tree}/out"}


def test_a_link_to_a_directory_is_no_way_in(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "link").symlink_to(tmp_path / "outside")
    watcher, recorder = watch(tree)

    (tree / "later").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "f").touch()
    wait_until_processed(tree, recorder)

    assert recorder.paths() == {f"{tree}/later"}
    wait_until(lambda: watcher.watches() == 1, LIMIT, "only the tree is watched")


# Directories

def test_every_directory_is_watched_before_the_first_scan(tree: Path, watch: Watch) -> None:
    deep = tree / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (tree / "d").mkdir()
    watcher, recorder = watch(tree)

    (deep / "f").touch()
    (tree / "d" / "f").touch()

    assert watcher.watches() == 5
    recorder.wait_for(Kind.SAVED, deep / "f")
    recorder.wait_for(Kind.SAVED, tree / "d" / "f")


def test_a_directory_moved_in_is_scanned_and_watched(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "f").touch()
    watcher, recorder = watch(tree)

    (tmp_path / "in").rename(tree / "in")

    recorder.wait_for(Kind.SCAN, tree / "in")
    assert recorder.kinds(tree / "in" / "deep" / "f") == [Kind.APPEARED]
    assert recorder.files == {f"{tree}/in/deep/f"}
    assert watcher.watches() == 3
    (tree / "in" / "deep" / "g").touch()
    recorder.wait_for(Kind.SAVED, tree / "in" / "deep" / "g")


def test_a_directory_moved_out_is_scanned_and_not_watched(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tree / "out" / "deep").mkdir(parents=True)
    watcher, recorder = watch(tree)

    (tree / "out").rename(tmp_path / "out")
    recorder.wait_for(Kind.LEFT, tree / "out")
    recorder.clear()
    (tmp_path / "out" / "f").touch()
    (tmp_path / "out" / "deep" / "f").touch()
    wait_until_processed(tree, recorder)

    assert recorder.paths() == set()
    wait_until(lambda: watcher.watches() == 1, LIMIT)


def test_a_directory_renamed_within_the_tree_goes_on_under_its_new_name(tree: Path, watch: Watch) -> None:
    (tree / "a" / "deep").mkdir(parents=True)
    (tree / "a" / "deep" / "f").touch()
    watcher, recorder = watch(tree)

    (tree / "a").rename(tree / "b")

    recorder.wait_for(Kind.LEFT, tree / "a")
    recorder.wait_for(Kind.SCAN, tree / "b")
    assert recorder.files == {f"{tree}/b/deep/f"}
    (tree / "b" / "deep" / "g").touch()
    recorder.wait_for(Kind.SAVED, tree / "b" / "deep" / "g")
    assert watcher.watches() == 3


def test_a_tree_that_is_deleted_is_reported_and_its_watches_end(tree: Path, watch: Watch) -> None:
    for number in range(5):
        (tree / "d" / str(number)).mkdir(parents=True)
        (tree / "d" / str(number) / "f").touch()
    watcher, recorder = watch(tree)
    assert watcher.watches() == 7

    shutil.rmtree(tree / "d")

    wait_until(lambda: not recorder.files, LIMIT, "all files are gone")
    wait_until(lambda: watcher.watches() == 1, LIMIT)
    assert recorder.has(Kind.LEFT, tree / "d")


def test_the_files_of_a_large_directory_that_appears_are_reported_part_by_part(
    tree: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_placer, "_PUSHED_AT_ONCE", 10)
    (tmp_path / "large/below").mkdir(parents=True)
    for number in range(25):
        (tmp_path / f"large/{number}").touch()
    (tmp_path / "large/below/f").touch()
    watcher, recorder = watch(tree)
    sizes: list[int] = []

    def push(changes: Iterable[Change]) -> None:
        changes = list(changes)
        sizes.append(sum(kind is Kind.APPEARED for kind, _ in changes))
        recorder(changes)

    monkeypatch.setattr(trees(watcher), "_push", push)
    (tmp_path / "large").rename(tree / "large")
    recorder.wait_for(Kind.SCAN, tree / "large")

    assert recorder.files == files_below(str(tree))
    assert sum(sizes) == 26
    assert max(sizes) == 10


def test_a_directory_that_is_deleted_is_forgotten_without_a_search_through_the_others(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rm -rf` of many directories among many more must not take the product of both."""
    for number in range(200):
        (tree / f"d{number}").mkdir()
    (tree / "link").symlink_to("d0")
    watcher, recorder = watch(tree)
    assert watcher.watches() == 201
    scanned = 0

    class Counted(dict[str, int]):
        def __iter__(self) -> Iterator[str]:
            nonlocal scanned
            scanned += len(self)
            return super().__iter__()

    monkeypatch.setattr(watcher._tree.watches, "_wds", Counted(watcher._tree.watches._wds))
    for number in range(1, 101):
        (tree / f"d{number}").rmdir()
    for number in range(1, 101):
        recorder.wait_for(Kind.LEFT, tree / f"d{number}")

    assert scanned == 0
    assert watcher.watches() == kernel_watches(watcher) == 101


def test_nothing_is_lost_when_directories_are_made_and_filled_at_once(tree: Path, watch: Watch) -> None:
    _, recorder = watch(tree)

    def fill(number: int) -> None:
        for turn in range(40):
            deep = tree / f"{number}-{turn}" / "a" / "b" / "c"
            os.makedirs(deep)
            for directory in (deep, deep.parent, deep.parent.parent):
                (directory / "f").write_text("at once")

    fillers = [threading.Thread(target=fill, args=(number,)) for number in range(3)]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()

    made = files_below(str(tree))
    assert len(made) == 3 * 40 * 3
    wait_until(lambda: recorder.files == made, LIMIT, "every file is covered by a change or a scan")


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_in_a_storm(tree: Path, tmp_path: Path, watch: Watch, seed: int) -> None:
    """An observer that trusts the watcher has the files of the disk in the end, whatever was made, moved and removed, and how fast."""
    outside = tmp_path / "outside"
    outside.mkdir()
    _, recorder = watch(tree)
    dice = random.Random(seed)

    for number in range(400):
        directories = [tree, *(path for path in tree.rglob("*") if path.is_dir())]
        here, there = dice.choice(directories), dice.choice(directories)
        name = dice.choice("abcdef")
        operation = dice.choice(["write", "write", "make", "make", "move", "move", "out", "in", "remove"])
        try:
            if operation == "write":
                (here / name).write_text("content")
            elif operation == "make":
                (here / name / dice.choice("abc")).mkdir(parents=True, exist_ok=True)
            elif operation == "move" and here != tree:
                here.rename(there / name)
            elif operation == "out" and here != tree:
                here.rename(outside / str(number))
            elif operation == "in" and (moved := next(outside.iterdir(), None)):
                moved.rename(here / name)
            elif operation == "remove" and here != tree:
                shutil.rmtree(here)
        except OSError:
            continue  # not all of it can be done

    left = files_below(str(tree))
    directories = [str(tree), *(str(path) for path in tree.rglob("*") if path.is_dir())]
    wait_until(
        lambda: recorder.files == left,
        LIMIT,
        f"files are those of the disk; missing: {left - recorder.files}, gone: {recorder.files - left}",
    )
    for directory in directories:
        Path(directory, "last").touch()
        recorder.wait_for(Kind.SAVED, f"{directory}/last")


# Scope

def test_the_neighbours_of_a_single_file_are_not_reported(tree: Path, watch: Watch) -> None:
    file = tree / "file"
    file.touch()
    (tree / "d").mkdir()
    watcher, recorder = watch(Source(str(file), is_file=True))

    (tree / "neighbour").write_text("x")
    (tree / "neighbour").unlink()
    (tree / "d" / "f").touch()
    (tree / "e").mkdir()
    (tree / "e" / "f").touch()
    shutil.rmtree(tree / "e")
    (tree / "new").write_text("new")
    (tree / "new").rename(file)
    recorder.wait_for(Kind.SAVED, file)
    file.unlink()
    file.mkdir()
    (file / "f").touch()
    (file / "f").unlink()
    file.rmdir()
    (tree / "new").touch()
    (tree / "new").rename(file)
    wait_until(lambda: recorder.kinds(file).count(Kind.SAVED) == 2, LIMIT)

    assert recorder.changes == [Change(kind, str(file)) for kind in (Kind.SAVED, Kind.DELETED, Kind.SAVED)]
    assert watcher.watches() == 1


def test_two_files_of_one_directory_are_both_reported(tree: Path, watch: Watch) -> None:
    watcher, recorder = watch(Source(f"{tree}/a", is_file=True), Source(f"{tree}/b", is_file=True))

    for name in "cba":
        (tree / name).touch()
    recorder.wait_for(Kind.SAVED, tree / "a")

    assert recorder.paths() == {f"{tree}/a", f"{tree}/b"}
    assert watcher.watches() == 1


def test_an_excluded_directory_is_not_watched(tree: Path, watch: Watch) -> None:
    (tree / "tmp" / "deep").mkdir(parents=True)
    (tree / "kept").mkdir()
    watcher, recorder = watch(tree, excludes=(f"{tree}/tmp$", ".*/cache$"))

    (tree / "tmp" / "f").touch()
    (tree / "tmp" / "deep" / "f").touch()
    (tree / "kept" / "cache" / "deep").mkdir(parents=True)
    (tree / "kept" / "cache" / "deep" / "f").touch()
    shutil.rmtree(tree / "kept" / "cache")
    (tree / "kept" / "f").touch()
    recorder.wait_for(Kind.SAVED, tree / "kept" / "f")

    assert recorder.paths() == {f"{tree}/kept/f"}
    assert watcher.watches() == 2


def test_the_own_state_is_not_watched_by_any_way(tree: Path, watch: Watch) -> None:
    (tree / "d" / "state" / "m").mkdir(parents=True)
    (tree / "way").symlink_to("d")
    (tree / "deep").symlink_to("way/state/m")
    watcher, recorder = watch(tree, state=(f"{tree}/d/state",))

    (tree / "d" / "state" / "m" / "log").touch()
    (tree / "d" / "state" / "n").mkdir()
    (tree / "d" / "state" / "n" / "lock").touch()
    (tree / "into").symlink_to("d/state")
    watcher.follow_link(f"{tree}/into")
    recorder.wait_for(Kind.SAVED, tree / "into")
    (tree / "d" / "state" / "m" / "log").write_text("more")
    wait_until_processed(tree, recorder)

    assert not {path for path in recorder.paths() if "/m/" in path or "/n" in path}
    assert watcher.watches() == 2, "the root and d"


@pytest.mark.parametrize("created", ["before", "meanwhile", "in a directory that is watched"])
def test_the_state_of_another_autosync_is_not_watched(tree: Path, watch: Watch, created: str) -> None:
    base = tree / "d" / "state"
    if created == "in a directory that is watched":
        (base / "m").mkdir(parents=True)
    if created == "before":
        state_directory(base, "m")
    watcher, recorder = watch(tree)
    for number in range(3 if created == "meanwhile" else 1):
        state = state_directory(base, f"m{number or ''}")
        (state / "appendonlydir").mkdir(exist_ok=True)
        (state / "appendonlydir" / "log").write_text("1")
        (state / "lock").write_text("1")
    wait_until_processed(tree, recorder)
    (state / "appendonlydir" / "log").write_text("2")
    (state / "lock").write_text("2")
    wait_until_processed(tree, recorder)

    assert not {path for path in recorder.paths() if path.endswith(("lock", "log", ".autosync-state"))}
    wait_until(lambda: watcher.watches() == 3, LIMIT, "the root, d and state are watched, and nothing else")


def test_several_sources_are_watched_side_by_side(tmp_path: Path, watch: Watch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / "d").mkdir(parents=True)
    watcher, recorder = watch(tmp_path / "a", tmp_path / "b", Source(f"{tmp_path}/c/f", is_file=True))

    for name in ("a", "b", "c"):
        (tmp_path / name / "d" / "f").touch()
        (tmp_path / name / "f").touch()
    (tmp_path / "a" / "d").rename(tmp_path / "b" / "moved")
    recorder.wait_for(Kind.SCAN, tmp_path / "b" / "moved")

    assert watcher.watches() == 5
    assert recorder.files == {f"{tmp_path}/{name}" for name in ("a/f", "b/f", "b/d/f", "b/moved/f", "c/f")}


# What may go wrong

def test_a_source_that_is_not_there_is_logged_and_the_others_are_watched(
    tree: Path, tmp_path: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    _, recorder = watch(tmp_path / "missing", tree)

    (tree / "f").touch()
    recorder.wait_for(Kind.SAVED, tree / "f")

    assert f"source {tmp_path}/missing cannot be watched" in caplog.text


def test_a_root_that_was_replaced_is_watched_anew(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tree / "d").mkdir()
    watcher, recorder = watch(tree)
    before = identity_of(str(tree))
    tree.rename(tmp_path / "old")
    (tree / "e").mkdir(parents=True)
    (tree / "e" / "f").touch()

    watcher.replace_root(Source(str(tree)))
    recorder.wait_for(*SCAN_ALL)

    assert identity_of(str(tree)) != before
    assert recorder.files == {f"{tree}/e/f"}
    assert watcher.watches() == 2
    (tmp_path / "old" / "d" / "g").touch()
    (tree / "e" / "g").touch()
    recorder.wait_for(Kind.SAVED, tree / "e" / "g")
    assert not recorder.has(Kind.SAVED, tree / "d" / "g")


def test_a_root_whose_watch_the_kernel_removed_is_reported_until_it_is_watched_anew(tree: Path, watch: Watch) -> None:
    watcher, recorder = watch(tree)
    assert watcher.lost_roots == set()

    tree.rmdir()
    wait_until(lambda: watcher.lost_roots == {str(tree)}, LIMIT)
    tree.mkdir()
    watcher.place_all()
    recorder.wait_for(*SCAN_ALL)
    assert watcher.lost_roots == {str(tree)}, "that may have been the place where a share is mounted"

    watcher.replace_root(Source(str(tree)))
    assert watcher.lost_roots == set()


def test_a_directory_that_leaves_while_its_watch_is_placed_is_not_watched(
    tree: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, recorder = watch(tree)
    moves = iter([tree / "d"])

    def open_and_let_it_leave(root: int, relative: str) -> int:
        descriptor = open_directory_beneath(root, relative)
        if relative == "d" and (leaving := next(moves, None)):
            leaving.rename(tmp_path / "outside")
            recorder.wait_for(Kind.LEFT, leaving)
        return descriptor

    monkeypatch.setattr(watched_tree, "open_directory_beneath", open_and_let_it_leave)
    (tree / "d").mkdir()
    (tree / "placed after it").mkdir()
    recorder.wait_for(Kind.SCAN, tree / "placed after it")
    (tmp_path / "outside" / "f").touch()
    wait_until_processed(tree, recorder)

    assert not recorder.kinds(tree / "d" / "f")
    assert watcher.watches() == 2


@pytest.mark.parametrize("leaving", ["d", "d/below"])
def test_a_directory_that_leaves_while_one_below_it_is_placed_has_no_events_under_its_old_name(
    tree: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, leaving: str
) -> None:
    """Those below are opened from the directory that they are in, wherever that is by then."""
    (tmp_path / "d/below").mkdir(parents=True)
    watcher, recorder = watch(tree)
    add = trees(watcher)._add_watch

    def let_it_leave_and_add(descriptor: int, directory: str) -> None:
        if directory == f"{tree}/d/below" and (tree / leaving).exists():
            (tree / leaving).rename(tmp_path / "outside")
            recorder.wait_for(Kind.LEFT, tree / leaving)
        add(descriptor, directory)

    monkeypatch.setattr(trees(watcher), "_add_watch", let_it_leave_and_add)
    (tmp_path / "d").rename(tree / "d")
    (tree / "placed after it").mkdir()
    recorder.wait_for(Kind.SCAN, tree / "placed after it")
    (tmp_path / "outside" / "f").touch()
    wait_until_processed(tree, recorder)

    assert f"{tree}/{leaving}/f" not in recorder.paths()
    assert watcher.watches() == kernel_watches(watcher) == (2 if leaving == "d" else 3)


def test_directories_deeper_than_a_path_can_name_do_not_stop_it(tree: Path, watch: Watch) -> None:
    """The kernel accepts and returns paths of up to 4,095 bytes; a tree may go deeper, one step at a time."""
    here = os.open(tree, os.O_RDONLY)
    for _ in range(220):
        os.mkdir("d" * 19, dir_fd=here)
        above, here = here, os.open("d" * 19, os.O_RDONLY, dir_fd=here)
        os.close(above)
    os.close(here)

    watcher, recorder = watch(tree)
    (tree / "f").touch()
    (tree / "later").mkdir()
    recorder.wait_for(Kind.SAVED, tree / "f")
    recorder.wait_for(Kind.SCAN, tree / "later")

    assert watcher.error is None
    assert 190 < watcher.watches() < 220


def test_the_error_that_ended_a_thread_is_stored(tree: Path) -> None:
    def fail(changes: Iterable[Change]) -> None:
        raise RuntimeError("cannot push")

    watcher = Watcher(Keys([Source(str(tree))]), fail)
    assert watcher.error is None
    watcher.start()
    try:
        error = wait_until(lambda: watcher.error, LIMIT)
    finally:
        watcher.close()

    assert str(error) == "cannot push"


def overflow(tree: Path, recorder: Recorder) -> None:
    """Fill the kernel's queue while the watcher's reader is held up, until events are lost."""
    recorder.open.clear()
    (tree / "held up").touch()
    assert recorder.waits.wait(LIMIT)
    here, there = str(tree / "here"), str(tree / "there")
    Path(here).touch()
    for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2 + 10):
        os.rename(here, there)
        here, there = there, here


def test_a_queue_that_overflowed_means_a_scan_of_everything(tree: Path, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    _, recorder = watch(tree)

    overflow(tree, recorder)
    (tree / "lost").touch()
    recorder.open.set()

    recorder.wait_for(*SCAN_ALL)
    assert not recorder.has(Kind.CREATED, tree / "lost"), "its event must have been lost, or this test shows nothing"
    wait_until(lambda: recorder.files == files_below(str(tree)), LIMIT)
    assert [record.getMessage() for record in caplog.records if "overflow" in record.getMessage()] == [
        "the kernel's event queue overflowed: everything is scanned again"
    ]


def test_directories_that_were_made_or_moved_while_events_were_lost_are_watched_afterwards(tree: Path, watch: Watch) -> None:
    (tree / "old" / "deep").mkdir(parents=True)
    _, recorder = watch(tree)

    overflow(tree, recorder)
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "old").rename(tree / "moved")
    recorder.open.set()
    recorder.wait_for(*SCAN_ALL)
    assert not recorder.has(Kind.SCAN, tree / "new"), "its event must have been lost, or this test shows nothing"

    for directory in (tree / "new" / "deep", tree / "moved" / "deep"):
        wait_until(lambda directory=directory: reports_a_new_file(recorder, directory), 30, f"a new file in {directory} is reported")


def test_a_directory_that_left_while_events_were_lost_is_not_watched_any_more(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tree / "old" / "deep").mkdir(parents=True)
    watcher, recorder = watch(tree)
    assert watcher.watches() == 3

    overflow(tree, recorder)
    (tree / "old").rename(tmp_path / "outside")
    recorder.open.set()
    recorder.wait_for(*SCAN_ALL)
    assert not recorder.has(Kind.LEFT, tree / "old"), "its event must have been lost, or this test shows nothing"

    assert watcher.watches() == 1
    assert kernel_watches(watcher) == 1
    assert recorder.changes.count(SCAN_ALL) == 1


def test_rounds_and_links_that_are_requested_again_and_again_wait_once(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "d").mkdir()
    (tree / "file").touch()
    (tree / "link").symlink_to("file")
    watcher, recorder = watch(tree)
    begun, go_on = threading.Event(), threading.Event()

    def opened(root: int, relative: str) -> int:
        begun.set()
        go_on.wait(LIMIT)
        return open_directory_beneath(root, relative)

    monkeypatch.setattr(tree_placer, "open_directory_beneath", opened)
    watcher.place_all()
    assert begun.wait(LIMIT)
    recorder.changes.clear()
    for _ in range(100):
        watcher.place_all()
        (tree / "new").touch()
        (tree / "new").rename(tree / "file")
    wait_until_processed(tree, recorder)
    recorder.clear(tree / "link")
    assert watcher._tree.requests._queue.qsize() == 2, "one round, and one request for the link"
    go_on.set()
    (tree / "last").mkdir()
    recorder.wait_for(Kind.SCAN, tree / "last")

    assert recorder.changes.count(SCAN_ALL) == 2, "the one that was on its way, and one more"
    assert recorder.kinds(tree / "link") == [Kind.SAVED]


def test_a_directory_in_the_place_of_a_link_whose_end_was_not_reported_is_watched(tree: Path, watch: Watch) -> None:
    (tree / "d").mkdir()
    for link, leads in (("way", "d"), ("out", "/"), ("dangling", "nothing")):
        (tree / link).symlink_to(leads)
    _, recorder = watch(tree)

    overflow(tree, recorder)
    for link in ("way", "out", "dangling"):
        (tree / link).unlink()
    recorder.open.set()
    recorder.wait_for(*SCAN_ALL)
    for link in ("way", "out", "dangling"):
        (tree / link).mkdir()

    for link in ("way", "out", "dangling"):
        wait_until(lambda link=link: {Kind.SCAN, Kind.LEFT} & set(recorder.kinds(tree / link)), LIMIT)
        wait_until(lambda link=link: reports_a_new_file(recorder, tree / link), 30, f"a new file in {link} is reported")


def trees(watcher: Watcher) -> tree_placer.TreePlacer:
    return watcher._placer._trees


def kernel_watches(watcher: Watcher) -> int:
    """How many watches the kernel holds for it (proc_pid_fdinfo(5))."""
    return Path(f"/proc/self/fdinfo/{watcher._inotify.fileno()}").read_text().count("inotify wd:")


def reports_a_new_file(recorder: Recorder, directory: Path) -> bool:
    (directory / "f").touch()
    return recorder.has(Kind.SAVED, directory / "f")


LIMITED = """
import ctypes, json, logging, os, sys
from pathlib import Path

if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):  # CLONE_NEWUSER: nobody else on this host feels the limit
    sys.exit(77)
Path("/proc/sys/user/max_inotify_watches").write_text("3")

from autosync.model.change import Kind
from autosync.model.keys import Keys, Source
from autosync.watch.watcher import Watcher
from lab.servers import wait_until

tree = Path(sys.argv[1])
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
logging.getLogger("autosync").addHandler(handler)
recorder = []
watcher = Watcher(Keys([Source(str(tree))]), recorder.extend)
watcher.start()
wait_until(lambda: (Kind.SCAN, "") in recorder, 20)
(tree / "f").touch()
(tree / "later").mkdir()
wait_until(lambda: (Kind.SAVED, f"{tree}/f") in recorder and (Kind.SCAN, f"{tree}/later") in recorder, 20)
print(json.dumps([watcher.watches(), lines]))
watcher.close()
"""


def test_a_limit_of_watches_is_logged_once_with_its_cure_and_stops_nothing(tree: Path) -> None:
    for number in range(10):
        (tree / str(number)).mkdir()

    root = str(ROOT)
    program = [sys.executable, "-c", LIMITED, str(tree)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False, cwd=root)
    if ended.returncode == 77:
        lacking("this machine allows no user namespace")

    assert ended.returncode == 0, ended.stderr
    watches, ((level, line),) = json.loads(ended.stdout)
    assert watches == 3
    assert level == "WARNING"
    assert "the limit of watches is reached: 8 of 11 directories are not watched, and are scanned every --rescan seconds" in line
    assert "sysctl fs.inotify.max_user_watches=" in line
    assert "\n" not in line


# The end

def threads_of_ours() -> list[str]:
    """The threads of watchers; a worker of a test before may still have some."""
    return [thread.name for thread in threading.enumerate() if thread.name in ("autosync-place", "autosync-read")]


def test_closing_leaves_no_thread_and_no_descriptor_behind(tree: Path) -> None:
    for number in range(50):
        (tree / str(number) / "deep").mkdir(parents=True)
    before = descriptors()
    recorder = Recorder()

    watcher = Watcher(Keys([Source(str(tree))]), recorder)
    watcher.start()
    recorder.wait_for(*SCAN_ALL)
    during = threads_of_ours()
    watcher.close()

    assert len(during) == 2
    assert threads_of_ours() == []
    assert opened_since(before) == set()


def test_a_watcher_may_be_closed_before_its_watches_are_placed_or_before_it_began(tree: Path) -> None:
    for number in range(200):
        (tree / str(number)).mkdir()
    before = descriptors()

    for begins in (True, False):
        watcher = Watcher(Keys([Source(str(tree))]), Recorder())
        if begins:
            watcher.start()
        watcher.close()

    assert threads_of_ours() == []
    assert opened_since(before) == set()


def test_what_was_reported_before_the_stop_stays_and_nothing_is_reported_after(tree: Path, watch: Watch) -> None:
    watcher, recorder = watch(tree)
    (tree / "before").touch()
    recorder.wait_for(Kind.SAVED, tree / "before")

    watcher.stop()
    watcher.stop()
    (tree / "after").touch()

    assert threads_of_ours() == []
    assert recorder.paths() == {f"{tree}/before"}


def test_no_line_is_logged_while_all_is_well(tree: Path, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _, recorder = watch(tree)
        assert [record.getMessage() for record in caplog.records] == ["watches are placed: 1"]
        caplog.clear()
        (tree / "a" / "b").mkdir(parents=True)
        recorder.wait_for(Kind.SCAN, tree / "a")
        shutil.rmtree(tree / "a")
        wait_until_processed(tree, recorder)

    assert caplog.records == []


def test_what_happened_just_before_the_stop_is_still_reported(tree: Path) -> None:
    for number in range(30):
        recorder: list[Change] = []
        watcher = Watcher(Keys([Source(str(tree))]), recorder.extend)
        watcher.start()
        wait_until(lambda recorder=recorder: SCAN_ALL in recorder, LIMIT)

        (tree / f"{number}").write_text("the last moment")
        watcher.stop()

        assert Change(Kind.SAVED, f"{tree}/{number}") in recorder
        watcher.close()


def test_a_tree_in_which_something_happens_all_the_time_does_not_hold_up_the_stop(tree: Path) -> None:
    recorder: list[Change] = []

    def push(changes: Iterable[Change]) -> None:
        recorder.extend(changes)
        (tree / "f").touch()
        (tree / "f").unlink(missing_ok=True)  # both threads of the watcher come here

    watcher = Watcher(Keys([Source(str(tree))]), push)
    watcher.start()
    wait_until(lambda: len(recorder) > 100, LIMIT, "each change brings the next")
    (tree / "last").touch()
    threading.Thread(target=watcher.stop, daemon=True).start()

    wait_until(lambda: threads_of_ours() == [], LIMIT)
    assert Change(Kind.SAVED, f"{tree}/last") in recorder
    watcher.close()


# Links

def test_a_link_that_is_changed_while_it_is_followed_is_followed_again(tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        (tree / name).touch()
    watcher, recorder = watch(tree)
    (tree / "link").symlink_to("old")
    recorder.wait_for(Kind.CREATED, tree / "link")

    def resolve(*args: object) -> object:
        found = resolve_beneath(*args)  # type: ignore[arg-type]
        if found.real == "old":
            (tree / "next").symlink_to("new")
            (tree / "next").rename(tree / "link")
            recorder.wait_for(Kind.SAVED, tree / "link")
        return found

    monkeypatch.setattr(symlinks, "resolve_beneath", resolve)
    watcher.follow_link(str(tree / "link"))
    (tree / "last").symlink_to("new")
    recorder.wait_for(Kind.CREATED, tree / "last")
    watcher.follow_link(str(tree / "last"))
    recorder.wait_for(Kind.SAVED, tree / "last")  # one thread follows them, one after the other
    recorder.clear()

    (tree / "new").write_text("x")
    recorder.wait_for(Kind.SAVED, tree / "last")
    recorder.wait_for(Kind.SAVED, tree / "link")


def test_what_a_link_waits_for_is_seen_where_it_was_made_before_its_directory_was_watched(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "file").symlink_to("new/f")
    (tree / "way").symlink_to("new/deep")
    _, recorder = watch(tree)

    def opened(root: int, relative: str) -> int:
        if relative == "new" and not (tree / "new/f").exists():
            (tree / "new/f").touch()
            (tree / "new/deep").mkdir()
            (tree / "new/deep/g").touch()
        return open_directory_beneath(root, relative)

    monkeypatch.setattr(watched_tree, "open_directory_beneath", opened)
    (tree / "new").mkdir()

    wait_until(lambda: {f"{tree}/file", f"{tree}/way/g"} <= recorder.files, LIMIT, "both links are reported")
    (tree / "new/deep/later").touch()
    recorder.wait_for(Kind.SAVED, tree / "way/later")


def test_links_that_are_made_and_changed_are_followed_without_a_search_through_the_others(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package manager may make a hundred thousand of them."""
    (tree / "d").mkdir()
    (tree / "d/f").touch()
    for number in range(100):
        (tree / f"{number}").symlink_to("d/f")
    watcher, recorder = watch(tree)
    scanned = 0

    class Counted(dict[str, tuple[str, ...]]):
        def __iter__(self) -> Iterator[str]:
            nonlocal scanned
            scanned += len(self)
            return super().__iter__()

    monkeypatch.setattr(watcher._tree.links, "_paths", Counted(watcher._tree.links._paths))
    for name, leads in (("new", "d/f"), ("way", "d")):
        (tree / name).symlink_to(leads)
        recorder.wait_for(Kind.CREATED, tree / name)  # a link that is known already when its event is read is followed once more
        watcher.follow_link(str(tree / name))
    (tree / "d/g").touch()
    (tree / "d/g").rename(tree / "d/f")
    for name in ("new", "way", *map(str, range(100))):
        recorder.wait_for(Kind.SAVED, tree / name)
    recorder.wait_for(Kind.SCAN, tree / "way")

    assert scanned == 0


@pytest.mark.parametrize("way", ["{outside}", ".", "way"])
def test_what_stayed_below_a_link_that_was_not_followed_is_scanned_when_the_link_is_gone(
    tree: Path, tmp_path: Path, watch: Watch, way: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "way").symlink_to(way.format(outside=tmp_path / "outside"))
    _, recorder = watch(tree)

    (tree / "way").unlink()
    recorder.wait_for(Kind.LEFT, tree / "way")


def test_a_link_to_a_directory_that_left_is_reported_although_another_link_was_led_there_meanwhile(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "d").mkdir()
    (tree / "way").symlink_to("d")
    watcher, recorder = watch(tree)

    def resolve(root: int, tops: Sequence[str], relative: str) -> object:
        if relative == "other" and os.path.lexists(tree / "way"):
            (tree / "way").unlink()
            recorder.wait_for(Kind.DELETED, tree / "way")
        return resolve_beneath(root, tops, relative)

    monkeypatch.setattr(watched_tree, "resolve_beneath", resolve)
    (tree / "other").symlink_to("d")
    recorder.wait_for(Kind.CREATED, tree / "other")
    watcher.follow_link(str(tree / "other"))

    recorder.wait_for(Kind.LEFT, tree / "way")


# Flushing

def test_when_it_is_flushed_everything_is_reported_that_had_happened(watch: Watch, tmp_path: Path) -> None:
    """Also what the kernel still had in its queue, and what is in directories that are yet to be watched."""
    watcher, recorder = watch(tmp_path)
    recorder.open.clear()
    (tmp_path / "held").touch()
    assert recorder.waits.wait(LIMIT), "the reader is held up, so that events gather"
    for number in range(300):
        (tmp_path / f"f{number}").write_text("x")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "deep").write_text("x")
    flushed = threading.Event()
    found: list[set[str]] = []

    def reached() -> None:
        found.append(set(recorder.files))
        flushed.set()

    watcher.flush(reached)
    assert not flushed.is_set()
    recorder.open.set()

    assert flushed.wait(LIMIT)
    assert found == [files_below(str(tmp_path))]


def test_it_is_flushed_each_time_that_it_is_requested(watch: Watch, tmp_path: Path) -> None:
    watcher, _ = watch(tmp_path)
    called: list[int] = []

    for number in range(20):
        watcher.flush(lambda number=number: called.append(number))

    wait_until(lambda: called == list(range(20)), LIMIT, "each is called, in order")
