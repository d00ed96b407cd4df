"""Random operations on a real tree, accidents that happen to a running autosync, and an observer that says whether a promise was broken.

    World      does the operations on the disk; each writes into the book, before it acts, what it is about to make true
    Book       what stands in the tree, what ever stood under which key, and which keys never left since the last quiet point
    Autosync   the real command with its children, which accidents stop, freeze and kill
    Observer   reads the bucket all the time, and at each quiet point every version that the bucket ever held

The bucket is versioned, so nothing that was visible for a moment escapes. What is asked of it:

- at every quiet point it equals the tree;
- each object was, as a whole, the content of the file of that name at some moment;
- a key of a file that never left since the last quiet point was never missing, not even between two operations.

`tests/test_machine.py` lets Hypothesis choose, `lab/soak.py` a seeded generator.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import botocore.exceptions
import psutil
import redis

from autosync.errors import BrokerError
from autosync.ledger import Ledger

from .servers import S3Server, wait_until

#: How long the bucket may take to be right after the last operation, in seconds: the longest delay between tries included.
PATIENCE = 90.0
#: More files than this in the tree, and the next operation makes room.
MOST_FILES = 150
#: More symbolic links than this, and none is made; nor one that would make more keys of the files than this.
MOST_LINKS = 6
MOST_KEYS = 2 * MOST_FILES
#: A file of this size goes up in parts.
LARGE = (8 << 20) + 1
_PLAIN = ("a", "b", "c", "d", "e", "f.txt", "g.html")
_ODD = ("sp ace", "ümlaut", "日本", "per%20cent", "pl+us", "q?m=1&x#y", "~", "...", "quote'\"", "x" * 120)
#: moto's server does not get such a key through HTTP.
_HARDEST = ("new\nline",)
#: The name that the mirror has at its broker.
_NAME = "chaos"
_OVERFLOWED = "event queue overflowed"
_LINE = 64


class Broken(AssertionError):  # noqa: N818 - a finding
    """A promise was broken; the text says which, and how."""


def content(number: int, size: int) -> bytes:
    """The content of a version: each line says which version it is of, and where it stands, so that a mixture can be read off."""
    lines = (f"{number:08d} {offset:012d} ".encode().ljust(_LINE - 1, b".") + b"\n" for offset in range(0, size, _LINE))
    return b"".join(lines)[:size]


def told(data: bytes) -> str:
    """Which versions a content is made of, for people: runs of lines."""
    numbers = [data[at : at + 8].decode(errors="replace") for at in range(0, len(data), _LINE)]
    runs = [f"{len(list(same))} lines of version {number}" for number, same in itertools.groupby(numbers)]
    return f"{len(data)} bytes: {', '.join(runs[:12]) or 'empty'}"


def digest(data: bytes) -> str:
    """The MD5 of a content: what an S3 server gives as the ETag of an object that was sent in one request."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Book:
    """What the operations say about each key. A content is known by its MD5, which is also an object's ETag.

    The files and the symbolic links are written down; which keys they make is worked out from that, each time that something changes.

    Args:
        top: the source, for links that are absolute.
    """

    def __init__(self, top: str = "") -> None:
        self._lock = threading.Lock()
        #: By key: what is really there. A link is written down as its text.
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        #: What is to be seen, under every name that leads to it.
        self.now: dict[str, str] = {}
        #: Links that are not to be followed: what was seen under them, or below, may stay.
        self.withheld: frozenset[str] = frozenset()
        self._top = top
        self._stood: dict[str, set[str]] = {}
        self._steady: set[str] = set()
        self._left: dict[str, float] = {}
        self._round = 0

    def change(self, gone: Iterable[str] = (), files: Mapping[str, str] | None = None, links: Mapping[str, str] | None = None) -> None:
        """All of this is about to become true, at one moment: first some keys are gone, then there are these files and links."""
        for key in [*gone, *(files or ()), *(links or ())]:
            self.files.pop(key, None)
            self.links.pop(key, None)
        self.files |= files or {}
        self.links |= links or {}
        seen = Seen(self._top, self.files, self.links)
        with self._lock:
            for key in self.now.keys() - seen.keys.keys():
                if key in self._steady:
                    self._left[key] = time.time()
                    self._steady.discard(key)
            for key, held in seen.keys.items():
                if self.now.get(key) != held:
                    self._stood.setdefault(key, set()).add(held)
            self.now, self.withheld = seen.keys, frozenset(seen.withheld)

    def stands(self, key: str, held: str) -> None:
        """This content is about to stand under this key."""
        self.change(files={key: held})

    def leaves(self, key: str) -> str:
        """Nothing is about to stand under this key, if only for a moment. Returns what stood there."""
        held = self.files[key]
        self.change([key])
        return held

    def below(self, directory: str) -> list[str]:
        """The keys of the files and links that are really there at or below a path."""
        return [key for key in [*self.files, *self.links] if key == directory or key.startswith(directory + "/")]

    def would_be(self, links: Mapping[str, str]) -> int:
        """How many keys there were with these links too."""
        return len(Seen(self._top, self.files, {**self.links, **links}).keys)

    def may_stay(self, key: str) -> bool:
        """Whether an object of this key is right although no file is seen there: it lies behind a link that is not followed."""
        return any(key == link or key.startswith(link + "/") for link in self.withheld)

    def ever_stood(self, key: str, held: str) -> bool:
        """Whether this was, at any moment, the content of the file of this key."""
        with self._lock:
            return held in self._stood.get(key, ())

    def steady(self) -> tuple[int, frozenset[str]]:
        """The keys whose files were there at the last quiet point and have been ever since; and the number of that point."""
        with self._lock:
            return self._round, frozenset(self._steady)

    def was_steady(self, key: str, until: float) -> bool:
        """Whether the file of this key was there from the last quiet point until this moment, in seconds since the epoch."""
        with self._lock:
            return key in self._steady or until < self._left.get(key, 0.0)

    def quiet(self) -> None:
        """Now target and source are equal, and nothing is on its way."""
        with self._lock:
            self._steady = set(self.now)
            self._left.clear()
            self._round += 1


