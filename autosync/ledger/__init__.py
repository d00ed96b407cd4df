"""The ledger in Redis: which keys of a mirror are not known to be right, and who is working on them.

Celery's messages are hints; this is the truth. A key is dirty from `mark` until a worker's `done`. At most one worker holds it at a
time; a change that arrives meanwhile raises its generation, and then `done` answers "look again". What nobody holds any more is
found by `sweep`. The scripts in `scripts/` do each step at once; mark.lua describes the shapes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any, TypeVar, cast

import redis

from ..model.limits import Limits
from ..model.mirror import DEFAULT_QUEUE, LEASE, LONGEST_LOCK
from .connection import address, broker_errors, connect
from .entries import (  # fmt: skip
    GONE,
    UNKNOWN,
    Action,
    Claim,
    Facts,
    Failure,
    Hint,
    HistoryEntry,
    Marked,
    Message,
    MirrorStats,
    Published,
    Result,
    now,
    owner_prefix,
)
from .rate_limits import FleetLimits, Paced
from .scripts import Scripts

__all__ = [
    "GONE",
    "PREFIX",
    "UNKNOWN",
    "Action",
    "Claim",
    "Facts",
    "Failure",
    "FleetLimits",
    "Hint",
    "HistoryEntry",
    "Ledger",
    "Marked",
    "Message",
    "MirrorStats",
    "Paced",
    "Published",
    "Result",
    "address",
    "connect",
    "mirror_names",
    "now",
    "owner_prefix",
    "queues_of_mirrors",
]  # fmt: skip

#: Everything of ours in Redis begins with this, Celery's own keys included.
PREFIX = "autosync:"
#: How long it is known that a barrier was reached, in seconds.
_BARRIER_SECONDS = 3600

_MIRRORS = PREFIX + "mirrors"
_SCRIPTS = ("mark", "claim", "renew", "done", "sweep", "forfeit", "guard", "upload", "pace", "places", "rights")

T = TypeVar("T")

#: Of messages; `priority_steps` in broker/celery_settings.py.
_PRIORITIES = (0, 5, 9)
#: Keys in one call of a script: Lua cannot unpack more than some thousand values.
_AT_ONCE = 1000


def mirror_names(client: redis.Redis) -> list[str]:
    """The names of all mirrors that were ever registered at this broker.

    Raises:
        BrokerError: the broker did not answer.
    """
    with broker_errors(client):
        return sorted(name.decode() for name in cast(set[bytes], client.smembers(_MIRRORS)))


def queues_of_mirrors(client: redis.Redis) -> list[str]:
    """The queues of all mirrors that are registered at this broker.

    Raises:
        BrokerError: the broker did not answer.
    """
    names = mirror_names(client)
    with broker_errors(client):
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hget(_base(name) + "mirror", "queue")
        return sorted({found.decode("utf-8", "replace") for found in pipe.execute() if found})


class Ledger:
    """The ledger of one mirror. Safe to use from many threads.

    Every method raises `BrokerError` when Redis does not answer or answers with an error.

    Args:
        client: a connection, see `connect`.
        mirror: the mirror's name.
    """

    def __init__(self, client: redis.Redis, mirror: str) -> None:
        self._client = client
        self._mirror = mirror
        base = _base(mirror)
        self._keys = [base + part for part in ("mirror", "state", "since", "due", "failed", "stats", "uploads")]
        self._recent = base + "recent"
        self._place = base + "watcher"
        self._skipped = base + "skipped"
        self._asked = base + "asked"
        self._barrier = base + "barrier:"
        self._scripts = Scripts(
            client, {name: resources.files(__package__).joinpath("scripts", f"{name}.lua").read_text() for name in _SCRIPTS}
        )
        #: What this mirror's transfers pass through where they are limited.
        self.gate = FleetLimits(client, self._scripts, base)
        #: Whether there was a limit, or a target that had asked for fewer requests, when keys were claimed last.
        self.is_limited = False

    def register(self, definition: str, version: str, queue: str = DEFAULT_QUEUE, signature: str = "") -> str:
        """Publish the mirror's definition.

        Args:
            definition: as the mirror writes it.
            version: of it.
            queue: that carries its tasks, which workers learn from here.
            signature: of the definition; "": none.

        Returns:
            The epoch: it changes when Redis has lost its memory since, or may have lost the end of it, and then everything has to be looked
            at again.
        """
        with broker_errors(self._client):
            run = self._run()
            pipe = self._client.pipeline()
            pipe.sadd(_MIRRORS, self._mirror)
            pipe.hset(self._keys[0], mapping={"definition": definition, "version": version, "queue": queue, "signature": signature})
            pipe.hsetnx(self._keys[0], "epoch", uuid.uuid4().hex)
            pipe.hget(self._keys[0], "epoch")
            epoch: bytes = pipe.execute()[-1]
            return f"{epoch.decode()} {run}"

    def insist(self, listening: str = "") -> None:
        """See that the broker answers and lets this user do all that a ledger needs.

        Args:
            listening: a channel that it must be allowed to listen to as well.

        Raises:
            BrokerRefused: it will not.
            BrokerError: it does not answer.
        """
        with broker_errors(self._client):
            self._client.ping()
        self._call("rights", [], [f"{PREFIX}{{{self._mirror}}}:rights"])
        if listening:
            with broker_errors(self._client), self._client.pubsub() as channel:  # type: ignore[no-untyped-call]
                database = self._client.connection_pool.connection_kwargs.get("db") or 0
                channel.psubscribe(f"{PREFIX}/{database}.{listening}")  # as kombu does, whose names these are
                channel.get_message(timeout=5)

    def _run(self) -> str:
        """Which run of the server this is. One that was killed comes back without what it had not written, which with `appendfsync
        everysec` may be a second or two of what it had said yes to (redis.io, persistence); a replica that takes over, likewise."""
        try:
            return str(self._client.info("server").get("run_id", ""))
        except redis.exceptions.NoPermissionError:  # INFO counts as @dangerous, which a careful operator takes away
            return ""

    def definition(self) -> Published | None:
        """The published definition, or None if there is no such mirror."""
        with broker_errors(self._client):
            found = cast(list[bytes | None], self._client.hmget(self._keys[0], ["definition", "version", "signature"]))
        definition, version, signature = [text.decode("utf-8", "replace") if text else "" for text in found]
        return Published(definition, version, signature) if definition and version else None

    def cleared(self) -> tuple[str, float] | None:
        """The last look after which every difference was made right: the version of the definition and when it began."""
        with broker_errors(self._client):
            text = cast(bytes | None, self._client.hget(self._keys[0], "cleared"))
        if not text:
            return None
        version, began = text.decode().split(" ")
        return version, float(began)

    def set_cleared(self, version: str, began: float, *, accepted: bool) -> None:
        """Note that all differences which the look that began then had found are made right.

        Args:
            version: of the definition.
            began: when the look began, in seconds since the epoch.
            accepted: whether the mirror is accepted. Written at the same moment: `cleared` alone would accept it.
        """
        with broker_errors(self._client):
            self._client.hset(self._keys[0], mapping={"cleared": f"{version} {began!r}", "accepted": int(accepted)})

    def accepted(self) -> bool:
        """Whether the mirror is accepted: comparisons may delete in its target. Versions that did not write this down left `cleared` behind
        once the mirror was in sync."""
        with broker_errors(self._client):
            accepted, cleared = cast(list[bytes | None], self._client.hmget(self._keys[0], ["accepted", "cleared"]))
        return accepted == b"1" if accepted is not None else cleared is not None

    def set_accepted(self, accepted: bool) -> None:
        """Note whether the mirror is accepted."""
        with broker_errors(self._client):
            self._client.hset(self._keys[0], "accepted", int(accepted))

    def limits(self) -> Limits:
        """What the fleet together may do to the target."""
        return self.gate.limits()

    def set_limits(self, limits: Limits) -> None:
        """Limit what the fleet together may do to the target, from now on: every worker knows within a second."""
        self.gate.set_limits(limits)

    def guard(self, who: str, told: Mapping[str, int] | None = None, lock: float = LONGEST_LOCK) -> MirrorStats:
        """Take or keep the watcher's place, and see how the mirror stands. `holder` is somebody else if the place was taken.

        Args:
            who: takes it.
            told: numbers for `counted`, from whoever has the place.
            lock: how long the place is kept without a renewal, in seconds.
        """
        standing = self._standing(who, told or {}, lock)
        with broker_errors(self._client):
            run = self._run()
        return replace(standing, epoch=f"{standing.epoch} {run}")

    def standing(self) -> MirrorStats:
        """How the mirror stands, for somebody who only looks. `holder` is "" if nobody has the watcher's place."""
        return self._standing("", {}, LONGEST_LOCK)

    def counted(self) -> dict[str, int]:
        """What is counted since the mirror exists, by name: see mark.lua."""
        with broker_errors(self._client):
            found = cast(dict[bytes, bytes], self._client.hgetall(self._keys[5]))
        return {name.decode(): int(count) for name, count in found.items()}

    def _standing(self, who: str, told: Mapping[str, int], lock: float) -> MirrorStats:
        held, epoch, dirty, waiting, failed, files, size, deleted, lag, paused, asked = self._call(
            "guard",
            [who, int(lock * 1000), *(word for pair in told.items() for word in pair)],
            [self._place, *self._keys, self._asked],
        )
        return MirrorStats(
            held.decode(), epoch.decode(), dirty, waiting, failed, files, size, deleted, lag / 1000, paused=bool(paused), asked=asked
        )

    def place(self) -> tuple[str, float] | None:
        """Who has the watcher's place, and for how many seconds yet."""
        with broker_errors(self._client):
            pipe = self._client.pipeline()
            pipe.get(self._place)
            pipe.pttl(self._place)
            held, left = pipe.execute()
        return (held.decode(), max(left, 0) / 1000) if held else None

    def leave(self, who: str) -> None:
        """Give the watcher's place up, if `who` has it."""
        with broker_errors(self._client):
            if self._client.get(self._place) == who.encode():
                self._client.delete(self._place)

    def holding(self) -> int:
        """How many deletions the last look everywhere held back, since they were too many or the mirror is not accepted."""
        with broker_errors(self._client):
            return int(cast(bytes | None, self._client.hget(self._keys[0], "holding")) or 0)

    def set_holding(self, count: int) -> None:
        """Note how many deletions a look held back; they stay held until a look finds them within the limit."""
        with broker_errors(self._client):
            self._client.hset(self._keys[0], "holding", count)

    def skipped(self) -> dict[str, str]:
        """What autosync does not send, by path, with the reason."""
        with broker_errors(self._client):
            found = cast(dict[bytes, bytes], self._client.hgetall(self._skipped))
        return {_text(path): reason.decode() for path, reason in found.items()}

    def set_skipped(self, skipped: dict[str, str]) -> None:
        """Replace the list of what is not sent."""
        with broker_errors(self._client):
            pipe = self._client.pipeline()
            pipe.delete(self._skipped)
            if skipped:
                pipe.hset(self._skipped, mapping={_raw(path): reason for path, reason in skipped.items()})
            pipe.execute()

    def mark(self, found: Sequence[tuple[str, Hint]], message: Message | None = None) -> Marked:
        """Say that these keys are dirty.

        Args:
            found: keys with what is known of them.
            message: to the workers, sent at the same moment if one of the keys needs it: what is marked is never forgotten, and a message
                for what is not marked does nothing.
        """
        dirty, fresh = 0, []
        for page in _pages(found) or [()]:
            args: list[bytes | str] = []
            for key, hint in page:
                args += (_raw(key), hint.dumps())
            if message is not None:
                args.append(message.text)
            dirty, *indexes = self._call("mark", args, [*self._keys, _list_of(message.queue, message.priority)] if message else None)
            fresh += [page[index - 1][0] for index in indexes]
        return Marked(dirty, fresh)

    def send(self, message: Message) -> None:
        """Put a message into its queue."""
        with broker_errors(self._client):
            self._client.lpush(_list_of(message.queue, message.priority), message.text)

    def claim(self, owner: str, version: str, keys: Sequence[str], lease: float = LEASE) -> list[Claim] | None:
        """Take those of the keys that are dirty and that nobody holds.

        Args:
            owner: who will hold them; no spaces.
            version: of the definition that the worker goes by.
            keys: the keys.
            lease: how long the claims hold without a renewal, in seconds.

        Returns:
            What was taken, or None if the mirror has another definition by now; then nothing was.
        """
        claims: list[Claim] = []
        for page in _pages(keys):
            answers = self._call("claim", [owner, int(lease * 1000), version, *map(_raw, page)])
            if answers is None:
                return claims or None  # what was taken is worked on; the rest waits for who knows the new definition
            self.is_limited = bool(answers.pop(0))
            claims += [_claim(key, said) for key, said in zip(page, answers, strict=True) if not isinstance(said, int)]
        return claims

    def renew(self, owner: str, keys: Sequence[str], lease: float = LEASE) -> list[str]:
        """Keep claims alive for another lease. Returns those that this owner does not hold any more."""
        lost = []
        for page in _pages(keys):
            lost += [page[index - 1] for index in self._call("renew", [owner, int(lease * 1000), *map(_raw, page)])]
        return lost

    def done(self, owner: str, outcomes: Sequence[Result]) -> tuple[list[Claim], list[str]]:
        """Say what became of claimed keys.

        Returns:
            The keys that changed meanwhile and are still held, by a new claim: look at the disk again. And those that the claim did not
            hold any more when this was said; whoever does not know what another may have done since marks them again.
        """
        again: list[Claim] = []
        lost: list[str] = []
        for page in _pages(outcomes):
            uploaded = [one.size for one in page if one.deed is Action.UPLOADED]
            deleted = sum(one.deed is Action.DELETED for one in page)
            args: list[Any] = [owner, len(uploaded), sum(uploaded), deleted]
            for one in page:
                args += (_raw(one.claim.key), one.claim.ticket, _told(one))
            for one, said in zip(page, self._call("done", args, [*self._keys, self._recent]), strict=True):
                if said is None:
                    continue
                if isinstance(said, bytes):
                    again.append(_claim(one.key, said))
                else:
                    lost.append(one.key)
        return again, lost

    def begun(self, key: str, token: str, instead: str = "") -> None:
        """Note an upload in parts that the target may hold open for a key from now on.

        Args:
            key: the key; its holder calls this before it sends the first part.
            token: by which the actor knows the upload again; one line of text.
            instead: what was noted before and is replaced.

        Raises:
            ValueError: the token is none.
        """
        if not token or "\n" in token:
            raise ValueError(f"{token!r} is not one line of text")
        self._call("upload", [_raw(key), _raw(token), _raw(instead)])

    def ended(self, key: str, token: str) -> None:
        """Note that an upload is not open any more: completed, aborted or unknown to the target. Others of the key stay noted."""
        self._call("upload", [_raw(key), "", _raw(token)])

    def uploads(self) -> dict[str, list[str]]:
        """The uploads that are noted as open: their tokens by key."""
        with broker_errors(self._client):
            found = cast(dict[bytes, bytes], self._client.hgetall(self._keys[6]))
        return {_text(key): _text(tokens).split("\n") for key, tokens in found.items()}

    def sweep(self, most: int = 1000, age: float | None = None) -> list[str]:
        """Keys that nobody holds and that need a message.

        Args:
            most: at most this many.
            age: in seconds; also keys that have been dirty for that long and whose message seems to be lost. None: not those.
        """
        found: list[bytes] = self._call("sweep", [most, -1 if age is None else int(age * 1000)])
        return [_text(key) for key in found]

    def forfeit(self, owners: str) -> int:
        """End the claims of workers that are known to be dead, so that the next sweep finds their keys.

        Args:
            owners: how their owner names begin; "" means all.

        Returns:
            How many claims there were.
        """
        self.gate.forfeit(owners)
        return int(self._call("forfeit", [owners]))

    def failures(self) -> Iterator[Failure]:
        """The failed list."""
        with broker_errors(self._client):
            for key, text in self._client.hscan_iter(self._keys[4], count=500):
                yield Failure(_text(key), *json.loads(text))

    def failure(self, key: str) -> Failure | None:
        """The entry of one key in the failed list."""
        with broker_errors(self._client):
            text = cast(bytes | None, self._client.hget(self._keys[4], _raw(key)))
        return Failure(key, *json.loads(text)) if text else None

    def facts(self, key: str) -> Facts:
        """What is known about one key."""
        raw = _raw(key)
        with broker_errors(self._client):
            pipe = self._client.pipeline()
            pipe.hget(self._keys[1], raw)
            pipe.zscore(self._keys[2], raw)
            pipe.zscore(self._keys[3], raw)
            pipe.hget(self._keys[6], raw)
            pipe.time()
            state, since, due, uploads, (seconds, more) = pipe.execute()
        owner, attempts, hint = "", 0, None
        if state:
            _, _, tries, holder, told = state.decode().split(" ", 4)
            owner, attempts, hint = holder if holder != "-" else "", int(tries), Hint.loads(told)
        return Facts(
            dirty=None if since is None else since / 1000,
            due=None if due is None else due / 1000,
            owner=owner,
            attempts=attempts,
            hint=hint,
            uploads=len(_text(uploads).split("\n")) if uploads else 0,
            failure=self.failure(key),
            now=seconds + more / 1e6,
        )

    def recent(self, key: str) -> list[HistoryEntry]:
        """What became of a key lately, the last first; of the last 10,000 outcomes of the mirror."""
        with broker_errors(self._client):
            rows = cast(list[bytes], self._client.lrange(self._recent, 0, -1))
        told = b" " + _raw(key)
        split = (row.split(b" ", 4) for row in rows if row.endswith(told))
        return [
            HistoryEntry(int(when) / 1000, owner.decode().rpartition(":")[0], what.decode(), int(number))
            for when, owner, what, number, found in split
            if found == told[1:]
        ]

    def in_hand(self, most: int = 10_000) -> dict[str, list[str]]:
        """The keys that workers hold, by the owner's name, of the first so many that are held or wait for their next try."""
        with broker_errors(self._client):
            keys = cast(list[bytes], self._client.zrange(self._keys[3], 0, most - 1))
            states = cast(list[bytes | None], self._client.hmget(self._keys[1], keys)) if keys else []
        found: dict[str, list[str]] = {}
        for key, state in zip(keys, states, strict=True):
            owner = state.split(b" ", 4)[3].decode() if state else "-"
            if owner != "-":
                found.setdefault(owner, []).append(_text(key))
        return found

    def pause(self) -> None:
        """Give out no more claims, until `resume`. What is in hand is finished."""
        with broker_errors(self._client):
            self._client.hset(self._keys[0], "paused", 1)

    def resume(self) -> None:
        """Give out claims again. The watcher's next sweeps send messages for what has gathered."""
        with broker_errors(self._client):
            self._client.hdel(self._keys[0], "paused")

    def ask_for_look(self, path: str) -> None:
        """Ask the watcher to compare what is at or below a path; "" is everything."""
        self._ask("look", path)

    def ask_for_barrier(self, name: str) -> None:
        """Ask the watcher to say (`say_barrier`) once all that has happened in the source by then is marked here."""
        self._ask("barrier", name)

    def asked(self) -> list[tuple[str, str]]:
        """What was asked of the watcher since this was called last: "look" and a path, or "barrier" and its name."""
        with broker_errors(self._client):
            pipe = self._client.pipeline()
            pipe.lrange(self._asked, 0, -1)
            pipe.delete(self._asked)
            found = pipe.execute()[0]
        return [(what, about) for what, _, about in (_text(one).partition(" ") for one in found)]

    def say_barrier(self, name: str) -> None:
        """Say that all is marked that had happened when this barrier was asked for."""
        with broker_errors(self._client):
            seconds, more = self._client.time()
            self._client.set(f"{self._barrier}{name}", seconds * 1000 + more // 1000 + 1, ex=_BARRIER_SECONDS)

    def before_barrier(self, name: str) -> int | None:
        """How many keys are dirty since before a barrier; None: it is not reached."""
        with broker_errors(self._client):
            reached = cast(bytes | None, self._client.get(f"{self._barrier}{name}"))
            return None if reached is None else int(self._client.zcount(self._keys[2], "-inf", reached.decode()))

    def _ask(self, what: str, about: str) -> None:
        with broker_errors(self._client):
            self._client.rpush(self._asked, _raw(f"{what} {about}"))

    def forget(self) -> None:
        """Remove all that the broker knows of the mirror, and what waits in its queue, if no other has the same. The target stays as it
        is."""
        with broker_errors(self._client):
            queue = cast(bytes | None, self._client.hget(self._keys[0], "queue"))
            pipe = self._client.pipeline()
            pipe.srem(_MIRRORS, self._mirror)
            pipe.delete(*self._keys, self._place, self._skipped, self._asked, self._recent, *self.gate.keys)
            pipe.execute()
            if queue and (name := queue.decode()) not in (DEFAULT_QUEUE, *queues_of_mirrors(self._client)):
                self._client.delete(*(_list_of(name, priority) for priority in _PRIORITIES))

    def dirty(self) -> int:
        """How many keys are dirty."""
        with broker_errors(self._client):
            return int(self._client.hlen(self._keys[1]))

    def waiting(self, queue: str, priorities: Iterable[int] = _PRIORITIES) -> int:
        """How many messages wait in a Celery queue, over all its priorities."""
        with broker_errors(self._client):
            pipe = self._client.pipeline(transaction=False)
            for priority in priorities:
                pipe.llen(_list_of(queue, priority))
            return int(sum(pipe.execute()))

    def _call(self, name: str, args: Sequence[Any], keys: Sequence[str] | None = None) -> Any:
        with broker_errors(self._client):
            return self._scripts.run(name, keys or self._keys, args)


def _base(mirror: str) -> str:
    """How all names begin in Redis that are a mirror's; the braces keep them in one slot of a cluster."""
    return f"{PREFIX}{{{mirror}}}:"


def _list_of(queue: str, priority: int) -> str:
    """The list in which kombu keeps the messages of one priority (`priority_steps` and `sep` in broker/celery_settings.py)."""
    return f"{PREFIX}{queue}:{priority}" if priority else PREFIX + queue


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _pages(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]


#: As done.lua reads outcomes that have no more to say.
_WORDS = {Action.DELETED: "deleted", Action.NOTHING: "equal", Action.BACK: "back"}


def _told(outcome: Result) -> str:
    """An outcome as done.lua reads it."""
    if outcome.deed is Action.RETRY:
        return f"retry {int(outcome.delay * 1000)}"
    if outcome.deed is Action.FAILED:
        return f"failed {json.dumps(outcome.failure[1:]) if outcome.failure else ''}"
    return f"sent {outcome.size}" if outcome.deed is Action.UPLOADED else _WORDS[outcome.deed]


def _claim(key: str, said: bytes | list[bytes]) -> Claim:
    text, *unfinished = [said] if isinstance(said, bytes) else said
    ticket, attempts, hint = text.decode().split(" ", 2)
    tokens = tuple(token for told in unfinished for token in _text(told).split("\n"))
    return Claim(key, int(attempts), Hint.loads(hint), tokens, ticket)
