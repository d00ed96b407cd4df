"""The walk on the real disk, in the order of keys, and the openers that no path leads out of."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync.model.file_rules import FileRules
from autosync.source import beneath, directory_reader, disk_speed, name_reader, read_ahead
from autosync.source import walk as module
from autosync.source.beneath import open_beneath, open_directory_beneath, open_root, resolve_beneath
from autosync.source.walk import Walk
from lab.chaos import World
from lab.descriptors import descriptors, opened_since
from lab.permissions import bound_by_permissions
from lab.servers import wait_until
from lab.walking import paths, plant

NAMES = st.one_of(
    st.sampled_from([b"a", b"a-", b"a.", b"a0", b"a b", b"-", b".x", b"0", b"b", b"\n", b"a\n", b"\xff", b"\xc3\xa9", "😀".encode()]),
    st.binary(min_size=1, max_size=3).filter(lambda name: not set(b"/\0") & set(name) and name not in (b".", b"..")),
)
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=25)


@pytest.fixture(autouse=True, params=["alone", "with helpers"])
def helpers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """For the second, each walk takes its disk for a slow one from the beginning, and little is held ahead of it."""
    if request.param == "with helpers":
        monkeypatch.setattr(disk_speed, "_MEASURED_SECONDS", -1.0)
        monkeypatch.setattr(disk_speed, "_SLOW_CALL", -1.0)
        monkeypatch.setattr(disk_speed, "_FILES_AT_FIRST", 2)
        monkeypatch.setattr(read_ahead, "_DIRECTORIES_AHEAD", 3)
        monkeypatch.setattr(read_ahead, "_FILES_AHEAD", 4)
    return str(request.param)


@pytest.fixture(params=["new kernel", "kernel without openat2", "runtime that forbids openat2"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """For the second, openat2 gets a number that no kernel has a call for; the answer is the real ENOSYS. A seccomp filter of an older
    container runtime returns EPERM, and that for every use of the call."""
    beneath._has_openat2.cache_clear()
    if request.param == "kernel without openat2":
        monkeypatch.setattr(beneath, "_SYS_OPENAT2", 100_000)
    if request.param == "runtime that forbids openat2":
        monkeypatch.setattr(beneath, "_openat2", forbidden)
    yield str(request.param)
    beneath._has_openat2.cache_clear()


def forbidden(root: int, relative: str, flags: int) -> int:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), relative)


# Order

@settings(deadline=None, max_examples=100)
@given(TREES)
def test_the_walk_returns_every_file_in_the_order_of_the_keys(files: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as top:
        made = plant(Path(top), files)

        walk = Walk(top, top)

        assert paths(walk) == sorted(made)
        assert walk.errors == []


def test_names_that_sort_around_the_slash_come_as_a_store_lists_them(tree: Path, kernel: str) -> None:
    for file in ("a/c", "a-b", "a.b", "a0", "a/-", "a/b/c", "a/b-c", "a/b0"):
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).touch()

    assert [path[len(str(tree)) + 1 :] for path in paths(Walk(str(tree), str(tree)))] == [
        "a-b", "a.b", "a/-", "a/b-c", "a/b/c", "a/b0", "a/c", "a0",
    ]  # fmt: skip


def test_a_directory_too_large_for_memory_is_sorted_on_disk_in_the_same_order(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [[b"%d%s" % (number, end)] for number in range(100) for end in (b"", b"-", b"0", b"\xff")]
    made = plant(tree, [*many, *([b"7x", b"%d" % number] for number in range(50))])
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr(name_reader, "_NAMES_IN_MEMORY", 16)

    walk = iter(Walk(str(tree), str(tree), spill=str(spill)))
    first = next(walk)
    spilled = [one for one in descriptors() if one.what.startswith(str(spill))]

    assert spilled
    assert [first.path, *(found.path for found in walk)] == sorted(made)


def test_a_walk_may_start_below_the_root(tree: Path) -> None:
    made = plant(tree, [[b"a", b"b", b"1"], [b"a", b"b", b"c", b"2"], [b"a", b"bb", b"3"], [b"4"]])

    walk = Walk(str(tree), f"{tree}/a/b")

    assert paths(walk) == sorted(path for path in made if path.startswith(f"{tree}/a/b/"))


def test_a_deep_tree_needs_no_recursion(tree: Path) -> None:
    deep = tree.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "f").touch()

    assert paths(Walk(str(tree), str(tree))) == [str(deep / "f")]


# What is found

def test_size_and_the_later_of_both_times_are_found(tree: Path) -> None:
    file = tree / "f"
    file.write_bytes(b"12345")
    os.utime(file, ns=(0, 1_000_000_007))
    seen = file.stat()

    (found,) = Walk(str(tree), str(tree))

    assert found == (str(file), 5, seen.st_ctime, 1_000_000_007, "", False, 1, seen.st_dev << 64 | seen.st_ino, False)


def test_a_directory_that_was_put_in_place_of_another_changes_what_is_below_it(tree: Path) -> None:
    """As while autosync was not running: the files keep their times, and may be of the same size."""
    plant(tree, [[b"new", b"deep", b"f"], [b"current", b"deep", b"f"], [b"other"]])
    file = (tree / "new/deep/f").stat()
    wait_until(lambda: time.time() > file.st_ctime + 0.05)
    (tree / "current").rename(tree / "old")
    (tree / "new").rename(tree / "current")

    changed = {found.path[len(str(tree)) + 1 :]: found.changed for found in Walk(str(tree), str(tree))}

    assert changed["current/deep/f"] == (tree / "current").stat().st_ctime > file.st_ctime
    assert changed["other"] == (tree / "other").stat().st_ctime


def test_a_modification_time_in_the_future_counts(tree: Path) -> None:
    file = tree / "f"
    file.touch()
    os.utime(file, (4e9, 4e9))

    (found,) = Walk(str(tree), str(tree))

    assert found.changed == 4e9


def test_links_are_passed_over_and_pipes_are_named(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (tree / "file").touch()
    (tree / "to-file").symlink_to(tree / "file")
    (tree / "to-directory").symlink_to(outside)
    (tree / "to-nothing").symlink_to(tree / "nothing")
    os.mkfifo(tree / "pipe")
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")

        walk = Walk(str(tree), str(tree))

        assert [(found.path, found.skipped) for found in walk] == [
            (f"{tree}/file", ""), (f"{tree}/pipe", "is a FIFO"), (f"{tree}/socket", "is a socket"),
        ]  # fmt: skip
        assert walk.errors == []


# Links

def walked(tree: Path, start: str = "") -> list[tuple[str, str]]:
    walk = Walk(str(tree), str(tree / start), rules=FileRules())
    found = [(found.path[len(str(tree)) + 1 :], found.skipped) for found in walk]
    assert [path for path, _ in found] == sorted(path for path, _ in found)
    assert walk.errors == []
    return found


def test_links_are_followed_to_files_and_directories_inside(tree: Path, kernel: str) -> None:
    plant(tree, [[b"d", b"f"], [b"d", b"e", b"g"], [b"file"]])
    (tree / "absolute").symlink_to(tree / "d")
    (tree / "d" / "up").symlink_to("../file")
    (tree / "link").symlink_to("file")
    (tree / "twice").symlink_to("link")
    (tree / "way").symlink_to("absolute/e")

    assert [path for path, kept in walked(tree) if not kept] == [
        "absolute/e/g", "absolute/f", "absolute/up", "d/e/g", "d/f", "d/up", "file", "link", "twice", "way/g",
    ]  # fmt: skip
    assert walked(tree, "absolute/e") == [("absolute/e/g", "")]


@pytest.mark.parametrize("link", ["../outside", "d/../../outside", "/etc", "{tree}/../outside", "{tree}x", "../outside/secret"])
def test_a_link_that_leads_out_is_kept_with_its_reason(tree: Path, tmp_path: Path, link: str, kernel: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    Path(f"{tree}x").mkdir()
    (tree / "d").mkdir()
    (tree / "link").symlink_to(link.format(tree=tree))

    slash = "" if link.endswith("secret") else "/"
    assert walked(tree) == [(f"link{slash}", "is a link that leads out of the source")]


@pytest.mark.parametrize("start", ["", "way"])
def test_a_way_into_the_own_state_through_a_link_is_not_gone(tree: Path, start: str, kernel: str) -> None:
    plant(tree, [[b"d", b"state", b"m", b"lock"], [b"d", b"states", b"f"], [b"way", b"f"]])
    (tree / "way" / "deep").symlink_to("../d/state/m")
    (tree / "way" / "above").symlink_to(tree / "d")
    (tree / "way" / "state").symlink_to("above/state")

    walk = Walk(str(tree), str(tree / start), rules=FileRules(), enters=lambda path: path != f"{tree}/d/state", state=("d/state",))
    found = [(found.path[len(str(tree)) + 1 :], found.skipped) for found in walk]

    own = "holds autosync's own state"
    assert found[-5:] == [
        ("way/above/state/", own), ("way/above/states/f", ""), ("way/deep/", own), ("way/f", ""), ("way/state/", own),
    ]  # fmt: skip
    assert found[:-5] == ([] if start else [("d/states/f", "")])
    assert walk.errors == []


@pytest.mark.parametrize("in_order", [True, False])
def test_the_state_of_any_autosync_is_skipped(tree: Path, in_order: bool) -> None:
    plant(tree, [[b"d", b"one", b"lock"], [b"d", b"one", b"appendonlydir", b"a"], [b"d", b"f"]])
    for marked in (tree, tree / "d" / "one"):
        (marked / ".autosync-state").touch()
    (tree / "d" / "way").symlink_to("one")

    def walked_from(start: str) -> list[tuple[str, str]]:
        walk = Walk(str(tree), str(tree / start), rules=FileRules(), in_order=in_order)
        return sorted((found.path[len(str(tree)) + 1 :], found.skipped) for found in walk)

    skipped = [("d/one/", "holds the state of an autosync"), ("d/way/", "holds the state of an autosync")]
    assert walked_from("d") == [("d/f", ""), *skipped]
    assert walked_from("") == [(".autosync-state", ""), ("d/f", ""), *skipped], "a root is mirrored, whatever is in it"
    assert walked_from("d/one") == skipped[:1]


def test_links_that_go_round_end(tree: Path, kernel: str) -> None:
    plant(tree, [[b"a", b"f"], [b"b", b"g"]])
    (tree / "a" / "up").symlink_to("..")
    (tree / "a" / "here").symlink_to(".")
    (tree / "a" / "over").symlink_to("../b")
    (tree / "b" / "back").symlink_to("../a")
    (tree / "self").symlink_to("self")
    (tree / "ping").symlink_to("pong")
    (tree / "pong").symlink_to("ping")

    found = walked(tree)

    assert [path for path, kept in found if not kept] == ["a/f", "a/over/g", "b/back/f", "b/g"]
    assert {kept for path, kept in found if path in ("self", "ping", "pong")} == {"is a link that leads to itself"}
    assert {kept for path, kept in found if kept and path[0] in "ab"} == {"is a link to a directory that it lies in"}
    below = [one for one in found if one[0].startswith("a/over/")]
    assert walked(tree, "a/over") == below, "what is found does not depend on where the walk begins"


@pytest.mark.parametrize("seed", [4, 55, 77, 99])
def test_random_links_lead_to_the_keys_of_the_rules(tmp_path: Path, seed: int) -> None:
    """The walk, the rules in `lab/chaos/expected_keys.py`, and the kernel: with these seeds links lead back by way of other links."""
    world, chance = World(tmp_path / "source", "tree", tmp_path / "beside"), Random(seed)
    for _ in range(60):
        world.operate(chance)
        world.rest()

        found = [found for found in Walk(str(world.top), str(world.top), rules=FileRules()) if not found.skipped]

        assert {world.key(Path(one.path)) for one in found} == set(world.book.now)


def test_a_link_to_another_file_changes_what_its_name_holds(tree: Path) -> None:
    for name in ("old", "new"):
        (tree / name).write_text(name)
        os.utime(tree / name, (1e9, 1e9))
    (tree / "link").symlink_to("old")
    before = next(found for found in Walk(str(tree), str(tree), rules=FileRules()) if found.path.endswith("link"))
    (tree / "link").unlink()
    wait_until(lambda: time.time() > before.changed + 0.05)
    (tree / "link").symlink_to("new")

    after = next(found for found in Walk(str(tree), str(tree), rules=FileRules()) if found.path.endswith("link"))

    assert after.size == before.size
    assert after.changed > before.changed


@pytest.mark.parametrize("name", ["current/f", "twice/f", "file"])
def test_a_link_on_the_way_that_leads_elsewhere_changes_what_its_names_hold(tree: Path, name: str) -> None:
    """As releases are switched; the files may be older than what the target has, and as large."""
    for version in ("old", "new"):
        (tree / version).mkdir()
        (tree / version / "f").write_text(version)
    (tree / "current").symlink_to("old")
    (tree / "twice").symlink_to("current")
    (tree / "file").symlink_to("current/f")
    wait_until(lambda: time.time() > (tree / "file").lstat().st_ctime + 0.05)
    (tree / "next").symlink_to("new")
    (tree / "next").rename(tree / "current")

    found = {one.path[len(f"{tree}/") :]: one for one in Walk(str(tree), str(tree), rules=FileRules())}

    assert found["new/f"].changed < (tree / "current").lstat().st_ctime
    assert found[name].changed == (tree / "current").lstat().st_ctime


def test_a_link_that_is_put_in_place_afterwards_leads_nowhere(tree: Path, tmp_path: Path, kernel: str) -> None:
    """What was resolved is a name; it is opened without following anything."""
    plant(tree, [[b"d", b"f"]])
    (tree / "way").symlink_to("d")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("secret")
    root = open_root(str(tree))
    try:
        real = resolve_beneath(root, (str(tree),), "way/f").real
        assert real == "d/f"
        shutil.rmtree(tree / "d")
        (tree / "d").symlink_to(tmp_path / "outside")

        with pytest.raises(OSError, match="d") as error:
            open_beneath(root, real)
    finally:
        os.close(root)
    assert error.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_the_caller_decides_what_is_entered_and_what_is_accepted(tree: Path) -> None:
    plant(tree, [[b"in", b"yes"], [b"in", b"no"], [b"out", b"yes"], [b"yes"]])

    def accepts(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "yes"]

    walk = Walk(str(tree), str(tree), lambda directory: directory != f"{tree}/out", accepts)

    assert paths(walk) == [f"{tree}/in/yes", f"{tree}/yes"]


# What changes meanwhile: the callbacks run right before a directory is opened and before a file is examined

def test_a_directory_that_vanishes_is_passed_over(tree: Path, kernel: str) -> None:
    plant(tree, [[b"a", b"1"], [b"b", b"2"], [b"c", b"3"]])

    def enters(directory: str) -> bool:
        if directory == f"{tree}/b":
            shutil.rmtree(directory)
        return True

    walk = Walk(str(tree), str(tree), enters)

    assert paths(walk) == [f"{tree}/a/1", f"{tree}/c/3"]
    assert walk.errors == []


def test_a_file_that_vanishes_is_passed_over(tree: Path) -> None:
    plant(tree, [[b"a"], [b"b"], [b"c"]])

    def accepts(directory: str, names: list[str]) -> list[str]:
        if "b" in names:
            os.unlink(f"{directory}b")
        return names

    walk = Walk(str(tree), str(tree), accepts=accepts)

    assert paths(walk) == [f"{tree}/a", f"{tree}/c"]
    assert walk.errors == []


def test_a_directory_that_is_replaced_by_a_link_is_not_followed(tree: Path, tmp_path: Path, kernel: str) -> None:
    plant(tmp_path / "outside", [[b"secret"]])
    plant(tree, [[b"a", b"1"], [b"b", b"2"]])

    def enters(directory: str) -> bool:
        if directory == f"{tree}/a":
            shutil.rmtree(directory)
            os.symlink(tmp_path / "outside", directory)
        return True

    walk = Walk(str(tree), str(tree), enters)

    assert paths(walk) == [f"{tree}/b/2"]
    assert walk.errors == []


def test_a_file_that_becomes_a_directory_is_no_file(tree: Path) -> None:
    plant(tree, [[b"a"], [b"b"]])

    def accepts(directory: str, names: list[str]) -> list[str]:
        if "a" in names:
            os.unlink(f"{directory}a")
            os.mkdir(f"{directory}a")
        return names

    assert paths(Walk(str(tree), str(tree), accepts=accepts)) == [f"{tree}/b"]


# Errors

@pytest.fixture
def locked(tree: Path) -> Iterator[Callable[[str, int], None]]:
    """Takes permissions from a directory of the tree, and gives them back in the end."""
    changed: list[Path] = []

    def lock(name: str, mode: int) -> None:
        changed.append(tree / name)
        os.chmod(tree / name, mode)

    yield lock
    for path in changed:
        os.chmod(path, 0o700)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600], ids=["nothing allowed", "no listing", "no lstat of its files"])
def test_a_directory_that_may_not_be_read_is_noted_and_the_rest_is_walked(
    tree: Path, locked: Callable[[str, int], None], mode: int, kernel: str
) -> None:
    plant(tree, [[b"a", b"1"], [b"b", b"2"], [b"c", b"3"]])
    locked("b", mode)

    walk = Walk(str(tree), str(tree))
    with bound_by_permissions():
        found = paths(walk)

    assert found == [f"{tree}/a/1", f"{tree}/c/3"]
    assert [error.errno for error in walk.errors] == [errno.EACCES]
    assert walk.errors[0].filename in (f"{tree}/b", f"{tree}/b/", f"{tree}/b/2")


def test_the_files_of_a_directory_that_may_not_be_searched_are_one_error(tree: Path, locked: Callable[[str, int], None]) -> None:
    plant(tree, [[b"b", str(number).encode()] for number in range(50)])
    locked("b", 0o600)

    walk = Walk(str(tree), str(tree))
    with bound_by_permissions():
        assert paths(walk) == []

    assert [error.errno for error in walk.errors] == [errno.EACCES]


def test_more_errors_than_are_stored_hide_everything(
    tree: Path, locked: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tree, [[name, b"f"] for name in (b"a", b"b", b"c", b"d", b"e")])
    for name in ("a", "b", "c", "d"):
        locked(name, 0o000)
    monkeypatch.setattr(module, "_MOST_ERRORS", 2)

    walk = Walk(str(tree), str(tree))
    with bound_by_permissions():
        assert paths(walk) == [f"{tree}/e/f"]

    assert [error.errno for error in walk.errors] == [errno.EACCES, errno.EACCES, errno.EOVERFLOW]


@pytest.mark.parametrize("what", ["missing", "a file"])
def test_a_root_that_is_no_directory_is_an_error_and_not_an_empty_tree(tmp_path: Path, what: str) -> None:
    root = tmp_path / "root"
    if what == "a file":
        root.touch()

    walk = Walk(str(root), str(root))

    assert paths(walk) == []
    assert [(error.filename, error.errno) for error in walk.errors] == [(str(root), errno.ENOENT if what == "missing" else errno.ENOTDIR)]


def test_a_start_below_the_root_that_is_gone_is_an_empty_tree(tree: Path) -> None:
    walk = Walk(str(tree), f"{tree}/gone")

    assert paths(walk) == []
    assert walk.errors == []


def test_a_link_that_vanishes_while_it_is_followed_leaves_no_descriptor_behind(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tree, [[b"d", b"f"]])
    (tree / "way").symlink_to("d")

    def resolve(root: int, tops: Sequence[str], relative: str) -> object:
        found = resolve_beneath(root, tops, relative)
        if relative == "way":
            (tree / "way").unlink()
        return found

    monkeypatch.setattr(directory_reader, "resolve_beneath", resolve)
    before = descriptors()

    assert [path for path, _ in walked(tree)] == ["d/f"]
    assert opened_since(before) == set()


def test_a_directory_that_goes_stale_as_soon_as_it_is_open_is_noted(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, when another client removes it."""
    plant(tree, [[b"a", b"1"], [b"b", b"2"]])
    inode = (tree / "a").stat().st_ino

    def fstat(descriptor: int) -> os.stat_result:
        seen = os.stat(descriptor)
        if seen.st_ino == inode:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return seen

    monkeypatch.setattr(directory_reader.os, "fstat", fstat)
    before = descriptors()
    walk = Walk(str(tree), str(tree))

    assert paths(walk) == [f"{tree}/b/2"]
    assert [(error.errno, error.filename) for error in walk.errors] == [(errno.ESTALE, f"{tree}/a")]
    assert opened_since(before) == set()


