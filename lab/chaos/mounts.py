"""Accidents with mounts, listed in `MOUNT_ACCIDENTS`: file systems come and go, the source is swapped, a box loses its share.

Each of them checks the kernel's table of mounts, and all is as before at its end. While something is away, its files count as being there:
nobody has deleted them. So a key below it that is missing in the target is a broken promise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from .accidents import ACCIDENTS, operate
from .file_systems import Share, SourceDisk
from .mount_table import count_at, mount, move, unmount
from .operations import OPERATIONS
from .quiet import Chaos
from .versions import digest
from .world import World

#: The most file systems below the source.
_MOST_SHARES = 2
#: Files of each that no operation changes: another file system that lacks them is not taken for it.
_ANCHORS = 5
#: Accidents that may happen while something is away.
_MEANWHILE = ("restart", "kill", "kill a worker", "kill the broker", "empty the broker", "freeze the target")
#: Operations that need no other path than that of a file, so that they can be done to the source by another path.
_PLAIN = ("create", "create by rename", "overwrite in place", "append", "delete", "rename")


def lose_share(chaos: Chaos, chance: Random) -> None:
    """A file system below the source is unmounted; its mount point may go too."""
    share, part = _a_share(chaos, chance)
    operate(chaos, chance)
    how = chance.choice(("unmounted", "unmounted lazily", "unmounted, and its mount point is removed"))
    with _without_share(chaos, share, part, *(["--lazy"] if how == "unmounted lazily" else [])):
        chaos.world.note(f"{part.key(part.root)!r} is {how}")
        if how.endswith("removed"):
            share.at.rmdir()
        _meanwhile(chaos, chance)
        share.at.mkdir(exist_ok=True)
    operate(chaos, chance)


def replace_share(chaos: Chaos, chance: Random) -> None:
    """Another file system is mounted for a while in the place of one: an empty one, or one with another file."""
    share, part = _a_share(chaos, chance)
    _settle(chaos)
    with _without_share(chaos, share, part), _other_files(chaos, chance, share.at, share.at) as what:
        chaos.world.note(f"{what} is mounted instead of {part.key(part.root)!r}")
        _meanwhile(chaos, chance)
    operate(chaos, chance)


def cover_directory(chaos: Chaos, chance: Random) -> None:
    """A file system is mounted over a directory with files for a while."""
    _settle(chaos)
    directory = chaos.world.a_directory_with_files(chance, _ANCHORS)
    if directory is None:
        directory = chaos.world.free_path(chance)
        directory.mkdir()
        for number in range(_ANCHORS):
            chaos.world.write(directory / f"covered {number}", chaos.world.a_content(chance, 100))
        _settle(chaos)
    chaos.world.close_writers(directory)
    chaos.world.reserved.add(directory)
    with _other_files(chaos, chance, directory, directory) as what:
        chaos.world.note(f"{what} is mounted over {chaos.world.key(directory)!r}")
        _meanwhile(chaos, chance)
    # Until a scan has found its files again, it counts as a mount point that lacks them, also if they are moved away: its watches are not
    # back yet, so this looks like a share that was unmounted, and whose mount point was removed. Then all waits for an acceptance, which
    # `quiet` does not expect where nothing is withheld. So operations leave the directory out until then.
    _settle(chaos)
    chaos.world.reserved.discard(directory)
    operate(chaos, chance)


def lose_source(chaos: Chaos, chance: Random) -> None:
    """The source is unmounted: its mount point is empty, or has a file of its own. Files may be changed on its disk meanwhile."""
    disk = _disk(chaos)
    _settle(chaos)
    with_disk = chance.random() < 0.5
    with _without_source(chaos, disk, with_disk=with_disk):
        chaos.world.note(f"the source is unmounted{', and its disk' if with_disk else ''}")
        marker = chaos.world.root / "NOT-MOUNTED"
        has_file = chance.random() < 0.7
        if has_file:
            _pass_time(chaos, chance)
            chaos.world.reserved.add(marker)  # what is done to the source by its other path finds no such file there
            _write_other(chaos, chance, marker)
            chaos.world.note("its mount point has a file")
        if not with_disk and chance.random() < 0.5:
            _operate_on_disk(chaos, chance, disk)
        _meanwhile(chaos, chance, is_source=True)
        if has_file:
            chaos.world.book.change(gone=[chaos.world.key(marker)])
            marker.unlink()
            marker.parent.rmdir()
            chaos.world.reserved.discard(marker)
    operate(chaos, chance)


def cover_source(chaos: Chaos, chance: Random) -> None:
    """Another tree is mounted over the source for a while."""
    disk = _disk(chaos)
    _settle(chaos)
    with _away(chaos), _other_files(chaos, chance, disk.top, chaos.world.root) as what:
        chaos.world.note(f"{what} is mounted over the source")
        _meanwhile(chaos, chance, is_source=True)
    chaos.world.note("the source is there again")
    operate(chaos, chance)


def box_loses_source(chaos: Chaos, chance: Random) -> None:
    """An upload box loses its share: it is not mounted there any more, or something empty is mounted over it."""
    disk, box = _disk(chaos), chaos.box
    assert box is not None
    box.ensure()
    process = box.process
    operate(chaos, chance)
    is_covered = chance.random() < 0.5
    if is_covered:
        mount(disk.top, process=process)
    else:
        move(disk.top, box.away, process)
        assert not box.sees_source(), "the box still has its share"
    chaos.world.note(f"the box sees {'an empty file system instead of its share' if is_covered else 'nothing of its share'}")
    _pass_time(chaos, chance)
    operate(chaos, chance, 15)
    _pass_time(chaos, chance)
    if box.runs() and box.process == process:  # another one begins with all that there is
        if is_covered:
            unmount(disk.top, "--lazy", process=process)
        else:
            move(box.away, disk.top, process)
        assert box.sees_source(), "the box has its share again"
    chaos.world.note("the box sees its share again")
    operate(chaos, chance)


def box_lacks_share(chaos: Chaos, chance: Random) -> None:
    """An upload box does not have a file system that is mounted below the source."""
    share, part = _a_share(chaos, chance)
    box = chaos.box
    assert box is not None
    box.ensure()
    process = box.process
    assert count_at(share.at, process), "what is mounted on the host is mounted on the box"
    move(share.at, box.away, process)
    assert count_at(share.at), "it is still mounted on the host"
    chaos.world.note(f"the box lacks {part.key(part.root)!r}")
    for _ in range(chance.randrange(2, 10)):
        part.operate(chance)
    _pass_time(chaos, chance)
    if box.runs() and box.process == process:
        move(box.away, share.at, process)
    chaos.world.note("the box has it again")
    operate(chaos, chance)


def unmount_all(chaos: Chaos) -> None:
    """Unmount the source and the file systems below it, after autosync has ended. An accident may have ended in between, so that something
    is mounted over them."""
    for key in list(chaos.world.writers):
        chaos.world.close_writer(key)
    _disk(chaos).close()
    for share, _ in chaos.shares:
        share.close()
    chaos.shares.clear()


def _disk(chaos: Chaos) -> SourceDisk:
    assert chaos.disk is not None, "these accidents need a source on a disk"
    return chaos.disk


def _a_share(chaos: Chaos, chance: Random) -> tuple[Share, World]:
    """One of the file systems below the source, maybe a new one."""
    if len(chaos.shares) < _MOST_SHARES and (not chaos.shares or chance.random() < 0.3):
        at = chaos.world.root / f"share {len(chaos.shares) + 1}"
        chaos.world.reserved.add(at)
        at.mkdir()
        share = _disk(chaos).share(at, has_disk=len(chaos.shares) % 2 == 0)
        share.mount()
        part = chaos.world.part(at)
        chaos.world.note(f"{part.key(at)!r} is mounted for the first time")
        for number in range(_ANCHORS):
            part.write_anchor(at / f"anchor {number}")
        chaos.world.parts.append(part)
        chaos.shares.append((share, part))
        operate(chaos, chance)
        if chaos.waits_for_doubt:
            _settle(chaos)  # only what is known can be in doubt
    return chance.choice(chaos.shares)


@contextmanager
def _without_share(chaos: Chaos, share: Share, part: World, *options: str) -> Iterator[None]:
    """A with-block in which a file system is not mounted."""
    chaos.world.parts.remove(part)
    part.close_writers(share.at)
    unmount(share.at, *options)
    yield
    share.mount()
    chaos.world.parts.append(part)
    chaos.world.note(f"{part.key(part.root)!r} is mounted again")


@contextmanager
def _without_source(chaos: Chaos, disk: SourceDisk, *, with_disk: bool) -> Iterator[None]:
    """A with-block in which the source is not mounted, nor what is mounted below it."""
    with _away(chaos):
        for share, _ in chaos.shares:
            unmount(share.at)
        disk.unmount(with_disk=with_disk)
        yield
        disk.mount()
        chaos.world.note("the source is mounted again")
        for share, _ in chaos.shares:
            share.mount()


@contextmanager
def _away(chaos: Chaos) -> Iterator[None]:
    """A with-block in which nothing can be done to the source."""
    chaos.world.close_writers(chaos.world.root)
    chaos.world.is_away = True
    yield
    chaos.world.is_away = False


@contextmanager
def _other_files(chaos: Chaos, chance: Random, at: Path, directory: Path) -> Iterator[str]:
    """A with-block in which another file system is mounted, with a file or none in a directory; gives a description."""
    mount(at)
    path = directory / f"other {chance.randrange(1000)}"
    has_file = chance.random() < 0.6
    if has_file:
        _write_other(chaos, chance, path)
    yield "a file system with another file" if has_file else "an empty file system"
    chaos.world.book.change(gone=[chaos.world.key(path)])
    unmount(at)


def _write_other(chaos: Chaos, chance: Random, path: Path) -> None:
    """Write a file where the source is not."""
    data = chaos.world.a_content(chance, 100)
    chaos.world.book.will_have(chaos.world.key(path), digest(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _operate_on_disk(chaos: Chaos, chance: Random, disk: SourceDisk) -> None:
    """Change the source by its other path, while it is not mounted."""
    other = chaos.world.at_other_path(disk.backing)
    for _ in range(chance.randrange(1, 8)):
        name = chance.choice(_PLAIN)
        chaos.world.note(f"on the disk: {name}: {OPERATIONS[name][1](other, chance) or 'nothing to do it with'}")


def _settle(chaos: Chaos) -> None:
    """Have all files in the target: one that was never sent cannot be missed there, and half of nothing is found anywhere."""
    chaos.quiet()


def _meanwhile(chaos: Chaos, chance: Random, *, is_source: bool = False) -> None:
    """What happens while something is away: operations elsewhere, a scan, another accident, or only some time.

    Args:
        chaos: the laboratory.
        chance: chooses.
        is_source: whether it is the source. If that is empty, its scans fail, and nothing waits for acceptance.
    """
    codes, chaos.exit_codes = chaos.exit_codes, (0, 3)
    operate(chaos, chance)
    if chance.random() < 0.4:
        name = chance.choice(_MEANWHILE)
        ACCIDENTS[name](chaos, chance)
    if chance.random() < 0.5:
        chaos.scan()
        chaos.world.note("all was scanned")
    else:
        _pass_time(chaos, chance)
    operate(chaos, chance)
    if chaos.waits_for_doubt and not is_source:
        chaos.wait_for_doubt()
    chaos.check()
    chaos.exit_codes = codes


def _pass_time(chaos: Chaos, chance: Random) -> None:
    """Autosync checks its roots once a second."""
    time.sleep(chance.choice((0.0, 0.3, 1.5, 2.5)))
    chaos.check()


MOUNT_ACCIDENTS: dict[str, Callable[[Chaos, Random], None]] = {
    "lose a share": lose_share,
    "replace a share": replace_share,
    "cover a directory": cover_directory,
    "lose the source": lose_source,
    "cover the source": cover_source,
    "a box loses its share": box_loses_source,
    "a box lacks a share": box_lacks_share,
}
