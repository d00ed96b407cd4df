"""What a walk finds: single files, files of a directory together, and paths that are skipped."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..model.file_rules import FileRules

#: Kinds of files that are not sent, in words.
_SPECIAL = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


class Entry(NamedTuple):
    """A file found on the disk.

    Attributes:
        path: the file's absolute path; with a slash at its end, the entry is for everything below that directory.
        size: the file's size in bytes.
        changed: max(mtime, ctime), or when the way to the file changed, if that is later; in seconds since the epoch.
        mtime_ns: the file's modification time, in nanoseconds since the epoch.
        skipped: the reason why it is not sent; empty if it is sent.
        keep_in_target: for a skipped file, whether the target keeps what it has under this name.
        links: how many names the file has (hard links); 0 if there is no file.
        inode: the file's device and inode, see `inode_of`; 0 if there is no file.
        behind_link: whether its path leads through a link to a directory.
    """

    path: str
    size: int
    changed: float
    mtime_ns: int
    skipped: str = ""
    keep_in_target: bool = False
    links: int = 0
    inode: int = 0
    behind_link: bool = False


@dataclass(slots=True)
class Run:
    """Consecutive files of one directory.

    Attributes:
        directory: the directory's path, with a slash at its end.
        names: the names of the files, in order.
        stats: the result of lstat(2) for each.
        path_changed: when the way to the directory changed last (see `Level`), in seconds since the epoch.
        behind_link: whether the path of the directory leads through a link.
    """

    directory: str
    names: list[str]
    stats: list[os.stat_result]
    path_changed: float
    behind_link: bool = False

    def entry(self, number: int) -> Entry:
        """The file with this number, counted from 0."""
        stats = self.stats[number]
        changed = max(stats.st_mtime, stats.st_ctime, self.path_changed)
        path = self.directory + self.names[number]
        return Entry(
            path, stats.st_size, changed, stats.st_mtime_ns, links=stats.st_nlink, inode=inode_of(stats), behind_link=self.behind_link
        )  # fmt: skip

    def first(self, count: int) -> Run:
        """The first of the files."""
        return Run(self.directory, self.names[:count], self.stats[:count], self.path_changed, self.behind_link)

    def with_several_names(self) -> Iterator[tuple[str, int]]:
        """The paths and inodes of the files that have more than one name."""
        if max([one.st_nlink for one in self.stats]) > 1:
            for name, stats in zip(self.names, self.stats, strict=True):
                if stats.st_nlink > 1:
                    yield self.directory + name, inode_of(stats)

    def sizes(self) -> list[int]:
        """The sizes of the files, in bytes."""
        return [one.st_size for one in self.stats]

    def changed(self) -> float:
        """When the last of the files changed, as `Entry.changed`."""
        return max(max([one.st_mtime for one in self.stats]), max([one.st_ctime for one in self.stats]), self.path_changed)


def inode_of(stats: os.stat_result) -> int:
    """Device and inode number of a file, as one number."""
    return stats.st_dev << 64 | stats.st_ino


def entry_at(path: str, stats: os.stat_result, rules: FileRules) -> Entry | None:
    """Classify the result of lstat(2): a file, something that is skipped, or None for what is ignored (a directory, a link)."""
    if stat.S_ISREG(stats.st_mode):
        reason = rules.reason_to_skip(stats.st_size)
        if reason:
            return Entry(path, 0, 0.0, 0, reason, keep_in_target=True, links=stats.st_nlink, inode=inode_of(stats))
        changed = max(stats.st_mtime, stats.st_ctime)
        return Entry(path, stats.st_size, changed, stats.st_mtime_ns, links=stats.st_nlink, inode=inode_of(stats))
    special = _SPECIAL.get(stat.S_IFMT(stats.st_mode), "")
    return Entry(path, 0, 0.0, 0, f"is {special}") if special else None


def is_kept_in_target(skipped: str) -> bool:
    """`Entry.keep_in_target` of a path that is skipped, by the reason."""
    return skipped.removeprefix("is ") not in _SPECIAL.values()


def on_other_file_system(path: str) -> Entry:
    """A path that is left out because of `FileRules.one_file_system`."""
    return Entry(path, 0, 0.0, 0, "is on another file system", keep_in_target=True)
