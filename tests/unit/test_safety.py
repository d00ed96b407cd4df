"""What must never be deleted. Each row of the table sets up a source or a target that lies, and nothing that is still wanted may go."""

from __future__ import annotations

import errno
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.actors.s3 import S3Actor
from autosync.compare.delete_limit import DeleteLimit
from autosync.compare.deletions import Permission
from autosync.compare.scan import Comparison, Policy, ScanReport
from autosync.errors import SourceUnsure, TargetError
from autosync.files import File, Listing
from autosync.model.file_rules import FileRules
from autosync.model.keys import Keys, Source
from autosync.model.withheld import AcceptedDeletions, Withheld
from autosync.source import name_reader
from autosync.source.roots import RootRegister
from autosync.tasks.sources import MirrorSource, mounts_below
from lab.comparing import FixedTarget, fill, scan
from lab.ports import free_port

# A source that lies


def test_an_empty_root_deletes_nothing(tree: Path) -> None:
    with pytest.raises(SourceUnsure, match="holds no file while the target holds 'a'"):
        scan(tree, FixedTarget("a", "b"))


def test_a_root_with_nothing_but_what_is_not_mirrored_deletes_nothing(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "way").symlink_to("/etc")
    (tree / "directory").mkdir()

    with pytest.raises(SourceUnsure):
        scan(tree, FixedTarget("a", "b"))


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

    monkeypatch.setattr(name_reader.os, "scandir", scandir)
    deleted, report = scan(tree, FixedTarget("a/1", "a/gone", "b/2", "c/3", "c/gone"))

    assert hit, "the error must have happened, or this test shows nothing"
    assert deleted == []
    assert not report.complete


# A root that is not what it was, while autosync runs


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
        deleted: list[str] = []
        with pytest.raises(TargetError):
            deleted.extend(one.key for one in comparison.differences("", ScanReport()) if one.found is None)
    finally:
        server.shutdown()
        server.server_close()
    assert handler.pages, "the second page must have been requested, or this test shows nothing"
    assert deleted == []


def test_a_listing_that_fails_in_an_actor_of_the_users_own_deletes_nothing(tree: Path) -> None:
    class Breaks(FixedTarget):
        def list(self, prefix: str = "") -> Listing:
            def files() -> Iterator[File]:
                yield File("a")
                raise RuntimeError("no more")

            return Listing(files(), already_sorted=True)

    fill(tree, "z")
    with pytest.raises(TargetError, match="no more"):
        scan(tree, Breaks())


# Scope


@pytest.mark.parametrize("path", ["{tree}", "{tree}/.."])
def test_an_empty_root_deletes_nothing_also_if_the_scan_is_of_it_alone(tree: Path, path: str) -> None:
    """Many scans are merged into one of their common directory."""
    with pytest.raises(SourceUnsure, match="holds no file while the target holds 'a'"):
        scan(tree, FixedTarget("a", "d/b"), os.path.normpath(path.format(tree=tree)))


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
    target = FixedTarget(*(keys.key(f"{tree}/{name}") for name in ("f", "way/a", "way/d/b", "way-gone")))

    found = list(Comparison(keys, target).differences("", ScanReport()))

    assert [one.key for one in found if one.found is None] == [keys.key(f"{tree}/way-gone")]


# The limit

KEYS = [f"{number:04}" for number in range(40)]


@pytest.mark.parametrize(("limit", "may_delete"), [("0", False), ("29", False), ("30", True), ("74%", False), ("75%", True), (None, False)])
def test_a_scan_that_finds_more_than_its_limit_deletes_nothing(
    tree: Path, caplog: pytest.LogCaptureFixture, limit: str | None, may_delete: bool
) -> None:
    fill(tree, *KEYS[:10])

    deleted, report = scan(tree, FixedTarget(*KEYS), limit=DeleteLimit.parse(limit) if limit else None)

    assert deleted == (KEYS[10:] if may_delete else [])
    assert (report.deletes, report.withheld.count) == ((30, 0) if may_delete else (0, 30))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines == [
        f"30 of 40 keys in scope are gone from the source (0010, 0011, 0012 and 27 more), more than --max-delete ({limit or 'by default'}) "
        "allows: none is deleted. If the source is as it should be, run autosync-ctl accept, or start again with --max-delete=100%"
    ] * (not may_delete)


