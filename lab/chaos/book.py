"""Records the content of the tree, all earlier contents of each key, and the keys that never left since the last quiet point."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .expected_keys import ExpectedKeys


class Book:
    """The expected content of each key. A content is identified by its MD5, which is also the ETag of an object.

    Operations record files and symbolic links; the keys are computed from these after each change.

    Args:
        top: the source, for links that are absolute.
    """

    def __init__(self, top: str = "") -> None:
        self._lock = threading.Lock()
        #: Files by key, with their content; links by key, with their text.
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        #: The keys that the target should have, with their content; links included.
        self.now: dict[str, str] = {}
        #: Links that are not followed: objects at or below them may stay.
        self.withheld: frozenset[str] = frozenset()
        self._top = top
        self._contents: dict[str, set[str]] = {}
        self._steady: set[str] = set()
        self._left: dict[str, float] = {}
        self._round = 0

    def change(self, gone: Iterable[str] = (), files: Mapping[str, str] | None = None, links: Mapping[str, str] | None = None) -> None:
        """Record a change that is about to happen at one moment.

        Args:
            gone: keys that leave.
            files: content of the files that arrive, by key.
            links: text of the links that arrive, by key.
        """
        for key in [*gone, *(files or ()), *(links or ())]:
            self.files.pop(key, None)
            self.links.pop(key, None)
        self.files |= files or {}
        self.links |= links or {}
        seen = ExpectedKeys(self._top, self.files, self.links)
        with self._lock:
            for key in self.now.keys() - seen.keys.keys():
                if key in self._steady:
                    self._left[key] = time.time()
                    self._steady.discard(key)
            for key, content in seen.keys.items():
                if self.now.get(key) != content:
                    self._contents.setdefault(key, set()).add(content)
            self.now, self.withheld = seen.keys, frozenset(seen.withheld)

    def will_have(self, key: str, content: str) -> None:
        """Record that a file is about to have this content."""
        self.change(files={key: content})

    def below(self, directory: str) -> list[str]:
        """The keys of the files and links at or below a path; links are not followed."""
        return [key for key in [*self.files, *self.links] if key == directory or key.startswith(directory + "/")]

    def leads_to(self, link: str) -> str | None:
        """The path from the top that the link of this key leads to; None if it leads out or nowhere."""
        return ExpectedKeys(self._top, self.files, self.links).resolve(link)

    def would_be(self, links: Mapping[str, str]) -> int:
        """The number of keys that the target would have with these links too."""
        return len(ExpectedKeys(self._top, self.files, {**self.links, **links}).keys)

    def may_stay(self, key: str) -> bool:
        """Whether an object of this key may exist without a file: it is behind a link that is not followed."""
        return any(key == link or key.startswith(link + "/") for link in self.withheld)

    def ever_had(self, key: str, content: str) -> bool:
        """Whether the file of this key has had this content at any moment."""
        with self._lock:
            return content in self._contents.get(key, ())

    def steady(self) -> tuple[int, frozenset[str]]:
        """The number of the last quiet point, and the keys whose files have existed ever since."""
        with self._lock:
            return self._round, frozenset(self._steady)

    def was_steady(self, key: str, until: float) -> bool:
        """Whether the file of this key existed from the last quiet point until this time, in seconds since the epoch."""
        with self._lock:
            return key in self._steady or until < self._left.get(key, 0.0)

    def quiet(self) -> None:
        """Record a quiet point: target and source are equal, and no change is in work."""
        with self._lock:
            self._steady = set(self.now)
            self._left.clear()
            self._round += 1


@dataclass
class Subtree:
    """The files and links of a directory tree, by their path from its top ("" is the top itself)."""

    files: dict[str, str]
    links: dict[str, str]

    @classmethod
    def of(cls, book: Book, top: str) -> Subtree:
        """The files and links at or below a path."""
        keys = book.below(top)
        return cls(
            {key[len(top) :]: book.files[key] for key in keys if key in book.files},
            {key[len(top) :]: book.links[key] for key in keys if key in book.links},
        )

    def keys_at(self, top: str) -> list[str]:
        """The keys of the files and links, if the tree is at this path."""
        return [top + below for below in [*self.files, *self.links]]

    def arrive(self, book: Book, top: str, gone: Sequence[str] = ()) -> None:
        """Record that the tree is about to appear at this path, while the keys `gone` leave."""
        book.change(
            gone, {top + below: content for below, content in self.files.items()}, {top + below: text for below, text in self.links.items()}
        )
