"""A mirror: one source kept equal in one target, with its options. A plain value, published once under its name."""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any

from ..errors import UnknownDefinition
from .file_rules import FileRules
from .json_fields import dataclass_of
from .keys import Keys, Source
from .text import printable

#: The queue of mirrors without a queue of their own, and the prefix of the names of the others.
DEFAULT_QUEUE = "autosync"
#: How long a worker's claim lasts without a renewal, in seconds, if the definition has no `lease`.
LEASE = 30.0
#: The bounds of a lease, in seconds. A claim is renewed every third of its lease, and not used in the last `FENCE` of it, so a renewal may
#: be late by 0.4 of the lease: with the shortest lease by 2.4 s. A broker that waits for its disk (`appendfsync everysec`) is up to 2 s
#: late. The watcher's lock lasts for half of the lease and is renewed at least every 1.5 s: with the shortest lease, one renewal may fail.
#: With the longest lease, the keys of a dead worker wait for an hour.
SHORTEST_LEASE, LONGEST_LEASE = 6.0, 3600.0
#: The last part of a lease, in which a claim is not used any more: requests that were sent before have this time to arrive at the target.
FENCE = 8 / 30
#: The longest lease of the watcher's lock, in seconds.
LONGEST_WATCHER_LEASE = 15.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies the directory of a source root, so that another directory in its place is detected.

    Attributes:
        device: `st_dev`, comparable only on the host that read it.
        inode: `st_ino`; a network share has the same number on every client.
    """

    device: int
    inode: int


#: The identity of a directory that is in doubt on the file host: no directory has it.
IN_DOUBT = Identity(0, 0)
#: The format of definitions. It grows when readers of the older format would misread fields that both have.
FORMAT = 1
_SAME_VERSION = "install the same version of autosync on all hosts"
#: The filter that every path passes.
_EVERYTHING = "^.*$"


def _later(default: Any, *, is_optional: bool = False) -> Any:
    """A field of `Mirror` that is newer than the first format. It is not written if it has its default.

    Args:
        default: its value if it is not written.
        is_optional: whether a worker without it may ignore it.
    """
    return field(default=default, metadata={"is_optional": is_optional})


@dataclass(frozen=True, slots=True)
class Mirror:
    """The definition of a mirror, as the file host publishes it and every worker reads it. It holds no secret.

    Attributes:
        name: the mirror's name; names in Redis contain it.
        actor: short name of an actor in `actors/`, or `module.Class`.
        sources: the mirrored directories and files, with paths of the file host.
        identities: the identity of each source root's directory, and of each mount point below, by path; 0 and 0 if the directory is in
            doubt (`source/roots.py`).
        follow_links: whether symbolic links are followed to files and directories of the same source.
        settings: the values of the actor's options, without the secret ones.
        secrets: the names of the secret options that have a value on the file host. Workers must have one too.
        delete: whether keys without a file in the source are deleted from the target.
        threads: the most transfers in flight in one worker process.
        attempts: how often a key is tried before it goes to the failed list.
        queue: the Celery queue for its tasks.
        host: `file_view` of the watcher: the boot id of the file host, and the mount namespace after a space. Earlier versions wrote only
            the boot id. A worker that does not have this view of the files is an upload box.
        lease: how long a claim or an in-flight slot lasts without a renewal, in seconds.
        min_size: a smaller file is skipped, in bytes.
        max_size: a larger file is skipped, in bytes; None for no bound.
        state_directories: directories with autosync's own state in the sources; they are left out.
        one_file_system: whether directories on other file systems than that of their PATH are left out.
        max_links: number of keys behind links to directories that are always sent.
        target_exclude: keys that begin with one of these texts are out of scope.
        overlap: the names of mirrors that may make the same keys.
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
    lease: float = _later(LEASE)
    state_directories: tuple[str, ...] = _later((), is_optional=True)
    min_size: int = _later(0)
    max_size: int | None = _later(None)
    one_file_system: bool = _later(False, is_optional=True)
    max_links: int = _later(FileRules().max_links, is_optional=True)
    target_exclude: tuple[str, ...] = _later(())
    overlap: tuple[str, ...] = _later((), is_optional=True)

    @property
    def boot(self) -> str:
        """The boot id of the file host."""
        return self.host.partition(" ")[0]

    @property
    def watcher_lease(self) -> float:
        """How long the watcher's lock lasts without a renewal, in seconds."""
        return min(LONGEST_WATCHER_LEASE, self.lease / 2)

    @property
    def file_rules(self) -> FileRules:
        """Which of the files in scope are sent."""
        return FileRules(
            follow_links=self.follow_links,
            min_size=self.min_size,
            max_size=self.max_size,
            one_file_system=self.one_file_system,
            max_links=self.max_links,
        )

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
            self.target_exclude,
        )

    def target_hash(self) -> str:
        """A short hash of what makes the target: the actor and its settings."""
        return version_of(json.dumps([self.actor, self.settings], sort_keys=True))

    def is_within_scope_of(self, other: Mirror) -> bool:
        """Whether every key in scope is surely in the scope of another definition, in the same target. Settings that only one definition
        has are ignored: an actor of another version may have more of them."""
        mine, theirs = (_plain(one.settings) for one in (self, other))
        same = ("actor", "source_prefix", "target_prefix", "done_marker")
        return (
            all(getattr(self, name) == getattr(other, name) for name in same)
            and all(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
            and {source.path for source in self.sources} <= {source.path for source in other.sources}
            and other.source_filter in (self.source_filter, _EVERYTHING)
            and {*self.source_exclude} >= {*other.source_exclude}
            and {*self.temporary} >= {*other.temporary}
            and {*self.target_exclude} >= {*other.target_exclude}
            and self.follow_links <= other.follow_links
            and self.one_file_system >= other.one_file_system
        )

    def dumps(self) -> str:
        """The definition as JSON; equal definitions have equal text. Fields that are newer than the first format are left out if they have
        their default, so that workers of older versions can read definitions that do not use them."""
        fields = asdict(self)
        later = [name for name, default in _LATER.items() if getattr(self, name) != default]
        for name in _LATER.keys() - later:
            del fields[name]
        if later:
            fields |= {"format": FORMAT, "optional": sorted(_OPTIONAL.intersection(later))}
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Mirror:
        """The definition that `dumps` of this or another version wrote. An unknown field is ignored if the definition lists it as optional.

        Raises:
            UnknownDefinition: the definition needs a later version.
            ValueError: the text is no definition.
        """
        mirror = dataclass_of(cls, _supported_fields(_object_of(text)))
        if not is_lease(mirror.lease):
            raise ValueError(f"its lease is {mirror.lease} s")
        for name, least in _LEAST.items():
            if getattr(mirror, name) < least:
                raise ValueError(f"its {name} is {getattr(mirror, name)}")
        if not mirror.sources:
            raise ValueError("it has no source")
        return mirror


def _object_of(text: str) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        ValueError: the text is no JSON object, is nested too deeply, or has texts that cannot be paths or go through Redis.
    """
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")  # JSON can carry halves of characters
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _supported_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of a definition that this version has.

    Raises:
        UnknownDefinition: the definition requires others.
        ValueError: it is no definition.
    """
    fields = dict(raw)
    number, optional = fields.pop("format", FORMAT), fields.pop("optional", [])
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise UnknownDefinition(f"its format is {reprlib.repr(number)}, and this version reads {FORMAT}", _SAME_VERSION)
    if not isinstance(optional, list) or not all(isinstance(name, str) for name in optional):
        raise ValueError(f"its optional is {reprlib.repr(optional)}")
    unknown = fields.keys() - {field.name for field in dataclass_fields(Mirror)}
    required = sorted(unknown.difference(optional))
    if required:
        raise UnknownDefinition(f"this version does not know {printable(', '.join(required))}", _SAME_VERSION)
    for name in sorted(_ALWAYS - fields.keys()):
        raise ValueError(f"it has no {name}")
    return {name: value for name, value in fields.items() if name not in unknown}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the types of JSON."""
    return dict(json.loads(json.dumps(settings)))


def is_lease(seconds: float) -> bool:
    """Whether a mirror may have this lease, in seconds."""
    return SHORTEST_LEASE <= seconds <= LONGEST_LEASE


def version_of(definition: str) -> str:
    """A short hash of a definition's text."""
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


#: Fields that are newer than the first format, with their defaults, which are not written.
_LATER = {one.name: one.default for one in dataclass_fields(Mirror) if one.metadata}
#: Those of them that a worker without them may ignore.
_OPTIONAL = frozenset(one.name for one in dataclass_fields(Mirror) if one.metadata.get("is_optional"))
#: Fields that every version writes, though they have defaults.
_ALWAYS = frozenset({"identities", "source_exclude", "temporary", "secrets"})
#: The least values of numbers.
_LEAST = {"threads": 1, "attempts": 1, "min_size": 0, "max_links": 1}