@pytest.mark.parametrize("count", [1, 20, 40, 100])
def test_a_quarter_of_the_keys_may_go_by_default_and_at_least_twenty(tree: Path, count: int) -> None:
    keys = [f"{number:04}" for number in range(count)]
    most = max(20, count // 4)
    fill(tree, *keys[most:], "new")

    assert scan(tree, FixedTarget(*keys))[0] == keys[:most]
    if count > most:
        (tree / keys[most]).unlink()
        assert scan(tree, FixedTarget(*keys))[0] == []


def test_what_is_withheld_stays_withheld_also_when_less_is_found_later_or_the_scope_has_grown(tree: Path) -> None:
    fill(tree, *KEYS[:10])

    assert scan(tree, FixedTarget(*KEYS), limit=DeleteLimit(count=5), has_withheld=True)[0] == []
    deleted, report = scan(tree, FixedTarget(*KEYS[:11]), limit=DeleteLimit(count=5), has_withheld=True)
    assert (deleted, report.withheld.count) == ([], 1)
    assert scan(tree, FixedTarget(*KEYS[:10]), limit=DeleteLimit(count=5), has_withheld=True)[1].withheld.count == 0


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("has_withheld", [False, True])
def test_an_operator_accepts_the_keys_that_were_listed_and_no_others(tree: Path, accepted: bool, has_withheld: bool) -> None:
    """Also after a restart, when only the digest of these keys is known."""
    fill(tree, *KEYS[:10])
    state = {"accepted": accepted, "has_withheld": has_withheld}
    withheld = scan(tree, FixedTarget(*KEYS), limit=DeleteLimit(count=5), **state)[1].withheld
    assert withheld.count == 30
    listed = AcceptedDeletions(digests=frozenset({withheld.digest, "another"}))

    def deleted(target: FixedTarget, path: str = "") -> list[str]:
        return scan(tree, target, path, limit=DeleteLimit(count=5), acceptances=listed, **state)[0]

    assert deleted(FixedTarget(*KEYS)) == KEYS[10:]
    assert deleted(FixedTarget(*KEYS[:-1], "other")) == [], "as many, but others"
    assert deleted(FixedTarget(*KEYS[:-1])) == []
    assert deleted(FixedTarget(*KEYS, "more")) == []
    assert deleted(FixedTarget(*KEYS[10:]), f"{tree}/d") == []


@pytest.mark.parametrize("accepted", [False, True])
def test_keys_that_are_missing_later_are_not_in_the_set_that_was_accepted(tree: Path, accepted: bool) -> None:
    """Some of it may have returned. What is missing beside it is withheld, where that is more than the limit allows."""
    fill(tree, *KEYS[:10])
    target = FixedTarget(*KEYS)
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), target, Policy(limit=DeleteLimit(count=2)))

    def deleted(*digests: str, has_withheld: bool = False) -> tuple[list[str], Withheld]:
        may, report = Permission(accepted, has_withheld, AcceptedDeletions(digests=frozenset(digests))), ScanReport()
        found = [one.key for one in comparison.differences("", report, permission=may) if one.found is None]
        return found, report.withheld

    digest = deleted()[1].digest
    fill(tree, KEYS[10])
    target.keys = (*KEYS, "later-1", "later-2", "later-3")

    found, withheld = deleted(digest, has_withheld=True)
    assert (found, withheld.count, withheld.examples) == (KEYS[11:], 3, ("later-1", "later-2", "later-3"))
    assert deleted(digest, has_withheld=True)[0] == KEYS[11:], "until they are gone, each scan finds them"
    target.keys = (*KEYS[:11], "later-1", "later-2")
    assert deleted(digest)[0] == ["later-1", "later-2"] * accepted
    comparison.close()


def test_what_is_withheld_is_not_deleted_part_by_part(tree: Path) -> None:
    fill(tree, "d/x", "y")
    target = FixedTarget(*(f"d/{key}" for key in KEYS[:3]), "d/x", "y")

    assert scan(tree, target, f"{tree}/d", limit=DeleteLimit(count=5), has_withheld=True)[0] == []
    assert scan(tree, target, f"{tree}/d", limit=DeleteLimit(count=5))[0] == [f"d/{key}" for key in KEYS[:3]]
    assert len(scan(tree, target, f"{tree}/d", limit=DeleteLimit(count=1), has_withheld=True, has_left=True)[0]) == 3


