"""The tasks autosync.upload and autosync.delete: make the target right for a batch of keys.

Both do the same: claim the keys, look at the disk, act, say what became of them. A task can come late, twice or out of order; what it does
depends on the disk at that moment, not on its name.
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
from ..errors import AutosyncError, BrokerError, BrokerRefused, ConfigurationError, UnknownDefinition
from ..ledger import Action, Claim, Failure, Result, check_reachable, connect, now
from ..model.definition_signature import key_among
from ..process.child import allow_many_open_files
from .batch import Batch
from .progress import Progress
from .worker_state import WorkerMirror, WorkerState

log = logging.getLogger("autosync.transfer")

_one_at_a_time = threading.Lock()

#: How long a task waits for a broker that does not answer before it leaves its keys to the sweep, in seconds.
_BROKER_PATIENCE = 30.0
#: No message of ours has more keys, and no mirror a longer name.
_MOST_KEYS, _LONGEST_NAME = 10_000, 100


def box_of(app: Celery) -> WorkerState:
    """The state of this worker process, made when the first task needs it."""
    with _one_at_a_time:  # the first tasks come all at once, and two boxes would have twice the transfers and the memory
        return _made_for(app)


@cache
def _made_for(app: Celery) -> WorkerState:
    conf = app.conf
    box = WorkerState(conf.broker_url, conf.autosync_sources, conf.autosync_secrets.by_name())
    signals.worker_shutting_down.connect(lambda **_: box.draining.set(), weak=False)
    return box


@signals.celeryd_init.connect
def _insist(conf: Any, **_: Any) -> None:
    """A broker that is away is waited for. One that refuses this box would be asked for ever, and a key that cannot be used refuses every
    mirror, so the program ends with one line instead."""
    try:
        key_among(conf.autosync_secrets.by_name())
        check_reachable(connect(conf.broker_url), "celery.pidbox")
    except (BrokerRefused, ConfigurationError) as error:
        raise SystemExit(f"autosync: {error}") from error
    except BrokerError as error:
        log.debug("%s", error)


@signals.celeryd_after_setup.connect
def _report_signatures(instance: Any, conf: Any, **_: Any) -> None:
    """An operator must see at the start whether this box takes any definition. Celery's own log would not show it at its default level."""
    if not instance.app.loader.searches_here:
        return  # autosync has started it, for a mirror of its own
    line = (
        "definitions of mirrors are checked: only those that are signed with this box's signing key are taken"
        if key_among(conf.autosync_secrets.by_name())
        else "definitions of mirrors are not checked: this box has no signing key, and takes what anybody writes to the broker"
    )
    if conf.autosync_log_format:
        log.info(line)
    else:
        print(f"autosync: {line}", file=sys.stderr)


@signals.worker_ready.connect
def _warm_up(sender: Any, **_: Any) -> None:
    allow_many_open_files()
    threading.Thread(target=lambda: box_of(sender.app).warm_up(), name="autosync-warm-up", daemon=True).start()


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
        name: of the mirror.
        keys: of the batch.
    """
    if not _is_sound(name, keys):
        log.warning("a message for mirror %s was not understood and is dropped", reprlib.repr(name))
        return "not understood"
    began = time.monotonic()
    box = box_of(task.app)
    try:
        claimed = _claim(box, name, keys)
    except BrokerError as error:
        log.warning("%s; the batch is left to the next sweep", error)
        return "the broker did not answer"
    except UnknownDefinition as error:
        box.report_unreadable(name, error)
        return "left to workers of a later version"
    except AutosyncError as error:
        return _refuse(box, name, keys, error)
    if claimed is None or not claimed[1]:
        return "nothing to do"
    known, claims, asked = claimed
    batch = Batch(box, known, Progress(task, sum(max(claim.hint.size, 0) for claim in claims)), asked)
    try:
        batch.run(claims)
    finally:
        known.held.drop([claim.key for claim in claims], asked)  # whatever happened: nobody works on them here any more
    seconds = time.monotonic() - began
    return f"{batch.summary()}, {seconds:.2f} s"


def _is_sound(name: Any, keys: Any) -> bool:
    if not isinstance(keys, list) or len(keys) > _MOST_KEYS or not all(_is_text(text) for text in (name, *keys)):
        return False
    return len(name) <= _LONGEST_NAME


def _is_text(found: Any) -> bool:
    """Whether it is a name that can be spelled: JSON can carry halves of characters."""
    try:
        return isinstance(found, str) and bool(found.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _claim(box: WorkerState, name: str, keys: Sequence[str]) -> tuple[WorkerMirror, list[Claim], float] | None:
    """Claim keys under the mirror's newest definition, waiting a while for a broker that is away."""
    patience = time.monotonic() + _BROKER_PATIENCE
    fresh = False
    while not box.draining.is_set():
        try:
            known = box.mirror(name, fresh=fresh)
            asked = time.monotonic()
            claims = known.ledger.claims.claim(box.owner, known.version, keys, known.mirror.lease)
            if claims is not None:
                known.held.take(claims, asked, known.mirror.lease)
                if known.ledger.claims.is_limited and not known.pace.is_on:
                    known.pace.look()
                return known, claims, asked
            fresh = True
        except BrokerError:
            if time.monotonic() > patience:
                raise
            box.draining.wait(0.5)
    return None


def _refuse(box: WorkerState, name: str, keys: Sequence[str], error: AutosyncError) -> str:
    """This worker cannot work on the mirror at all: the keys show up as failed, with the reason, and are tried again at the next rescan."""
    log.error("mirror %s: %s", name, error)
    try:
        ledger = box.ledger(name)
        found = ledger.definition.read()
        if found is None:
            return str(error)
        claims = ledger.claims.claim(box.owner, found[1], keys) or []
        while claims:
            refused = [
                Result(claim, Action.FAILED, failure=Failure(claim.key, str(error), claim.attempts + 1, box.name, now()))
                for claim in claims
            ]
            claims = ledger.claims.done(box.owner, refused)[0]
    except BrokerError as unreachable:
        log.warning("%s; the batch is left to the next sweep", unreachable)
    return f"refused: {error}"