def test_a_walk_that_is_abandoned_leaves_no_descriptor_behind(tree: Path) -> None:
    plant(tree, [[b"a", b"b", b"c", b"1"], [b"a", b"b", b"2"]])
    before = descriptors()

    walk = iter(Walk(str(tree), str(tree)))
    next(walk)
    during = descriptors()
    walk.close()  # type: ignore[attr-defined]

    assert during - before
    assert opened_since(before) == set()


# A slow disk


def test_a_fast_disk_is_walked_alone(tree: Path, helpers: str) -> None:
    plant(tree, [[b"%d" % number, b"%d" % name] for number in range(30) for name in range(30)])

    walk = Walk(str(tree), str(tree)).runs()
    next(walk)
    threads = {thread.name for thread in threading.enumerate()}
    walk.close()

    assert ("autosync-walk" in threads) == (helpers == "with helpers")


def test_what_is_held_ahead_is_bounded(tree: Path, helpers: str) -> None:
    """With a descriptor for each directory that the walk is in or that is open ahead of it, and for reading names."""
    plant(tree, [[b"%d" % number, *[b"d"] * depth, b"%d" % name] for number in range(9) for depth in range(5) for name in range(9)])
    before = descriptors()
    held = [len(opened_since(before)) for _ in Walk(str(tree), str(tree)).runs()]

    assert max(held) <= 1 + 6 + (3 if helpers == "with helpers" else 0) + 2


