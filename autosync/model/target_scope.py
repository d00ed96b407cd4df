"""What a mirror can make in its target, to be compared with what another mirror can make there.

An object has one name in its place, whichever mirror makes it: the key in a bucket; the path of the file, where the target is a directory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from .keys import Keys, Source, Span
from .mirror import Mirror
from .paths import slashed
from .pattern_automaton import PatternAutomaton, have_common_ending

#: For each of our actors, the settings that say where the target is, with the values of those that are not given.
ADDRESS: dict[str, dict[str, str]] = {
    "s3": {"endpoint_url": "https://s3.amazonaws.com"},
    "azure": {"endpoint_url": "", "account": ""},
    "gcs": {"endpoint_url": "https://storage.googleapis.com"},
    "http": {"url": ""},
    "swift": {"auth_url": "", "storage_url": "", "project": "", "region": ""},
}
#: Settings of swift that say nothing if only one of two mirrors has them: the other one has them from its user, or from the catalog.
_OPTIONAL = frozenset({"storage_url", "project", "region"})
_AMAZON = re.compile(r"s3[a-z0-9.-]*\.amazonaws\.com")
_PORTS = {"http": 80, "https": 443, "rsync": 873}
_RSYNC = re.compile(r"(?:rsync://(?:[^/@]*@)?([^/]+)/|(?:[^/@]*@)?([^/:]+)::)([^/]+)(?:/(.*))?", re.DOTALL)


class _Tree(NamedTuple):
    """Objects that a mirror makes of one part of its sources.

    Attributes:
        name: the beginning of their names; of a single file, the whole name.
        span: the part of the sources.
        source: that contains the span.
    """

    name: str
    span: Span
    source: Source


class TargetScope:
    """The objects that a mirror can make.

    Args:
        mirror: the definition.
        real_paths: returns the paths without links by which a target that is a directory can be reached.

    Attributes:
        mirror: the definition.

    Raises:
        ConfigurationError: see `Keys`.
    """

    def __init__(self, mirror: Mirror, real_paths: Callable[[str], Sequence[str]] = lambda path: (path,)) -> None:
        self.mirror = mirror
        self._keys: Keys = mirror.keys()
        self._is_directory = mirror.actor in ("file", "rsync")
        self._place, self._tops = _place_of(mirror, real_paths)
        spans = self._keys.spans("")
        self._trees = [_Tree(name, span, _source_at(self._keys, span)) for span in spans for name in self.names(span.prefix)]

    def names(self, key: str) -> list[str]:
        """The names of the object with this key, in its place: more than one if the target is a directory that has several paths."""
        return [re.sub("/+", "/", f"{top}/{key}") for top in self._tops] if self._is_directory else [key]

    def is_same_place(self, other: TargetScope) -> bool:
        """Whether both mirrors send to the same place. In doubt, they do."""
        if self.mirror.actor != other.mirror.actor or self._place.keys() != other._place.keys():
            return False
        pairs = [(name, value, other._place[name]) for name, value in self._place.items()]
        return all(one == two or (name in _OPTIONAL and "" in (one, two)) for name, one, two in pairs)

    def has(self, name: str) -> bool:
        """Whether the mirror can make the object of this name, in its place."""
        for tree in self._trees:
            key = tree.span.prefix + name[len(tree.name) :] if name.startswith(tree.name) else None
            if key is not None and self._keys.path(key) is not None:
                return True
        return False

    def meets(self, other: TargetScope) -> bool:
        """Whether there may be objects that both mirrors can make. In doubt, there are."""
        return self.is_same_place(other) and any(
            self._meet(other, mine, theirs) for mine in self._trees for theirs in other._trees
        )  # fmt: skip

    def _meet(self, other: TargetScope, mine: _Tree, theirs: _Tree) -> bool:
        longer = max(mine.name, theirs.name, key=len)
        if not (longer.startswith(mine.name) and longer.startswith(theirs.name)):
            return False
        if mine.span.only or theirs.span.only:
            single = mine.name if mine.span.only else theirs.name
            return self.has(single) and other.has(single)
        one, two = self._pattern_automaton(mine, longer[len(mine.name) :]), other._pattern_automaton(theirs, longer[len(theirs.name) :])
        return one is not None and two is not None and have_common_ending(one, two)

    def _pattern_automaton(self, tree: _Tree, rest: str) -> PatternAutomaton | None:
        """The paths of the tree whose keys go on with `rest`; None if there are none.

        Args:
            tree: one of this mirror's.
            rest: what the keys have behind the prefix of the tree.
        """
        keys, span, root = self._keys, tree.span, tree.source.path
        beginning = slashed(span.directory) + rest
        if keys.is_target_excluded(span.prefix + rest) or keys.key(f"{beginning}x") != f"{span.prefix}{rest}x":
            return None
        above = beginning.rpartition("/")[0]
        while len(above) > len(root):
            if not keys.enters(above):
                return None
            above = above.rpartition("/")[0]
        return PatternAutomaton(beginning, root, self.mirror.source_filter, self.mirror.source_exclude)


class SharedKeys:
    """The keys of a mirror that other mirrors could have made.

    Args:
        own: the scope of the mirror.
        others: those of the other mirrors.
    """

    def __init__(self, own: TargetScope, others: Sequence[TargetScope]) -> None:
        self._own = own
        self._others = tuple(others)

    def __contains__(self, key: object) -> bool:
        names = self._own.names(str(key)) if self._others else ()
        return any(other.has(name) for other in self._others for name in names)


def _source_at(keys: Keys, span: Span) -> Source:
    return next(one for one in keys.sources if one.path == span.only or one.root == span.directory or one.holds(span.directory))


def _place_of(mirror: Mirror, real_paths: Callable[[str], Sequence[str]]) -> tuple[dict[str, str], Sequence[str]]:
    """Where a mirror sends to: the settings that say so, and the paths of the directory in that place; "" if there are no directories."""
    container = str(mirror.settings.get("target_container") or "")
    if mirror.actor == "file":
        return {}, real_paths(container)
    if mirror.actor == "rsync":
        found = _RSYNC.fullmatch(container)
        if found is None:
            return {"container": container}, ("",)
        host, port = _host_and_port(f"rsync://{found[1] or found[2]}")
        return {"host": f"{host}:{port}", "module": found[3]}, (f"/{found[4] or ''}",)
    if mirror.actor in ADDRESS:
        named = {name: _plain_url(str(mirror.settings.get(name) or default)) for name, default in ADDRESS[mirror.actor].items()}
        return {"container": container, **named}, ("",)
    # Which options of a user's own actor say where its target is, is not known: without a container, all of them.
    options = {name: repr(value) for name, value in mirror.settings.items() if not container}
    return {"container": container, **options}, ("",)


def _plain_url(value: str) -> str:
    """A URL in one spelling; any other text as it is."""
    if "://" not in value:
        return value
    scheme = value.partition("://")[0].lower()
    host, port = _host_and_port(value)
    if _AMAZON.fullmatch(host):
        host = "s3.amazonaws.com"  # buckets have one name in all regions
    return f"{scheme}://{host}:{port}{urlsplit(value).path.rstrip('/')}"


def _host_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # no port, or no address
        return url, None
