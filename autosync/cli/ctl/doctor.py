"""Checks a mirror, its broker, file host, sources, workers and target, and suggests a cure for each problem."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple

import redis

from ...celery import sending_app
from ...compare.diff import MARGIN
from ...errors import AutosyncError, StartError
from ...ledger import address, connect
from ...model.mirror import IN_DOUBT, Mirror
from ...process.boot_id import boot_id, has_file_view
from ...state.root_memory import open_doubts
from .mirrors import MirrorHandle
from .status import watcher_of
from .verify import make_actor

#: How long to wait for responses of workers, in seconds.
_WORKER_SECONDS = 2.0
#: From this duration on, in seconds, a round trip to the broker slows everything.
_SLOW_SECONDS = 0.02
#: Number of round trips. The shortest counts; the others may have waited for a processor.
_ROUND_TRIPS = 10
#: From this share on, the limit of inotify watches is nearly reached.
_NEARLY_FULL = 0.9
_WATCHES = "/proc/sys/fs/inotify/max_user_watches"


class Verdict(Enum):
    """The result of a check."""

    GOOD = "ok"
    #: It works now, but may fail later.
    DOUBT = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """The result of one check; `cure`: what the user can do."""

    about: str
    verdict: Verdict
    detail: str
    cure: str = ""


def findings(one: MirrorHandle, secrets: dict[str, str]) -> Iterator[Finding]:
    """Run all checks that are possible on this host. If this version cannot read the definition, it runs those that do not need it.

    Args:
        one: the mirror.
        secrets: values of secret options of its actor.
    """
    yield from _broker(one.broker)
    mirror: Mirror | None = None
    try:
        mirror = one.mirror()
    except StartError as error:
        yield Finding("definition", Verdict.WRONG, error.what, error.cure)
    yield from _watcher(one, mirror)
    if mirror:
        yield from _sources(mirror)
    for path, reason in open_doubts(one.ledger).items():
        yield Finding(f"source {path}", Verdict.WRONG, f"{reason}; keys below it are kept", "mount it, or autosync-ctl accept")
    scan_error = one.ledger.sync_state.scan_error()
    if scan_error:
        yield Finding("scans", Verdict.WRONG, f"the last one has failed: {scan_error}")
    yield from _workers(one, mirror.queue if mirror else one.ledger.definition.queue())
    if mirror:
        yield from _target(mirror, secrets)


def _broker(url: str) -> Iterator[Finding]:
    client = connect(url)
    try:
        client.ping()  # connects
        delay, ahead = min(_round_trip(client) for _ in range(_ROUND_TRIPS))
        detail = f"{address(url)} responds in {delay * 1000:.1f} ms"
        cure = "put it nearer: each batch waits for it several times" if delay > _SLOW_SECONDS else ""
        yield Finding("broker", Verdict.DOUBT if cure else Verdict.GOOD, detail, cure)
        if abs(ahead) > MARGIN:
            yield Finding("broker's clock", Verdict.DOUBT, f"is {ahead:+.0f} s from this host's", "let both hosts follow a time server")
    except redis.exceptions.RedisError as error:
        yield Finding("broker", Verdict.WRONG, f"{address(url)}: {error}", "start it, or correct --broker")
        return
    try:
        settings = client.config_get("maxmemory", "maxmemory-policy", "appendonly", "save")
    except redis.exceptions.RedisError:
        yield Finding("broker's settings", Verdict.DOUBT, "may not be read", "check that it never evicts keys, and writes them to its disk")
        return
    if settings.get("maxmemory", "0") != "0" and settings.get("maxmemory-policy") != "noeviction":
        policy = settings.get("maxmemory-policy")
        yield Finding("broker's memory", Verdict.WRONG, f"when it is full, keys are lost ({policy})", "set maxmemory-policy noeviction")
    if settings.get("appendonly") != "yes":
        persistence = "only snapshots are kept" if settings.get("save") else "nothing is kept"
        cure = "set appendonly yes; without it, everything is scanned again after each restart"
        yield Finding("broker's memory", Verdict.DOUBT, f"{persistence} of its data when it restarts", cure)


def _round_trip(client: redis.Redis) -> tuple[float, float]:
    """The duration of a round trip to the broker, and how far its clock is ahead of this host's; both in seconds."""
    began = time.time()
    seconds, more = client.time()
    delay = time.time() - began
    return delay, seconds + more / 1e6 - began - delay / 2