class Seen:
    """What files and symbolic links make, without a look at the disk: autosync's rules once more, written in another way.

    A link counts as what it leads to, and one to a directory as everything below that. One that leads out of the source, in a circle, or to
    a directory that it lies in, is not followed.

    Args:
        top: the source, for links that are absolute.
        files: content by key.
        links: text by key.
    """

    def __init__(self, top: str, files: Mapping[str, str], links: Mapping[str, str]) -> None:
        self._top = top
        self._files = files
        self._links = links
        self.keys = dict(files)
        self.withheld: set[str] = set()
        for link in links:
            self._follow(link, link, _above(link))

    def _follow(self, link: str, name: str, above: set[str]) -> None:
        """A link, the name under which it was reached, and where the directories on the way to it really are."""
        real = self.resolve(link)
        if real is None or real in above:
            self.withheld.add(name)
        elif real in self._files:
            self.keys[name] = self._files[real]
        else:
            prefix = real + "/"
            self.keys |= {name + key[len(real) :]: held for key, held in self._files.items() if key.startswith(prefix)}
            for other in self._links:
                if other.startswith(prefix):
                    below = {one for one in _above(other) if one == real or one.startswith(prefix)}
                    self._follow(other, name + other[len(real) :], above | below)

    def resolve(self, link: str) -> str | None:
        """The path that a link leads to, from the top; None if it leads out or nowhere."""
        rest, done = link.split("/")[::-1], list[str]()
        hops = 0
        while rest:
            name = rest.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if not done:
                    return None
                done.pop()
                continue
            done.append(name)
            text = self._links.get("/".join(done))
            if text is None:
                continue
            hops += 1
            if hops > 40:  # as many as Linux follows
                return None
            done.pop()
            if text.startswith("/"):
                if text != self._top and not text.startswith(self._top + "/"):
                    return None
                text, done = text[len(self._top) + 1 :], []
            rest += text.split("/")[::-1]
        return "/".join(done)


def _above(path: str) -> set[str]:
    parts = path.split("/")
    return {"/".join(parts[:count]) for count in range(len(parts))}


