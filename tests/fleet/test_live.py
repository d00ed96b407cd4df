"""One host, live: what happens on the disk is right in the target in a moment. The real command, the real kernel, a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autosync.ledger import Ledger, connect
from autosync.model.mirror import LONGEST_WATCHER_LEASE
from lab.buckets import Bucket, equal_soon, on_disk
from lab.disks import Disk
from lab.parts import lacking
from lab.programs import Program, Programs
from lab.servers import Missing, Valkey, wait_until


@pytest.fixture
def live(programs: Programs, bucket: Bucket, tree: Path) -> Callable[..., Program]:
    """Starts autosync on the tree and waits until the bucket equals it."""

    def start(*options: str, source: Path = tree) -> Program:
        process = programs.start("autosync", "-v", *bucket.options(), f"--source-prefix={source}/", *options, str(source))
        wait_until(lambda: "mirroring" in process.output() and bucket.sizes() == on_disk(source), what="the first scan is done")
        return process

    return start


@pytest.mark.smoke
def test_files_come_change_move_and_go(live: Callable, bucket: Bucket, tree: Path) -> None:
    (tree / "there/before").mkdir(parents=True)
    for number in range(50):
        (tree / f"there/before/{number}").write_text("x" * number)
    live()

    (tree / "new").write_text("new")
    equal_soon(bucket, tree, "a new file")
    (tree / "new").write_text("changed")
    equal_soon(bucket, tree, "a changed file")
    assert bucket.read("new") == b"changed"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/c/deep").write_text("deep")
    equal_soon(bucket, tree, "directories made with a file in them")
    os.rename(tree / "there", tree / "elsewhere")
    equal_soon(bucket, tree, "a renamed directory")
    os.rename(tree / "elsewhere/before/7", tree / "seven")
    equal_soon(bucket, tree, "a renamed file")
    (tree / "new").unlink()
    equal_soon(bucket, tree, "a deleted file")
    shutil.rmtree(tree / "elsewhere")
    equal_soon(bucket, tree, "a deleted directory")


def test_the_own_state_in_the_source_is_never_sent(programs: Programs, bucket: Bucket, tree: Path) -> None:
    state = tree / ".local/state/autosync"
    files = {".local/share": 1, "letter": 5}
    for name, size in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x" * size)
    command = ("autosync", "--name=m", "--settle=0", *bucket.options(), f"--source-prefix={tree}/", str(tree))
    process = programs.start(*command, XDG_STATE_HOME=str(tree / ".local/state"))
    wait_until(lambda: bucket.sizes().keys() >= files.keys(), 30, f"the files are sent: {process.output()}")
    log = next(state.glob("m/appendonlydir/*.aof"))
    before = log.stat().st_size

    (tree / "letter").write_text("longer")
    (state / "other").mkdir()
    (state / "other/lock").write_text("another mirror")
    wait_until(lambda: log.stat().st_size > before, 30, "the broker has written")
    for words in (("rescan", str(state)), ("rescan",), ("flush", "--timeout=60")):
        done = programs.run("autosync-ctl", f"--state-dir={state}", *words)
        assert done.returncode == 0, done.stderr

    wait_until(lambda: bucket.sizes()["letter"] == 6, 30, "the change is sent")
    (status,) = json.loads(programs.run("autosync-ctl", f"--state-dir={state}", "status", "--json").stdout)
    assert bucket.sizes() == {**files, "letter": 6}
    assert (status["dirty"], status["failed"]) == (0, 0)
    why = programs.run("autosync-ctl", f"--state-dir={state}", "why", ".local/state/autosync/m/lock").stdout
    assert f"autosync keeps its own state in {state}\n" in why
    assert process.output().count(f"{state} is left out: autosync keeps its own state there") == 1


def test_a_name_that_is_made_as_a_hard_link_is_there_in_a_moment(live: Callable, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    """As maildir and some servers deliver: write elsewhere, link, unlink. The name is never closed."""
    (tree / "first").write_text("1")
    live("--settle=1")

    (tmp_path / "temporary").write_text("complete")
    os.link(tmp_path / "temporary", tree / "final")
    (tmp_path / "temporary").unlink()

    equal_soon(bucket, tree, "a file that was linked in", 25)


def test_a_file_whose_writer_thinks_is_not_sent_before_it_is_closed(
    live: Callable, bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    (tree / "first").write_text("1")
    process = live("--settle=0.2")

    with (tree / "slow").open("w") as slow:
        slow.write("begin")
        slow.flush()
        (tree / "other").write_text("later")
        wait_until(lambda: "other" in bucket.sizes(), what="a file that was made later")
        for name in ("linked", "linked after that"):  # a name that is never closed has a quiet time of its own, which ends later
            (tmp_path / "temporary").write_text("complete")
            os.rename(tmp_path / "temporary", tmp_path / name)
            os.link(tmp_path / name, tree / name)
            wait_until(lambda name=name: name in bucket.sizes(), what="a file that has settled later")  # type: ignore[misc]
        assert "slow" not in bucket.sizes()
        assert "slow" not in process.output(), "nor has a worker been asked to, which would have found the writer itself"
        slow.write(" end")
    equal_soon(bucket, tree, "the file when it is closed")


def test_a_tree_moved_in_and_out_again(live: Callable, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "d").mkdir(parents=True)
    for number in range(20):
        (outside / f"d/{number}").write_text("content")
    (tree / "first").write_text("1")
    live()

    os.rename(outside, tree / "inside")
    equal_soon(bucket, tree, "a tree that was moved in")
    (tree / "inside/d/late").write_text("late")
    equal_soon(bucket, tree, "a file in it")
    os.rename(tree / "inside", outside)
    equal_soon(bucket, tree, "a tree that was moved out")
    (outside / "d/unseen").write_text("not ours any more")
    (tree / "last").write_text("2")
    equal_soon(bucket, tree, "nothing of what happens outside")


def test_a_file_that_becomes_a_directory_and_a_file_again(live: Callable, bucket: Bucket, tree: Path) -> None:
    (tree / "x").write_text("file")
    (tree / "other").write_text("other")
    live()

    (tree / "x").unlink()
    (tree / "x").mkdir()
    (tree / "x/y").write_text("in a directory")
    equal_soon(bucket, tree, "a file replaced by a directory")
    shutil.rmtree(tree / "x")
    (tree / "x").write_text("a file again")
    equal_soon(bucket, tree, "and back")
    assert bucket.read("x") == b"a file again"


def test_a_large_file_goes_up_in_parts_and_its_content_is_right(live: Callable, bucket: Bucket, tree: Path) -> None:
    content = os.urandom(1 << 20) * 25
    (tree / "large.bin").write_bytes(content)
    (tree / "page.html").write_text("<p>")
    live()

    assert bucket.read("large.bin") == content
    head = bucket.client.head_object(Bucket=bucket.name, Key="large.bin")
    assert head["ETag"].strip('"').endswith("-4")
    assert bucket.client.head_object(Bucket=bucket.name, Key="page.html")["ContentType"] == "text/html"


def test_names_of_all_kinds(live: Callable, bucket: Bucket, tree: Path) -> None:
    names = ["sp ace", "per%20cent", "pl+us", "ümlaut", "日本", "q?m=1&x#y", "new\nline", "quote'\"", "~", "...", "x" * 255]
    for name in names:
        (tree / name).write_text(name)

    live()

    assert sorted(bucket.sizes()) == sorted(names)
    for name in names:
        assert bucket.read(name).decode() == name


def test_a_change_without_an_event_is_found_by_a_rescan(live: Callable, bucket: Bucket, tree: Path) -> None:
    (tree / "a").write_text("a")
    live("--rescan=1")

    bucket.client.put_object(Bucket=bucket.name, Key="intruder", Body=b"x")
    bucket.client.delete_object(Bucket=bucket.name, Key="a")

    equal_soon(bucket, tree, "what was done to the target behind its back")


def test_what_another_client_of_a_share_does_is_found_by_a_rescan(
    live: Callable, bindfs: Callable, bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    behind = tmp_path / "behind"
    behind.mkdir()
    (behind / "a").write_text("a")
    bindfs(behind, tree)
    process = live("--rescan=1")

    (behind / "d").mkdir()
    (behind / "d/b").write_text("b")
    (behind / "a").unlink()
    wait_until(lambda: sorted(bucket.sizes()) == ["d/b"], 60, "what was done behind the share")
    (behind / "d/b").write_text("longer")
    wait_until(lambda: bucket.read("d/b") == b"longer", 60, "a change behind the share")
    assert "compared" in process.output()


def test_a_file_from_the_future_is_sent_once(programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    for name in ("a", "large"):
        (tree / name).write_bytes(name.encode() * (1 if name == "a" else 2_000_000))
        os.utime(tree / name, (4e9, 4e9))
    (tree / "d").mkdir()
    options = [*bucket.options(), f"--source-prefix={tree}/", f"--state-dir={tmp_path}/state", str(tree)]

    sent = []
    for again in range(3):
        if again == 2:
            shutil.rmtree(tmp_path / "state")  # nothing is remembered
        done = programs.run("autosync", "--once", "-v", *options)
        assert done.returncode == 0, done.stderr
        sent.append({name for name in ("a", "large") if f"uploaded {name}" in done.stderr})

    assert sent == [{"a", "large"}, set(), set()]


def test_keys_outside_the_scope_are_never_touched(programs: Programs, bucket: Bucket, tree: Path) -> None:
    (tree / "a.txt").write_text("a")
    (tree / "b.bin").write_text("b")
    for key in ("other/key", "mine/foreign.bin", "mine2/x"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    bucket.client.put_object(Bucket=bucket.name, Key="mine/gone.txt", Body=b"x")

    done = programs.run(
        "autosync", "--once", *bucket.options(),
        f"--source-prefix={tree}/", "--target-prefix=mine/", r"--source-filter=^.*\.txt$", "--accept-existing", str(tree),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert sorted(bucket.sizes()) == ["mine/a.txt", "mine/foreign.bin", "mine2/x", "other/key"]


def test_single_files_and_several_paths(programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    (tree / "x").write_text("x")
    single = tmp_path / "single.txt"
    single.write_text("single")
    (tmp_path / "neighbour.txt").write_text("not ours")
    process = programs.start("autosync", *bucket.options(), f"--source-prefix={tmp_path}/", str(tree), str(single))
    wait_until(lambda: sorted(bucket.sizes()) == ["single.txt", "source/x"], what="both")

    single.write_text("changed")
    (tmp_path / "another.txt").write_text("not ours")

    wait_until(lambda: bucket.read("single.txt") == b"changed", what="the single file is watched")
    assert sorted(bucket.sizes()) == ["single.txt", "source/x"]
    assert process.poll() is None


def test_once_ends_when_the_target_equals_the_source_and_again_does_nothing(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    for number in range(100):
        (tree / f"d{number % 7}").mkdir(exist_ok=True)
        (tree / f"d{number % 7}/{number}").write_text(str(number))

    first = programs.run(*once)
    assert (first.returncode, bucket.sizes()) == (0, on_disk(tree)), first.stderr
    stamps = _stamps(bucket)
    shutil.rmtree(tree / "d3")
    (tree / "d1/1").write_text("changed")
    second = programs.run(*once)

    assert (second.returncode, bucket.sizes()) == (0, on_disk(tree)), second.stderr
    # What did not change was compared by content, since its times alone do not decide; it was not sent again.
    again = {key for key, stamp in _stamps(bucket).items() if stamps.get(key) != stamp}
    assert again == {"d1/1"}
    third = programs.run(*once)
    assert "uploaded 0 files (0 B), deleted 0" in third.stderr


def test_chmod_alone_sends_nothing_and_a_new_time_with_other_content_does(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    for name in ("mode", "content", "large"):
        (tree / name).write_text("before")
    (tree / "large").write_bytes(os.urandom(9 << 20))
    assert programs.run(*once).returncode == 0
    stamps = _stamps(bucket)
    wait_until(lambda: time.time() > max(stamp.timestamp() for stamp in stamps.values()) + 2, what="changes after this are newer")  # type: ignore[attr-defined]

    (tree / "mode").chmod(0o600)
    (tree / "large").chmod(0o600)
    (tree / "content").write_text("after!")
    os.utime(tree / "content", (1e9, 1e9))
    done = programs.run(*once)

    assert "uploaded 1 files" in done.stderr
    assert {key for key, stamp in _stamps(bucket).items() if stamps[key] != stamp} == {"content"}
    assert bucket.read("content") == b"after!"


def test_only_a_comparison_of_checksums_finds_an_object_that_was_spoilt_in_the_target(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    (tree / "a").write_text("right")
    (tree / "b").write_text("right")
    os.utime(tree / "a", (1e9, 1e9))
    assert programs.run(*once).returncode == 0
    changed = (tree / "a").stat().st_ctime
    wait_until(lambda: time.time() > changed + 4, what="what is made now is newer by more than the margin")
    bucket.client.put_object(Bucket=bucket.name, Key="a", Body=b"wrong")

    for compare in ("size", "time"):
        assert programs.run(*once, f"--compare={compare}").returncode == 0
        assert bucket.read("a") == b"wrong"
    assert programs.run(*once, "--compare=checksum").returncode == 0
    assert bucket.read("a") == b"right"


def test_links_are_followed_and_their_targets_watched(programs: Programs, bucket: Bucket, tree: Path) -> None:
    (tree / "real").mkdir()
    (tree / "real/f").write_text("one")
    (tree / "file").symlink_to("real/f")
    (tree / "way").symlink_to(tree / "real")
    process = programs.start("autosync", *bucket.options(), f"--source-prefix={tree}/", str(tree))

    def keys() -> list[str]:
        return sorted(bucket.sizes())

    wait_until(lambda: keys() == ["file", "real/f", "way/f"], what="links are followed")
    (tree / "real/f").write_text("two")
    wait_until(lambda: {bucket.read(key) for key in keys()} == {b"two"}, what="a change is seen under all names")
    (tree / "real").rename(tree / "moved")
    wait_until(lambda: keys() == ["moved/f"], what="links that lead nowhere are no files")
    (tree / "moved").rename(tree / "real")
    wait_until(lambda: keys() == ["file", "real/f", "way/f"], what="and are again")
    (tree / "way").unlink()
    wait_until(lambda: keys() == ["file", "real/f"], what="a link that was removed")
    assert process.poll() is None


def _stamps(bucket: Bucket) -> dict[str, object]:
    pages = bucket.client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name)
    return {found["Key"]: found["LastModified"] for page in pages for found in page.get("Contents", ())}


@pytest.mark.parametrize("how", ["autosync --once", "autosync", "autosync-watch"])
def test_an_empty_source_deletes_nothing_and_ends_with_3(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path, broker: str, how: str
) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="precious", Body=b"x")
    options = [word for word in once[1:] if word != "--once"]
    more = [f"--broker={broker}"] if how == "autosync-watch" else []
    process = programs.start(*how.split(), *more, *options)
    wait_until(lambda: f"{tree} holds no file. 1 keys below it" in process.output(), 60, "the scan has kept it")

    if "--once" not in how:
        shown = "holds no file; keys below it are kept"
        wait_until(lambda: shown in programs.run("autosync-ctl", *more, "status").stdout, 30, "status has it")
        process.terminate()

    assert process.wait() == 3
    assert sorted(bucket.sizes()) == ["precious"]


def test_a_leading_slash_stays_one(programs: Programs, exact_bucket: Bucket, tree: Path) -> None:
    (tree / "a%41").mkdir()
    (tree / "a%41/x").write_text("x")

    default = programs.run("autosync", "--once", *exact_bucket.options(), str(tree))
    double = programs.run(
        "autosync", "--once", *exact_bucket.options(), f"--source-prefix={tree}", "--target-prefix=/p/", "--name=two", str(tree)
    )

    assert (default.returncode, double.returncode) == (0, 0), default.stderr + double.stderr
    assert sorted(exact_bucket.sizes()) == sorted([f"{tree}/a%41/x", "/p//a%41/x"])
    again = programs.run("autosync", "--dry-run", *exact_bucket.options(), f"--source-prefix={tree}", "--target-prefix=/p/", str(tree))
    assert [line for line in again.stdout.splitlines() if not line.startswith("check ")] == []


def test_a_server_that_rewrites_keys_is_named_once_and_nothing_goes_round_and_round(programs: Programs, bucket: Bucket, tree: Path) -> None:
    for name in ("x", "back\\slash", "black\\slash"):
        (tree / name).write_text("x")

    slash = programs.run("autosync", "--once", *bucket.options(), "--threads=1", "--workers=1", "--source-filter=.*/x$", str(tree))
    backslash = programs.run("autosync", "--once", *bucket.options(), "--threads=1", "--workers=1", f"--source-prefix={tree}/", str(tree))

    assert (slash.returncode, backslash.returncode) == (3, 3)
    assert "does not keep the key" in slash.stderr
    assert "(leading slash)" in slash.stderr
    assert "(backslash)" in backslash.stderr
    assert "black/slash" not in bucket.sizes(), "after the first, no other of its kind was sent"


def test_no_process_is_left_behind_even_after_sigkill(live: Callable, bucket: Bucket, tree: Path) -> None:
    (tree / "a").write_text("a")
    process = live()
    children = process.children()
    assert len(children) >= 2

    process.send_signal(signal.SIGKILL)
    process.wait()

    wait_until(
        lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 10, "all children have ended"
    )


def test_it_is_killed_in_the_middle_and_started_again(programs: Programs, once: list[str], bucket: Bucket, tree: Path) -> None:
    for number in range(1000):
        (tree / f"{number}").write_text(str(number))
    first = programs.start(*once)
    wait_until(lambda: 0 < len(bucket.sizes()) < 1000, what="it is in the middle", pause=0)

    first.kill()
    first.wait()
    assert len(bucket.sizes()) < 1000

    second = programs.run(*once, timeout=100)
    assert (second.returncode, bucket.sizes()) == (0, on_disk(tree)), second.stderr


def number_of(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_dev, seen.st_ino


def changes_are_seen(bucket: Bucket, tree: Path) -> None:
    (tree / "d/new").write_text("new")
    equal_soon(bucket, tree, "it is watched on")
    (tree / "d/newer").write_text("newer")
    equal_soon(bucket, tree, "and so is what is below it")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk on which nobody else makes or removes anything."""
    try:
        made = Disk(tmp_path / "disk.ext4")
        made.mount(Path(tempfile.mkdtemp(dir=tmp_path)))
        made.unmount()
    except Missing as missing:
        lacking(f"{missing} is not there")
    yield made
    made.close()


