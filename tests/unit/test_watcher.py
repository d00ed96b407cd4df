"""The watcher on the real kernel: whatever happens on the disk is told by a change, or by a look at or above it."""

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

from autosync.model.change import SCAN_ALL, Change, Kind
from autosync.model.keys import Keys, Source, slashed
from autosync.source.beneath import open_directory_beneath, resolve_beneath
from autosync.watch import symlinks as links
from autosync.watch import watcher as module
from autosync.watch.watcher import Watcher, identity_of
from lab import ROOT
from lab.descriptors import descriptors, opened_since
from lab.parts import lacking
from lab.servers import wait_until

LIMIT = 20.0
BELLS = itertools.count()


class Heard:
    """Hears what a watcher says, and believes it: `known` is what somebody knows who looks wherever the watcher says so."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.known: set[str] = set()
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
                    self._look(path)
                else:
                    (self.known.add if os.path.isfile(path) else self.known.discard)(path)

    def _look(self, path: str) -> None:
        tops = [path] if path else self.roots
        self.known -= {known for known in self.known for top in tops if known.startswith(slashed(top))}
        for top in tops:
            self.known |= files_below(top)

    def has(self, kind: Kind, path: str | Path) -> bool:
        with self._lock:
            return Change(kind, str(path)) in self.changes

    def wait_for(self, kind: Kind, path: str | Path) -> None:
        wait_until(lambda: self.has(kind, path), LIMIT, f"{kind.value} {path}: {self.changes}")

    def about(self, path: str | Path) -> list[Kind]:
        with self._lock:
            return [kind for kind, said in self.changes if said == str(path)]

    def paths(self) -> set[str]:
        with self._lock:
            return {path for _, path in self.changes}

    def forget(self, path: Path | None = None) -> None:
        """Forget what was said, or what was said of one path."""
        with self._lock:
            self.changes[:] = [change for change in self.changes if path is not None and change.path != str(path)]


def files_below(top: str) -> set[str]:
    return {f"{slashed(directory)}{name}" for directory, _, names in os.walk(top) for name in names}


Watch = Callable[..., tuple[Watcher, Heard]]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Starts watchers, and waits until all their watches stand."""
    started: list[tuple[Watcher, Heard]] = []

    def start(*sources: Source | Path, excludes: tuple[str, ...] = (), state: tuple[str, ...] = ()) -> tuple[Watcher, Heard]:
        given = [one if isinstance(one, Source) else Source(str(one)) for one in sources]
        keys = Keys(given, source_exclude=excludes, state_directories=state)
        heard = Heard()
        heard.roots = [source.root for source in keys.sources]
        watcher = Watcher(keys, heard)
        started.append((watcher, heard))
        watcher.start()
        heard.wait_for(*SCAN_ALL)
        heard.forget()
        return watcher, heard

    yield start
    for watcher, heard in started:
        heard.open.set()
        watcher.close()


def bell(tree: Path, heard: Heard) -> None:
    """Wait until everything is told that happened before: one thread tells events in their order."""
    rung = tree / f"bell {next(BELLS)}"
    rung.touch()
    heard.wait_for(Kind.SAVED, rung)
    rung.unlink()
    heard.wait_for(Kind.DELETED, rung)
    heard.forget(rung)


# Files

@pytest.mark.parametrize("name", [b"f", b"\xff\xfe", b"two\nlines", "é😀".encode(), b"x" * 255, b" ", b"-"])
def test_a_file_is_told_by_its_exact_name(tree: Path, watch: Watch, name: bytes) -> None:
    _, heard = watch(tree)
    path = os.fsdecode(os.fsencode(tree) + b"/" + name)

    with open(path, "wb") as file:
        heard.wait_for(Kind.CREATED, path)
        assert not heard.has(Kind.SAVED, path)
        file.write(b"content")
    heard.wait_for(Kind.SAVED, path)
    os.unlink(path)
    heard.wait_for(Kind.DELETED, path)

    assert heard.about(path) == [Kind.CREATED, Kind.SAVED, Kind.DELETED]
    assert heard.paths() == {path}


def test_a_file_that_is_saved_again_is_told_again(tree: Path, watch: Watch) -> None:
    (tree / "f").touch()
    _, heard = watch(tree)

    with open(tree / "f", "a") as file:
        file.write("more")

    heard.wait_for(Kind.SAVED, tree / "f")
    assert heard.about(tree / "f") == [Kind.SAVED]


