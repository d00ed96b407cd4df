"""The directory on which all happens: what is there to choose from, and the steps of which operations are made.

Each step writes into the book what is about to be true, before it acts.
"""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import IO, Self

from .book import Book, Subtree
from .versions import chunks, content, digest

#: More files than this in the tree, and the next operation deletes some.
MOST_FILES = 150
#: More symbolic links than this, and none is made; nor one that would make more keys of the files than this.
MOST_LINKS = 6
MOST_KEYS = 2 * MOST_FILES
#: Names that give no trouble.
PLAIN = ("a", "b", "c", "d", "e", "f.txt", "g.html")
_ODD = ("sp ace", "ümlaut", "日本", "per%20cent", "pl+us", "q?m=1&x#y", "~", "...", "quote'\"", "x" * 120)
#: moto's server does not get such a key through HTTP.
_HARDEST = ("new\nline",)


class Tree:
    """A directory and the book about it.

    Args:
        top: the source of the mirror; the key of a file is its path from here.
        name: of the directory below `top` in which all happens.
        beside: a directory of the same file system, outside of the source.
        hard_names: whether the target can hold a key with a newline.
        backing: the directory `top` by its path in the mount that `beside` is in; None: `top` is in the same mount.
    """

    def __init__(self, top: Path, name: str, beside: Path, *, hard_names: bool = False, backing: Path | None = None) -> None:
        self.book = Book(str(top))
        self.top = top
        self.root = top / name
        #: What links that lead out lead to.
        self.elsewhere = beside / "elsewhere"
        #: Trees that were moved out of the source, with what they hold.
        self.outside: list[tuple[Path, Subtree]] = []
        #: Files that are being written, by key, with what they hold so far.
        self.writers: dict[str, tuple[IO[bytes], bytearray]] = {}
        #: Directories of which operations leave out all that is at, below or above them.
        self.reserved: set[Path] = set()
        #: Whether things can be moved out of the tree, and into it.
        self.has_outside = True
        self._beside = beside
        self._backing = backing or top
        self._names = PLAIN * 3 + _ODD + (_HARDEST if hard_names else ())
        self._versions = itertools.count(1)
        self._temporary = itertools.count(1)
        self.root.mkdir(parents=True)
        beside.mkdir(parents=True, exist_ok=True)
        # A source that holds no file at all deletes nothing, so one stays for ever.
        self._anchors: set[str] = set()
        self.write_anchor(self.root / "anchor")
        self.elsewhere.mkdir()
        (self.elsewhere / "f.txt").write_text("This is nobody's business.")

    def part(self, directory: Path) -> Self:
        """A directory of the tree, with the same book, as a tree of its own: what is done to it stays within it."""
        part = copy.copy(self)
        part.root, part.reserved, part.outside, part.has_outside = directory, set(), [], False
        return part

    def at_other_path(self, top: Path) -> Self:
        """The same tree with another path of the source, where nothing is mounted below it."""
        other = copy.copy(self)
        other.top, other.root = top, top / self.root.relative_to(self.top)
        other.reserved = {top / reserved.relative_to(self.top) for reserved in self.reserved}
        other.has_outside = False
        return other

    def write_anchor(self, path: Path) -> None:
        """Write a file that no operation changes."""
        self._anchors.add(self.key(path))
        self.write(path, content(0, 10))

    def rest(self) -> None:
        """Close what is open, and see that the book is right about the disk."""
        for key in list(self.writers):
            self.close_writer(key)
        found = dict(self._seen(self.root, [os.path.realpath(self.top)]))
        assert found == self.book.now, f"the book is wrong: {set(found.items()) ^ set(self.book.now.items())}"

    def close_writers(self, directory: Path) -> None:
        """Close what is open below a directory."""
        for key in [key for key in self.writers if directory in (self.top / key).parents]:
            self.close_writer(key)

    def clear(self) -> None:
        """Close open files, and remove the directory; the book does not record it."""
        for key in list(self.writers):
            self.close_writer(key)
        shutil.rmtree(self.root)

    def _seen(self, directory: Path, above: list[str]) -> Iterator[tuple[str, str]]:
        """The keys that there are, with their contents, as the kernel follows links."""
        above = [*above, os.path.realpath(directory)]
        for path in directory.iterdir():
            real = os.path.realpath(path)
            leads_above = real in above or f"{above[-1]}/".startswith(f"{real}/")
            if path.is_symlink() and (leads_above or not real.startswith(above[0] + "/")):
                continue
            if path.is_file():
                yield self.key(path), digest(path.read_bytes())
            elif path.is_dir():
                yield from self._seen(path, above)

    # What there is to choose from

    def key(self, path: Path) -> str:
        """The key of a path."""
        return str(path.relative_to(self.top))

    def a_file(self, chance: Random) -> Path | None:
        """A file that nobody is writing to."""
        files = sorted(filter(self._is_free, self.book.files.keys() - self._anchors - self.writers.keys()))
        return self.top / chance.choice(files) if files else None

    def a_directory(self, chance: Random) -> Path | None:
        """A directory below the root."""
        directories = self._directories()
        return chance.choice(directories) if directories else None

    def a_directory_with_files(self, chance: Random, count: int) -> Path | None:
        """A directory below the root with so many files at least."""
        found = [one for one in self._directories() if sum(key in self.book.files for key in self.book.below(self.key(one))) >= count]
        return chance.choice(found) if found else None

    def a_link(self, chance: Random) -> Path | None:
        """A symbolic link."""
        links = sorted(link for link in self.book.links if self._is_free(link) and self._leads_to_free(link))
        return self.top / chance.choice(links) if links else None

    def a_pipe(self, chance: Random) -> Path | None:
        """A FIFO."""
        pipes = self._walked(lambda entry: stat.S_ISFIFO(entry.stat(follow_symlinks=False).st_mode))
        return chance.choice(pipes) if pipes else None

    def a_writer(self, chance: Random) -> str | None:
        """The key of a file that is being written."""
        writers = sorted(filter(self._is_free, self.writers))
        return chance.choice(writers) if writers else None

    def a_name(self, chance: Random) -> str:
        """A name, mostly a plain one."""
        return chance.choice(self._names)

    def free_path(self, chance: Random, *, outside: Path | None = None) -> Path:
        """A path where nothing is, in a directory that is there (and not in or below `outside`)."""
        directories = [self.root, *self._directories()]
        directories = [one for one in directories if outside is None or (one != outside and outside not in one.parents)]
        directory = chance.choice([one for one in directories if len(one.relative_to(self.root).parts) < 5])
        path = directory / self.a_name(chance)
        while os.path.lexists(path):
            path = directory / f"{self.a_name(chance)}{chance.randrange(1000)}"
        return path

    def free_path_outside(self) -> Path:
        """A path where nothing is, outside of the source."""
        return self._beside / f"temporary-{next(self._temporary)}"

    def a_content(self, chance: Random, size: int | None = None) -> bytes:
        """The content of a version that has not been yet."""
        sizes = (0, 1, 63, 64, 1000, 5000, 70_000)
        return content(next(self._versions), chance.choice(sizes) if size is None else size)

    def _directories(self) -> list[Path]:
        return self._walked(lambda entry: entry.is_dir(follow_symlinks=False))

    def _is_free(self, key: str) -> bool:
        """Whether operations on this tree may change a path."""
        path = self.top / key
        return self.root in path.parents and not any(_are_nested(path, reserved) for reserved in self.reserved)

    def _leads_to_free(self, link: str) -> bool:
        """Whether a link leads to nothing that is reserved."""
        key = self.book.leads_to(link) if self.reserved else None
        return key is None or not any(_are_nested(self.top / key, reserved) for reserved in self.reserved)

    def _walked(self, wanted: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
        """What is in the tree, in the same order each time."""
        found, waiting = [], [str(self.root)]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if Path(entry.path) in self.reserved:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if wanted(entry) and not any(Path(entry.path) in reserved.parents for reserved in self.reserved):
                        found.append(Path(entry.path))
        return sorted(found)

    # The steps

    def write(self, path: Path, data: bytes, count: int = 1, mode: str = "wb") -> None:
        """Write a content in `count` chunks; the book records each state in between too.

        Args:
            mode: "wb" begins with an empty file, "r+b" at the start of what is there, "ab" at its end.
        """
        state = bytearray() if mode == "wb" else bytearray(path.read_bytes())
        self.book.will_have(self.key(path), digest(state))
        with open(path, mode, buffering=0) as file:
            for chunk in chunks(data, count):
                self._put(file, self.key(path), state, chunk)

    def open_writer(self, path: Path) -> str:
        """Begin to write a file from its start. Returns its key."""
        key, state = self.key(path), bytearray()
        self.book.will_have(key, digest(state))
        self.writers[key] = (open(path, "wb", buffering=0), state)  # noqa: SIM115 - `close_writer` does it
        return key

    def write_on(self, key: str, chunk: bytes) -> None:
        """Write more to a file that is being written."""
        file, state = self.writers[key]
        self._put(file, key, state, chunk)

    def close_writer(self, key: str) -> None:
        """The file of this key is not written any more."""
        self.writers.pop(key)[0].close()

    def _put(self, file: IO[bytes], key: str, state: bytearray, chunk: bytes) -> None:
        at = file.tell()
        state[at : at + len(chunk)] = chunk
        self.book.will_have(key, digest(state))
        assert file.write(chunk) == len(chunk)

    def link(self, path: Path, target: Path, chance: Random) -> str | None:
        """Make a symbolic link, with a text that is absolute or not, unless it would make too many keys. Returns what it did."""
        text = str(target) if chance.random() < 0.5 else os.path.relpath(target, path.parent)
        if self.book.would_be({self.key(path): text}) > MOST_KEYS:
            return None
        self.book.change(links={self.key(path): text})
        os.symlink(text, path)
        return f"{self.key(path)!r} to {text!r}"

    def move(self, old: Path, new: Path) -> None:
        """Rename a file, a link or a directory within the tree; what it replaces does not leave."""
        subtree = Subtree.of(self.book, self.key(old))
        for key in [key for key in subtree.keys_at(self.key(old)) if key in self.writers]:
            self.writers[self.key(new) + key[len(self.key(old)) :]] = self.writers.pop(key)
        subtree.arrive(self.book, self.key(new), gone=subtree.keys_at(self.key(old)))
        os.rename(old, new)

    def move_out(self, path: Path) -> tuple[Path, Subtree]:
        """Move a file, a link or a directory out of the source. Returns where it is now, and what it holds."""
        away = self.free_path_outside()
        subtree = self._leave(path)
        os.rename(self.beside_path(path), away)
        return away, subtree

    def move_in(self, away: Path, subtree: Subtree, path: Path) -> None:
        """Move into the source what was moved out of it."""
        subtree.arrive(self.book, self.key(path))
        os.rename(away, self.beside_path(path))

    def beside_path(self, path: Path) -> Path:
        """A path of the source as a path in the mount of what is outside: rename(2) and link(2) do not cross mounts."""
        return self._backing / path.relative_to(self.top)

    def remove(self, path: Path) -> None:
        """Remove a file, a link, or a directory with all that is in it."""
        self._leave(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def _leave(self, path: Path) -> Subtree:
        """A file, a link or a directory is about to leave. Returns what it holds."""
        subtree = Subtree.of(self.book, self.key(path))
        keys = subtree.keys_at(self.key(path))
        for key in keys:
            if key in self.writers:
                self.close_writer(key)
        self.book.change(keys)
        return subtree


def _are_nested(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents
