"""A mirror: one source kept equal in one target, with its options. A plain value, published once under its name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from .keys import Keys, Source

#: The queue of mirrors that have none of their own, and how the names of the others begin.
DEFAULT_QUEUE = "autosync"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which directory a source root is, so that another one in its place is noticed.

    Attributes:
        device: `st_dev`, comparable only on the host that took it.
        inode: `st_ino`; a network share shows the same number to every client.
    """

    device: int
    inode: int


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
    """

    name: str
    actor: str
    sources: tuple[Source, ...]
    identities: dict[str, Identity] = field(default_factory=dict)
    source_prefix: str = ""
    target_prefix: str = ""
    source_filter: str = "^.*$"
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
        )

    def dumps(self) -> str:
        """The definition as JSON, the same text for the same definition."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Mirror:
        """The definition that `dumps` wrote.

        Raises:
            ValueError, TypeError, KeyError: the text is no definition.
        """
        fields = json.loads(text)
        fields["sources"] = tuple(Source(**source) for source in fields["sources"])
        fields["identities"] = {root: Identity(**found) for root, found in fields["identities"].items()}
        fields["source_exclude"] = tuple(fields["source_exclude"])
        fields["temporary"] = tuple(fields["temporary"])
        fields["secrets"] = tuple(fields["secrets"])
        return cls(**fields)


def version_of(definition: str) -> str:
    """A short name for the exact text of a definition; it changes when anything in the definition does."""
    return hashlib.sha256(definition.encode()).hexdigest()[:16]