def test_the_deletions_of_a_directory_that_has_left_are_not_limited(tree: Path) -> None:
    fill(tree, "x")
    target = FixedTarget(*(f"d/{key}" for key in KEYS), "x")

    assert len(scan(tree, target, f"{tree}/d", limit=DeleteLimit(count=5), has_left=True)[0]) == 40
    assert scan(tree, target, f"{tree}/d", limit=DeleteLimit(count=5))[0] == []


# A mirror that is not accepted


@pytest.mark.parametrize("path", ["", "{tree}/d"])
def test_a_mirror_that_is_not_accepted_deletes_nothing_and_logs_what_it_withholds(
    tree: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    fill(tree, "a", "d/b")
    target = FixedTarget("a", "d/b", "d/new\nline", "d/x", "d/y", "d/z")

    deleted, report = scan(tree, target, path.format(tree=tree), accepted=False)

    assert deleted == []
    assert (report.deletes, report.withheld.count, report.extra) == (0, 4, 4)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines == [
        "the target held 4 keys in scope before this mirror that the source lacks (d/new\\nline, d/x, d/y and 1 more). It keeps them: to "
        "delete them, run autosync-ctl accept, or start again with --accept-existing; to keep them for good, start with --no-delete or "
        "another --target-prefix"
    ] * (not path), "a scan of a part counts nothing that a scan of everything has not counted"


def test_the_options_that_are_named_suffice_to_delete_what_is_withheld(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tree, *KEYS[:10])
    limit = DeleteLimit(count=29)

    assert scan(tree, FixedTarget(*KEYS), limit=limit, accepted=False)[0] == []
    assert "start again with --accept-existing --max-delete=100%;" in caplog.text
    assert scan(tree, FixedTarget(*KEYS), limit=limit)[0] == [], "--accept-existing alone lifts no limit"
    assert scan(tree, FixedTarget(*KEYS), limit=DeleteLimit.parse("100%"))[0] == KEYS[10:]


def test_a_directory_that_has_left_is_no_proof_about_keys_that_it_never_held(tree: Path) -> None:
    """`mkdir d; rmdir d` in a mirror that is not accepted. What this mirror has sent goes."""
    fill(tree, "x")
    target = FixedTarget("d/theirs", "x")
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), target)
    new = Permission(accepted=False)

    def left() -> list[str]:
        return [one.key for one in comparison.differences(f"{tree}/d", ScanReport(), has_left=True, permission=new)]

    assert left() == [], "before the target was compared as a whole"
    assert [one.key for one in comparison.differences("", ScanReport(), permission=new) if one.found is None] == []
    assert left() == []
    target.keys = ("d/a", "d/theirs", "d/z", "x")  # sent since
    assert left() == ["d/a", "d/z"]
    comparison.close()


def test_after_a_scan_with_an_unreadable_part_what_the_target_held_before_is_undecided(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tree, "d/x", "closed/x")
    target = FixedTarget("closed/theirs", "d/theirs", "d/x")
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), target)
    new = Permission(accepted=False)
    scandir, closed = os.scandir, os.stat(tree / "closed").st_ino

    def refuse(directory: int) -> object:
        if os.fstat(directory).st_ino == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(directory)

    monkeypatch.setattr(name_reader.os, "scandir", refuse)
    report = ScanReport()
    assert [one.key for one in comparison.differences("", report, permission=new) if one.found is None] == []
    assert not report.complete
    monkeypatch.undo()
    shutil.rmtree(tree / "closed")

    assert list(comparison.differences(f"{tree}/closed", ScanReport(), has_left=True, permission=new)) == []
    comparison.close()


@pytest.mark.parametrize("names", [["a"], ["a", "b"]], ids=["nothing", "a key"])
def test_without_deletions_nothing_is_withheld_and_what_the_source_lacks_is_counted(
    tree: Path, caplog: pytest.LogCaptureFixture, names: list[str]
) -> None:
    fill(tree, "a")

    deleted, report = scan(tree, FixedTarget(*names), accepted=False, delete=False)

    assert (deleted, report.withheld.count, report.extra) == ([], 0, len(names) - 1)
    assert not caplog.records


