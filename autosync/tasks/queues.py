"""Which queues a worker serves: those of `-Q`, or those of every mirror, also of mirrors that start later."""

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

#: The interval at which a worker that serves every mirror reads which mirrors there are, in seconds.
_SECONDS = 1.0
#: The workers whose queues were named by -Q or -X.
_with_named_queues: WeakSet[Any] = WeakSet()
#: The subscriptions of the other workers, by Celery's consumer.
_subscriptions: dict[Any, QueueSubscriptions] = {}


@signals.celeryd_init.connect
def _add_queues(instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
    """Add the queues of mirrors to those of celeryconfig.py, before Celery checks that the queues of -Q and -X exist."""
    selected, excluded = _names(options.get("queues")), _names(options.get("exclude_queues"))
    if selected | excluded:
        _with_named_queues.add(instance)
    elif not serves_all(conf):
        return
    try:
        found = set(queues_of_mirrors(connect(conf.broker_url)))
    except BrokerError as error:  # Celery waits for the broker, and by then the queues may be there
        log.debug("%s", error)
        found = selected | excluded
    except AutosyncError:
        return  # reported elsewhere, with its cure
    queues: Queues = instance.app.amqp.queues
    if serves_all(conf) and not selected:
        for name in found:
            queues.select_add(queue_called(name))
    else:
        for name in found & (selected | excluded) - {*queues}:
            queues.add(queue_called(name))
    missing = (selected | excluded) - {*queues}
    if missing:
        unknown, known = (", ".join(sorted(names)) for names in (missing, {*queues, *found}))
        raise SystemExit(f"autosync: no mirror has the queue {unknown} (known: {known}); start its autosync-watch first")


@signals.worker_ready.connect
def _follow_mirrors(sender: Any, **_: Any) -> None:
    """Serve mirrors that are registered later, too."""
    if serves_all(sender.app.conf) and sender.controller not in _with_named_queues:
        subscriptions = _subscriptions[sender] = QueueSubscriptions(sender, sender.app.conf.broker_url)
        threading.Thread(target=subscriptions.run, name="autosync-queues", daemon=True).start()


@control_command(name=SERVE)
def _serve_at_once(state: Any) -> None:
    """A mirror was registered, maybe a new one."""
    subscriptions = _subscriptions.get(state.consumer)
    if subscriptions is not None:
        subscriptions.refresh()


def serves_all(conf: Any) -> bool:
    """Whether celeryconfig.py leaves it to the mirrors which queues there are."""
    return not conf.autosync_queues


class QueueSubscriptions:
    """Serves the queues of all mirrors.

    Args:
        consumer: Celery's.
        broker: the broker's URL.
    """

    def __init__(self, consumer: Any, broker: str) -> None:
        self._consumer = consumer
        self._client = connect(broker)

    def run(self) -> None:
        """Until the process ends."""
        while True:
            try:
                self.refresh()
            except Exception as error:  # the next try may succeed after any error
                log.debug("the mirrors could not be read: %s", error)
            time.sleep(_SECONDS)

    def refresh(self) -> None:
        """Begin to serve the queues that are new, and end those that no mirror has any more."""
        wanted = {DEFAULT_QUEUE, *queues_of_mirrors(self._client)}
        if wanted != {*self._consumer.app.amqp.queues.consume_from}:
            self._consumer.call_soon(self._serve, wanted)

    def _serve(self, wanted: Collection[str]) -> None:
        """Runs in Celery's own thread, since only that one may use its connections. While Celery has no connection, the queues are only
        selected; the next connection serves them."""
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


def _names(option: str | Iterable[str] | None) -> set[str]:
    """The names in the value of -Q or -X."""
    found = option.split(",") if isinstance(option, str) else option or ()
    return {name.strip() for name in found if name.strip()}
