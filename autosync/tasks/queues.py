"""Which queues a worker serves: those that it is told, or those of every mirror, of which more may come while it runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable
from typing import Any
from weakref import WeakSet

from celery import signals
from celery.app.amqp import Queues
from celery.worker.control import control_command

from ..broker.celery_settings import SERVE
from ..celery import queue_called
from ..errors import AutosyncError, BrokerError
from ..ledger import connect, queues_of_mirrors
from ..model.mirror import DEFAULT_QUEUE

log = logging.getLogger(__name__)

#: So often a worker that serves every mirror asks which there are, in seconds.
_SECONDS = 1.0
#: The workers that were told by -Q or -X what to serve.
_told: WeakSet[Any] = WeakSet()
#: Those of the other workers, by Celery's consumer.
_every: dict[Any, QueueSubscriptions] = {}


@signals.celeryd_init.connect
def _know_queues(instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
    """Celery knows the queues of celeryconfig.py by now. Those of mirrors are known to the broker: here they become known to Celery,
    before it looks whether it knows what -Q and -X name."""
    asked, excluded = _names(options.get("queues")), _names(options.get("exclude_queues"))
    if asked | excluded:
        _told.add(instance)
    elif not serves_all(conf):
        return
    try:
        found = set(queues_of_mirrors(connect(conf.broker_url)))
    except BrokerError as error:  # it is waited for, and what was asked for may be there by then
        log.debug("%s", error)
        found = asked | excluded
    except AutosyncError:
        return  # said elsewhere, with what to do about it
    known: Queues = instance.app.amqp.queues
    if serves_all(conf) and not asked:
        for name in found:
            known.select_add(queue_called(name))
    else:
        for name in found & (asked | excluded) - {*known}:
            known.add(queue_called(name))
    missing = (asked | excluded) - {*known}
    if missing:
        unknown, told = (", ".join(sorted(names)) for names in (missing, {*known, *found}))
        raise SystemExit(f"autosync: no mirror has the queue {unknown} (known: {told}); start its autosync-watch first")


@signals.worker_ready.connect
def _keep_up(sender: Any, **_: Any) -> None:
    """Serve mirrors that are registered later, too."""
    if serves_all(sender.app.conf) and sender.controller not in _told:
        every = _every[sender] = QueueSubscriptions(sender, sender.app.conf.broker_url)
        threading.Thread(target=every.run, name="autosync-queues", daemon=True).start()


@control_command(name=SERVE)
def _serve_at_once(state: Any) -> None:
    """A mirror was registered, maybe a new one."""
    every = _every.get(state.consumer)
    if every is not None:
        every.look()


def serves_all(conf: Any) -> bool:
    """Whether celeryconfig.py leaves it to the mirrors which queues there are."""
    return not conf.autosync_queues


class QueueSubscriptions:
    """Serves the queues of all mirrors.

    Args:
        consumer: Celery's.
        broker: its URL.
    """

    def __init__(self, consumer: Any, broker: str) -> None:
        self._consumer = consumer
        self._client = connect(broker)

    def run(self) -> None:
        """Until the process ends."""
        while True:
            try:
                self.look()
            except Exception as error:  # whatever it is, the next look may succeed
                log.debug("which mirrors there are is not known: %s", error)
            time.sleep(_SECONDS)

    def look(self) -> None:
        """Begin to serve what there is now, and end what is no more."""
        wanted = {DEFAULT_QUEUE, *queues_of_mirrors(self._client)}
        if wanted != {*self._consumer.app.amqp.queues.consume_from}:
            self._consumer.call_soon(self._serve, wanted)

    def _serve(self, wanted: Collection[str]) -> None:
        """In Celery's own thread, which alone may use its connections. While there is none, what is selected is served with the next."""
        queues: Queues = self._consumer.app.amqp.queues
        tasks = self._consumer.task_consumer
        served = {*queues.consume_from}
        for name in sorted({*wanted} - served):
            queues.select_add(queue_called(name))
            if tasks is not None:
                self._consumer.add_task_queue(name)
            log.info("the queue %s is served from now on", name)
        for name in sorted(served - {*wanted}):
            queues.deselect(name)
            if tasks is not None:
                tasks.cancel_by_queue(name)
            log.info("the queue %s is no mirror's any more", name)


def _names(asked: str | Iterable[str] | None) -> set[str]:
    """What stands behind -Q or -X."""
    found = asked.split(",") if isinstance(asked, str) else asked or ()
    return {name.strip() for name in found if name.strip()}