def test_a_file_that_was_made_and_sent_while_its_directory_was_walked_is_not_withheld(tree: Path) -> None:
    class Later(FixedTarget):
        def list(self, prefix: str = "") -> Listing:
            def files() -> Iterator[File]:
                yield File("a")
                fill(tree, "b")
                yield File("b")

            return Listing(files(), already_sorted=True)

    fill(tree, "a")

    deleted, report = scan(tree, Later(), accepted=False)

    assert report.source_files == 1, "the walk must have been past it, or this test shows nothing"
    assert (deleted, report.withheld.count, report.extra) == ([], 0, 0)


def test_what_is_behind_a_link_that_is_not_followed_is_withheld(tree: Path) -> None:
    fill(tree, "d/f")
    (tree / "link").symlink_to("d/f")
    (tree / "way").symlink_to("d")
    target = FixedTarget("d/f", "link", "way/f")

    assert scan(tree, target, accepted=False, follow=False)[1].withheld.count == 2
    assert scan(tree, target, follow=False)[0] == ["link", "way/f"]


# What is there and is not sent


def test_without_remembered_roots_one_empty_path_ends_the_scan(tmp_path: Path) -> None:
    """As `verify` scans: keys that it kept would be missing in its report."""
    fill(tmp_path, "full/a")
    (tmp_path / "empty").mkdir()
    keys = Keys([Source(str(tmp_path / "full")), Source(str(tmp_path / "empty"))], source_prefix=f"{tmp_path}/")
    comparison = Comparison(keys, FixedTarget("empty/b", "full/a", "full/extra"), exact=True)

    with pytest.raises(SourceUnsure, match="empty holds no file while the target holds 'empty/b'"):
        list(comparison.differences("", ScanReport()))


@pytest.mark.parametrize("is_new", [False, True], ids=["the same process", "after a restart"])
@pytest.mark.parametrize("is_other", [False, True], ids=["the same directory", "another directory"])
def test_the_keys_of_an_accepted_empty_path_are_found_until_they_are_gone_and_workers_may_delete_them(
    tmp_path: Path, is_other: bool, is_new: bool
) -> None:
    share = tmp_path / "share"
    fill(tmp_path, "full/a", "share/b")
    keys = Keys([Source(str(tmp_path / "full")), Source(str(share))], source_prefix=f"{tmp_path}/")
    target = FixedTarget("full/a", "share/b")

    def start(before: RootRegister | None = None) -> RootRegister:
        roots = RootRegister(keys)
        roots.load(before.remembered.identities() if before else {}, before.remembered.doubts() if before else {})
        return roots

    def deleted(roots: RootRegister) -> list[str]:
        return [one.key for one in Comparison(keys, target, roots=roots).differences("", ScanReport()) if one.found is None]

    roots = start()
    assert deleted(roots) == []
    (share / "b").unlink()
    if is_other:
        share.rename(tmp_path / "before")
        share.mkdir()
        roots.poll_roots()
    assert deleted(roots) == []
    assert roots.remembered.accept(str(share))
    if is_new:
        roots = start(roots)

    assert [deleted(roots), deleted(roots)] == [["share/b"], ["share/b"]]
    identity = roots.identities()[str(share)]
    assert MirrorSource(keys.sources[1], str(share), identity, same_host=True, rules=FileRules()).prove_absent(str(share / "b"))
    assert deleted(start(roots)) == ["share/b"], "it was killed before the keys were gone"

    target.keys = ("full/a",)
    assert deleted(roots) == []
    assert roots.remembered.doubts() == {}
    target.keys = ("full/a", "share/b")
    assert deleted(roots) == [], "what is there later was not accepted"


def test_what_was_accepted_of_a_path_counts_until_it_is_lost(tmp_path: Path) -> None:
    """It has other files by then, and may be hidden."""
    share = tmp_path / "share"
    fill(tmp_path, "full/a", "share/b")
    keys = Keys([Source(str(tmp_path / "full")), Source(str(share))], source_prefix=f"{tmp_path}/")
    target = FixedTarget("full/a", "share/b")
    roots = RootRegister(keys)
    roots.load({}, {})

    def deleted() -> list[str]:
        return [one.key for one in Comparison(keys, target, roots=roots).differences("", ScanReport()) if one.found is None]

    assert deleted() == []
    (share / "b").unlink()
    assert deleted() == []
    assert roots.remembered.accept(str(share))
    assert deleted() == ["share/b"]
    fill(tmp_path, "share/new")
    target.keys = ("full/a", "share/new")

    share.rename(tmp_path / "hidden")
    share.mkdir()
    roots.poll_roots()

    assert deleted() == []
    assert roots.remembered.pending()


