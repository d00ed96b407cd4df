"""What a worker may read, and what it takes as proof that a file is gone."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from autosync.errors import PermanentError, SourceRefused, SourceUnsure
from autosync.model.file_rules import FileRules
from autosync.model.keys import Source
from autosync.model.mirror import Identity
from autosync.source.beneath import NotMirrored, Resolved, resolve_beneath
from autosync.tasks import sources as module
from autosync.tasks.sources import Absent, AllowedSources, DirectoryCache, MirrorSource, Opened
from autosync.watch.watcher import identity_of


def seen_from(tree: Path, *, same_host: bool = True, identity: Identity | None = None) -> MirrorSource:
    return MirrorSource(Source(str(tree)), str(tree), identity or identity_of(str(tree)), same_host=same_host, rules=FileRules())


def opened(source: MirrorSource, path: str) -> int:
    """Open a file by itself, and once more right after another of its directory: both ways have the same result."""
    root = source.open_root()
    try:
        with closing(DirectoryCache()) as directories:
            answers = [_opened(source, path, root), _opened(source, path, root, directories), _opened(source, path, root, directories)]
    finally:
        os.close(root)
    first, *others = answers
    if isinstance(first, Exception):
        assert [(type(other), str(other)) for other in others] == 2 * [(type(first), str(first))]
        raise first
    for other in others:
        assert isinstance(other, Opened)
        os.close(other.descriptor)
        assert other.seen == first.seen
    return first.descriptor


def _opened(source: MirrorSource, path: str, root: int, directories: DirectoryCache | None = None) -> Opened | Exception:
    try:
        return source.open(path, root, directories)
    except Exception as error:
        return error


def test_a_worker_finds_its_sources_where_it_mounts_them() -> None:
    allowed = AllowedSources({"/srv/media": "/mnt/media", "/srv/media/news": "/news/", "/one": "/one"})

    assert allowed.locate("/srv/media", "w") == "/mnt/media"
    assert allowed.locate("/srv/media/a/b", "w") == "/mnt/media/a/b"
    assert allowed.locate("/srv/media/news/x", "w") == "/news/x"
    assert AllowedSources(["/"]).locate("/any", "w") == "/any"


@pytest.mark.parametrize("root", ["/srv/mediax", "/srv", "/", "/srv/media/../secret", "srv/media", "/srv/media//x", "/srv/media/./x", ""])
def test_a_worker_refuses_what_is_not_in_its_sources(root: str) -> None:
    with pytest.raises(SourceRefused, match="autosync_sources"):
        AllowedSources(["/srv/media"]).locate(root, "w")


def test_a_file_is_opened_and_a_missing_one_is_absent(tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d/file").write_text("content")
    source = seen_from(tree)

    descriptor = opened(source, f"{tree}/d/file")
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    for missing in ("nothing", "d/nothing", "no/such/way", "d/file/below"):
        with pytest.raises(Absent):
            opened(source, f"{tree}/{missing}")


def test_no_link_leads_out(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tree / "link").symlink_to(tmp_path / "secret")
    (tree / "way").symlink_to(tmp_path)
    source = seen_from(tree)

    for path in ("link", "way/secret"):
        with pytest.raises(NotMirrored, match="leads out"):
            opened(source, f"{tree}/{path}")
        assert not source.prove_absent(f"{tree}/{path}"), "there is something, so what the target has is kept"
    with pytest.raises(PermanentError, match="leads out"):
        opened(source, f"{tree}/../secret")


def test_a_fifo_does_not_make_a_worker_wait(tree: Path) -> None:
    os.mkfifo(tree / "fifo")

    with pytest.raises(Absent):
        opened(seen_from(tree), f"{tree}/fifo")

    assert seen_from(tree).prove_absent(f"{tree}/fifo"), "a FIFO is not the file that had this name"


def test_links_are_followed_inside_also_where_the_source_is_mounted_elsewhere(tree: Path, tmp_path: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d/file").write_text("content")
    (tree / "absolute").symlink_to("/srv/media/d")
    (tree / "relative").symlink_to("absolute/file")
    source = MirrorSource(Source("/srv/media"), str(tree), None, same_host=False, rules=FileRules())

    for path in ("absolute/file", "relative"):
        descriptor = opened(source, f"/srv/media/{path}")
        assert os.read(descriptor, 100) == b"content"
        os.close(descriptor)
        assert not source.prove_absent(f"/srv/media/{path}")

    (tree / "d/file").unlink()
    for path in ("absolute/file", "relative"):
        with pytest.raises(Absent):
            opened(source, f"/srv/media/{path}")
        assert source.prove_absent(f"/srv/media/{path}"), "a link that leads nowhere names no file"


def test_what_lies_behind_a_link_that_goes_round_is_no_file_of_this_name(tree: Path) -> None:
    """The walk does not go there either; a change that was reported before the link led round must not be sent after it."""
    (tree / "d").mkdir()
    (tree / "d/file").write_text("content")
    (tree / "d/up").symlink_to("..")
    (tree / "d/twice").symlink_to("up")
    (tree / "d/e").mkdir()
    (tree / "d/e/above").symlink_to("..")
    (tree / "way").symlink_to("d/e")

    for path in ("d/up/d/file", "d/twice/d/file", "way/above/file"):
        with pytest.raises(NotMirrored, match="lies in"):
            opened(seen_from(tree), f"{tree}/{path}")
        assert not seen_from(tree).prove_absent(f"{tree}/{path}")


def test_what_a_link_led_to_may_go_as_soon_as_it_leads_elsewhere(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As releases are switched: there is a file under this name all the time."""
    for release in ("one", "two"):
        (tree / release).mkdir()
        (tree / release / "file").write_text(release)
    (tree / "current").symlink_to("one")
    source = seen_from(tree)

    def resolve(*args: object) -> Resolved:
        found = resolve_beneath(*args)  # type: ignore[arg-type]
        if (tree / "one").exists():
            (tree / "next").symlink_to("two")
            (tree / "next").rename(tree / "current")
            shutil.rmtree(tree / "one")
        return found

    monkeypatch.setattr(module, "resolve_beneath", resolve)

    assert not source.prove_absent(f"{tree}/current/file")
    assert source.prove_absent(f"{tree}/one/file")