def test_the_making_of_a_file_is_told_only_if_its_close_is_not_read_together_with_it(tree: Path, watch: Watch) -> None:
    _, heard = watch(tree)
    heard.open.clear()
    (tree / "holds up the reader").touch()
    heard.waits.wait(LIMIT)
    (tree / "closed").touch()
    (tree / "closed, gone, and there again").touch()
    (tree / "closed, gone, and there again").unlink()
    with open(tree / "open", "w"), open(tree / "closed, gone, and there again", "w"):
        heard.open.set()
        heard.wait_for(Kind.CREATED, tree / "open")

        assert heard.about(tree / "closed") == [Kind.SAVED]
        assert heard.about(tree / "closed, gone, and there again") == [Kind.SAVED, Kind.DELETED]
        assert heard.about(tree / "open") == [Kind.CREATED]


def test_a_file_renamed_within_the_tree_is_gone_here_and_saved_there(tree: Path, watch: Watch) -> None:
    (tree / "d").mkdir()
    (tree / "a").touch()
    (tree / "old").touch()
    _, heard = watch(tree)

    (tree / "a").rename(tree / "d" / "b")
    (tree / "d" / "b").rename(tree / "old")

    heard.wait_for(Kind.SAVED, tree / "old")
    assert heard.changes == [
        Change(Kind.DELETED, f"{tree}/a"), Change(Kind.SAVED, f"{tree}/d/b"),
        Change(Kind.DELETED, f"{tree}/d/b"), Change(Kind.SAVED, f"{tree}/old"),
    ]  # fmt: skip


def test_a_file_moved_in_is_saved_and_one_moved_out_is_gone(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "in").touch()
    (tree / "out").touch()
    _, heard = watch(tree)

    (tmp_path / "in").rename(tree / "in")
    (tree / "out").rename(tmp_path / "out")

    heard.wait_for(Kind.SAVED, tree / "in")
    heard.wait_for(Kind.DELETED, tree / "out")
    assert heard.paths() == {f"{tree}/in", f"{tree}/out"}


def test_a_link_to_a_directory_is_no_way_in(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "link").symlink_to(tmp_path / "outside")
    watcher, heard = watch(tree)

    (tree / "later").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "f").touch()
    bell(tree, heard)

    assert heard.paths() == {f"{tree}/later"}
    wait_until(lambda: watcher.watches() == 1, LIMIT, "only the tree is watched")


# Directories

def test_every_directory_is_watched_before_the_first_look(tree: Path, watch: Watch) -> None:
    deep = tree / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (tree / "d").mkdir()
    watcher, heard = watch(tree)

    (deep / "f").touch()
    (tree / "d" / "f").touch()

    assert watcher.watches() == 5
    heard.wait_for(Kind.SAVED, deep / "f")
    heard.wait_for(Kind.SAVED, tree / "d" / "f")


def test_a_directory_moved_in_is_looked_at_and_watched(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "f").touch()
    watcher, heard = watch(tree)

    (tmp_path / "in").rename(tree / "in")

    heard.wait_for(Kind.SCAN, tree / "in")
    assert heard.about(tree / "in" / "deep" / "f") == [Kind.APPEARED]
    assert heard.known == {f"{tree}/in/deep/f"}
    assert watcher.watches() == 3
    (tree / "in" / "deep" / "g").touch()
    heard.wait_for(Kind.SAVED, tree / "in" / "deep" / "g")


def test_a_directory_moved_out_is_looked_for_and_left_alone(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tree / "out" / "deep").mkdir(parents=True)
    watcher, heard = watch(tree)

    (tree / "out").rename(tmp_path / "out")
    heard.wait_for(Kind.LEFT, tree / "out")
    heard.forget()
    (tmp_path / "out" / "f").touch()
    (tmp_path / "out" / "deep" / "f").touch()
    bell(tree, heard)

    assert heard.paths() == set()
    wait_until(lambda: watcher.watches() == 1, LIMIT)


def test_a_directory_renamed_within_the_tree_goes_on_under_its_new_name(tree: Path, watch: Watch) -> None:
    (tree / "a" / "deep").mkdir(parents=True)
    (tree / "a" / "deep" / "f").touch()
    watcher, heard = watch(tree)

    (tree / "a").rename(tree / "b")

    heard.wait_for(Kind.LEFT, tree / "a")
    heard.wait_for(Kind.SCAN, tree / "b")
    assert heard.known == {f"{tree}/b/deep/f"}
    (tree / "b" / "deep" / "g").touch()
    heard.wait_for(Kind.SAVED, tree / "b" / "deep" / "g")
    assert watcher.watches() == 3