def test_a_path_inside_another_one_that_is_accepted_as_gone_is_an_ordinary_path_until_it_is_back(tmp_path: Path) -> None:
    inner = tmp_path / "src/disk"
    fill(tmp_path, "src/a", "src/disk/b")
    keys = Keys([Source(str(tmp_path / "src")), Source(str(inner))], source_prefix=f"{tmp_path}/")
    target = FixedTarget("src/a", "src/disk/b")
    roots = RootRegister(keys)
    roots.load({}, {})

    def deleted() -> list[str]:
        return [one.key for one in Comparison(keys, target, roots=roots).differences("", ScanReport()) if one.found is None]

    assert deleted() == []
    shutil.rmtree(inner)
    roots.poll_roots()
    assert deleted() == []
    assert roots.remembered.doubts()[str(inner)].text == "is gone"
    assert roots.remembered.accept(str(inner))

    assert deleted() == ["src/disk/b"]
    identities = roots.identities()
    source = MirrorSource(
        keys.sources[0], str(tmp_path / "src"), identities[str(tmp_path / "src")], same_host=True, rules=FileRules(),
        mounts=mounts_below(keys.sources[0], identities),
    )
    assert source.prove_absent(str(inner / "b")), "workers may delete it"

    fill(tmp_path, "src/disk/b", "src/disk/c")
    roots.poll_roots()
    assert deleted() == []
    target.keys = ("src/a", "src/disk/b", "src/disk/c")
    shutil.rmtree(inner)
    inner.mkdir()
    roots.poll_roots()
    assert deleted() == [], "what is there later was not accepted"


def test_an_accepted_path_that_is_back_is_in_no_doubt_after_the_next_scan(tmp_path: Path) -> None:
    """Otherwise whatever is there after the next time that it goes away would count as accepted."""
    share = tmp_path / "share"
    fill(tmp_path, "full/a", "share/b")
    keys = Keys([Source(str(tmp_path / "full")), Source(str(share))], source_prefix=f"{tmp_path}/")
    roots = RootRegister(keys)
    roots.load({}, {})
    comparison = Comparison(keys, FixedTarget("full/a", "share/b"), roots=roots)

    def kept() -> int:
        report = ScanReport()
        assert all(one.found for one in comparison.differences("", report))
        return report.kept_in_doubt

    assert kept() == 0
    share.rename(tmp_path / "away")
    share.mkdir()
    roots.poll_roots()
    assert kept() == 1
    assert roots.remembered.accept(str(share))

    share.rmdir()
    (tmp_path / "away").rename(share)
    roots.poll_roots()
    assert kept() == 0

    assert roots.remembered.doubts() == {}


@pytest.mark.parametrize("path", ["", "current/d"])
def test_a_scan_right_after_the_link_of_the_root_was_switched_keeps_nothing(tmp_path: Path, path: str) -> None:
    """It begins before the main loop finds out, and names no root that an operator would have to accept."""
    fill(tmp_path, *(f"7/d/{number}" for number in range(8)), "8/d/0")
    current = tmp_path / "current"
    current.symlink_to("7")
    keys = Keys([Source(str(current))], source_prefix=f"{current}/")
    roots = RootRegister(keys)
    roots.load({}, {})
    sent = [f"d/{number}" for number in range(8)]
    comparison = Comparison(keys, FixedTarget(*sent), Policy(limit=DeleteLimit(percent=100.0)), roots=roots)
    (tmp_path / "next").symlink_to("8")
    (tmp_path / "next").rename(current)
    report = ScanReport()

    found = list(comparison.differences(path and str(tmp_path / path), report))

    assert (report.kept_in_doubt, roots.remembered.doubts()) == (0, {})
    assert [one.key for one in found if one.found is None] == sent[1:]