def test_links_that_are_not_followed_are_no_files(tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d/file").write_text("content")
    (tree / "link").symlink_to("d/file")
    (tree / "way").symlink_to("d")
    source = MirrorSource(Source(str(tree)), str(tree), identity_of(str(tree)), same_host=True, rules=FileRules(follow_links=False))

    for path in ("link", "way/file"):
        with pytest.raises(Absent):
            opened(source, f"{tree}/{path}")
        assert source.prove_absent(f"{tree}/{path}")


def test_absence_is_proved_by_the_file_system_alone(tree: Path) -> None:
    (tree / "file").write_text("x")
    (tree / "dir").mkdir()
    source = seen_from(tree)

    assert source.prove_absent(f"{tree}/gone")
    assert source.prove_absent(f"{tree}/gone/below")
    assert source.prove_absent(f"{tree}/file/below")
    assert source.prove_absent(f"{tree}/dir"), "a directory is not the file that had this name"
    assert not source.prove_absent(f"{tree}/file")


def test_another_directory_in_the_place_of_the_root_proves_nothing(tree: Path) -> None:
    source = seen_from(tree)
    os.rename(tree, f"{tree}-away")
    tree.mkdir()

    with pytest.raises(SourceUnsure, match="is not the directory that it was"):
        source.prove_absent(f"{tree}/file")


def test_a_root_that_is_gone_proves_nothing(tree: Path) -> None:
    source = seen_from(tree)
    os.rename(tree, f"{tree}-away")

    with pytest.raises(SourceUnsure):
        source.prove_absent(f"{tree}/file")
    with pytest.raises(SourceUnsure):
        opened(source, f"{tree}/file")


def test_on_another_host_an_empty_root_of_another_inode_proves_nothing(tree: Path) -> None:
    elsewhere = Identity(device=1, inode=2)

    with pytest.raises(SourceUnsure, match="may not be mounted"):
        seen_from(tree, same_host=False, identity=elsewhere).prove_absent(f"{tree}/gone")
    assert seen_from(tree, same_host=False).prove_absent(f"{tree}/gone"), "the last file of a share may go: the inode is the file host's"
    (tree / "something").write_text("x")
    assert seen_from(tree, same_host=False, identity=elsewhere).prove_absent(f"{tree}/gone")


def test_a_share_that_fails_proves_nothing(tree: Path) -> None:
    deep = "/".join(["x" * 255] * 20)  # ENAMETOOLONG: an answer, but not that the file is gone

    with pytest.raises(SourceUnsure, match="nothing is deleted"):
        seen_from(tree).prove_absent(f"{tree}/{deep}")


def test_which_file_each_path_names_is_found_for_many_at_once(tree: Path) -> None:
    for path in ("a", "d/b", "d/c", "e/f/g"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    (tree / "link").symlink_to("a")
    (tree / "linked").symlink_to("d")
    paths = ["a", "d/b", "d/missing", "missing/x", "d/c", "a/below", "d", "e/f/g", "link", "linked/b", "a"]

    before = len(os.listdir("/proc/self/fd"))
    found = dict(zip(paths, seen_from(tree).inodes(f"{tree}/{path}" for path in paths), strict=True))

    files = {path: (tree / path).stat().st_ino for path in ("a", "d/b", "d/c", "e/f/g")}
    nothing = dict.fromkeys(("d/missing", "missing/x"))
    assert found == {**files, **nothing, **dict.fromkeys(("a/below", "d", "link", "linked/b"), 0)}
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_was_moved_away_is_not_gone_into_for_the_next_path_but_one(tree: Path, tmp_path: Path) -> None:
    """The way is kept to the last directory only, and let go of as soon as another is asked for."""
    for path in ("d/a", "d/b", "e/c"):
        (tree / path).parent.mkdir(exist_ok=True)
        (tree / path).write_text(path)
    source, before = seen_from(tree), len(os.listdir("/proc/self/fd"))
    root = source.open_root()

    with closing(DirectoryCache()) as directories:
        os.close(source.open(f"{tree}/d/a", root, directories).descriptor)
        (tree / "d").rename(tmp_path / "elsewhere")
        os.close(source.open(f"{tree}/e/c", root, directories).descriptor)
        with pytest.raises(Absent):
            source.open(f"{tree}/d/b", root, directories)
    os.close(root)

    assert len(os.listdir("/proc/self/fd")) == before
