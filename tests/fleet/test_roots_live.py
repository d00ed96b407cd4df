"""Roots and mount points that go away, or that are another tree, with real mounts: nothing that may only be hidden is deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from autosync.model.mirror import LONGEST_WATCHER_LEASE
from autosync.source.mounts import mounts_of
from lab.automount import Automounter
from lab.comparing import fill
from lab.disks import Disk
from lab.mounting import Mounts, mounts_of_test
from lab.parts import lacking
from lab.programs import Program, Programs
from lab.servers import Missing, Valkey, frozen, wait_until

KEYS = [f"{number:04}" for number in range(40)]


class Copy:
    """A mirror of a directory in another directory.

    Args:
        programs: starts the commands.
        directory: for source and target.
    """

    def __init__(self, programs: Programs, directory: Path) -> None:
        self._programs = programs
        self.source = directory / "source"
        self.source.mkdir(exist_ok=True)
        self.target = directory / "target"
        self.target.mkdir()

    def options(self, *more: str, paths: Sequence[Path] = ()) -> list[str]:
        to = ("--actor=file", f"--target-container={self.target}", f"--source-prefix={self.source}/")
        return [*to, *more, *map(str, paths or [self.source])]

    def once(self, *more: str, paths: Sequence[Path] = (), **environ: str) -> subprocess.CompletedProcess[str]:
        return self._programs.run("autosync", "--once", *self.options(*more, paths=paths), **environ)

    def live(self, *more: str, paths: Sequence[Path] = ()) -> Program:
        process = self._programs.start("autosync", "-v", *self.options(*more, paths=paths))
        wait_until(lambda: "mirroring" in process.output() and self.sent() == files_below(self.source), 60, "the first scan is done")
        return process

    def sent(self) -> set[str]:
        return files_below(self.target)


def accept(programs: Programs, kind: str) -> str:
    """What `autosync-ctl accept` has listed and accepted; "": nothing."""
    found = programs.run("autosync-ctl", "accept", kind, "--yes").stdout
    return "" if found == "nothing waits for acceptance\n" else found


def number_at(path: Path) -> int:
    """The number of the mount at a path."""
    return mounts_of(Path("/proc/self/mountinfo").read_bytes())[str(path)].number


def files_below(directory: Path) -> set[str]:
    found = (os.path.relpath(os.path.join(above, name), directory) for above, _, names in os.walk(directory) for name in names)
    return {path for path in found if ".autosync-" not in path}


@pytest.fixture
def copy(programs: Programs, tmp_path: Path) -> Copy:
    return Copy(programs, tmp_path)


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with mounts_of_test() as made:
        yield made


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    made: list[Disk] = []

    def make(name: str) -> Disk:
        try:
            made.append(Disk(tmp_path / f"{name}.ext4"))
        except Missing as missing:
            lacking(f"{missing} is not there")
        return made[-1]

    yield make
    for disk in made:
        disk.close()


# A root


@pytest.mark.parametrize("there", ["another tree", "nothing"])
def test_a_root_that_is_unmounted_while_it_runs_deletes_nothing(copy: Copy, disks: Callable[[str], Disk], there: str) -> None:
    if there != "nothing":
        fill(copy.source, *(f"other/{key}" for key in KEYS[:30]))
    disk = disks("one")
    disk.mount(copy.source)
    fill(copy.source, *KEYS)
    process = copy.live("--rescan=1", "--max-delete=100%")
    assert set(KEYS) <= copy.sent()

    disk.unmount()
    wait_until(lambda: "is another directory than before" in process.output(), 30, "it is noticed")
    line = f"{copy.source} {'holds no file' if there == 'nothing' else 'is not the directory that it was'}. 40 keys below it"
    wait_until(lambda: process.output().count(line) >= 2, 30, "two scans")
    assert set(KEYS) <= copy.sent()

    disk.mount(copy.source)
    (copy.source / KEYS[0]).unlink()
    fill(copy.source, "new")
    wait_until(lambda: copy.sent() == files_below(copy.source), 60, "it goes on")
    (copy.source / KEYS[1]).unlink()
    wait_until(lambda: copy.sent() == files_below(copy.source), 30, "deletions are seen")
    process.terminate()
    assert process.wait() == 0


def test_another_disk_with_the_same_device_and_inode_number_is_another_root(copy: Copy, disks: Callable[[str], Disk]) -> None:
    one, other = disks("one"), disks("other")
    one.mount(copy.source)
    fill(copy.source, *KEYS)
    process = copy.live("--rescan=0", "--max-delete=100%")
    before = os.stat(copy.source)

    one.unmount()
    one.insert_instead(other)
    one.mount(copy.source)
    assert os.path.samestat(os.stat(copy.source), before), "or it is another fault than the one that is meant"
    fill(copy.source, "else")

    wait_until(lambda: f"{copy.source} is not the directory that it was. 40 keys below it" in process.output(), 60, "it is scanned")
    wait_until(lambda: "else" in copy.sent(), 30, "it is sent")
    fill(copy.source, "later")
    wait_until(lambda: "later" in copy.sent(), 30, "it is watched")
    assert copy.sent() == {*KEYS, "else", "later"}
    process.terminate()
    assert process.wait() == 3


@pytest.mark.parametrize(
    ("there", "lost"), [("a marker file", "nothing"), ("another disk", "the ledger"), ("another disk", "the state directory")]
)
def test_a_root_that_is_not_the_one_that_is_remembered_deletes_nothing(
    copy: Copy, disks: Callable[[str], Disk], own_valkey: Valkey, tmp_path: Path, there: str, lost: str
) -> None:
    fill(copy.source, "NOT-MOUNTED")
    one, other = disks("one"), disks("other")
    one.mount(copy.source)
    fill(copy.source, *(f"d/{key}" for key in KEYS))
    options = ("--max-delete=100%", f"--broker={own_valkey.url}", f"--state-dir={tmp_path}/state", "--name=m")
    done = copy.once(*options)
    assert (done.returncode, len(copy.sent())) == (0, 40), done.stderr

    one.unmount()
    if there == "another disk":
        other.mount(copy.source)
        fill(copy.source, "e/else")
    if lost == "the ledger":
        connect(own_valkey.url).flushall()
    elif lost == "the state directory":
        shutil.rmtree(tmp_path / "state")
    for more in (["--dry-run"], [], []):
        done = copy.once(*options, *more)
        assert done.returncode == 3, done.stderr
        assert "delete" not in done.stdout
        assert f"{copy.source} is not the directory that it was. 40 keys below it that are not in the source are kept" in done.stderr
        assert "autosync-ctl accept --root" in done.stderr
    assert len(copy.sent()) == 41, "uploads go on"

    if there == "another disk":
        other.unmount()
    one.mount(copy.source)
    shutil.rmtree(copy.source / "d")
    fill(copy.source, *(f"d/{key}" for key in KEYS[:30]))
    done = copy.once(*options, "--accept-existing")
    assert (done.returncode, len(copy.sent())) == (0, 30), done.stderr


def test_another_directory_that_holds_half_of_the_keys_is_the_root_from_then_on(copy: Copy, tmp_path: Path) -> None:
    fill(copy.source, *KEYS)
    assert copy.once().returncode == 0
    copy.source.rename(tmp_path / "old")
    fill(copy.source, *KEYS[:20], "new")

    done = copy.once("--max-delete=100%")
    assert (done.returncode, copy.sent()) == (0, {*KEYS[:20], "new"}), done.stderr
    assert "is not the directory" not in done.stderr

    for key in KEYS[1:20]:
        (copy.source / key).unlink()
    done = copy.once("--max-delete=100%")
    assert (done.returncode, copy.sent()) == (0, {KEYS[0], "new"}), "it is remembered"


def test_what_another_root_has_sent_does_not_count_as_its_keys(copy: Copy, tmp_path: Path) -> None:
    fill(copy.source, *KEYS)
    assert copy.once().returncode == 0
    copy.source.rename(tmp_path / "old")
    fill(copy.source, *(f"other/{number}" for number in range(200)))

    for _ in range(3):
        assert copy.once("--max-delete=100%").returncode == 3
        assert len(copy.sent()) == 240


def test_a_link_that_is_switched_from_release_to_release_is_followed(copy: Copy, tmp_path: Path) -> None:
    for number in (7, 8, 9):
        fill(tmp_path, f"releases/{number}/only-in-{number}", f"releases/{number}/d/also-in-{number}")
        (tmp_path / f"releases/{number}/version").write_text(f"{number}")  # as large as the others, and older than what was sent
    current = tmp_path / "current"
    current.symlink_to("releases/7")
    options = (f"--source-prefix={current}/", "--max-delete=100%")
    assert copy.once(*options, paths=[current]).returncode == 0

    current.unlink()
    current.symlink_to("releases/8")
    done = copy.once(*options, paths=[current])
    assert (done.returncode, copy.sent()) == (0, {"version", "only-in-8", "d/also-in-8"}), done.stderr
    assert (copy.target / "version").read_text() == "8"

    process = copy._programs.start("autosync", *copy.options(*options, paths=[current]))
    wait_until(lambda: "mirroring" in process.output(), 30, "it runs")
    (tmp_path / "next").symlink_to("releases/9")
    (tmp_path / "next").rename(current)
    wait_until(lambda: copy.sent() == {"version", "only-in-9", "d/also-in-9"}, 30, "the switch is followed live")
    wait_until(lambda: (copy.target / "version").read_text() == "9", 30, "its content, too")


# A PATH inside another one


@pytest.mark.parametrize("there", ["nothing", "a marker file"])
def test_a_path_inside_another_one_keeps_its_protection(copy: Copy, disks: Callable[[str], Disk], there: str) -> None:
    inner = copy.source / "disk"
    fill(copy.source, *(["disk/NOT-MOUNTED"] if there == "a marker file" else []), "outside")
    inner.mkdir(exist_ok=True)
    disk = disks("one")
    disk.mount(inner)
    fill(inner, *KEYS)
    paths = [copy.source, inner]
    done = copy.once(paths=paths)
    assert (done.returncode, len(copy.sent())) == (0, 41), done.stderr

    disk.unmount()
    (copy.source / "outside").unlink()
    fill(copy.source, "new")
    done = copy.once("--max-delete=100%", paths=paths)
    assert done.returncode == 3
    assert f"{inner} {'holds no file' if there == 'nothing' else 'is not the directory that it was'}. 40 keys below it" in done.stderr
    marker = {"disk/NOT-MOUNTED"} if there == "a marker file" else set()
    assert copy.sent() == {f"disk/{key}" for key in KEYS} | {"new"} | marker, "the outer PATH goes on"


# Below a root


def test_a_disk_that_was_mounted_again_before_it_was_noticed_is_watched(
    copy: Copy, mounts: Mounts, disks: Callable[[str], Disk], tmp_path: Path
) -> None:
    """The kernel gives the numbers of the mount and of its device to the next one; only the watches are gone."""
    share, disk = copy.source / "share", disks("one")
    share.mkdir()
    (tmp_path / "fillers").mkdir()
    disk.mount(share)
    fill(copy.source, "outside", "share/a")
    process = copy.live("--rescan=0")
    before = number_at(share)

    def has_the_number_again() -> bool:
        """The kernel gives the lowest free number: those that others have freed below it are used up first."""
        disk.unmount()
        disk.mount(share)
        if number_at(share) != before:
            filler = tmp_path / f"fillers/{len(os.listdir(tmp_path / 'fillers'))}"
            mounts.mount(filler)
            if number_at(filler) >= before:
                mounts.unmount(filler)
        return number_at(share) == before

    with frozen(process):
        wait_until(has_the_number_again, 60, "the mount has its number again, or this test shows nothing")
    fill(copy.source, "share/b")  # the watch of the mount point may not be there yet: the scan finds it
    wait_until(lambda: copy.sent() == files_below(copy.source), 60, "it is scanned")

    fill(copy.source, "share/c")
    wait_until(lambda: copy.sent() == files_below(copy.source), 60, "it is watched")



@pytest.mark.parametrize("how", ["unmounted", "its mount point's directory is removed"])
def test_what_is_unmounted_while_it_runs_has_not_left(copy: Copy, disks: Callable[[str], Disk], how: str) -> None:
    disk = disks("one")
    share = copy.source / "media/disk"
    share.mkdir(parents=True)
    fill(copy.source, "outside", "media/beside")
    disk.mount(share)
    fill(share, *KEYS, *(f"d/{key}" for key in KEYS))
    process = copy.live("--rescan=1", "--max-delete=100%")

    disk.unmount()
    if how != "unmounted":
        shutil.rmtree(copy.source / "media")
    what = "is empty" if how == "unmounted" else "is gone"
    wait_until(lambda: process.output().count(f"{share} {what}. 80 keys below it") >= 2, 60, "two scans")
    left = {"outside"} if "directory" in how else {"outside", "media/beside"}
    wait_until(lambda: len(copy.sent()) == 80 + len(left), 30, "what was deleted is")
    assert {f"media/disk/{key}" for key in KEYS} <= copy.sent()

    share.mkdir(parents=True, exist_ok=True)
    disk.mount(share)
    fill(share, "new", "d/new")
    wait_until(lambda: {"media/disk/new", "media/disk/d/new"} <= copy.sent(), 60, "it is mounted again")
    assert process.output().count(f"uploaded media/disk/d/{KEYS[7]}") == 1, "nothing is sent again"
    shutil.rmtree(share / "d")
    (share / KEYS[0]).unlink()
    wait_until(lambda: copy.sent() == files_below(copy.source), 60, "it is watched again")
    process.terminate()
    assert process.wait() == 0


@pytest.mark.parametrize("kind", ["a disk", "a bind mount"])
def test_a_share_below_the_root_that_is_away_at_a_start_keeps_its_keys(
    copy: Copy, disks: Callable[[str], Disk], mounts: Mounts, tmp_path: Path, kind: str
) -> None:
    share = copy.source / "share"
    share.mkdir()
    (tmp_path / "bound").mkdir()
    if kind == "a disk":
        disks("one").mount(share)
    else:
        mounts.mount(share, "--bind", str(tmp_path / "bound"))
    fill(copy.source, *KEYS, *(f"share/{key}" for key in KEYS))
    assert os.path.ismount(share) or kind == "a bind mount"
    assert copy.once("--max-delete=100%").returncode == 0
    before = copy.sent()

    mounts.unmount(share)
    assert os.listdir(share) == []
    (copy.source / KEYS[0]).unlink()
    for _ in range(2):
        done = copy.once("--max-delete=100%")
        assert done.returncode == 3, done.stderr
        assert f"{share} is empty. 40 keys below it that are not in the source are kept" in done.stderr
        assert "autosync-ctl accept --mount" in done.stderr
        assert copy.sent() == before - {KEYS[0]}
    fill(share, "marker")
    assert copy.once("--max-delete=100%").returncode == 3
    assert copy.sent() == before - {KEYS[0]} | {"share/marker"}


def test_a_file_system_that_is_mounted_over_files_hides_them(copy: Copy, mounts: Mounts) -> None:
    fill(copy.source, *KEYS, *(f"d/{key}" for key in KEYS))
    process = copy.live("--rescan=1", "--max-delete=100%")
    before = copy.sent()

    mounts.mount(copy.source / "d")
    fill(copy.source, "d/new")
    wait_until(lambda: "d/new" in copy.sent(), 30, "it is watched")
    line = f"{copy.source}/d was mounted over files that the target holds. 40 keys below it"
    wait_until(lambda: process.output().count(line) >= 2, 60, "two scans")
    assert copy.sent() == before | {"d/new"}

    mounts.unmount(copy.source / "d")
    wait_until(lambda: copy.sent() == before, 60, "all is as before")
    (copy.source / "d" / KEYS[3]).unlink()
    wait_until(lambda: copy.sent() == files_below(copy.source), 30, "it is watched")
    shutil.rmtree(copy.source / "d")
    wait_until(lambda: copy.sent() == set(KEYS), 30, "it is an ordinary directory")
    process.terminate()
    assert process.wait() == 0


def test_a_file_that_is_saved_right_before_its_disk_is_unmounted_keeps_its_object(copy: Copy, mounts: Mounts) -> None:
    share = copy.source / "share"
    mounts.mount(share)
    fill(copy.source, *KEYS, *(f"share/{key}" for key in KEYS))
    process = copy.live("--rescan=0", "--settle=3")
    before = copy.sent()

    for _ in range(2):  # the second one waits for the end of the settle time
        for key in KEYS:
            (share / key).write_text("x")
    mounts.unmount(share)
    fill(copy.source, "later")

    wait_until(lambda: "later" in copy.sent(), 60, "the changes were processed")
    process.terminate()
    process.wait()
    assert copy.sent() == before | {"later"}


def test_a_directory_that_is_renamed_with_a_share_in_it_has_left(copy: Copy, mounts: Mounts, tmp_path: Path) -> None:
    mounts.mount(copy.source / "a/share")
    fill(copy.source, *KEYS, *(f"a/share/{key}" for key in KEYS))
    process = copy.live("--rescan=0")

    mounts.move(copy.source / "a", copy.source / "b")

    wait_until(lambda: copy.sent() == files_below(copy.source), 60, "all keys have their new names")
    process.terminate()
    process.wait()


def test_what_is_deleted_in_a_share_is_deleted(copy: Copy, mounts: Mounts) -> None:
    share = copy.source / "share"
    mounts.mount(share)
    fill(copy.source, *KEYS, *(f"share/d/{key}" for key in KEYS), *(f"share/{key}" for key in KEYS))
    process = copy.live("--rescan=0", "--max-delete=0")

    shutil.rmtree(share / "d")
    for key in KEYS:
        (share / key).unlink()

    wait_until(lambda: copy.sent() == set(KEYS), 60, "all that was deleted is gone")
    process.terminate()
    assert process.wait() == 0


def test_links_into_a_share_that_is_away_keep_their_keys(copy: Copy, mounts: Mounts) -> None:
    share = copy.source / "share"
    mounts.mount(share)
    fill(copy.source, "outside", *(f"share/d/{key}" for key in KEYS))
    for name, target in {"to-file": f"share/d/{KEYS[0]}", "to-directory": "share/d", "to-share": "share"}.items():
        (copy.source / name).symlink_to(target)
    assert copy.once().returncode == 0
    before = copy.sent()
    assert len(before) == 1 + 1 + 3 * 40

    mounts.unmount(share)
    done = copy.once("--max-delete=100%")
    assert (done.returncode, copy.sent()) == (3, before), done.stderr


def test_one_file_system_leaves_others_out_and_the_target_keeps_what_it_has(copy: Copy, mounts: Mounts) -> None:
    share = copy.source / "share"
    mounts.mount(share)
    fill(copy.source, "a", "share/before")
    assert copy.once().returncode == 0
    fill(copy.source, "b", "share/new")
    (copy.source / "link").symlink_to("share/new")
    (share / "before").unlink()

    done = copy.once("--one-file-system")
    assert (done.returncode, copy.sent()) == (0, {"a", "b", "share/before"}), done.stderr
    assert f"{share} is on another file system" in done.stderr

    process = copy._programs.start("autosync", *copy.options("--one-file-system", "--rescan=1"))
    wait_until(lambda: "mirroring" in process.output(), 30, "it runs")
    fill(copy.source, "share/newer", "c")
    wait_until(lambda: "c" in copy.sent(), 30, "the own file system is watched")
    mounts.unmount(share)
    scans = process.output().count("compared")
    wait_until(lambda: process.output().count("compared") >= scans + 2, 30, "two scans")
    assert copy.sent() == {"a", "b", "c", "share/before"}
    process.terminate()
    process.wait()


def test_the_ledger_has_the_remembered_roots(copy: Copy, own_valkey: Valkey, mounts: Mounts) -> None:
    mounts.mount(copy.source / "share")
    fill(copy.source, "a", "share/b")
    assert copy.once(f"--broker={own_valkey.url}", "--name=m").returncode == 0

    text, _ = Ledger(connect(own_valkey.url), "m").root_records.read()
    assert str(copy.source) in text
    assert f"{copy.source}/share" in text


@pytest.fixture
def automounter(copy: Copy, tmp_path: Path) -> Iterator[Automounter]:
    fill(tmp_path, *(f"behind/alice/{key}" for key in KEYS), "behind/alice/d/f")
    made = Automounter(tmp_path / "behind", copy.source / "auto", tmp_path / "tried")
    yield made
    made.close()


def test_a_share_that_expired_is_mounted_for_a_scan(copy: Copy, automounter: Automounter) -> None:
    fill(copy.source, "outside")
    assert len(os.listdir(automounter.at / "alice")) == 41
    assert copy.once("--max-delete=100%").returncode == 0
    before = copy.sent()
    assert len(before) == 42

    automounter.expire()
    assert os.listdir(automounter.at) == [], "or the share is seen before it is mounted"
    tried = len(automounter.tried())
    done = copy.once("--max-delete=100%")
    assert (done.returncode, copy.sent()) == (0, before), done.stderr
    assert len(automounter.tried()) > tried

    automounter.expire()
    automounter.break_off()
    done = copy.once("--max-delete=100%")
    assert (done.returncode, copy.sent()) == (3, before), done.stderr
    assert f"{automounter.at}/alice cannot be mounted. 41 keys below it that are not in the source are kept" in done.stderr
    automounter.break_off(is_broken=False)
    (copy.source.parent / "behind/alice" / KEYS[0]).unlink()
    done = copy.once("--max-delete=100%")
    assert (done.returncode, copy.sent()) == (0, before - {f"auto/alice/{KEYS[0]}"}), done.stderr


def test_that_a_share_expires_is_no_event(copy: Copy, automounter: Automounter, own_valkey: Valkey) -> None:
    fill(copy.source, "outside")
    assert len(os.listdir(automounter.at / "alice")) == 41
    process = copy.live("--rescan=0", f"--broker={own_valkey.url}", "--name=m")
    lease = Ledger(connect(own_valkey.url), "m").watcher_lock
    before = copy.sent()
    assert len(before) == 42

    automounter.expire()
    tried = len(automounter.tried())
    for _ in range(3):
        wait_until(lambda: lease.holder()[1] < LONGEST_WATCHER_LEASE - 0.5, what="the lease grows old")  # type: ignore[index]
        wait_until(lambda: lease.holder()[1] > LONGEST_WATCHER_LEASE - 0.5, what="a round of the main loop")  # type: ignore[index]
    fill(copy.source, "later")
    wait_until(lambda: "later" in copy.sent(), 30, "changes elsewhere are sent")
    assert (automounter.mounted(), len(automounter.tried())) == ([], tried), "it is not used"
    assert before <= copy.sent()
    assert "autosync-ctl accept" not in process.output()

    assert len(os.listdir(automounter.at / "alice")) == 41  # somebody uses it
    fill(automounter.at, "alice/new", "alice/d/new")
    wait_until(lambda: {"auto/alice/new", "auto/alice/d/new"} <= copy.sent(), 30, "it is watched again")
    (automounter.at / "alice" / KEYS[0]).unlink()
    wait_until(lambda: copy.sent() == files_below(copy.source), 30, "deletions are seen")
    process.terminate()
    assert process.wait() == 0


def test_a_share_that_is_gone_for_good_is_accepted_while_it_runs(copy: Copy, mounts: Mounts, programs: Programs) -> None:
    share = copy.source / "share"
    mounts.mount(share)
    fill(copy.source, *KEYS, *(f"share/{key}" for key in KEYS))
    process = copy.live("--rescan=1", "--max-delete=100%")

    mounts.unmount(share)
    share.rmdir()
    wait_until(lambda: f"{share} is gone. 40 keys below it" in process.output(), 30, "it is noticed")
    assert programs.run("autosync-ctl", "accept", "--root", "--yes").stdout == "nothing waits for acceptance\n"
    assert len(copy.sent()) == 80
    status = programs.run("autosync-ctl", "status").stdout
    assert f"  attention   {share} is gone; keys below it are kept\n" in status

    accepted = wait_until(lambda: accept(programs, "--mount"), 30, "it waits", pause=0.2)
    assert f"mount {share} is gone; 40 keys of the target are kept for that" in accepted
    wait_until(lambda: copy.sent() == set(KEYS), 30, "the keys are gone")
    process.terminate()
    assert process.wait() == 0


def test_another_root_is_accepted_for_the_next_start(copy: Copy, tmp_path: Path, programs: Programs) -> None:
    fill(copy.source, *KEYS)
    assert copy.once("--max-delete=100%").returncode == 0
    fill(tmp_path, "other/a", "other/d/b")

    copy.source.rename(tmp_path / "old")
    (tmp_path / "other").rename(copy.source)
    assert copy.once("--max-delete=100%").returncode == 3
    assert len(copy.sent()) == 42, "uploads go on"

    accepted = wait_until(lambda: accept(programs, "--root"), 30, "it waits", pause=0.2)
    assert f"root {copy.source} is not the directory that it was; 40 keys of the target are kept for that" in accepted
    done = copy.once("--max-delete=100%")
    assert (done.returncode, copy.sent()) == (0, {"a", "d/b"}), done.stderr
    assert "accept --root" not in done.stderr, "an operator has accepted it"