def test_any_order_will_do_to_see_whether_there_is_anything(tree: Path) -> None:
    made = plant(tree, [[b"%d" % number, b"%d" % name] for number in range(5) for name in range(5)])
    os.mkfifo(tree / "pipe")

    assert sorted(paths(Walk(str(tree), str(tree), in_order=False))) == sorted([*made, f"{tree}/pipe"])


# Openers

@pytest.fixture
def root(tree: Path, tmp_path: Path, kernel: str) -> Iterator[int]:
    """A root with a file, links, and a secret beside it, on either kernel."""
    plant(tree, [[b"f"], [b"d", b"f"], [b"d", b"e", b"\xff\n"]])
    plant(tmp_path, [[b"secret"], [b"outside", b"f"]])
    (tree / "link-to-f").symlink_to("f")
    (tree / "link-to-d").symlink_to("d")
    (tree / "link-out").symlink_to(tmp_path / "secret")
    (tree / "relative-link-out").symlink_to("../secret")
    (tree / "directory-link-out").symlink_to(tmp_path / "outside")
    (tree / "magic").symlink_to("/proc/self/root")
    os.mkfifo(tree / "pipe")
    descriptor = open_root(str(tree))
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("relative", ["f", "d/f", "d/e/\udcff\n"])
def test_a_file_below_the_root_is_opened(root: int, relative: str) -> None:
    descriptor = open_beneath(root, relative)

    with open(descriptor, "rb") as file:
        assert file.read() == os.fsencode(relative.rpartition("/")[2])


