"""What must never be deleted. Each row of the table sets up a source or a target that lies, and nothing that is still wanted may go."""

from __future__ import annotations

import errno
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync import tree as tree_module
from autosync.actor import Actor
from autosync.actors.s3 import S3Actor
from autosync.errors import SourceUnsure, TargetError
from autosync.files import File, Listing
from autosync.keys import Keys, Source
from autosync.limit import DeleteLimit
from autosync.look import Comparison, LookReport, Policy
from lab.buckets import Bucket
from lab.programs import BIN, Programs
from lab.servers import free_port, wait_until


class Held(Actor):
    """A target that holds the keys it is told to hold, made at the beginning of time."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.keys = keys

    def list(self, prefix: str = "") -> Listing:
        return Listing((File(key, 0, 0.0) for key in sorted(self.keys)), already_sorted=True)


def looked(
    tree: Path, actor: Actor, path: str = "", *, limit: DeleteLimit | None = None, seen_leaving: bool = False, holding: bool = False
) -> tuple[list[str], LookReport]:
    """Which keys a look would delete, and its report."""
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), actor, Policy(limit=limit or DeleteLimit()))
    report = LookReport()
    found = list(comparison.differences(path, report, seen_leaving=seen_leaving, holding=holding))
    return [one.key for one in found if one.found is None], report


def fill(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()


# A source that lies

def test_an_empty_root_deletes_nothing(tree: Path) -> None:
    with pytest.raises(SourceUnsure, match="holds no file while the target holds 'a'"):
        looked(tree, Held("a", "b"))


def test_a_root_with_nothing_but_what_is_not_mirrored_deletes_nothing(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "way").symlink_to("/etc")
    (tree / "directory").mkdir()

    with pytest.raises(SourceUnsure):
        looked(tree, Held("a", "b"))


@pytest.mark.slow
def test_one_empty_path_among_several_deletes_nothing(programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    share = tmp_path / "share"
    fill(tree, "a")
    fill(share, "b", "c/d")
    options = ["autosync", "--once", *bucket.options(), f"--source-prefix={tmp_path}/", str(tree), str(share)]
    assert programs.run(*options).returncode == 0
    before = bucket.sizes()
    assert sorted(before) == ["share/b", "share/c/d", "source/a"]

    shutil.rmtree(share)  # as it is when the share is not mounted
    share.mkdir()
    done = programs.run(*options)

    assert done.returncode == 1
    assert f"the source {share} holds no file while the target holds 'share/b'" in done.stderr
    assert bucket.sizes() == before


def run_bound(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the commands so that permissions bind it, also where root runs the tests."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run([*drop, str(BIN / command[0]), *command[1:]], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_an_unreadable_directory_keeps_what_is_behind_it_and_lets_the_rest_go(once: list[str], bucket: Bucket, tree: Path) -> None:
    fill(tree, "a/1", "closed/2", "closed/deep/3", "z/4")
    assert run_bound(*once).returncode == 0
    (tree / "a/1").unlink()
    (tree / "z/4").unlink()
    (tree / "closed").chmod(0)
    try:
        done = run_bound(*once)
    finally:
        (tree / "closed").chmod(0o755)

    assert done.returncode == 3
    assert f"{tree}/closed" in done.stderr
    assert "nothing behind it is deleted" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(bucket.sizes()) == ["closed/2", "closed/deep/3"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_an_error_while_walking_keeps_everything(tree: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fill(tree, "a/1", "b/2", "c/3")
    real = os.scandir
    broken = os.stat(tree / "b").st_ino
    hit = []

    def scandir(directory: int) -> object:
        if os.fstat(directory).st_ino == broken:
            hit.append(directory)
            raise OSError(number, os.strerror(number))
        return real(directory)

    monkeypatch.setattr(tree_module.os, "scandir", scandir)
    deleted, report = looked(tree, Held("a/1", "a/gone", "b/2", "c/3", "c/gone"))

    assert hit, "the error must have happened, or this test shows nothing"
    assert deleted == []
    assert not report.complete


def test_a_share_inside_the_tree_whose_server_died_keeps_everything(bindfs: Callable, tree: Path, tmp_path: Path) -> None:
    """A FUSE mount whose process was killed answers ENOTCONN, as a real kernel does."""
    fill(tmp_path, "behind/2")
    fill(tree, "a/1")
    (tree / "b").mkdir()
    server = bindfs(tmp_path / "behind", tree / "b")
    assert looked(tree, Held("a/1", "b/2"))[0] == []

    server.kill()
    server.wait()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(tree / "b")
    deleted, report = looked(tree, Held("a/1", "a/gone", "b/2"))

    assert deleted == []
    assert not report.complete


# A root that is not what it was, while autosync runs

@pytest.mark.slow
@pytest.mark.parametrize("what", ["renamed", "removed and made anew", "unmounted", "mounted over"])
def test_a_root_that_goes_away_deletes_nothing_and_goes_on_when_it_is_back(
    programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path, what: str
) -> None:
    is_mount = "mounted" in what
    if is_mount and os.geteuid() != 0:
        pytest.skip("only root may mount")
    if what == "unmounted":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree)], check=True)
    try:
        fill(tree, "a", "d/b", "d/c")
        process = programs.start("autosync", "--rescan=1", *bucket.options(), f"--source-prefix={tree}/", str(tree))
        wait_until(lambda: len(bucket.sizes()) == 3, what="the first look is done")
        _take_away(what, tree, tmp_path)
        wait_until(lambda: "is another directory than before" in process.said() or "is gone" in process.said(), what="it is noticed")
        # Whatever is done about it is done by the rescan after that.
        wait_until(lambda: process.said().count("look at everything") >= 2, 60, "two looks at what is not there")
        assert sorted(bucket.sizes()) == ["a", "d/b", "d/c"]
        assert process.poll() is None

        _bring_back(what, tree, tmp_path)
        (tree / "d/c").unlink()
        fill(tree, "new")
        wait_until(lambda: sorted(bucket.sizes()) == ["a", "d/b", "new"], 60, "it goes on")
        assert "Traceback" not in process.said()
    finally:
        programs.end()
        if is_mount:
            subprocess.run(["umount", "-l", str(tree)], check=False, capture_output=True)


def _take_away(what: str, tree: Path, tmp_path: Path) -> None:
    if what == "renamed":
        tree.rename(tmp_path / "elsewhere")
    elif what == "removed and made anew":
        tree.rename(tmp_path / "elsewhere")
        tree.mkdir()
    elif what == "unmounted":
        subprocess.run(["mount", "--bind", str(tree), _made(tmp_path / "elsewhere")], check=True)
        subprocess.run(["umount", "-l", str(tree)], check=True)
    else:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree)], check=True)


def _bring_back(what: str, tree: Path, tmp_path: Path) -> None:
    if what == "renamed":
        (tmp_path / "elsewhere").rename(tree)
    elif what == "removed and made anew":
        tree.rmdir()
        (tmp_path / "elsewhere").rename(tree)
    elif what == "unmounted":
        subprocess.run(["mount", "--move", str(tmp_path / "elsewhere"), str(tree)], check=True)
    else:
        subprocess.run(["umount", str(tree)], check=True)


def _made(directory: Path) -> str:
    directory.mkdir()
    return str(directory)


# A target that lies

class BreaksOff(http.server.BaseHTTPRequestHandler):
    """Lists one page of two and then fails; anything else is answered with an empty page."""

    how = "error"
    pages = 0

    def do_GET(self) -> None:
        if "continuation-token" in self.path or "start-after=b" in self.path:
            type(self).pages += 1
            if self.how == "cut":
                self.connection.close()
                return
            self.send_error(500)
            return
        body = b"""<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