class World:
    """A directory on which operations are done. `OPERATIONS` lists them.

    Args:
        top: the source of the mirror; the key of a file is its path from here.
        name: of the directory below `top` in which all happens.
        beside: a directory of the same file system, outside of the source.
        hard_names: whether the target can hold a key with a newline.
    """

    def __init__(self, top: Path, name: str, beside: Path, *, hard_names: bool = False) -> None:
        self.book = Book(str(top))
        self.root = top / name
        self.done: list[str] = []
        self._top = top
        self._beside = beside
        self._names = _PLAIN * 3 + _ODD + (_HARDEST if hard_names else ())
        self._versions = itertools.count(1)
        self._temporary = itertools.count(1)
        #: Trees that were moved out of the source, with what they hold.
        self._outside: list[tuple[Path, Held]] = []
        #: Files that are being written, by key.
        self._writers: dict[str, tuple[BinaryIO, bytearray]] = {}
        self.root.mkdir(parents=True)
        beside.mkdir(parents=True, exist_ok=True)
        # A source that holds no file at all deletes nothing, so one stays for ever.
        self._write(self.root / "anchor", content(0, 10))
        # What links that lead out lead to.
        (beside / "elsewhere").mkdir()
        (beside / "elsewhere" / "f.txt").write_text("This is nobody's business.")

    def operate(self, chance: Random) -> None:
        """Do one operation."""
        names = list(OPERATIONS)
        crowded = len(self.book.files) > MOST_FILES
        doubled = len(self.book.now) > MOST_KEYS
        name = (
            "remove a link" if doubled else "remove a tree" if crowded else chance.choices(names, [OPERATIONS[one][0] for one in names])[0]
        )
        self.do(name, chance)

    def do(self, name: str, chance: Random) -> None:
        """Do the operation of this name."""
        details = OPERATIONS[name][1](self, chance)
        self.done.append(f"{len(self.done) + 1}: {name}: {details or 'nothing to do it with'}")

    def note(self, what: str) -> None:
        """Put something else that happened among the operations."""
        self.done.append(f"{len(self.done) + 1}: {what}")

    def rest(self) -> None:
        """Close what is open, and see that the book is right about the disk."""
        for key in list(self._writers):
            self._close_writer(key)
        found = dict(self._seen(self.root, [os.path.realpath(self._top)]))
        assert found == self.book.now, f"the book is wrong: {set(found.items()) ^ set(self.book.now.items())}"

    def clear(self) -> None:
        """Remove everything."""
        for handle, _ in self._writers.values():
            handle.close()
        shutil.rmtree(self.root)

    def _seen(self, directory: Path, above: list[str]) -> Iterator[tuple[str, str]]:
        """The keys that there are, with their contents, as the kernel follows links."""
        above = [*above, os.path.realpath(directory)]
        for path in directory.iterdir():
            real = os.path.realpath(path)
            if path.is_symlink() and (real in above or not real.startswith(above[0] + "/")):
                continue
            if path.is_file():
                yield self._key(path), digest(path.read_bytes())
            elif path.is_dir():
                yield from self._seen(path, above)

    # Where

    def _key(self, path: Path) -> str:
        return str(path.relative_to(self._top))

    def _walked(self, wanted: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
        """What is in the tree, in the same order each time."""
        found, waiting = [], [str(self.root)]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if wanted(entry):
                        found.append(Path(entry.path))
        return sorted(found)

    def _a_file(self, chance: Random) -> Path | None:
        files = sorted(self.book.files.keys() - {self._key(self.root / "anchor")} - self._writers.keys())
        return self._top / chance.choice(files) if files else None

    def _a_directory(self, chance: Random) -> Path | None:
        directories = self._walked(lambda entry: entry.is_dir(follow_symlinks=False))
        return chance.choice(directories) if directories else None

    def _a_place(self, chance: Random, *, outside: Path | None = None) -> Path:
        """A path where nothing is, in a directory that is there (and not in or below `outside`)."""
        directories = [self.root, *self._walked(lambda entry: entry.is_dir(follow_symlinks=False))]
        directories = [one for one in directories if outside is None or (one != outside and outside not in one.parents)]
        directory = chance.choice([one for one in directories if len(one.relative_to(self.root).parts) < 5])
        path = directory / chance.choice(self._names)
        while os.path.lexists(path):
            path = directory / f"{chance.choice(self._names)}{chance.randrange(1000)}"
        return path

    def _a_link(self, chance: Random) -> Path | None:
        return self._top / chance.choice(sorted(self.book.links)) if self.book.links else None

    def _a_temporary_name(self) -> Path:
        return self._beside / f"temporary-{next(self._temporary)}"

    # What

    def _new(self, chance: Random, size: int | None = None) -> bytes:
        sizes = (0, 1, 63, 64, 1000, 5000, 70_000)
        return content(next(self._versions), chance.choice(sizes) if size is None else size)

    # How. Each says what will stand before it stands, and what leaves before it leaves.

    def _write(self, path: Path, data: bytes, pieces: int = 1, mode: str = "wb") -> None:
        """Write a content from its start, so many bytes at a time; each state in between stands too."""
        state = bytearray() if mode == "wb" else bytearray(path.read_bytes())
        self.book.stands(self._key(path), digest(state))
        with open(path, mode, buffering=0) as file:
            for piece in _pieces(data, pieces):
                self._put(file, self._key(path), state, piece)

    def _put(self, file: BinaryIO, key: str, state: bytearray, piece: bytes) -> None:
        at = file.tell()
        state[at : at + len(piece)] = piece
        self.book.stands(key, digest(state))
        assert file.write(piece) == len(piece)

    def _move(self, old: Path, new: Path) -> None:
        """Rename a file, a link or a directory within the tree; what it replaces does not leave."""
        held = Held.of(self.book, self._key(old))
        for key in [key for key in held.keys_at(self._key(old)) if key in self._writers]:
            self._writers[self._key(new) + key[len(self._key(old)) :]] = self._writers.pop(key)
        held.arrive(self.book, self._key(new), gone=held.keys_at(self._key(old)))
        os.rename(old, new)

    def _leave(self, path: Path) -> Held:
        """A file, a link or a directory is about to leave. Returns what it held."""
        held = Held.of(self.book, self._key(path))
        for key in held.keys_at(self._key(path)):
            if key in self._writers:
                self._close_writer(key)
        self.book.change(held.keys_at(self._key(path)))
        return held

    def _remove(self, path: Path) -> None:
        self._leave(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def _link(self, path: Path, text: str) -> str | None:
        """Make a symbolic link, unless it would make too many keys."""
        if self.book.would_be({self._key(path): text}) > MOST_KEYS:
            return None
        self.book.change(links={self._key(path): text})
        os.symlink(text, path)
        return f"{self._key(path)!r} to {text!r}"

    def _text(self, chance: Random, link: Path, target: Path) -> str:
        """How a link may say where it leads."""
        return str(target) if chance.random() < 0.5 else os.path.relpath(target, link.parent)

    def _close_writer(self, key: str) -> None:
        self._writers.pop(key)[0].close()

    # The operations. Each returns what it did, or None if there was nothing to do it with.

    def create(self, chance: Random) -> str:
        path, data = self._a_place(chance), self._new(chance)
        self._write(path, data)
        return f"{self._key(path)!r}, {len(data)} bytes"

    def create_slowly(self, chance: Random) -> str:
        path, data = self._a_place(chance), self._new(chance, chance.choice((200, 20_000)))
        self._write(path, data, chance.randrange(2, 6))
        return f"{self._key(path)!r}, {len(data)} bytes"

    def create_by_rename(self, chance: Random) -> str:
        path, data = self._a_place(chance), self._new(chance)
        temporary = path.with_name(f".{path.name[:50]}.{chance.randrange(10**6)}")
        self._write(temporary, data, chance.randrange(1, 3))
        self._move(temporary, path)
        return f"{self._key(path)!r}, {len(data)} bytes"

    def create_by_link(self, chance: Random) -> str:
        path, temporary, data = self._a_place(chance), self._a_temporary_name(), self._new(chance)
        temporary.write_bytes(data)
        self.book.stands(self._key(path), digest(data))
        os.link(temporary, path)
        temporary.unlink()
        return f"{self._key(path)!r}, {len(data)} bytes"

    def create_with_parents(self, chance: Random) -> str:
        top = self._a_place(chance)
        directory = top.joinpath(*(chance.choice(self._names) for _ in range(chance.randrange(3))))
        directory.mkdir(parents=True)
        for name in chance.sample(_PLAIN, chance.randrange(1, 4)):
            self._write(directory / name, self._new(chance))
        return repr(self._key(directory))

    def create_large(self, chance: Random) -> str:
        path, data = self._a_place(chance), self._new(chance, LARGE + chance.randrange(100_000))
        self._write(path, data, 3)
        return f"{self._key(path)!r}, {len(data)} bytes"

    def create_many(self, chance: Random) -> str:
        directory = self._a_place(chance)
        directory.mkdir()
        count = chance.randrange(10, 40)
        for number in range(count):
            self._write(directory / str(number), self._new(chance, 100))
        return f"{count} files in {self._key(directory)!r}"

    def overwrite_in_place(self, chance: Random) -> str | None:
        path = self._a_file(chance)
        if path is None:
            return None
        size = path.stat().st_size
        self._write(path, self._new(chance, size), chance.randrange(1, 4), "r+b")
        return f"{self._key(path)!r}, {size} bytes"

    def truncate_and_write(self, chance: Random) -> str | None:
        path, data = self._a_file(chance), self._new(chance)
        if path is None:
            return None
        self._write(path, data, chance.randrange(1, 4))
        return f"{self._key(path)!r}, {len(data)} bytes"

    def append(self, chance: Random) -> str | None:
        path, data = self._a_file(chance), self._new(chance, 300)
        if path is None:
            return None
        state = bytearray(path.read_bytes())
        with open(path, "ab", buffering=0) as file:
            for piece in _pieces(data, chance.randrange(1, 4)):
                self._put(file, self._key(path), state, piece)
        return repr(self._key(path))

    def rename_over(self, chance: Random) -> str | None:
        path = self._a_file(chance)
        if path is None:
            return None
        same_size = chance.random() < 0.5
        temporary, data = path.with_name(f".over.{chance.randrange(10**6)}"), self._new(chance, path.stat().st_size if same_size else None)
        self._write(temporary, data)
        self._move(temporary, path)
        return f"{self._key(path)!r}, {len(data)} bytes"

    def move_over(self, chance: Random) -> str | None:
        old, new = self._a_file(chance), self._a_file(chance)
        if old is None or new is None or old == new:
            return None
        self._move(old, new)
        return f"{self._key(old)!r} over {self._key(new)!r}"

    def delete(self, chance: Random) -> str | None:
        path = self._a_file(chance)
        if path is None:
            return None
        self._remove(path)
        return repr(self._key(path))

    def delete_and_create(self, chance: Random) -> str | None:
        path, data = self._a_file(chance), self._new(chance)
        if path is None:
            return None
        self._remove(path)
        self._write(path, data)
        return f"{self._key(path)!r}, {len(data)} bytes"

    def remove_tree(self, chance: Random) -> str | None:
        directory = self._a_directory(chance)
        if directory is None:
            return None
        self._remove(directory)
        return repr(self._key(directory))

    def rename(self, chance: Random) -> str | None:
        old, new = self._a_file(chance), self._a_place(chance)
        if old is None:
            return None
        self._move(old, new)
        return f"{self._key(old)!r} to {self._key(new)!r}"

    def rename_directory(self, chance: Random) -> str | None:
        old = self._a_directory(chance)
        if old is None:
            return None
        new = self._a_place(chance, outside=old)
        self._move(old, new)
        return f"{self._key(old)!r} to {self._key(new)!r}"

    def exchange_directories(self, chance: Random) -> str | None:
        one, other = self._a_directory(chance), self._a_directory(chance)
        if one is None or other is None or one == other or one in other.parents or other in one.parents:
            return None
        between = self._a_place(chance, outside=one)
        if other in between.parents:
            return None
        self._move(one, between)
        self._move(other, one)
        self._move(between, other)
        return f"{self._key(one)!r} and {self._key(other)!r}, by way of {self._key(between)!r}"

    def move_out(self, chance: Random) -> str | None:
        path = self._a_file(chance) if chance.random() < 0.2 else self._a_directory(chance)
        if path is None:
            return None
        away = self._a_temporary_name()
        self._outside.append((away, self._leave(path)))
        os.rename(path, away)
        return repr(self._key(path))

    def move_in(self, chance: Random) -> str | None:
        if not self._outside:
            return None
        away, held = self._outside.pop(chance.randrange(len(self._outside)))
        path = self._a_place(chance)
        held.arrive(self.book, self._key(path))
        os.rename(away, path)
        return f"{self._key(path)!r}, {len(held.files)} files"

    def out_and_in(self, chance: Random) -> str | None:
        """Out of the tree, changed there where nobody watches, and back at once to the same place."""
        path = self._a_directory(chance)
        if path is None:
            return None
        away = self._a_temporary_name()
        held = self._leave(path)
        os.rename(path, away)
        data = self._new(chance)
        if not os.path.lexists(away / "meanwhile"):
            (away / "meanwhile").write_bytes(data)
            held.files["/meanwhile"] = digest(data)
        held.arrive(self.book, self._key(path))
        os.rename(away, path)
        return f"{self._key(path)!r}, {len(held.files)} files"

    def directory_becomes_file(self, chance: Random) -> str | None:
        path = self._a_directory(chance)
        if path is None:
            return None
        self._remove(path)
        self._write(path, self._new(chance))
        return repr(self._key(path))

    def file_becomes_directory(self, chance: Random) -> str | None:
        path = self._a_file(chance)
        if path is None:
            return None
        self._remove(path)
        path.mkdir()
        for name in chance.sample(_PLAIN, chance.randrange(0, 3)):
            self._write(path / name, self._new(chance))
        return repr(self._key(path))

    def touch(self, chance: Random) -> str | None:
        path = self._a_file(chance)
        if path is None:
            return None
        if chance.random() < 0.5:
            path.chmod(chance.choice((0o600, 0o644, 0o400)))
        else:
            past = time.time() - chance.randrange(10**8)
            os.utime(path, (past, past))
        return repr(self._key(path))

    def overwrite_and_age(self, chance: Random) -> str | None:
        """As rsync and tar leave a file: another content of the same size, with a time in the past."""
        path = self._a_file(chance)
        if path is None:
            return None
        self._write(path, self._new(chance, path.stat().st_size), 1, "r+b")
        past = time.time() - chance.randrange(10**8)
        os.utime(path, (past, past))
        return repr(self._key(path))

    def make_directory(self, chance: Random) -> str:
        path = self._a_place(chance)
        path.mkdir()
        return repr(self._key(path))

    def make_pipe(self, chance: Random) -> str:
        path = self._a_place(chance)
        os.mkfifo(path)
        return repr(self._key(path))

    def remove_pipe(self, chance: Random) -> str | None:
        pipes = self._walked(lambda entry: stat.S_ISFIFO(entry.stat(follow_symlinks=False).st_mode))
        if not pipes:
            return None
        path = chance.choice(pipes)
        path.unlink()
        if chance.random() < 0.5:
            self._write(path, self._new(chance))
        return repr(self._key(path))

    def begin_to_write(self, chance: Random) -> str | None:
        if len(self._writers) > 3:
            return None
        path = self._a_file(chance) if chance.random() < 0.3 else self._a_place(chance)
        if path is None:
            return None
        key, state = self._key(path), bytearray()
        self.book.stands(key, digest(state))
        file = open(path, "wb", buffering=0)  # noqa: SIM115 - it is closed by another operation
        self._writers[key] = (file, state)
        self._put(file, key, state, self._new(chance, 500))
        return repr(key)

    def write_on(self, chance: Random) -> str | None:
        if not self._writers:
            return None
        key = chance.choice(sorted(self._writers))
        file, state = self._writers[key]
        self._put(file, key, state, self._new(chance, 500))
        return repr(key)

    def end_writing(self, chance: Random) -> str | None:
        if not self._writers:
            return None
        key = chance.choice(sorted(self._writers))
        self._close_writer(key)
        return repr(key)

    # Symbolic links

    def link_to_file(self, chance: Random) -> str | None:
        return self._link_to(chance, self._a_file(chance))

    def link_to_directory(self, chance: Random) -> str | None:
        return self._link_to(chance, self._a_directory(chance))

    def link_to_link(self, chance: Random) -> str | None:
        return self._link_to(chance, self._a_link(chance))

    def link_to_nothing(self, chance: Random) -> str | None:
        """What it leads to may come into being later."""
        target = self._a_place(chance)
        return self._link_to(chance, target / chance.choice(_PLAIN) if chance.random() < 0.5 else target)

    def _link_to(self, chance: Random, target: Path | None) -> str | None:
        if target is None or len(self.book.links) >= MOST_LINKS:
            return None
        path = self._a_place(chance)
        return self._link(path, self._text(chance, path, target))

    def link_that_leads_out(self, chance: Random) -> str | None:
        if len(self.book.links) >= MOST_LINKS:
            return None
        path = self._a_place(chance)
        outside = [self._beside / "elsewhere", self._beside / "elsewhere" / "f.txt", Path("/nowhere"), self._top.parent]
        return self._link(path, self._text(chance, path, chance.choice(outside)))

    def link_in_a_circle(self, chance: Random) -> str | None:
        if len(self.book.links) >= MOST_LINKS:
            return None
        path = self._a_place(chance)
        return self._link(path, self._text(chance, path, chance.choice([path, *path.parents][: len(path.relative_to(self._top).parts)])))

    def retarget(self, chance: Random) -> str | None:
        """Let a link lead elsewhere, at one moment; or put one in the place of a file."""
        path = self._a_link(chance) if chance.random() < 0.8 else self._a_file(chance)
        target = self._a_file(chance) if chance.random() < 0.3 else self._a_directory(chance)
        if chance.random() < 0.15:  # not to be followed, so what was seen under it may stay
            target = self._beside / "elsewhere" if path is None or chance.random() < 0.5 else path.parent
        if path is None or target is None:
            return None
        temporary = path.with_name(f".link.{chance.randrange(10**6)}")
        made = self._link(temporary, self._text(chance, temporary, target))
        if made:
            self._move(temporary, path)
        return f"{self._key(path)!r} by way of {made}" if made else None

    def remove_link(self, chance: Random) -> str | None:
        path = self._a_link(chance)
        if path is None:
            return None
        self._remove(path)
        return repr(self._key(path))

    def move_link(self, chance: Random) -> str | None:
        old, new = self._a_link(chance), self._a_place(chance)
        if old is None:
            return None
        self._move(old, new)
        return f"{self._key(old)!r} to {self._key(new)!r}"

    def link_becomes_file(self, chance: Random) -> str | None:
        path = self._a_link(chance)
        if path is None:
            return None
        temporary = path.with_name(f".over.{chance.randrange(10**6)}")
        self._write(temporary, self._new(chance))
        self._move(temporary, path)
        return repr(self._key(path))

    def link_becomes_directory(self, chance: Random) -> str | None:
        path = self._a_link(chance)
        if path is None:
            return None
        self._remove(path)
        path.mkdir()
        for name in chance.sample(_PLAIN, chance.randrange(0, 3)):
            self._write(path / name, self._new(chance))
        return repr(self._key(path))

    def directory_becomes_link(self, chance: Random) -> str | None:
        """As somebody does who has moved a directory to where there is more room."""
        path = self._a_directory(chance)
        if path is None or len(self.book.links) >= MOST_LINKS:
            return None
        new = self._a_place(chance, outside=path)
        self._move(path, new)
        made = self._link(path, self._text(chance, path, new))
        return f"{self._key(path)!r} moved to {self._key(new)!r}, link {made}"

    def release(self, chance: Random) -> str | None:
        """As releases are made: a new directory beside the old one, the link is switched, and the old one is removed."""
        path = self._a_link(chance)
        old = Seen(str(self._top), self.book.files, self.book.links).resolve(self._key(path)) if path else None
        if path is None or old is None or old in self.book.files or not self.book.below(old) or self.root not in (self._top / old).parents:
            return None
        new = self._a_place(chance)
        if self._top / old in new.parents:
            return None
        held = Held.of(self.book, old)
        new.mkdir()
        for below in sorted(held.files):
            (new / below[1:]).parent.mkdir(parents=True, exist_ok=True)
            self._write(new / below[1:], self._new(chance))
        temporary = path.with_name(f".link.{chance.randrange(10**6)}")
        made = self._link(temporary, self._text(chance, temporary, new))
        if made is None:
            return f"{self._key(new)!r}, not switched"
        self._move(temporary, path)
        if self._top / old not in path.parents and chance.random() < 0.7:
            self._remove(self._top / old)
        return f"{self._key(path)!r} by way of {made}"

    def fulfil_link(self, chance: Random) -> str | None:
        """Make what a link leads to, if there is nothing yet."""
        link = self._a_link(chance)
        key = Seen(str(self._top), self.book.files, self.book.links).resolve(self._key(link)) if link else None
        path = self._top / key if key else self.root
        if self.root not in path.parents or os.path.lexists(path) or any(one.is_file() for one in path.parents):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        if chance.random() < 0.5:
            self._write(path, self._new(chance))
            return repr(self._key(path))
        path.mkdir()
        for name in chance.sample(_PLAIN, chance.randrange(1, 3)):
            self._write(path / name, self._new(chance))
        return f"{self._key(path)!r}, a directory"


@dataclass
class Held:
    """The files and the links of a tree, by the path from its top ("" is itself)."""

    files: dict[str, str]
    links: dict[str, str]

    @classmethod
    def of(cls, book: Book, top: str) -> Held:
        """What is really there at or below a path."""
        keys = book.below(top)
        return cls(
            {key[len(top) :]: book.files[key] for key in keys if key in book.files},
            {key[len(top) :]: book.links[key] for key in keys if key in book.links},
        )

    def keys_at(self, top: str) -> list[str]:
        """Their keys, if the tree stands here."""
        return [top + below for below in [*self.files, *self.links]]

    def arrive(self, book: Book, top: str, gone: Sequence[str] = ()) -> None:
        """The tree is about to stand here, while some keys leave."""
        book.change(
            gone, {top + below: held for below, held in self.files.items()}, {top + below: text for below, text in self.links.items()}
        )


def _pieces(data: bytes, count: int) -> Iterator[bytes]:
    step = max(-(-len(data) // count), 1)
    for at in range(0, len(data), step):
        yield data[at : at + step]


Operation = Callable[[World, Random], "str | None"]

#: Each operation with how often it is wanted.
OPERATIONS: dict[str, tuple[int, Operation]] = {
    "create": (8, World.create),
    "create slowly": (4, World.create_slowly),
    "create by rename": (6, World.create_by_rename),
    "create by link": (4, World.create_by_link),
    "create with parents": (8, World.create_with_parents),
    "create a large file": (1, World.create_large),
    "create many": (2, World.create_many),
    "overwrite in place": (6, World.overwrite_in_place),
    "overwrite and age": (3, World.overwrite_and_age),
    "truncate and write": (6, World.truncate_and_write),
    "append": (4, World.append),
    "rename over": (5, World.rename_over),
    "move over": (3, World.move_over),
    "delete": (6, World.delete),
    "delete and create": (5, World.delete_and_create),
    "remove a tree": (2, World.remove_tree),
    "rename": (6, World.rename),
    "rename a directory": (8, World.rename_directory),
    "exchange directories": (3, World.exchange_directories),
    "move out": (3, World.move_out),
    "move in": (4, World.move_in),
    "move out and in": (3, World.out_and_in),
    "directory becomes file": (2, World.directory_becomes_file),
    "file becomes directory": (3, World.file_becomes_directory),
    "touch": (3, World.touch),
    "make a directory": (3, World.make_directory),
    "make a pipe": (2, World.make_pipe),
    "remove a pipe": (1, World.remove_pipe),
    "begin to write": (4, World.begin_to_write),
    "write on": (4, World.write_on),
    "end writing": (4, World.end_writing),
    "link to a file": (4, World.link_to_file),
    "link to a directory": (5, World.link_to_directory),
    "link to a link": (1, World.link_to_link),
    "link to nothing": (3, World.link_to_nothing),
    "link that leads out": (1, World.link_that_leads_out),
    "link in a circle": (1, World.link_in_a_circle),
    "retarget a link": (6, World.retarget),
    "switch a release": (5, World.release),
    "remove a link": (3, World.remove_link),
    "move a link": (3, World.move_link),
    "link becomes file": (2, World.link_becomes_file),
    "link becomes directory": (2, World.link_becomes_directory),
    "directory becomes link": (2, World.directory_becomes_link),
    "make what a link leads to": (5, World.fulfil_link),
}


class Autosync:
    """The command, running on a tree, with a broker and workers of its own.

    Args:
        directory: for its state and its log.
        tree: the source.
        server: the target.
        bucket: where in the target.
        options: further options.
    """

    def __init__(self, directory: Path, tree: Path, server: S3Server, bucket: str, options: Sequence[str]) -> None:
        self.log = directory / "autosync.log"
        program = str(Path(sys.executable).parent / "autosync")
        own = [f"--source-prefix={tree}/", f"--name={_NAME}", f"--state-dir={directory / 'state'}", str(tree)]
        self._command = [program, "-v", f"--target-container={bucket}", f"--endpoint-url={server.url}", *options, *own]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOSYNC_", "AWS_", "CELERY_", "BOTO_"))}
        self._environ = plain | server.environment() | {"HOME": str(directory), "PYTHONWARNINGS": "ignore"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without waiting for anything."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, start_new_session=True
            )

    def stop(self) -> int:
        """End it in order. Returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken("autosync did not end within 60 s of SIGTERM") from None

    def kill(self) -> None:
        """Kill it; its children end with it."""
        assert self.process is not None
        children = self.children()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(children, 30)

    def children(self, word: str = "") -> list[psutil.Process]:
        """Its children and theirs that have a word in their command line."""
        assert self.process is not None
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if word in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def insist(self) -> None:
        """See that it runs."""
        if self.process is None or self.process.poll() is not None:
            raise Broken(f"autosync has ended with {self.process and self.process.returncode}")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let its main process stand still."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            threads = list(Path(f"/proc/{self.process.pid}/task").iterdir())
            wait_until(lambda: all(") T " in (one / "stat").read_text() for one in threads), 10, "all threads stand still")
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def broker(self) -> redis.Redis | None:
        """Its broker; None while there is none."""
        for child in self.children("valkey"):
            with contextlib.suppress(psutil.NoSuchProcess):
                found = re.search(r"(?:unixsocket:|--unixsocket )(\S+\.sock)", " ".join(child.cmdline()))
                if found:
                    return redis.Redis(unix_socket_path=found[1], socket_timeout=5)
        return None

    def watches(self, directory: Path) -> bool:
        """Whether the kernel tells it what happens in a directory (proc_pid_fdinfo(5))."""
        assert self.process is not None
        inode = f" ino:{directory.stat().st_ino:x} "
        with contextlib.suppress(OSError):  # a descriptor that is closed meanwhile
            return any(inode in info.read_text() for info in Path(f"/proc/{self.process.pid}/fdinfo").iterdir())
        return False

    def is_idle(self) -> bool:
        """Whether its ledger says that nothing is to be done."""
        broker = self.broker()
        try:
            return broker is not None and Ledger(broker, _NAME).dirty() == 0
        except (BrokerError, redis.exceptions.RedisError):
            return False


def versioned_bucket(server: S3Server, name: str) -> str:
    """Make a bucket that keeps every version of its objects. Returns its name."""
    client: Any = server.client()
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


class Observer:
    """Watches one prefix of a versioned bucket, and notes what should never have been visible.

    Args:
        server: the S3 server.
        bucket: its name.
        prefix: of the keys that the book is about.
        book: says what may be there.
        pause: between two looks, in seconds.
    """

    def __init__(self, server: S3Server, bucket: str, prefix: str, book: Book, pause: float = 0.2) -> None:
        self.violations: list[str] = []
        self.looks = self.versions = 0
        self._client: Any = server.client()
        self._bucket = bucket
        self._prefix = prefix
        self._book = book
        self._pause = pause
        #: Pairs of key and ETag that were found right, with the MD5 of the content.
        self._known: dict[tuple[str, str], str] = {}
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def start(self) -> None:
        """Look on, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def differences(self) -> list[str]:
        """In what the bucket is not what the book says, in words."""
        there = {key: self._digest(key, etag) for key, etag in self._listed().items()}
        ours = self._book.now
        return [
            f"{key!r}: {'missing' if key not in there else 'should not be there' if key not in ours else 'has another content'}"
            for key in sorted(there.keys() | ours.keys())
            if there.get(key) != ours.get(key) and not (key not in ours and self._book.may_stay(key))
        ]

    def look_back(self) -> None:
        """Look at every version and every deletion since the last time, and then forget those that are history."""
        past = []
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=self._prefix):
            for found in page.get("Versions", ()):
                if self._is_new(found):
                    self._judge(found["Key"], found["ETag"].strip('"'), found["VersionId"])
                past += [] if found["IsLatest"] else [found]
            for found in page.get("DeleteMarkers", ()):
                # The server tells whole seconds.
                if self._is_new(found) and self._book.was_steady(found["Key"], found["LastModified"].timestamp() + 1.0):
                    self._note(f"{found['Key']!r} was deleted at {found['LastModified']:%X} while its file was there")
                past += [] if found["IsLatest"] else [found]
        for start in range(0, len(past), 500):
            names = [{"Key": found["Key"], "VersionId": found["VersionId"]} for found in past[start : start + 500]]
            self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": names, "Quiet": True})

    def _is_new(self, found: Mapping[str, Any]) -> bool:
        name = f"{found['VersionId']} {found['Key']}"
        new = name not in self._seen
        self._seen.add(name)
        self.versions += new
        return new

    def _watch(self) -> None:
        while not self._stop.wait(self._pause):
            with contextlib.suppress(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):  # a server that stands still
                self._look()

    def _look(self) -> None:
        before, _ = self._book.steady()
        there = self._listed()
        after, steady = self._book.steady()
        if before == after:
            for key in sorted(steady - there.keys()):
                self._note(f"{key!r} was missing at {time.strftime('%X')} while its file was there")
        for key, etag in there.items():
            self._judge(key, etag)
        self.looks += 1

    def _listed(self) -> dict[str, str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return {found["Key"]: found["ETag"].strip('"') for page in pages for found in page.get("Contents", ())}

    def _judge(self, key: str, etag: str, version: str | None = None) -> None:
        if (key, etag) in self._known:
            return
        found = self._digest(key, etag, version)
        if found is None or self._book.ever_stood(key, found):
            return
        data = self._read(key, version)
        self._note(f"{key!r} (ETag {etag}) was never the content of its file: {told(data or b'')}")

    def _digest(self, key: str, etag: str, version: str | None = None) -> str | None:
        """The MD5 of an object's content: its ETag, unless it was sent in parts. None if it is not there any more."""
        if "-" not in etag:
            return etag
        if (key, etag) not in self._known:
            data = self._read(key, version, etag)
            if data is None:
                return None
            found = digest(data)
            if self._book.ever_stood(key, found):
                self._known[key, etag] = found
            return found
        return self._known[key, etag]

    def _read(self, key: str, version: str | None, etag: str | None = None) -> bytes | None:
        which = {"VersionId": version} if version else {"IfMatch": etag} if etag else {}
        try:
            data: bytes = self._client.get_object(Bucket=self._bucket, Key=key, **which)["Body"].read()
            return data
        except self._client.exceptions.ClientError:
            return None

    def _note(self, violation: str) -> None:
        if violation not in self.violations:
            self.violations.append(violation)


class Chaos:
    """World, autosync and observer together: operations, accidents, and quiet points at which everything must be right."""

    def __init__(self, world: World, autosync: Autosync, observer: Observer) -> None:
        self.world = world
        self.autosync = autosync
        self.observer = observer
        self._said_at_start = 0

    def quiet(self, patience: float = PATIENCE) -> float:
        """Wait until target and source are equal and nothing is on its way; look back. Returns how long it took, in seconds.

        Raises:
            Broken: they do not become equal, or a promise was broken meanwhile.
        """
        began = time.monotonic()
        self.world.rest()

        def is_equal() -> bool:
            self.autosync.insist()
            try:
                return self.autosync.is_idle() and not self.observer.differences()
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                return False

        try:
            wait_until(is_equal, patience, "the target equals the source", pause=0.05)
        except AssertionError as error:
            left = self.observer.differences()
            if not left and not isinstance(error, Broken):
                raise Broken(self._report(f"{error}: it does, but the ledger is not empty")) from error
            raise Broken(self._report(f"{error}: {len(left)} keys differ: {left[:10]}")) from error
        self.observer.look_back()
        self.insist()
        self.world.book.quiet()
        self.world.note(f"quiet after {time.monotonic() - began:.1f} s: {len(self.world.book.now)} files")
        return time.monotonic() - began

    def insist(self) -> None:
        """See that no promise was broken until now.

        Raises:
            Broken: one was.
        """
        if self.observer.violations:
            raise Broken(self._report("; ".join(self.observer.violations[:5])))

    def _report(self, what: str) -> str:
        operations, log = self.world.done[-60:], self.autosync.said().splitlines()[-40:]
        return "\n  ".join([what, "The last operations:", *operations, f"The end of {self.autosync.log}:", *log])

    # Accidents. Each goes on with operations while it lasts.

    def _operations(self, chance: Random, most: int = 6) -> None:
        for _ in range(chance.randrange(1, most)):
            self.world.operate(chance)

    def _start_again(self) -> None:
        self.world.note("started again")
        self._said_at_start = len(self.autosync.said())
        self.autosync.start()

    def restart(self, chance: Random) -> None:
        """It is stopped in order, much is done, and it is started again."""
        self.world.note("stopped")
        before = len(self.autosync.said())
        code = self.autosync.stop()
        # Right after its start there is nobody yet who takes the signal, and nothing to be ended in order.
        if code != 0 and not (code == -signal.SIGTERM and len(self.autosync.said()) == before == self._said_at_start):
            raise Broken(self._report(f"autosync ended with {code}"))
        self._operations(chance)
        self._start_again()

    def kill(self, chance: Random) -> None:
        """It is killed in the middle, much is done, and it is started again."""
        self._operations(chance)
        self.world.note("killed")
        self.autosync.kill()
        self._operations(chance)
        self._start_again()

    def kill_worker(self, chance: Random) -> None:
        """A worker is killed in the middle."""
        self._kill_child("celery", chance)

    def kill_broker(self, chance: Random) -> None:
        """The broker is killed in the middle."""
        self._kill_child("valkey", chance)

    def _kill_child(self, word: str, chance: Random) -> None:
        self._operations(chance)
        victims = self.autosync.children(word)
        if victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(victims).kill()
        self.world.note(f"{word} killed" if victims else f"no {word} to kill")
        self._operations(chance)

    def overflow(self, chance: Random) -> None:
        """More happens than the kernel keeps, and what happens last is not told."""

        def watches() -> bool:
            self.autosync.insist()
            return self.autosync.watches(self.world.root)

        wait_until(watches, 60, "autosync watches the tree: it may only be being started")
        before = self.autosync.said().count(_OVERFLOWED)
        most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        one, other = self.world.root / "overflow 1", self.world.root / "overflow 2"
        os.mkfifo(one)
        with self.autosync.frozen():
            for _ in range(most // 4 + 1):  # each rename gives two events
                os.rename(one, other)
                os.rename(other, one)
            one.unlink()
            self._operations(chance, 10)
            self.world.note("while the kernel's queue was full")

        def overflowed() -> bool:
            self.autosync.insist()
            return self.autosync.said().count(_OVERFLOWED) > before

        wait_until(overflowed, 60, "autosync says that the queue overflowed")

    def freeze_server(self, chance: Random, server: S3Server) -> None:
        """The target does not answer for a while."""
        with server.frozen():
            self.world.note("the target stands still")
            self._operations(chance, 30)
            time.sleep(chance.uniform(0.1, 3.0))
        self.world.note("the target answers again")

    def empty_broker(self, chance: Random) -> None:
        """The broker loses everything it knows."""
        self._operations(chance)
        broker = self.autosync.broker()
        if broker is not None:
            with contextlib.suppress(redis.exceptions.RedisError):
                broker.flushall()
        self.world.note("the broker was emptied" if broker is not None else "no broker to empty")
        self._operations(chance)
