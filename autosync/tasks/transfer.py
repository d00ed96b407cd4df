"""The tasks autosync.upload and autosync.delete: make the target right for a batch of keys.

Both do the same: claim the keys, check the disk, act, report the results. A task can come late, twice or out of order; its effect depends
on the disk at that moment, not on its name.
"""

from __future__ import annotations

import logging
import reprlib
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from celery import Celery, Task, shared_task, signals

from ..broker.celery_settings import DELETE, UPLOAD
from ..errors import AutosyncError, BrokerError, BrokerRefused, ConfigurationError, UnknownDefinition, UnknownMirror
from ..ledger import Claim, check_reachable, connect
from ..model.definition_signature import key_among
from ..process.child import allow_many_open_files
from .claimed_batch import ClaimedBatch
from .pipeline import Pipeline
from .progress import Progress
from .retry import refused
from .worker_mirror import WorkerMirror
from .worker_state import WorkerState

log = logging.getLogger("autosync.transfer")

_state_lock = threading.Lock()

#: How long a task waits for a broker that does not respond before it leaves its keys to the file host, in seconds.
_BROKER_PATIENCE = 30.0
#: No message of autosync has more keys, and no mirror a longer name.
_MAX_KEYS, _MAX_NAME = 10_000, 100


def worker_state(app: Celery, name: str) -> WorkerState:
    """The state of this worker process, made when the first task needs it. `name`: Celery's name of the worker."""
    with _state_lock:  # the first tasks come all at once, and two states would have twice the transfers and the memory
        return _state_of(app, name)


@cache
def _state_of(app: Celery, name: str) -> WorkerState:
    conf = app.conf
    state = WorkerState(conf.broker_url, conf.autosync_sources, conf.autosync_secrets.by_name(), name)
    signals.worker_shutting_down.connect(lambda **_: state.draining.set(), weak=False)
    return state


@signals.celeryd_init.connect
def _check_broker(conf: Any, **_: Any) -> None:
    """Wait for a broker that is away. A broker that refuses this worker would be tried for ever, and a key that cannot be used refuses
    every mirror, so the program ends with one line instead."""
    try:
        key_among(conf.autosync_secrets.by_name())
        check_reachable(connect(conf.broker_url), "celery.pidbox")
    except (BrokerRefused, ConfigurationError) as error:
        raise SystemExit(f"autosync: {error}") from error
    except BrokerError as error:
        log.debug("%s", error)


@signals.celeryd_after_setup.connect
def _report_signatures(instance: Any, conf: Any, **_: Any) -> None:
    """An operator must see at the start whether this box accepts any definition, and Celery's own log does not show it by default."""
    if not instance.app.loader.searches_here:
        return  # autosync has started it, for a mirror of its own
    line = (
        "definitions of mirrors are checked: only those that are signed with this box's signing key are accepted"
        if key_among(conf.autosync_secrets.by_name())
        else "definitions of mirrors are not checked: this box has no signing key, and accepts what anybody writes to the broker"
    )
    if conf.autosync_log_format:
        level = logging.WARNING if conf.autosync_verbosity < 0 else logging.INFO  # visible at any verbosity
        logging.getLogger(__name__).log(level, line)
    else:
        print(f"autosync: {line}", file=sys.stderr)


@signals.worker_ready.connect
def _warm_up(sender: Any, **_: Any) -> None:
    allow_many_open_files()
    threading.Thread(target=lambda: worker_state(sender.app, sender.hostname).warm_up(), name="autosync-warm-up", daemon=True).start()


@shared_task(bind=True, name=UPLOAD)
def upload(self: Task, mirror: str, keys: list[str]) -> str:
    """Make the target right for keys that were saved. Returns a line for people: files, bytes, seconds."""
    return run(self, mirror, keys)


@shared_task(bind=True, name=DELETE)
def delete(self: Task, mirror: str, keys: list[str]) -> str:
    """Make the target right for keys that were deleted. Returns a line for people."""
    return run(self, mirror, keys)