def _watcher(one: MirrorHandle, mirror: Mirror | None) -> Iterator[Finding]:
    stats = one.ledger.stats.read()
    watcher = watcher_of(stats.holder)
    if watcher is None:
        yield Finding("file host", Verdict.WRONG, "no watcher runs for this mirror", "start its autosync or autosync-watch")
        return
    yield Finding("file host", Verdict.GOOD, f"watched by process {watcher.get('pid')} on {watcher.get('host')}")
    if stats.paused:
        yield Finding("file host", Verdict.DOUBT, "the mirror is paused", "autosync-ctl resume")
    if mirror is None or mirror.boot != boot_id():
        return
    with suppress(OSError, ValueError, TypeError):
        used = _watches_of(int(watcher["pid"]))
        with open(_WATCHES, encoding="ascii") as file:
            most = int(file.read())
        full = used > most * _NEARLY_FULL
        cure = f"sysctl fs.inotify.max_user_watches={most * 2}" if full else ""
        yield Finding("watches", Verdict.DOUBT if full else Verdict.GOOD, f"{used} directories of at most {most}", cure)


def _watches_of(pid: int) -> int:
    """The number of inotify watches of a process: proc_pid_fdinfo(5) has a line for each."""
    count = 0
    for number in os.listdir(f"/proc/{pid}/fdinfo"):
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
            count += sum(line.startswith("inotify wd:") for line in file)
    return count


def _sources(mirror: Mirror) -> Iterator[Finding]:
    for source in mirror.sources:
        about = f"source {source.root}"
        try:
            seen = os.stat(source.root)
        except (OSError, ValueError) as error:  # ValueError: NUL in the path
            if has_file_view(mirror.host):
                reason = error.strerror if isinstance(error, OSError) else error
                yield Finding(about, Verdict.WRONG, f"{reason} here, on the file host", "mount it; nothing is deleted meanwhile")
            else:
                yield Finding(about, Verdict.DOUBT, "is not on this host", "run this on the file host, or on an upload box")
            continue
        expected = mirror.identities.get(source.root)
        if expected == IN_DOUBT:
            yield Finding(about, Verdict.WRONG, "is another directory than the one that is known", "mount the right one, or see the log")
            continue
        same_device = mirror.boot != boot_id() or (expected is not None and seen.st_dev == expected.device)
        if expected is not None and (seen.st_ino != expected.inode or not same_device):
            yield Finding(about, Verdict.WRONG, "is another directory than the one that is mirrored", "mount the right one")
        else:
            yield Finding(about, Verdict.GOOD, "is the directory that is mirrored")


def _workers(one: MirrorHandle, queue: str) -> Iterator[Finding]:
    for worker, reason in sorted(one.ledger.definition.unreadable().items()):
        what, _, cure = reason.partition("; ")
        yield Finding("workers", Verdict.WRONG, f"{worker} cannot read the definition: {what}", cure)
    for worker, what in sorted(one.ledger.disputes.unseen.read().items()):
        cure = "mount there what the file host has mounted, or correct autosync_sources; its keys wait, or go to other workers"
        yield Finding("workers", Verdict.WRONG, f"{worker} {what}", cure)
    if not queue:
        return
    app = sending_app(one.broker, queue, events=False)
    try:
        found: dict[str, list[dict[str, Any]]] = app.control.inspect(timeout=_WORKER_SECONDS).active_queues() or {}
    except Exception as error:  # of kombu, redis-py or the socket
        yield Finding("workers", Verdict.WRONG, f"cannot be reached: {type(error).__name__}: {error}")
        return
    finally:
        app.close()
    serving = sorted(name for name, queues in found.items() if any(served.get("name") == queue for served in queues))
    if serving:
        yield Finding("workers", Verdict.GOOD, f"{len(serving)} serve the queue {queue}: {', '.join(serving)}")
        return
    others = f", {len(found)} serve others" if found else ""
    cure = f"start celery -A autosync worker, with {queue} among its queues"
    yield Finding("workers", Verdict.WRONG, f"none serves the queue {queue}{others}", cure)


def _target(mirror: Mirror, secrets: dict[str, str]) -> Iterator[Finding]:
    try:
        actor = make_actor(mirror, secrets)
        actor.check()
        ahead = actor.clock_ahead()
        actor.close()
    except AutosyncError as error:
        yield Finding("target", Verdict.WRONG, error.what, error.cure)
        return
    except Exception as error:  # a user's actor may fail in any way
        yield Finding("target", Verdict.WRONG, f"{type(error).__name__}: {error}")
        return
    yield Finding("target", Verdict.GOOD, "is there, and may be listed with the credentials of this shell")
    if abs(ahead) > MARGIN:
        yield Finding("target's clock", Verdict.DOUBT, f"is {ahead:+.0f} s from this host's, which is allowed for")