<NextContinuationToken>more</NextContinuationToken><KeyCount>2</KeyCount>""" + b"".join(
            b"<Contents><Key>%b</Key><Size>0</Size><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>" % key
            for key in (b"a", b"b")
        ) + b"</ListBucketResult>"  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("how", ["error", "cut"])
def test_a_listing_that_breaks_off_after_page_one_deletes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The source holds neither a nor b, which the first page names: without the rest of the listing, that is not enough."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    fill(tree, "z")
    handler = type("Handler", (BreaksOff,), {"how": how})
    port = free_port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        actor = S3Actor(target_container="bucket", endpoint_url=f"http://127.0.0.1:{port}", region="us-east-1")
        comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), actor)
        given: list[str] = []
        with pytest.raises(TargetError):
            given.extend(one.key for one in comparison.differences("", LookReport()) if one.found is None)
    finally:
        server.shutdown()
        server.server_close()
    assert handler.pages, "the second page must have been asked for, or this test shows nothing"
    assert given == []


def test_a_listing_that_fails_in_an_actor_of_the_users_own_deletes_nothing(tree: Path) -> None:
    class Breaks(Held):
        def list(self, prefix: str = "") -> Listing:
            def files() -> Iterator[File]:
                yield File("a")
                raise RuntimeError("no more")

            return Listing(files(), already_sorted=True)

    fill(tree, "z")
    with pytest.raises(TargetError, match="no more"):
        looked(tree, Breaks())


# Scope

@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), [("news/", "news-archive/"), ("a-", "a/"), ("", "other/"), ("x/", "x/y/")])
def test_the_keys_of_another_mirror_beside_ours_stay(
    programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path, ours: str, theirs: str
) -> None:
    """Where one prefix lies in the other, the filter keeps them apart; the keys of a mirror are those that its source can make."""
    other = tmp_path / "other"
    fill(tree, "one", "d/two")
    fill(other, "three", "d/four")
    exclude = [f"--source-exclude={tree}/other", f"--source-exclude={tree}/y"]

    def run(source: Path, prefix: str, *more: str) -> None:
        prefixes = [f"--source-prefix={source}/", f"--target-prefix={prefix}"]
        done = programs.run("autosync", "--once", *bucket.options(), *prefixes, *more, str(source))
        assert done.returncode == 0, done.stderr

    nested = theirs.startswith(ours) and ours in ("", "x/")
    run(tree, ours, *(exclude if nested else []))
    run(other, theirs)
    (tree / "one").unlink()
    (other / "three").unlink()
    run(tree, ours, *(exclude if nested else []))
    assert sorted(bucket.sizes()) == sorted([f"{ours}d/two", f"{theirs}three", f"{theirs}d/four"])
    run(other, theirs)
    assert sorted(bucket.sizes()) == sorted([f"{ours}d/two", f"{theirs}d/four"])


@pytest.mark.slow
@pytest.mark.parametrize("narrowed", ["--source-filter=.*\\.mp3$", "--source-exclude=.*\\.txt$", "--temporary=.*\\.txt"])
def test_what_a_filter_leaves_out_from_now_on_stays(programs: Programs, once: list[str], bucket: Bucket, tree: Path, narrowed: str) -> None:
    fill(tree, "a.mp3", "b.mp3", "c.txt", "d/e.txt")
    assert programs.run(*once).returncode == 0

    for name in ("b.mp3", "c.txt"):
        (tree / name).unlink()
    assert programs.run(*once, narrowed).returncode == 0

    assert sorted(bucket.sizes()) == ["a.mp3", "c.txt", "d/e.txt"]


@pytest.mark.parametrize("path", ["{tree}", "{tree}/.."])
def test_an_empty_root_deletes_nothing_also_if_the_look_is_at_it_alone(tree: Path, path: str) -> None:
    """Many looks fold into one at the directory that they have in common."""
    with pytest.raises(SourceUnsure, match="holds no file while the target holds 'a'"):
        looked(tree, Held("a", "d/b"), os.path.normpath(path.format(tree=tree)))


@pytest.mark.parametrize("outside", ["a directory", "nothing"])
@pytest.mark.parametrize("prefix", ["{tree}/", "{tree}/way/"])
def test_what_is_below_a_link_that_leads_out_stays_also_while_the_disk_outside_is_away(
    tree: Path, tmp_path: Path, outside: str, prefix: str
) -> None:
    fill(tree, "f")
    (tree / "way").symlink_to(tmp_path / "outside")
    if outside == "a directory":
        (tmp_path / "outside").mkdir()
    keys = Keys([Source(str(tree))], source_prefix=prefix.format(tree=tree))
    held = Held(*(keys.key(f"{tree}/{name}") for name in ("f", "way/a", "way/d/b", "way-gone")))

    found = list(Comparison(keys, held).differences("", LookReport()))

    assert [one.key for one in found if one.found is None] == [keys.key(f"{tree}/way-gone")]


# The limit

KEYS = [f"{number:04}" for number in range(40)]


@pytest.mark.parametrize(("limit", "gone"), [("0", 0), ("5", 5), ("50%", 20), ("30", 30), ("100%", 30), (None, 30)])
def test_a_look_deletes_no_more_than_its_limit_and_holds_the_rest(tree: Path, limit: str | None, gone: int) -> None:
    fill(tree, *KEYS[:10])

    deleted, report = looked(tree, Held(*KEYS), limit=DeleteLimit.parse(limit) if limit else None)

    assert deleted == KEYS[10 : 10 + gone]
    assert (report.deletes, report.held) == (gone, 30 - gone)


def test_what_is_held_stays_held_until_a_look_finds_it_within_the_limit(tree: Path) -> None:
    fill(tree, *KEYS[:10])

    assert looked(tree, Held(*KEYS), limit=DeleteLimit(count=5), holding=True)[0] == []
    assert looked(tree, Held(*KEYS[:15]), limit=DeleteLimit(count=5), holding=True)[0] == KEYS[10:15]
    assert looked(tree, Held(*KEYS), limit=DeleteLimit(percent=100.0), holding=True)[0] == KEYS[10:]


def test_what_is_held_is_not_let_go_part_by_part(tree: Path) -> None:
    fill(tree, "d/x", "y")
    held = Held(*(f"d/{key}" for key in KEYS[:3]), "d/x", "y")

    assert looked(tree, held, f"{tree}/d", limit=DeleteLimit(count=5), holding=True)[0] == []
    assert looked(tree, held, f"{tree}/d", limit=DeleteLimit(count=5))[0] == [f"d/{key}" for key in KEYS[:3]]
    assert len(looked(tree, held, f"{tree}/d", limit=DeleteLimit(count=1), holding=True, seen_leaving=True)[0]) == 3


def test_a_directory_that_was_seen_leaving_is_not_limited(tree: Path) -> None:
    fill(tree, "x")
    held = Held(*(f"d/{key}" for key in KEYS), "x")

    assert len(looked(tree, held, f"{tree}/d", limit=DeleteLimit(count=5), seen_leaving=True)[0]) == 40
    assert len(looked(tree, held, f"{tree}/d", limit=DeleteLimit(count=5))[0]) == 5


@pytest.mark.slow
def test_the_limit_on_the_command_line_holds_tells_and_lets_through(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    fill(tree, *KEYS[:10])
    assert programs.run(*once).returncode == 0
    for key in KEYS[2:10]:
        (tree / key).unlink()
    fill(tree, "new")

    first = programs.run(*once, "--max-delete=3")
    assert first.returncode == 3
    assert "start again with --max-delete=100%" in first.stderr
    assert sorted(bucket.sizes()) == [*KEYS[:2], *KEYS[5:10], "new"], "uploads go on meanwhile"
    second = programs.run(*once, "--max-delete=3")
    assert second.returncode == 3
    assert sorted(bucket.sizes()) == [*KEYS[:2], *KEYS[5:10], "new"], "a limit that holds once an hour would hold nothing"
    third = programs.run(*once, "--max-delete=100%")
    assert (third.returncode, sorted(bucket.sizes())) == (0, [*KEYS[:2], "new"])


@pytest.mark.slow
def test_what_the_kernel_tells_as_deleted_goes_whatever_the_limit(programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    fill(tree, "one", *(f"moved/{key}" for key in KEYS), *(f"removed/{key}" for key in KEYS), *(f"out/{key}" for key in KEYS))
    process = programs.start("autosync", "--max-delete=0", *bucket.options(), f"--source-prefix={tree}/", str(tree))
    wait_until(lambda: len(bucket.sizes()) == 121, 60, "the first look is done")

    (tree / "one").unlink()
    (tree / "moved").rename(tree / "here")
    shutil.rmtree(tree / "removed")
    (tree / "out").rename(tmp_path / "out")

    wait_until(lambda: sorted(bucket.sizes()) == [f"here/{key}" for key in KEYS], 60, "all that was deleted is gone")
    assert "are held" not in process.said()


# What stands there and is not sent

@pytest.mark.slow
def test_what_cannot_be_sent_is_told_and_a_link_that_leads_out_keeps_what_the_target_has(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    fill(tmp_path, "archive/film")
    fill(tree, "film", "folder/a", "rest", "pipe")
    assert programs.run(*once).returncode == 0
    for name in ("film", "pipe"):
        (tree / name).unlink()
    shutil.rmtree(tree / "folder")
    (tree / "film").symlink_to(tmp_path / "archive/film")  # as a storage manager leaves it
    (tree / "folder").symlink_to(tmp_path / "archive")
    os.mkfifo(tree / "pipe")
    (tree / "circle").symlink_to("circle")

    done = programs.run(*once)

    assert done.returncode == 0, done.stderr
    # A pipe is certainly not the file; a link may stand for it.
    assert sorted(bucket.sizes()) == ["film", "folder/a", "rest"]
    leads_out = "is a link that leads out of the source"
    for line in (f"film {leads_out}", f"folder {leads_out}", "pipe is a FIFO", "circle is a link that leads to itself"):
        assert f"skipped: {tree}/{line}" in done.stderr
    assert "skipped 4" in done.stderr
    dry = programs.run(*once, "--dry-run")
    assert [line.split()[0] for line in dry.stdout.splitlines()].count("skip") == 4


@pytest.mark.slow
def test_a_file_that_cannot_be_sent_is_in_the_failed_list_and_the_rest_goes_on(once: list[str], bucket: Bucket, tree: Path) -> None:
    deep = "/".join(["x" * 250] * 4) + "/" + "y" * 50
    fill(tree, deep, "closed", "rest", os.fsdecode(b"not utf-8 \xff"))
    (tree / "closed").chmod(0)

    done = run_bound(*once)

    assert done.returncode == 3
    assert sorted(bucket.sizes()) == ["rest"]
    failed = [line for line in done.stderr.splitlines() if "failed: " in line and "uploaded" not in line]
    assert len(failed) == 3, done.stderr
    for what in ("S3 allows 1024", "closed may not be read", "is not UTF-8"):
        assert sum(what in line for line in failed) == 1, what
