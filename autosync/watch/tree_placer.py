"""Placing watches on a directory and on all directories below it, also those that links lead to."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..model import state_directory_mark as state_mark
from ..model.change import Change, Kind, Push
from ..model.keys import Keys, Source
from ..model.paths import slashed
from ..source.beneath import DIRECTORY_FLAGS, NotMirrored, open_directory_beneath, open_root
from ..source.link_limit import RATIO, LinkRules
from ..source.name_reader import has_state_mark
from .attribute_watches import AttributeWatches
from .symlinks import resolve_link
from .watched_tree import WatchedTree

log = logging.getLogger(__name__)

#: Errors of a directory that may not be opened or searched.
_DENIED = (errno.EACCES, errno.EPERM)

#: Number of files of a directory that are pushed together. A directory may hold more files than fit in memory.
_PUSHED_AT_ONCE = 1000


class _Pass(NamedTuple):
    """One pass through a tree.

    Attributes:
        root: descriptor of the source's root.
        source: contains the tree.
        appeared: whether the tree is new, so that its files are pushed.
    """

    root: int
    source: Source
    appeared: bool


class _Directory(NamedTuple):
    """A directory that is watched.

    Attributes:
        path: the path by which the pass reached it.
        real: its path without links, relative to the root.
        below: the paths of the directories in it that are to be watched, and of links to directories.
    """

    path: str
    real: str
    below: list[str]


class TreePlacer:
    """Places watches. A watch is placed before its directory is read, so that no file is missed between both.

    Args:
        keys: scope of the mirror.
        tree: where the watches and the links are kept.
        push: receives the files of trees that appeared.
        follow: whether links are followed.
        one_file_system: see `FileRules`.
        link_rules: which directories behind links are not watched.

    Attributes:
        unwatched: number of directories that the kernel refused to watch; set to 0 by the user of this class.
        reopened: number of directories that have become readable.
        without_room: number of directories behind links that are not watched since there are too many; set to 0 by the user of this class.
        is_stopped: set to end `place` before it has reached all directories.
    """

    def __init__(
        self,
        keys: Keys,
        tree: WatchedTree,
        push: Push,
        *,
        follow: bool,
        one_file_system: bool = False,
        link_rules: LinkRules | None = None,
    ) -> None:
        self._keys = keys
        self._tree = tree
        self._lock, self._watches, self._links = tree.lock, tree.watches, tree.links
        self._push = push
        self._follow = follow
        self._one_file_system = one_file_system
        self._attributes = AttributeWatches(keys, tree, follow=follow)
        self._link_rules = link_rules or LinkRules()
        self.unwatched = self.without_room = 0
        self.reopened = 0
        self.is_stopped = False

    def place(self, source: Source, top: str, *, appeared: bool) -> None:
        """Watch a directory and those below it.

        Args:
            source: contains the directory.
            top: path of the directory.
            appeared: whether it is new, so that its files are pushed.
        """
        try:
            root = open_root(source.root)
        except OSError as error:
            log.error("source %s cannot be watched: %s", source.root, error.strerror)
            return
        try:
            this_pass = _Pass(root, source, appeared)
            first = self._place_by_path(this_pass, top)
            waiting = [first] if first else []
            while waiting and not self.is_stopped:
                waiting += self._place_below(this_pass, waiting.pop())
        finally:
            os.close(root)

    def forget_unreadable(self, paths: Iterable[str]) -> None:
        """Forget unreadable directories that are gone."""
        self._attributes.forget(self._tree.unreadable, paths)

    def forget_beyond_links(self) -> None:
        """Make room for the directories behind links that are mirrored."""
        with self._lock:
            paths, links = list(self._watches), list(self._links)
        is_beyond = self._link_rules.is_beyond
        beyond = [path for path in paths if is_beyond(slashed(path))]
        links_beyond = [link for link in links if is_beyond(link)]
        with self._lock:
            for path in beyond:
                self._watches.forget(path)
            for link in links_beyond:
                self._links.forget(link)

    def follow_link(self, source: Source, link: str) -> bool:
        """Store where a link leads.

        Args:
            source: contains the link.
            link: path of the link.

        Returns:
            Whether the link leads to a directory that is to be entered.

        Raises:
            OSError: the source's root cannot be opened.
        """
        root = open_root(source.root)
        try:
            return self._follow_link(root, source, link)
        finally:
            os.close(root)

    def _follow_link(self, root: int, source: Source, link: str) -> bool:
        while True:
            target = resolve_link(root, source, link)
            with self._lock:
                if self._links.update(link, target):
                    return target.is_directory

    def _place_by_path(self, this_pass: _Pass, path: str) -> _Directory | None:
        """Watch one directory by its path, whatever links are on the way. Returns the directory if there is something below it to watch."""
        root, source, _ = this_pass
        try:
            real, descriptor = self._open(root, source, path)
        except NotMirrored:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, *_DENIED):
                log.warning("%s cannot be watched: %s; it is scanned every --rescan seconds", path, error.strerror)
            if error.errno not in _DENIED and self._tree.unreadable:
                self._attributes.forget(self._tree.unreadable, [path])
            return None
        return self._watch(this_pass, _Directory(path, real, []), descriptor)

    def _open(self, root: int, source: Source, path: str) -> tuple[str, int]:
        """Open a directory. Returns its path without links, relative to the root, and its descriptor."""
        try:
            return self._tree.open_directory(root, source, path, follow=self._follow)
        except OSError as error:
            if error.errno not in _DENIED or not self._add_unreadable(path, error):
                raise
        return self._tree.open_directory(root, source, path, follow=self._follow)  # its permissions may have changed meanwhile

    def _add_unreadable(self, path: str, error: OSError) -> bool:
        """Note that a directory is unreadable, so that it is watched when its permissions change. Returns whether that is new."""
        unreadable = self._tree.unreadable
        if path in unreadable.paths():
            return False
        log.warning(
            "%s cannot be watched: %s; this is tried again when its permissions change, and every --rescan seconds", path, error.strerror
        )
        self._attributes.observe(unreadable, [path])
        return True

    def _place_below(self, this_pass: _Pass, above: _Directory) -> Iterator[_Directory]:
        """Watch the directories in a directory, which is opened once for all of them. Yields those with something below to watch."""
        departures = self._tree.departures
        try:
            parent = open_directory_beneath(this_pass.root, above.real)
        except OSError:
            parent = -1  # the directory left, or its path is longer than the kernel accepts
        start = len(slashed(above.path))
        prefix = above.real and above.real + "/"
        try:
            for path in above.below:
                if self.is_stopped:
                    return
                name = path[start:]
                try:
                    descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)  # one name, and no link: it cannot lead out of the source
                except OSError:
                    found = self._place_by_path(this_pass, path)
                else:
                    found = self._watch(this_pass, _Directory(path, prefix + name, []), descriptor, departures)
                if found:
                    yield found
        finally:
            if parent >= 0:
                os.close(parent)

    def _watch(self, this_pass: _Pass, here: _Directory, descriptor: int, departures: int | None = None) -> _Directory | None:
        """Watch an open directory, and read it.

        Args:
            this_pass: the pass.
            here: the directory; receives what is below it.
            descriptor: an open descriptor of the directory; it is closed.
            departures: number of departures when the parent was opened by its path. If no directory-left event has been read since then,
                the path is still valid: if a directory left, its event is yet to be read, and will remove the watch. None: check the path
                with the kernel. That is also done while some directories are not watched, since their departure gives no event.

        Returns:
            The directory, if there is something below it to watch.
        """
        try:
            root, source, _ = this_pass
            if self._keys.is_state(slashed(source.root) + here.real):
                return None  # reached through a link
            if this_pass.appeared and here.real and has_state_mark(descriptor):
                return None
            if self._one_file_system and os.fstat(descriptor).st_dev not in self._devices(root):
                return None
            is_behind_link = here.path[len(slashed(source.root)) :] != here.real
            if is_behind_link and not self._has_room(here.path):
                return None
            self._add_watch(descriptor, here.path)
            self._check_searchable(descriptor, here.path)
            is_certain = departures == self._tree.departures and not self.unwatched
            if not is_certain and not _is_at(descriptor, root, here.real):
                with self._lock:  # it was moved meanwhile; the event of its new path causes a request of its own
                    self._tree.forget(here.path)
                return None
            if not source.is_file:
                self._read(this_pass, descriptor, here, is_behind_link=is_behind_link)
            return here if here.below else None
        finally:
            os.close(descriptor)

    def _has_room(self, directory: str) -> bool:
        """Whether a directory behind a link is watched. Links that lead to directories with further links multiply."""
        if self._link_rules.is_beyond(slashed(directory)):
            with self._lock:
                self._tree.forget(directory)
            return False
        behind = self._watches.further_paths + self.unwatched
        if directory in self._watches or behind < max(self._link_rules.most(), RATIO * len(self._watches)):
            return True
        if not self.without_room:
            log.warning(
                "links to directories lead to too many directories: some behind links are not watched, %s the first; what changes there is "
                "found by --rescan; --links=skip leaves links out", directory,
            )  # fmt: skip
        self.without_room += 1
        return False

    def _devices(self, root: int) -> set[int]:
        """The devices of the file systems that are watched: those of the root, and of PATHs inside it."""
        devices = {os.fstat(root).st_dev}
        for path in self._keys.inner_paths:
            with suppress(OSError):
                devices.add(os.stat(path).st_dev)
        return devices

    def _check_searchable(self, descriptor: int, directory: str) -> None:
        """Check that the files of a watched directory can be looked up. If not, it is watched anew when its permissions change."""
        unreadable = self._tree.unreadable
        try:
            os.stat(".", dir_fd=descriptor)
        except OSError as error:
            if error.errno not in _DENIED or not self._add_unreadable(directory, error):
                return
            self._check_searchable(descriptor, directory)  # its permissions may have changed meanwhile
        else:
            if unreadable and directory in unreadable.paths():
                self._attributes.forget(unreadable, [directory])
                self.reopened += 1

    def _add_watch(self, descriptor: int, directory: str) -> None:
        try:
            with self._lock:
                self._watches.add(descriptor, directory)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                log.warning("%s cannot be watched: %s; it is scanned every --rescan seconds", directory, error.strerror)
            self.unwatched += 1

    def _read(self, this_pass: _Pass, descriptor: int, here: _Directory, *, is_behind_link: bool) -> None:
        """Read a directory: find its subdirectories, follow its links, and push its files if they appeared. Files behind links are left to
        the following scan, since they may be too many. The state directory of an autosync is not watched: whatever else is in it was
        created after its mark."""
        below: list[str] = []
        links: list[str] = []
        files: list[str] = []
        prefix = slashed(here.path)
        appeared = this_pass.appeared
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(prefix + entry.name)
                    elif entry.name == state_mark.NAME and here.real:
                        with self._lock:
                            self._tree.forget(here.path)
                        return
                    elif self._follow and entry.is_symlink():
                        links.append(prefix + entry.name)
                    elif appeared:
                        files.append(prefix + entry.name)
                        if len(files) == _PUSHED_AT_ONCE:
                            self._push_files(files, is_behind_link=is_behind_link)
                            files = []
        except OSError as error:
            if error.errno != errno.ENOENT:  # a directory that is gone gives an event
                log.warning("%s cannot be read: %s", here.path, error.strerror)
        if appeared:
            self._request_links_to(below)
        for link in links:
            if self._follow_link(this_pass.root, this_pass.source, link):
                below.append(link)
            elif appeared:
                files.append(link)
        self._push_files(files, is_behind_link=is_behind_link)
        here.below.extend(path for path in below if self._keys.enters(path))

    def _push_files(self, files: Sequence[str], *, is_behind_link: bool) -> None:
        self._request_links_to(files)
        if files and not is_behind_link:
            self._push([Change(Kind.APPEARED, path) for path in files])

    def _request_links_to(self, paths: Iterable[str]) -> None:
        """Request the links that lead to these paths: a path that was created before its directory was watched has given no event."""
        with self._lock:
            for path in paths if self._links else ():
                self._tree.request_links(self._links.through(path))


def _is_at(descriptor: int, root: int, relative: str) -> bool:
    """Whether an open directory has this path below the root now, according to the kernel (proc_pid_fd(5)). True if the path is longer
    than the kernel can return."""
    try:
        top = os.readlink(f"/proc/self/fd/{root}")
        return os.readlink(f"/proc/self/fd/{descriptor}") == (slashed(top) + relative if relative else top)
    except OSError:
        return True
