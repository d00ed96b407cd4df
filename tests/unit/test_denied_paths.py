"""Paths that may not be read: changes of their attributes are reported, on the real kernel, and nobody else's."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from autosync.model.change import SCAN_ALL, Change, Kind
from autosync.model.keys import Keys, Source
from autosync.watch.attribute_watches import AttributeWatches
from autosync.watch.denied_paths import DeniedPaths
from autosync.watch.inotify import IN_ATTRIB, Event
from autosync.watch.watcher import Watcher
from lab.descriptors import descriptors, opened_since
from lab.parts import lacking
from lab.permissions import bound_by_permissions
from lab.servers import wait_until

LIMIT = 20.0


class Observed:
    """A watcher of a tree, with the changes that it has pushed, and a set of denied paths."""

    def __init__(self, tree: Path, follow: bool = True, limit: int = 100) -> None:
        self.tree = tree
        self.changes: list[Change] = []
        self.denied = DeniedPaths([str(tree)], limit)
        keys = Keys([Source(str(tree))], source_exclude=[r".*/hidden"])
        self.watcher = Watcher(keys, self.push, follow=follow)
        self.watcher.subscribe(self.denied)
        self.read: list[Event] = []
        read = self.watcher._inotify.read
        self.watcher._inotify.read = lambda: self.read.extend(events := read()) or events  # type: ignore[method-assign]

    def push(self, changes: Iterable[Change]) -> None:
        self.changes += changes

    def start(self) -> None:
        self.watcher.start()
        self.wait_for(*SCAN_ALL)

    def wait_for(self, kind: Kind, path: str | Path) -> None:
        wait_until(lambda: Change(kind, str(path)) in self.changes, LIMIT, f"{kind} {path}: {self.changes}")

    def deny(self, *names: str) -> None:
        self.watcher.observe(self.denied, [f"{self.tree}/{name}" for name in names])

    def allow(self, *names: str) -> None:
        self.watcher.forget(self.denied, [f"{self.tree}/{name}" for name in names])

    def popped(self) -> set[str]:
        """What has changed, once all events until now are processed."""
        flushed: list[bool] = []
        self.watcher.flush(lambda: flushed.append(True))
        wait_until(lambda: flushed, LIMIT, "all events are processed")
        return {path[len(str(self.tree)) + 1 :] for path in self.denied.pop_changed()}

    def reporting(self) -> set[str]:
        """The directories for which the kernel has a watch with IN_ATTRIB, relative to the tree."""
        inodes = {os.stat(path).st_ino: os.path.relpath(path, self.tree) for path, _, _ in os.walk(self.tree)}
        text = Path(f"/proc/self/fdinfo/{self.watcher._inotify.fileno()}").read_text()
        watches = [dict(part.split(":") for part in line.split()[1:]) for line in text.splitlines() if line.startswith("inotify ")]
        assert len(watches) == self.watcher.watches()
        return {inodes[int(one["ino"], 16)] for one in watches if int(one["mask"], 16) & IN_ATTRIB}


@pytest.fixture
def observe(tree: Path) -> Iterator[Callable[..., Observed]]:
    started: list[Observed] = []

    def start(*, bound: bool = False, **options: object) -> Observed:
        one = Observed(tree, **options)  # type: ignore[arg-type]
        started.append(one)
        if bound:
            with bound_by_permissions():
                one.start()
        else:
            one.start()
        return one

    yield start
    for one in started:
        one.watcher.close()
    subprocess.run(["chmod", "-R", "u+rwX", str(tree)], check=True)


def fill(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()


# The set

def test_a_path_depends_on_itself_and_on_all_directories_above_it_up_to_the_root() -> None:
    denied = DeniedPaths(["/s", "/"])

    assert denied.add("/s/a/b/f") == ["/s/a/b/f", "/s/a/b", "/s/a", "/s"]
    assert denied.add("/s/a/g") == ["/s/a/g"]
    assert denied.add("/s/a/g") == []
    assert denied.add("/other/f") == ["/other/f", "/other", "/"]
    assert ("/s/a/b" in denied, "/s/a/h" in denied, len(denied)) == (True, False, 3)
    assert denied.discard("/s/a/b/f") == ["/s/a/b/f", "/s/a/b"]
    assert denied.discard("/s/a/b/f") == []
    assert denied.discard("/s/a/g") == ["/s/a/g", "/s/a", "/s"]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ("/s/a/b/f", {"/s/a/b/f"}),
        ("/s/a/b", {"/s/a/b/f", "/s/a/b/g"}),
        ("/s/a", {"/s/a/b/f", "/s/a/b/g", "/s/a/link"}),
        ("/s", {"/s/a/b/f", "/s/a/b/g", "/s/a/link", "/s/h"}),
        ("/s/elsewhere", {"/s/a/link"}),
        ("/s/elsewhere/file", {"/s/a/link"}),
        ("/s/a/b/neighbour", set()),
    ],
)
def test_what_depends_on_a_change_is_popped_once(changed: str, found: set[str]) -> None:
    denied = DeniedPaths(["/s"])
    for path in ("/s/a/b/f", "/s/a/b/g", "/s/h"):
        denied.add(path)
    denied.add("/s/a/link", ["/s/elsewhere/file"])

    denied.note_change(changed)

    assert denied.has_changed == bool(found)
    assert set(denied.pop_changed()) == found
    assert denied.pop_changed() == []


def test_a_change_of_a_directory_counts_for_those_below_it() -> None:
    denied = DeniedPaths(["/s"])
    for path in ("/s/d", "/s/d/e", "/s/f"):
        denied.add(path)

    denied.note_change("/s/d")
    assert set(denied.pop_changed()) == {"/s/d", "/s/d/e"}
    denied.note_change("/s/f")
    denied.note_change("/s/d/e")
    assert set(denied.pop_changed()) == {"/s/f", "/s/d/e"}


def test_the_set_is_bounded_and_read_in_turn() -> None:
    denied = DeniedPaths(["/s"], limit=3)

    for name in "abcd":
        denied.add(f"/s/{name}")

    assert len(denied) == 3
    assert [denied.pop_page(2) for _ in range(3)] == [["/s/a", "/s/b"], ["/s/c", "/s/a"], ["/s/b", "/s/c"]]
    assert denied.pop_page(10) == ["/s/a", "/s/b", "/s/c"]


# The kernel

def test_attributes_are_reported_only_on_the_way_to_what_may_not_be_read(tree: Path, observe: Callable[..., Observed]) -> None:
    fill(tree, "a/b/f", "a/c/f", "d/f")
    one = observe()
    assert one.reporting() == set()

    one.deny("a/b/f", "d/f")
    assert one.reporting() == {".", "a", "a/b", "d"}
    one.allow("d/f")
    assert one.reporting() == {".", "a", "a/b"}
    one.allow("a/b/f")
    assert one.reporting() == set()


def test_what_is_watched_again_goes_on_as_before(tree: Path, observe: Callable[..., Observed]) -> None:
    """A rescan, a directory that was replaced, and one that appears only later."""
    fill(tree, "a/f", "b/f")
    (tree / "link").symlink_to("a")
    one = observe()
    one.deny("a/f", "later/f")
    assert one.reporting() == {".", "a"}

    one.changes.clear()
    one.watcher.place_all()
    one.wait_for(*SCAN_ALL)
    assert one.reporting() == {".", "a"}
    shutil.rmtree(tree / "a")
    fill(tree, "a/f", "later/f")
    one.wait_for(Kind.SCAN, tree / "later")
    wait_until(lambda: one.reporting() == {".", "a", "later"}, LIMIT, "the new directories report as well")
    (tree / "later/f").chmod(0o600)
    assert one.popped() >= {"later/f"}


def changes(tree: Path) -> dict[str, Callable[[], object]]:
    entries = ((0x01, 6, 0xFFFFFFFF), (0x02, 4, 12345), (0x04, 4, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)  # user 12345 may read; see acl(5)
    return {
        "mode": lambda: (tree / "a/b/f").chmod(0o644),
        "owner": lambda: os.chown(tree / "a/b/f", 12345, -1),
        "group": lambda: os.chown(tree / "a/b/f", -1, 12345),
        "access control list": lambda: os.setxattr(tree / "a/b/f", "system.posix_acl_access", acl),
        "mode of its directory": lambda: (tree / "a/b").chmod(0o755),
        "mode of a directory above": lambda: (tree / "a").chmod(0o755),
        "mode of the root": lambda: tree.chmod(0o755),
    }


@pytest.mark.parametrize("what", changes(Path()))
def test_each_change_that_may_make_a_file_readable_is_noted(tree: Path, observe: Callable[..., Observed], what: str) -> None:
    if "owner" in what or "group" in what:
        os.geteuid() == 0 or lacking("only root gives files away")
    fill(tree, "a/b/f", "a/b/neighbour")
    one = observe()
    one.deny("a/b/f")

    try:
        changes(tree)[what]()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        lacking("this file system has no access control lists")

    assert one.popped() == {"a/b/f"}
    assert one.popped() == set()


def test_nobody_elses_attributes_are_noted(tree: Path, observe: Callable[..., Observed]) -> None:
    fill(tree, "a/f", "a/neighbour", "a/d/g", "other/f")
    one = observe()
    one.deny("a/f")

    for name in ("a/neighbour", "a/d", "a/d/g", "other", "other/f"):
        (tree / name).chmod(0o700)
    assert one.popped() == set()
    assert Counter(event.name for event in one.read if event.mask & IN_ATTRIB) == {"neighbour": 1, "d": 1, "other": 1}
    one.allow("a/f")
    (tree / "a/f").chmod(0o700)

    assert one.popped() == set()
    assert [kind for kind, _ in one.changes if kind is not Kind.SCAN] == [], "an attribute is no change of a file"


def test_a_tree_in_which_nothing_is_denied_has_no_event_for_attributes(tree: Path, observe: Callable[..., Observed]) -> None:
    fill(tree, *(f"a/{number}" for number in range(300)))
    one = observe()

    subprocess.run(["chmod", "-R", "go=", str(tree)], check=True)

    assert one.popped() == set()
    assert (tree / "a/1").stat().st_mode & 0o77 == 0
    assert one.read == []


def test_links_to_a_file_that_may_not_be_read_are_noted(tree: Path, observe: Callable[..., Observed]) -> None:
    fill(tree, "real/f", "far/g", "hidden/deep/h")
    (tree / "way").symlink_to("real")
    (tree / "links").mkdir()
    (tree / "links/g").symlink_to("../far/g")
    one = observe()
    one.deny("way/f", "links/g")

    (tree / "real/f").chmod(0o600)
    assert one.popped() == {"way/f"}
    (tree / "far/g").chmod(0o600)
    assert one.popped() == {"links/g"}
    (tree / "far").chmod(0o700)
    assert one.popped() == {"links/g"}
    one.allow("way/f", "links/g")
    assert one.reporting() == set()


def test_a_directory_is_reported_until_no_set_needs_it(tree: Path, observe: Callable[..., Observed]) -> None:
    """Several mirrors share a watcher."""
    fill(tree, "a/f", "a/g")
    one = observe()
    other = DeniedPaths([str(tree)])
    one.watcher.subscribe(other)
    one.deny("a/f")
    one.watcher.observe(other, [f"{tree}/a/g"])

    one.allow("a/f")
    assert one.reporting() == {".", "a"}
    (tree / "a/g").chmod(0o600)
    assert one.popped() == set()
    assert other.pop_changed() == [f"{tree}/a/g"]
    one.watcher.forget(other, [f"{tree}/a/g"])
    assert one.reporting() == set()


def test_what_is_gone_or_replaced_meanwhile_leaves_no_descriptor_and_no_watch(tree: Path, observe: Callable[..., Observed]) -> None:
    fill(tree, "a/f", "b/f")
    one = observe()
    before = descriptors()

    shutil.rmtree(tree / "a")
    one.deny("a/f", "b/f", "never/was/f")
    shutil.rmtree(tree / "b")
    (tree / "b").symlink_to("/")
    one.allow("a/f", "b/f", "never/was/f")

    assert one.popped() == set()
    wait_until(lambda: one.watcher.watches() == 1, LIMIT, "only the root is watched")
    assert one.reporting() == set()
    assert not opened_since(before)


# Directories that the watcher may not read

@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400, 0o600], ids=["nothing", "no listing", "no search", "no search, but writing"])
@pytest.mark.parametrize("name", ["a", "a/b"])
def test_a_directory_is_watched_and_scanned_once_it_may_be_read(
    tree: Path, observe: Callable[..., Observed], caplog: pytest.LogCaptureFixture, mode: int, name: str
) -> None:
    caplog.set_level(logging.WARNING)
    fill(tree, "a/b/c/f", "z/f")
    (tree / name).chmod(mode)
    one = observe(bound=True)
    assert "cannot be watched: Permission denied" in caplog.text
    one.changes.clear()

    (tree / name).chmod(0o700)

    wait_until(lambda: any(kind is Kind.SCAN and f"{tree}/{name}".startswith(path) for kind, path in one.changes), LIMIT, "it is scanned")
    (tree / "a/b/c/new").touch()
    one.wait_for(Kind.SAVED, tree / "a/b/c/new")
    wait_until(lambda: one.reporting() == set(), LIMIT, "no more attributes are reported")
    assert one.watcher.watches() == 5
    assert not one.watcher._tree.unreadable


def test_a_change_that_does_not_help_scans_nothing_and_the_next_one_does(tree: Path, observe: Callable[..., Observed]) -> None:
    fill(tree, "a/f")
    (tree / "a").chmod(0)
    one = observe(bound=True)
    one.changes.clear()

    (tree / "a").chmod(0o070)
    one.popped()
    wait_until(lambda: one.watcher._tree.requests._queue.empty(), LIMIT, "it was tried")
    one.popped()
    assert one.changes == []
    (tree / "a").chmod(0o700)

    one.wait_for(Kind.SCAN, tree / "a")


def test_a_directory_that_appears_closed_is_watched_once_it_may_be_read(tree: Path, observe: Callable[..., Observed]) -> None:
    one = observe(bound=True)

    (tree / "a").mkdir(0o000)
    wait_until(lambda: one.reporting() == {"."}, LIMIT, "its attributes are observed")
    fill(tree / "a", "f")
    (tree / "a").chmod(0o700)

    one.wait_for(Kind.APPEARED, tree / "a/f")


def test_permissions_that_change_while_they_are_checked_are_not_missed(
    tree: Path, observe: Callable[..., Observed], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tree, "a/f", "b/f")
    (tree / "a").chmod(0)
    (tree / "b").chmod(0o400)
    observed: list[str] = []

    def observe_late(self: AttributeWatches, denied: DeniedPaths, paths: Iterable[str]) -> None:
        paths = list(paths)
        observed.extend(paths)
        for path in paths:
            os.chmod(path, 0o700)  # before its attributes are observed

    monkeypatch.setattr(AttributeWatches, "observe", observe_late)
    one = observe(bound=True)

    assert sorted(observed) == [f"{tree}/a", f"{tree}/b"], "both were denied"
    assert one.watcher.watches() == 3
    (tree / "a/new").touch()
    one.wait_for(Kind.SAVED, tree / "a/new")


def test_a_closed_directory_that_is_gone_is_forgotten_by_the_next_round(tree: Path, observe: Callable[..., Observed]) -> None:
    fill(tree, "a/f", "b/f")
    (tree / "a").chmod(0)
    one = observe(bound=True)
    assert one.reporting() == {"."}
    assert one.watcher.unwatched == 1, "operators see it in status and exit code"

    shutil.rmtree(tree / "a")
    one.changes.clear()
    one.watcher.place_all()
    one.wait_for(*SCAN_ALL)

    assert not one.watcher._tree.unreadable
    assert one.watcher.unwatched == 0
    assert one.reporting() == set()


def test_the_error_of_the_kernel_is_that_of_permissions(tree: Path) -> None:
    (tree / "a").mkdir(0o400)
    with bound_by_permissions():
        descriptor = os.open(tree / "a", os.O_RDONLY)
        with pytest.raises(PermissionError) as refused:
            os.stat(".", dir_fd=descriptor)
    os.close(descriptor)
    assert refused.value.errno == errno.EACCES
