"""A mirror: one source kept equal in one target, with its options. A plain value, published once under its name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any

from ..errors import UnknownDefinition
from .keys import Keys, Source

#: The queue of mirrors that have none of their own, and how the names of the others begin.
DEFAULT_QUEUE = "autosync"
#: How long a worker's claim holds without a renewal, where the definition does not say it, in seconds.
LEASE = 30.0
#: The bounds of a lease, in seconds. A claim is renewed every third of its lease, and not used in the last `FENCE` of it, so a renewal may
#: be late by 0.4 of the lease: with the shortest by 2.4 s. A broker that waits for its disk (`appendfsync everysec`) is up to 2 s late. The
#: watcher's lock holds for half of the lease and is renewed at least every 1.5 s: with the shortest, one renewal may fail. With the
#: longest, a dead worker keeps its keys from the others for an hour.
SHORTEST_LEASE, LONGEST_LEASE = 6.0, 3600.0
#: The part of a lease, at its end, in which a claim is not used any more: what was begun before has so long to arrive at the target.
FENCE = 8 / 30
#: How long the watcher's lock holds without a renewal, at most, in seconds.
LONGEST_LOCK = 15.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Which directory a source root is, so that another one in its place is noticed.

    Attributes:
        device: `st_dev`, comparable only on the host that took it.
        inode: `st_ino`; a network share shows the same number to every client.
    """

    device: int
    inode: int


#: The format of definitions. It grows when a reader of an older one would misread what it does know.
FORMAT = 1
_SAME_VERSION = "install the same version of autosync on all hosts"
#: The filter that leaves nothing out.
_EVERYTHING = "^.*$"


@dataclass(frozen=True, slots=True)
class Mirror:
    """The definition of a mirror, as the file host publishes it and every worker reads it. It holds no secret.

    Attributes:
        name: under which its definition, ledger and failed list stand in Redis.
        actor: short name of an actor of ours, or `module.Class`.
        sources: what is mirrored; paths as the file host sees them.
        identities: which directory each source root is, by root.
        follow_links: whether symbolic links are followed to files and directories of the same source.
        settings: the values of the actor's options, without the secret ones.
        secrets: the names of those secret options that have a value on the file host, so that workers must have one too.
        delete: whether keys that are gone from the source are deleted from the target.
        threads: transfers in flight in one worker process.
        attempts: how often a key is tried before it goes to the failed list.
        queue: the Celery queue that carries its tasks.
        host: the boot id of the file host. A worker that runs there sees what the watcher saw, at once.
        lease: how long a claim or a place in flight holds without a renewal, in seconds.
        state_directories: directories in the sources in which autosync keeps its own state; they are left out.
    """

    name: str
    actor: str
    sources: tuple[Source, ...]
    identities: dict[str, Identity] = field(default_factory=dict)
    source_prefix: str = ""
    target_prefix: str = ""
    source_filter: str = _EVERYTHING
    source_exclude: tuple[str, ...] = ()
    temporary: tuple[str, ...] = ()
    done_marker: str = ""
    follow_links: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    delete: bool = True
    threads: int = 160
    attempts: int = 10
    queue: str = DEFAULT_QUEUE
    host: str = ""
    lease: float = LEASE
    state_directories: tuple[str, ...] = ()

    @property
    def lock(self) -> float:
        """How long the watcher's lock holds without a renewal, in seconds."""
        return min(LONGEST_LOCK, self.lease / 2)

    def keys(self) -> Keys:
        """The naming rule and scope of this mirror.

        Raises:
            ConfigurationError: see `Keys`.
        """
        return Keys(
            self.sources,
            self.source_prefix,
            self.target_prefix,
            self.source_filter,
            self.source_exclude,
            self.temporary,
            self.done_marker,
            self.state_directories,
        )

    def is_within_scope_of(self, other: Mirror) -> bool:
        """Whether every key in scope is known to be one of another definition's too, in the same target. A setting that only one of them
        knows does not count: an actor of another version may have more of them."""
        mine, theirs = (_plain(one.settings) for one in (self, other))
        same = ("actor", "source_prefix", "target_prefix", "done_marker")
        return (
            all(getattr(self, name) == getattr(other, name) for name in same)
            and all(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
            and {source.path for source in self.sources} <= {source.path for source in other.sources}
            and other.source_filter in (self.source_filter, _EVERYTHING)
            and {*self.source_exclude} >= {*other.source_exclude}
            and {*self.temporary} >= {*other.temporary}
            and self.follow_links <= other.follow_links
        )

    def dumps(self) -> str:
        """The definition as JSON, the same text for the same definition. A field that came later than the first format is left out where it
        has its default, so that an option that nobody uses costs no worker of an older version anything."""
        fields = asdict(self)
        later = [name for name, default in _LATER.items() if getattr(self, name) != default]
        for name in _LATER.keys() - later:
            del fields[name]
        if later:
            fields |= {"format": FORMAT, "optional": sorted(_OPTIONAL.intersection(later))}
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Mirror:
        """The definition that `dumps` wrote, in this version or another one. A field that is not known here is ignored if the definition
        calls it optional.

        Raises:
            UnknownDefinition: it needs a later version.
            ValueError, TypeError, KeyError: the text is no definition.
        """
        fields = _known(json.loads(text))
        fields["sources"] = tuple(Source(**source) for source in fields["sources"])
        fields["identities"] = {root: Identity(**found) for root, found in fields["identities"].items()}
        fields["source_exclude"] = tuple(fields["source_exclude"])
        fields["temporary"] = tuple(fields["temporary"])
        fields["secrets"] = tuple(fields["secrets"])
        fields["state_directories"] = tuple(fields.get("state_directories", ()))
        mirror = cls(**fields)
        if not is_lease(mirror.lease):
            raise ValueError(f"its lease is {mirror.lease} s")
        return mirror


def _known(written: dict[str, Any]) -> dict[str, Any]:
    """The fields of a definition that are known here.

    Raises:
        UnknownDefinition: one that is not known is required.
    """
    fields = dict(written)
    number, optional = int(fields.pop("format", FORMAT)), fields.pop("optional", [])
    if number > FORMAT:
        raise UnknownDefinition(f"its format is {number}, and this version reads {FORMAT}", _SAME_VERSION)
    unknown = fields.keys() - {field.name for field in dataclass_fields(Mirror)}
    required = sorted(unknown.difference(optional))
    if required:
        raise UnknownDefinition(f"this version does not know {', '.join(required)}", _SAME_VERSION)
    return {name: value for name, value in fields.items() if name not in unknown}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As they come out of JSON."""
    return dict(json.loads(json.dumps(settings)))


def is_lease(seconds: float) -> bool:
    """Whether a mirror may have this lease, in seconds."""
    return SHORTEST_LEASE <= seconds <= LONGEST_LEASE


def version_of(definition: str) -> str:
    """A short name for the exact text of a definition; it changes when anything in the definition does."""
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


#: Fields that came later than the first format, with the values at which they are not written.
_LATER: dict[str, object] = {"lease": LEASE, "state_directories": ()}
#: Those of them that a worker may ignore if it does not know them.
_OPTIONAL = frozenset({"state_directories"})