@pytest.mark.parametrize("relative", ["", "."])
def test_the_root_itself_is_opened(root: int, tree: Path, relative: str) -> None:
    descriptor = open_directory_beneath(root, relative)

    try:
        assert os.path.samestat(os.fstat(descriptor), tree.stat())
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "relative",
    [
        "..", "../secret", "../source/f", "d/../../secret", "d/e/../../../outside/f", "/etc/hostname", "/",
        "link-out", "relative-link-out", "directory-link-out", "directory-link-out/f", "magic/etc/hostname", "link-to-f",
    ],
)  # fmt: skip
@pytest.mark.parametrize("opener", [open_beneath, open_directory_beneath])
def test_no_path_and_no_link_leads_out_of_the_root(root: int, relative: str, opener: Callable[[int, str], int]) -> None:
    before = descriptors()

    with pytest.raises(OSError) as refused:  # noqa: PT011 - the number is asked below
        os.close(opener(root, relative))

    assert refused.value.errno in (errno.EXDEV, errno.ELOOP, errno.ENOTDIR)
    assert opened_since(before) == set()


def test_a_link_inside_the_root_is_not_followed_since_the_walk_does_not_follow_it(root: int) -> None:
    with pytest.raises(OSError, match="link-to-d") as refused:
        os.close(open_beneath(root, "link-to-d/f"))

    assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_a_nul_does_not_cut_a_path_short(root: int) -> None:
    with pytest.raises((OSError, ValueError)):
        os.close(open_beneath(root, "f\0hidden"))


@pytest.mark.parametrize(("relative", "number"), [("gone", errno.ENOENT), ("d/gone", errno.ENOENT), ("f/x", errno.ENOTDIR)])
def test_what_is_not_there_raises_its_error_number(root: int, relative: str, number: int) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the number is asked below
        os.close(open_beneath(root, relative))

    assert refused.value.errno == number


def test_opening_a_pipe_does_not_wait_for_its_other_end(root: int) -> None:
    descriptor = open_beneath(root, "pipe")

    try:
        assert stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("opener", "relative"), [(open_beneath, "d/f"), (open_directory_beneath, "d/e")])
def test_a_descriptor_is_not_inherited(root: int, opener: Callable[[int, str], int], relative: str) -> None:
    descriptor = opener(root, relative)

    try:
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)