def test_a_root_that_is_made_again_with_the_same_number_is_watched_on(
    live: Callable, disk: Disk, programs: Programs, bucket: Bucket, tmp_path: Path
) -> None:
    """Many file systems give a new directory the number of the one that was just removed; nothing is left of the watches in it."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    disk.mount(mounted)
    tree = mounted / "source"
    (tree / "d").mkdir(parents=True)
    (tree / "d/old").write_text("old")
    live("--rescan=0", source=tree)
    before = number_of(tree)

    def is_used_again() -> bool:
        (mounted / "probe").mkdir()
        found = number_of(mounted / "probe") == before
        (mounted / "probe").rmdir()
        return found

    shutil.rmtree(tree)
    wait_until(is_used_again, what="nobody has the old root open any more")
    (tree / "d").mkdir(parents=True)
    assert number_of(tree) == before, "or it is another fault than the one that is meant"

    changes_are_seen(bucket, tree)
    programs.end()


def test_a_disk_that_is_unmounted_and_mounted_again_is_watched_on(live: Callable, disk: Disk, bucket: Bucket, tree: Path) -> None:
    disk.mount(tree)
    (tree / "d").mkdir()
    (tree / "d/old").write_text("old")
    process = live("--rescan=0")
    before = number_of(tree)

    disk.unmount()
    disk.mount(tree)
    assert number_of(tree) == before

    changes_are_seen(bucket, tree)
    process.terminate()
    process.wait()


def test_a_root_that_is_replaced_by_an_empty_directory_deletes_nothing_and_one_that_holds_half_of_the_keys_is_the_source(
    live: Callable, bucket: Bucket, tree: Path
) -> None:
    for name in ("a", "b", "d/c"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    process = live("--rescan=1")
    before = bucket.sizes()
    away = tree.with_name("away")

    os.rename(tree, away)  # as if it was unmounted
    tree.mkdir()
    wait_until(lambda: "is another directory than before" in process.output(), 10, "the other directory is noticed")
    kept = f"{tree} holds no file. 3 keys below it that are not in the source are kept"
    wait_until(lambda: process.output().count(kept) >= 2, 20, "two scans have kept them")
    assert bucket.sizes() == before

    tree.rmdir()
    os.rename(away, tree)
    (tree / "a").unlink()
    (tree / "new").write_text("new")
    equal_soon(bucket, tree, "the source is back")
    replacement = tree.with_name("replacement")
    (replacement / "d").mkdir(parents=True)
    for name in ("b", "d/c", "other"):  # of three keys: b, d/c, new
        (replacement / name).write_text(name)
    os.rename(tree, away)
    os.rename(replacement, tree)
    equal_soon(bucket, tree, "a source that was replaced by another")
    (tree / "late").write_text("late")
    equal_soon(bucket, tree, "and that is watched")


def test_what_was_right_of_one_source_does_not_count_for_the_one_that_has_come_in_its_place(
    live: Callable, bucket: Bucket, tree: Path, own_valkey: Valkey
) -> None:
    (tree / "a").write_text("one")
    process = live("--rescan=0", "--name=m", f"--broker={own_valkey.url}")
    ledger = Ledger(connect(own_valkey.url), "m")
    before = wait_until(ledger.sync_state.last_in_sync, what="all was right of the one")

    def round_of_the_main_loop() -> None:
        wait_until(lambda: ledger.watcher_lock.holder()[1] < LONGEST_WATCHER_LEASE - 0.5, what="the place grows old")  # type: ignore[index]
        wait_until(lambda: ledger.watcher_lock.holder()[1] > LONGEST_WATCHER_LEASE - 0.5, what="the place is renewed")  # type: ignore[index]

    replacement = tree.with_name("replacement")
    replacement.mkdir()
    (replacement / "a").write_text("two")
    with bucket.server.frozen():  # the first scan of the other one takes its time
        os.rename(tree, tree.with_name("away"))
        os.rename(replacement, tree)
        wait_until(lambda: "is another directory than before" in process.output(), what="the other directory is noticed")
        for _ in range(3):
            round_of_the_main_loop()
        assert ledger.sync_state.last_in_sync() == before

    wait_until(lambda: bucket.read("a") == b"two", what="the other source")
    wait_until(lambda: ledger.sync_state.last_in_sync() != before, what="all is right of the other")


def test_a_file_that_grows_beyond_the_largest_size_keeps_its_object_until_it_is_deleted(
    programs: Programs, bucket: Bucket, tree: Path
) -> None:
    for name, size in {"recording": 900, "tiny": 1, "fits": 10}.items():
        (tree / name).write_bytes(bytes(size))
    options = (*bucket.options(), f"--source-prefix={tree}/", "--min-size=2B", "--max-size=1kB", "--rescan=2", str(tree))
    process = programs.start("autosync", "-v", *options)
    wait_until(lambda: bucket.sizes() == {"recording": 900, "fits": 10}, 30, "what is within the bounds is sent")

    with open(tree / "recording", "ab") as recording:
        recording.write(bytes(900))
    (tree / "tiny").write_bytes(bytes(2))
    wait_until(lambda: f"{tree}/recording is larger than --max-size, 1,000 bytes" in process.output(), 30, "it is skipped")
    wait_until(lambda: bucket.sizes() == {"recording": 900, "fits": 10, "tiny": 2}, 30, "its object stays, also in the next scan")
    skipped = programs.run("autosync-ctl", "status").stdout
    assert "1 skipped" in skipped, skipped

    (tree / "recording").unlink()
    wait_until(lambda: bucket.sizes() == {"fits": 10, "tiny": 2}, 30, "the object of a deleted file goes")
    assert process.output().count("is larger than") == 1
