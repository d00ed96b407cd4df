"""Computes the keys of files and symbolic links: autosync's rules once more, implemented in another way, and without access to the disk."""

from __future__ import annotations

from collections.abc import Mapping


class ExpectedKeys:
    """The keys that the target should have, and the links that are withheld, that is, not followed.

    A link counts as its target; a link to a directory counts as everything below that. A link that leads out of the source, in a circle, or
    to a directory that contains it is not followed, whatever other links lead to it.

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
        """Follow a link.

        Args:
            link: its path.
            name: the path by which it was reached.
            above: the real paths of the directories on the way to it.
        """
        real = self.resolve(link)
        if real is None or real in above | _above(link):
            self.withheld.add(name)
        elif real in self._files:
            self.keys[name] = self._files[real]
        else:
            prefix = real + "/"
            self.keys |= {name + key[len(real) :]: content for key, content in self._files.items() if key.startswith(prefix)}
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
