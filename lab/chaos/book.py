"""What stands in the tree, what ever stood under which key, and which keys never left since the last quiet point."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .seen import Seen


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

    def below(self, directory: str) -> list[str]:
        """The keys of the files and links that are really there at or below a path."""
        return [key for key in [*self.files, *self.links] if key == directory or key.startswith(directory + "/")]

    def leads_to(self, link: str) -> str | None:
        """The path from the top that the link of this key leads to; None if it leads out or nowhere."""
        return Seen(self._top, self.files, self.links).resolve(link)

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