def run(task: Task, name: str, keys: Sequence[str]) -> str:
    """Work on one batch.

    Args:
        task: the running task; its events carry the progress.
        name: the mirror's name.
        keys: the keys in the message.
    """
    if not _is_valid(name, keys):
        log.warning("a message for mirror %s was not understood and is dropped", reprlib.repr(name))
        return "not understood"
    began = time.monotonic()
    worker = worker_state(task.app, task.request.hostname)
    try:
        claimed = _claim(worker, name, keys)
    except BrokerError as error:
        log.warning("%s; the file host will requeue the batch", error, extra={"mirror": name, "worker": worker.name})
        return "the broker did not respond"
    except UnknownDefinition as error:
        worker.report_unreadable(name, error)
        return "left to workers of a later version"
    except UnknownMirror as error:
        # The keys that the broker has by the time that the definition is there again are no failures: the file host resends them.
        log.warning("mirror %s: %s", name, error, extra={"mirror": name, "worker": worker.name})
        return f"refused: {error}"
    except AutosyncError as error:
        return _refuse(worker, name, keys, error)
    if claimed is None or not claimed[1]:
        return "nothing to do"
    mirror, claims, claimed_at = claimed
    progress = Progress(task, sum(max(claim.hint.size, 0) for claim in claims))
    pipeline = Pipeline(ClaimedBatch(worker, mirror, progress, claimed_at))
    try:
        summary = pipeline.run(claims)
    finally:
        mirror.claim_table.remove([claim.key for claim in claims], claimed_at)  # after any error, too: this process works on none of them
    seconds = time.monotonic() - began
    return f"{summary}, {seconds:.2f} s"


def _is_valid(name: Any, keys: Any) -> bool:
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS or not all(_is_text(text) for text in (name, *keys)):
        return False
    return len(name) <= _MAX_NAME


def _is_text(found: Any) -> bool:
    """Whether it is a string that can be encoded: JSON can carry halves of characters."""
    try:
        return isinstance(found, str) and bool(found.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _claim(worker: WorkerState, name: str, keys: Sequence[str]) -> tuple[WorkerMirror, list[Claim], float] | None:
    """Claim keys under the mirror's newest definition, waiting a while for a broker that is away."""
    patience = time.monotonic() + _BROKER_PATIENCE
    fresh = False
    while not worker.draining.is_set():
        try:
            mirror = worker.mirror(name, fresh=fresh)
            claimed_at = time.monotonic()
            claims = mirror.ledger.claims.claim(worker.owner, mirror.version, keys, mirror.definition.lease)
            if claims is not None:
                mirror.claim_table.add(claims, claimed_at, mirror.definition.lease)
                if mirror.ledger.claims.is_limited and not mirror.throttle.is_on:
                    mirror.throttle.refresh()
                return mirror, claims, claimed_at
            fresh = True
        except BrokerError:
            if time.monotonic() > patience:
                raise
            worker.draining.wait(0.5)
    return None


def _refuse(worker: WorkerState, name: str, keys: Sequence[str], error: AutosyncError) -> str:
    """This worker cannot serve the mirror at all: the keys get into the failed list, with the reason, and are tried again at the next
    rescan."""
    log_fields = {"mirror": name, "worker": worker.name}
    log.error("mirror %s: %s", name, error, extra=log_fields)
    try:
        ledger = worker.ledger(name)
        published = ledger.definition.read()
        if published is None:  # the broker has lost its memory since
            return f"refused: {error}"
        claims = ledger.claims.claim(worker.owner, published.version, keys) or []
        while claims:
            claims = ledger.claims.done(worker.owner, [refused(claim, error, worker.name) for claim in claims])[0]
    except BrokerError as unreachable:
        log.warning("%s; the file host will requeue the batch", unreachable, extra=log_fields)
    return f"refused: {error}"