def test_a_tree_that_is_deleted_is_told_and_its_watches_end(tree: Path, watch: Watch) -> None:
    for number in range(5):
        (tree / "d" / str(number)).mkdir(parents=True)
        (tree / "d" / str(number) / "f").touch()
    watcher, heard = watch(tree)
    assert watcher.watches() == 7

    shutil.rmtree(tree / "d")

    wait_until(lambda: not heard.known, LIMIT, "all files are known to be gone")
    wait_until(lambda: watcher.watches() == 1, LIMIT)
    assert heard.has(Kind.LEFT, tree / "d")


def test_the_files_of_a_large_directory_that_appears_are_said_part_by_part(
    tree: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAID_AT_ONCE", 10)
    (tmp_path / "large/below").mkdir(parents=True)
    for number in range(25):
        (tmp_path / f"large/{number}").touch()
    (tmp_path / "large/below/f").touch()
    watcher, heard = watch(tree)
    sizes: list[int] = []

    def say(changes: Iterable[Change]) -> None:
        changes = list(changes)
        sizes.append(sum(kind is Kind.APPEARED for kind, _ in changes))
        heard(changes)

    monkeypatch.setattr(watcher, "_say", say)
    (tmp_path / "large").rename(tree / "large")
    heard.wait_for(Kind.SCAN, tree / "large")

    assert heard.known == files_below(str(tree))
    assert sum(sizes) == 26
    assert max(sizes) == 10


def test_a_directory_that_is_deleted_is_forgotten_without_a_look_at_the_others(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rm -rf` of many directories among many more must not take the product of both."""
    for number in range(200):
        (tree / f"d{number}").mkdir()
    (tree / "link").symlink_to("d0")
    watcher, heard = watch(tree)
    assert watcher.watches() == 201
    asked = 0

    class Counted(dict[str, int]):
        def __iter__(self) -> Iterator[str]:
            nonlocal asked
            asked += len(self)
            return super().__iter__()

    monkeypatch.setattr(watcher._watches, "_wds", Counted(watcher._watches._wds))
    for number in range(1, 101):
        (tree / f"d{number}").rmdir()
    for number in range(1, 101):
        heard.wait_for(Kind.LEFT, tree / f"d{number}")

    assert asked == 0
    assert watcher.watches() == kernel_watches(watcher) == 101


def test_nothing_is_lost_when_directories_are_made_and_filled_at_once(tree: Path, watch: Watch) -> None:
    _, heard = watch(tree)

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
    wait_until(lambda: heard.known == made, LIMIT, "every file is covered by a change or a look")


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_in_a_storm(tree: Path, tmp_path: Path, watch: Watch, seed: int) -> None:
    """Whoever believes the watcher knows in the end what is on the disk, whatever was made, moved and removed how fast."""
    outside = tmp_path / "outside"
    outside.mkdir()
    _, heard = watch(tree)
    dice = random.Random(seed)

    for number in range(400):
        directories = [tree, *(path for path in tree.rglob("*") if path.is_dir())]
        here, there = dice.choice(directories), dice.choice(directories)
        name = dice.choice("abcdef")
        deed = dice.choice(["write", "write", "make", "make", "move", "move", "out", "in", "remove"])
        try:
            if deed == "write":
                (here / name).write_text("content")
            elif deed == "make":
                (here / name / dice.choice("abc")).mkdir(parents=True, exist_ok=True)
            elif deed == "move" and here != tree:
                here.rename(there / name)
            elif deed == "out" and here != tree:
                here.rename(outside / str(number))
            elif deed == "in" and (moved := next(outside.iterdir(), None)):
                moved.rename(here / name)
            elif deed == "remove" and here != tree:
                shutil.rmtree(here)
        except OSError:
            continue  # not all of it can be done

    left = files_below(str(tree))
    directories = [str(tree), *(str(path) for path in tree.rglob("*") if path.is_dir())]
    wait_until(lambda: heard.known == left, LIMIT, f"known is what is there; not known: {left - heard.known}, gone: {heard.known - left}")
    for directory in directories:
        Path(directory, "last").touch()
        heard.wait_for(Kind.SAVED, f"{directory}/last")


# Scope

def test_the_neighbours_of_a_single_file_say_nothing(tree: Path, watch: Watch) -> None:
    file = tree / "file"
    file.touch()
    (tree / "d").mkdir()
    watcher, heard = watch(Source(str(file), is_file=True))

    (tree / "neighbour").write_text("x")
    (tree / "neighbour").unlink()
    (tree / "d" / "f").touch()
    (tree / "e").mkdir()
    (tree / "e" / "f").touch()
    shutil.rmtree(tree / "e")
    (tree / "new").write_text("new")
    (tree / "new").rename(file)
    heard.wait_for(Kind.SAVED, file)
    file.unlink()
    file.mkdir()
    (file / "f").touch()
    (file / "f").unlink()
    file.rmdir()
    (tree / "new").touch()
    (tree / "new").rename(file)
    wait_until(lambda: heard.about(file).count(Kind.SAVED) == 2, LIMIT)

    assert heard.changes == [Change(kind, str(file)) for kind in (Kind.SAVED, Kind.DELETED, Kind.SAVED)]
    assert watcher.watches() == 1


def test_two_files_of_one_directory_are_both_told(tree: Path, watch: Watch) -> None:
    watcher, heard = watch(Source(f"{tree}/a", is_file=True), Source(f"{tree}/b", is_file=True))

    for name in "cba":
        (tree / name).touch()
    heard.wait_for(Kind.SAVED, tree / "a")

    assert heard.paths() == {f"{tree}/a", f"{tree}/b"}
    assert watcher.watches() == 1


def test_an_excluded_directory_is_not_watched(tree: Path, watch: Watch) -> None:
    (tree / "tmp" / "deep").mkdir(parents=True)
    (tree / "kept").mkdir()
    watcher, heard = watch(tree, excludes=(f"{tree}/tmp$", ".*/cache$"))

    (tree / "tmp" / "f").touch()
    (tree / "tmp" / "deep" / "f").touch()
    (tree / "kept" / "cache" / "deep").mkdir(parents=True)
    (tree / "kept" / "cache" / "deep" / "f").touch()
    shutil.rmtree(tree / "kept" / "cache")
    (tree / "kept" / "f").touch()
    heard.wait_for(Kind.SAVED, tree / "kept" / "f")

    assert heard.paths() == {f"{tree}/kept/f"}
    assert watcher.watches() == 2


def test_the_own_state_is_not_watched_by_any_way(tree: Path, watch: Watch) -> None:
    (tree / "d" / "state" / "m").mkdir(parents=True)
    (tree / "way").symlink_to("d")
    (tree / "deep").symlink_to("way/state/m")
    watcher, heard = watch(tree, state=(f"{tree}/d/state",))

    (tree / "d" / "state" / "m" / "log").touch()
    (tree / "d" / "state" / "n").mkdir()
    (tree / "d" / "state" / "n" / "lock").touch()
    (tree / "into").symlink_to("d/state")
    watcher.look_into(f"{tree}/into")
    heard.wait_for(Kind.SAVED, tree / "into")
    (tree / "d" / "state" / "m" / "log").write_text("more")
    bell(tree, heard)

    assert not {path for path in heard.paths() if "/m/" in path or "/n" in path}
    assert watcher.watches() == 2, "the root and d"


def test_several_sources_are_watched_side_by_side(tmp_path: Path, watch: Watch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / "d").mkdir(parents=True)
    watcher, heard = watch(tmp_path / "a", tmp_path / "b", Source(f"{tmp_path}/c/f", is_file=True))

    for name in ("a", "b", "c"):
        (tmp_path / name / "d" / "f").touch()
        (tmp_path / name / "f").touch()
    (tmp_path / "a" / "d").rename(tmp_path / "b" / "moved")
    heard.wait_for(Kind.SCAN, tmp_path / "b" / "moved")

    assert watcher.watches() == 5
    assert heard.known == {f"{tmp_path}/{name}" for name in ("a/f", "b/f", "b/d/f", "b/moved/f", "c/f")}


# What may go wrong

def test_a_source_that_is_not_there_is_said_and_the_others_are_watched(
    tree: Path, tmp_path: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    _, heard = watch(tmp_path / "missing", tree)

    (tree / "f").touch()
    heard.wait_for(Kind.SAVED, tree / "f")

    assert f"source {tmp_path}/missing cannot be watched" in caplog.text


def test_a_root_that_was_replaced_is_watched_anew(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tree / "d").mkdir()
    watcher, heard = watch(tree)
    before = identity_of(str(tree))
    tree.rename(tmp_path / "old")
    (tree / "e").mkdir(parents=True)
    (tree / "e" / "f").touch()

    watcher.replace_root(Source(str(tree)))
    heard.wait_for(*SCAN_ALL)

    assert identity_of(str(tree)) != before
    assert heard.known == {f"{tree}/e/f"}
    assert watcher.watches() == 2
    (tmp_path / "old" / "d" / "g").touch()
    (tree / "e" / "g").touch()
    heard.wait_for(Kind.SAVED, tree / "e" / "g")
    assert not heard.has(Kind.SAVED, tree / "d" / "g")


def test_a_root_whose_watch_the_kernel_took_away_is_known_until_it_is_watched_anew(tree: Path, watch: Watch) -> None:
    watcher, heard = watch(tree)
    assert watcher.lost_roots == set()

    tree.rmdir()
    wait_until(lambda: watcher.lost_roots == {str(tree)}, LIMIT)
    tree.mkdir()
    watcher.place_again()
    heard.wait_for(*SCAN_ALL)
    assert watcher.lost_roots == {str(tree)}, "that may have been the place where a share is mounted"

    watcher.replace_root(Source(str(tree)))
    assert watcher.lost_roots == set()


def test_a_directory_that_leaves_while_its_watch_is_placed_is_not_watched(
    tree: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, heard = watch(tree)
    moves = iter([tree / "d"])

    def open_and_let_it_leave(root: int, relative: str) -> int:
        descriptor = open_directory_beneath(root, relative)
        if relative == "d" and (leaving := next(moves, None)):
            leaving.rename(tmp_path / "outside")
            heard.wait_for(Kind.LEFT, leaving)
        return descriptor

    monkeypatch.setattr(module, "open_directory_beneath", open_and_let_it_leave)
    (tree / "d").mkdir()
    (tree / "placed after it").mkdir()
    heard.wait_for(Kind.SCAN, tree / "placed after it")
    (tmp_path / "outside" / "f").touch()
    bell(tree, heard)

    assert not heard.about(tree / "d" / "f")
    assert watcher.watches() == 2


@pytest.mark.parametrize("leaving", ["d", "d/below"])
def test_a_directory_that_leaves_while_one_below_it_is_placed_takes_its_name_along(
    tree: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, leaving: str
) -> None:
    """Those below are opened from the directory that they are in, wherever that is by then."""
    (tmp_path / "d/below").mkdir(parents=True)
    watcher, heard = watch(tree)
    add = watcher._add

    def let_it_leave_and_add(descriptor: int, directory: str) -> None:
        if directory == f"{tree}/d/below" and (tree / leaving).exists():
            (tree / leaving).rename(tmp_path / "outside")
            heard.wait_for(Kind.LEFT, tree / leaving)
        add(descriptor, directory)

    monkeypatch.setattr(watcher, "_add", let_it_leave_and_add)
    (tmp_path / "d").rename(tree / "d")
    (tree / "placed after it").mkdir()
    heard.wait_for(Kind.SCAN, tree / "placed after it")
    (tmp_path / "outside" / "f").touch()
    bell(tree, heard)

    assert f"{tree}/{leaving}/f" not in heard.paths()
    assert watcher.watches() == kernel_watches(watcher) == (2 if leaving == "d" else 3)


def test_directories_deeper_than_a_path_can_say_do_not_stop_it(tree: Path, watch: Watch) -> None:
    """The kernel takes and tells paths of up to 4,095 bytes; a tree may go deeper, one step at a time."""
    here = os.open(tree, os.O_RDONLY)
    for _ in range(220):
        os.mkdir("d" * 19, dir_fd=here)
        above, here = here, os.open("d" * 19, os.O_RDONLY, dir_fd=here)
        os.close(above)
    os.close(here)

    watcher, heard = watch(tree)
    (tree / "f").touch()
    (tree / "later").mkdir()
    heard.wait_for(Kind.SAVED, tree / "f")
    heard.wait_for(Kind.SCAN, tree / "later")

    assert watcher.broken is None
    assert 190 < watcher.watches() < 220


def test_a_thread_that_breaks_is_known(tree: Path) -> None:
    def fail(changes: Iterable[Change]) -> None:
        raise RuntimeError("nobody listens")

    watcher = Watcher(Keys([Source(str(tree))]), fail)
    assert watcher.broken is None
    watcher.start()
    try:
        broken = wait_until(lambda: watcher.broken, LIMIT)
    finally:
        watcher.close()

    assert str(broken) == "nobody listens"


def overflow(tree: Path, heard: Heard) -> None:
    """Fill the kernel's queue while the watcher's reader is held up, until events are lost."""
    heard.open.clear()
    (tree / "held up").touch()
    assert heard.waits.wait(LIMIT)
    here, there = str(tree / "here"), str(tree / "there")
    Path(here).touch()
    for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2 + 10):
        os.rename(here, there)
        here, there = there, here


def test_a_queue_that_overflowed_means_a_look_everywhere(tree: Path, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    _, heard = watch(tree)

    overflow(tree, heard)
    (tree / "lost").touch()
    heard.open.set()

    heard.wait_for(*SCAN_ALL)
    assert not heard.has(Kind.CREATED, tree / "lost"), "its event must have been lost, or this test shows nothing"
    wait_until(lambda: heard.known == files_below(str(tree)), LIMIT)
    assert [record.getMessage() for record in caplog.records if "overflow" in record.getMessage()] == [
        "the kernel's event queue overflowed: everything is compared again"
    ]


def test_directories_that_were_made_or_moved_while_events_were_lost_are_watched_afterwards(tree: Path, watch: Watch) -> None:
    (tree / "old" / "deep").mkdir(parents=True)
    _, heard = watch(tree)

    overflow(tree, heard)
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "old").rename(tree / "moved")
    heard.open.set()
    heard.wait_for(*SCAN_ALL)
    assert not heard.has(Kind.SCAN, tree / "new"), "its event must have been lost, or this test shows nothing"

    for directory in (tree / "new" / "deep", tree / "moved" / "deep"):
        wait_until(lambda directory=directory: said_of_a_new_file(heard, directory), 30, f"a new file in {directory} is told")


def test_a_directory_that_left_while_events_were_lost_is_not_watched_any_more(tree: Path, tmp_path: Path, watch: Watch) -> None:
    (tree / "old" / "deep").mkdir(parents=True)
    watcher, heard = watch(tree)
    assert watcher.watches() == 3

    overflow(tree, heard)
    (tree / "old").rename(tmp_path / "outside")
    heard.open.set()
    heard.wait_for(*SCAN_ALL)
    assert not heard.has(Kind.LEFT, tree / "old"), "its event must have been lost, or this test shows nothing"

    assert watcher.watches() == 1
    assert kernel_watches(watcher) == 1
    assert heard.changes.count(SCAN_ALL) == 1


def test_rounds_and_links_that_are_asked_for_again_and_again_wait_once(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "d").mkdir()
    (tree / "file").touch()
    (tree / "link").symlink_to("file")
    watcher, heard = watch(tree)
    begun, go_on = threading.Event(), threading.Event()

    def opened(root: int, relative: str) -> int:
        begun.set()
        go_on.wait(LIMIT)
        return open_directory_beneath(root, relative)

    monkeypatch.setattr(module, "open_directory_beneath", opened)
    watcher.place_again()
    assert begun.wait(LIMIT)
    heard.changes.clear()
    for _ in range(100):
        watcher.place_again()
        (tree / "new").touch()
        (tree / "new").rename(tree / "file")
    bell(tree, heard)
    heard.forget(tree / "link")
    assert watcher._to_place._queue.qsize() == 2, "one round, and one glance at the link"
    go_on.set()
    (tree / "last").mkdir()
    heard.wait_for(Kind.SCAN, tree / "last")

    assert heard.changes.count(SCAN_ALL) == 2, "the one that was on its way, and one more"
    assert heard.about(tree / "link") == [Kind.SAVED]


def test_a_directory_in_the_place_of_a_link_of_which_nobody_told_that_it_left_is_watched(tree: Path, watch: Watch) -> None:
    (tree / "d").mkdir()
    for link, leads in (("way", "d"), ("out", "/"), ("dangling", "nothing")):
        (tree / link).symlink_to(leads)
    _, heard = watch(tree)

    overflow(tree, heard)
    for link in ("way", "out", "dangling"):
        (tree / link).unlink()
    heard.open.set()
    heard.wait_for(*SCAN_ALL)
    for link in ("way", "out", "dangling"):
        (tree / link).mkdir()

    for link in ("way", "out", "dangling"):
        wait_until(lambda link=link: {Kind.SCAN, Kind.LEFT} & set(heard.about(tree / link)), LIMIT)
        wait_until(lambda link=link: said_of_a_new_file(heard, tree / link), 30, f"a new file in {link} is told")


def kernel_watches(watcher: Watcher) -> int:
    """How many watches the kernel holds for it (proc_pid_fdinfo(5))."""
    return Path(f"/proc/self/fdinfo/{watcher._inotify.fileno()}").read_text().count("inotify wd:")


def said_of_a_new_file(heard: Heard, directory: Path) -> bool:
    (directory / "f").touch()
    return heard.has(Kind.SAVED, directory / "f")


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
heard = []
watcher = Watcher(Keys([Source(str(tree))]), heard.extend)
watcher.start()
wait_until(lambda: (Kind.SCAN, "") in heard, 20)
(tree / "f").touch()
(tree / "later").mkdir()
wait_until(lambda: (Kind.SAVED, f"{tree}/f") in heard and (Kind.SCAN, f"{tree}/later") in heard, 20)
print(json.dumps([watcher.watches(), lines]))
watcher.close()
"""


def test_a_limit_of_watches_is_said_once_with_its_cure_and_stops_nothing(tree: Path) -> None:
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
    assert "the limit of watches is reached: 8 of 11 directories are not watched, and are compared every --rescan seconds" in line
    assert "sysctl fs.inotify.max_user_watches=" in line
    assert "\n" not in line


# The end

def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("autosync-")]


def test_closing_leaves_no_thread_and_no_descriptor_behind(tree: Path) -> None:
    for number in range(50):
        (tree / str(number) / "deep").mkdir(parents=True)
    before = descriptors()
    heard = Heard()

    watcher = Watcher(Keys([Source(str(tree))]), heard)
    watcher.start()
    heard.wait_for(*SCAN_ALL)
    during = threads_of_ours()
    watcher.close()

    assert len(during) == 2
    assert threads_of_ours() == []
    assert opened_since(before) == set()


def test_a_watcher_may_be_closed_before_its_watches_stand_or_before_it_began(tree: Path) -> None:
    for number in range(200):
        (tree / str(number)).mkdir()
    before = descriptors()

    for begins in (True, False):
        watcher = Watcher(Keys([Source(str(tree))]), Heard())
        if begins:
            watcher.start()
        watcher.close()

    assert threads_of_ours() == []
    assert opened_since(before) == set()


def test_what_was_said_before_reading_stops_stands_and_nothing_is_said_after(tree: Path, watch: Watch) -> None:
    watcher, heard = watch(tree)
    (tree / "before").touch()
    heard.wait_for(Kind.SAVED, tree / "before")

    watcher.stop_reading()
    watcher.stop_reading()
    (tree / "after").touch()

    assert threads_of_ours() == []
    assert heard.paths() == {f"{tree}/before"}


def test_no_line_is_logged_while_all_is_well(tree: Path, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _, heard = watch(tree)
        assert [record.getMessage() for record in caplog.records] == ["watches are placed: 1"]
        caplog.clear()
        (tree / "a" / "b").mkdir(parents=True)
        heard.wait_for(Kind.SCAN, tree / "a")
        shutil.rmtree(tree / "a")
        bell(tree, heard)

    assert caplog.records == []


def test_what_happened_just_before_the_stop_is_still_said(tree: Path) -> None:
    for number in range(30):
        heard: list[Change] = []
        watcher = Watcher(Keys([Source(str(tree))]), heard.extend)
        watcher.start()
        wait_until(lambda heard=heard: SCAN_ALL in heard, LIMIT)

        (tree / f"{number}").write_text("the last moment")
        watcher.stop_reading()

        assert Change(Kind.SAVED, f"{tree}/{number}") in heard
        watcher.close()


def test_a_tree_in_which_something_happens_all_the_time_does_not_hold_up_the_stop(tree: Path) -> None:
    heard: list[Change] = []

    def say(changes: Iterable[Change]) -> None:
        heard.extend(changes)
        (tree / "f").touch()
        (tree / "f").unlink(missing_ok=True)  # both threads of the watcher come here

    watcher = Watcher(Keys([Source(str(tree))]), say)
    watcher.start()
    wait_until(lambda: len(heard) > 100, LIMIT, "each change brings the next")
    (tree / "last").touch()
    threading.Thread(target=watcher.stop_reading, daemon=True).start()

    wait_until(lambda: threads_of_ours() == [], LIMIT)
    assert Change(Kind.SAVED, f"{tree}/last") in heard
    watcher.close()


# Links

def test_a_link_that_is_changed_while_it_is_followed_is_followed_again(tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        (tree / name).touch()
    watcher, heard = watch(tree)
    (tree / "link").symlink_to("old")
    heard.wait_for(Kind.CREATED, tree / "link")

    def resolve(*args: object) -> object:
        found = resolve_beneath(*args)  # type: ignore[arg-type]
        if found.real == "old":
            (tree / "next").symlink_to("new")
            (tree / "next").rename(tree / "link")
            heard.wait_for(Kind.SAVED, tree / "link")
        return found

    monkeypatch.setattr(links, "resolve_beneath", resolve)
    watcher.look_into(str(tree / "link"))
    (tree / "last").symlink_to("new")
    heard.wait_for(Kind.CREATED, tree / "last")
    watcher.look_into(str(tree / "last"))
    heard.wait_for(Kind.SAVED, tree / "last")  # one thread follows them, one after the other
    heard.forget()

    (tree / "new").write_text("x")
    heard.wait_for(Kind.SAVED, tree / "last")
    heard.wait_for(Kind.SAVED, tree / "link")


def test_what_a_link_waits_for_is_seen_where_it_was_made_before_its_directory_was_watched(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "file").symlink_to("new/f")
    (tree / "way").symlink_to("new/deep")
    _, heard = watch(tree)

    def opened(root: int, relative: str) -> int:
        if relative == "new" and not (tree / "new/f").exists():
            (tree / "new/f").touch()
            (tree / "new/deep").mkdir()
            (tree / "new/deep/g").touch()
        return open_directory_beneath(root, relative)

    monkeypatch.setattr(module, "open_directory_beneath", opened)
    (tree / "new").mkdir()

    wait_until(lambda: {f"{tree}/file", f"{tree}/way/g"} <= heard.known, LIMIT, "both links are told of")
    (tree / "new/deep/later").touch()
    heard.wait_for(Kind.SAVED, tree / "way/later")


def test_links_that_are_made_and_changed_are_followed_without_a_look_at_the_others(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package manager may make a hundred thousand of them."""
    (tree / "d").mkdir()
    (tree / "d/f").touch()
    for number in range(100):
        (tree / f"{number}").symlink_to("d/f")
    watcher, heard = watch(tree)
    asked = 0

    class Counted(dict[str, tuple[str, ...]]):
        def __iter__(self) -> Iterator[str]:
            nonlocal asked
            asked += len(self)
            return super().__iter__()

    monkeypatch.setattr(watcher._links, "_paths", Counted(watcher._links._paths))
    for name, leads in (("new", "d/f"), ("way", "d")):
        (tree / name).symlink_to(leads)
        heard.wait_for(Kind.CREATED, tree / name)  # a link that is known already when that is heard is followed once more
        watcher.look_into(str(tree / name))
    (tree / "d/g").touch()
    (tree / "d/g").rename(tree / "d/f")
    for name in ("new", "way", *map(str, range(100))):
        heard.wait_for(Kind.SAVED, tree / name)
    heard.wait_for(Kind.SCAN, tree / "way")

    assert asked == 0


@pytest.mark.parametrize("way", ["{outside}", ".", "way"])
def test_what_stayed_below_a_link_that_was_not_followed_is_looked_at_when_the_link_is_gone(
    tree: Path, tmp_path: Path, watch: Watch, way: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "way").symlink_to(way.format(outside=tmp_path / "outside"))
    _, heard = watch(tree)

    (tree / "way").unlink()
    heard.wait_for(Kind.LEFT, tree / "way")


def test_a_link_to_a_directory_that_left_is_told_although_another_link_was_led_there_meanwhile(
    tree: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "d").mkdir()
    (tree / "way").symlink_to("d")
    watcher, heard = watch(tree)

    def resolve(root: int, tops: Sequence[str], relative: str) -> object:
        if relative == "other" and os.path.lexists(tree / "way"):
            (tree / "way").unlink()
            heard.wait_for(Kind.DELETED, tree / "way")
        return resolve_beneath(root, tops, relative)

    monkeypatch.setattr(module, "resolve_beneath", resolve)
    (tree / "other").symlink_to("d")
    heard.wait_for(Kind.CREATED, tree / "other")
    watcher.look_into(str(tree / "other"))

    heard.wait_for(Kind.LEFT, tree / "way")


# What has happened by now

def test_when_it_has_caught_up_all_is_said_that_had_happened(watch: Watch, tmp_path: Path) -> None:
    """Also what the kernel still had in its queue, and what is in directories that are yet to be watched."""
    watcher, heard = watch(tmp_path)
    heard.open.clear()
    (tmp_path / "held").touch()
    assert heard.waits.wait(LIMIT), "the reader is held up, so that events gather"
    for number in range(300):
        (tmp_path / f"f{number}").write_text("x")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "deep").write_text("x")
    caught_up = threading.Event()
    known: list[set[str]] = []

    def reached() -> None:
        known.append(set(heard.known))
        caught_up.set()

    watcher.catch_up(reached)
    assert not caught_up.is_set()
    heard.open.set()

    assert caught_up.wait(LIMIT)
    assert known == [files_below(str(tmp_path))]


def test_it_catches_up_each_time_it_is_asked(watch: Watch, tmp_path: Path) -> None:
    watcher, _ = watch(tmp_path)
    called: list[int] = []

    for number in range(20):
        watcher.catch_up(lambda number=number: called.append(number))

    wait_until(lambda: called == list(range(20)), LIMIT, "each is told, in order")
