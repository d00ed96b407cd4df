"""kombu's Redis transport, as autosync uses it: cheaper, fair to every queue, and with a guard at each.

Whoever can write to the broker can put anything into a queue. kombu and Celery end the worker over a message whose envelope is damaged,
show the content of one that they do not know, and do what its headers say. So what is not a message of ours ends here, with one line in the
log, before Celery sees it and before its body is read as anything but JSON.
"""

from __future__ import annotations

import binascii
import json
import logging
import re
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import kombu.transport.redis

from ..model.mirror import DEFAULT_QUEUE
from .celery_settings import TASKS

log = logging.getLogger(__name__)

#: For so long a bell that nobody hears any more stays in the broker, in milliseconds.
_BELL_MS = 60_000
#: The body of the largest batch: 1,000 keys of PATH_MAX, each byte written as six characters, in base64.
_LONGEST_BODY = 32 << 20
#: What Celery makes for an id, with str(uuid4()); it stands in log lines.
_ID = re.compile(r"[0-9a-f-]{36}")
#: Headers and parts of the body with which a message could ask for more than its task: to be kept for later, to be followed by others.
_MORE = ("eta", "expires", "group", "shadow", "stamped_headers", "stamps")
#: What kombu's reader of JSON, which also makes times and the like, raises of what it cannot read.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
#: Lists that are not for tasks: answers to what one worker asks the others, in a list of its own.
_ANSWERS = ".reply.celery.pidbox"


class Channel(kombu.transport.redis.Channel):
    """Makes one client for all that it sends: kombu makes one for each command, which takes half of the time of a message.

    Of several queues, none gets all the hands of a worker: a target that does not answer would hold them all for minutes, and what is saved
    for another would wait. A queue gets one more as long as it has fewer than are free. So one alone gets half of them, two get a third
    each, and there is always one left for the next: the dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on Networking
    6(2), 1998) for the queues of a switch that share its memory.
    """

    _pooled: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The queue of each message that is being worked on, by its tag.
        self._in_hand: dict[str, str] = {}
        #: Queues are waited for together with this list, into which an element is put to begin anew: when a hand gets free while some of
        #: them have all that they may have (`_may_ring`: that is the case, and nobody has done so yet), or when there is one more.
        self._bell = f"bell-{uuid.uuid4().hex}"
        self._may_ring = False
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # for one connection of its own
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._pooled is None or self._pooled.connection_pool is not self.pool:
            self._pooled = super()._create_client()  # type: ignore[no-untyped-call]
        return self._pooled

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume, behind the guard."""
        tag = super().basic_consume(queue, *args, **kwargs)  # type: ignore[no-untyped-call]
        deliver: Callable[[Any], None] = self.connection._callbacks[queue]
        is_for_tasks = queue not in self._fanout_queues and not queue.endswith(_ANSWERS)

        def deliver_if_sound(raw: Any) -> None:
            why = _envelope_fault(raw) or (_task_fault(raw) if is_for_tasks else "")
            if why:
                log.warning("a message in %s is none of autosync's and is dropped: %s", queue, why)
                return
            if is_for_tasks:
                self._in_hand[raw["properties"]["delivery_tag"]] = queue
            deliver(raw)

        self.connection._callbacks[queue] = deliver_if_sound
        if is_for_tasks and self._in_poll:
            self._ring()  # else it would be waited for from the next second on, and by then other workers have all that is in it
        return tag

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """A message is done with."""
        queue = self._in_hand.pop(delivery_tag, None)
        super().basic_ack(delivery_tag, multiple)  # type: ignore[no-untyped-call]
        self._got_free(queue)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """A message is not done, and will not be here."""
        queue = self._in_hand.pop(delivery_tag, None)
        super().basic_reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]
        self._got_free(queue)

    def _got_free(self, queue: str | None) -> None:
        """A hand is free, if one was at work on a message of this queue."""
        if queue is not None and self._may_ring:
            self._may_ring = False
            self._ring()

    def _ring(self) -> None:
        try:
            with self.conn_or_acquire() as client:
                client.lpush(self._bell, "0")
                client.pexpire(self._bell, _BELL_MS)
        except Exception as error:  # whatever it is, it is waited for a second at most
            log.debug("the bell could not be rung: %s", error)

    def _brpop_start(self, timeout: float | None = None) -> None:
        self._may_ring = True  # a hand that gets free from here on is not in what follows
        full = self._full()
        self._may_ring = bool(full)
        self.connection._callbacks[self._bell] = lambda raw: None
        every, self._queue_cycle = self._queue_cycle, _Some(self._queue_cycle, full, self._bell)
        try:
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call]
        finally:
            self._queue_cycle = every

    def _full(self) -> set[str]:
        """The queues that may have no more in hand now."""
        queues = {queue for queue in self.active_queues if queue != DEFAULT_QUEUE}
        if len(queues) < 2 or not self.qos.prefetch_count:
            return set()
        held = Counter(list(self._in_hand.values()))
        free = self.qos.prefetch_count - held.total()
        return {queue for queue in queues if held[queue] >= max(free, 1)}

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except _UNREADABLE as error:  # it is out of the list by now
            log.warning("a message is none of autosync's and is dropped: %s", type(error).__name__)
            return True


class _Some:
    """The order of a channel's queues, without some of them, and with a bell."""

    def __init__(self, cycle: Any, out: set[str], bell: str) -> None:
        self._cycle = cycle
        self._out = out
        self._bell = bell

    def consume(self, count: int) -> list[str]:
        """The queues in their order."""
        return [*(queue for queue in self._cycle.consume(count) if queue not in self._out), self._bell]


def install() -> None:
    """Have kombu use it from now on, for every connection to a Redis."""
    kombu.transport.redis.Transport.Channel = Channel
    # When a connection breaks, kombu tries to put messages back that are being worked on. It cannot while the broker is away, and kombu 5.7
    # ends the worker over it.
    Channel.do_restore = False


def _without_types(found: dict[str, Any]) -> dict[str, Any]:
    """Celery would make times and the like of such an object, or fail."""
    if "__type__" in found:
        raise ValueError("an object with a type")
    return found


#: Made once: json.loads would make one for each message.
_READER = json.JSONDecoder(object_hook=_without_types)


def _envelope_fault(raw: Any) -> str:
    """What is wrong with what kombu puts around every message; "" if nothing is."""
    if not isinstance(raw, dict) or not isinstance(raw.get("properties"), dict) or not isinstance(raw.get("headers"), dict):
        return "it has no properties or no headers"
    properties = raw["properties"]
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(properties.get("delivery_info"), dict):
        return "it has no delivery tag"
    if (raw.get("content-type"), raw.get("content-encoding")) != ("application/json", "utf-8"):
        return "it is not JSON"
    if properties.get("body_encoding") != "base64" or not isinstance(raw.get("body"), str):
        return "its body is not in base64"
    return ""


def _task_fault(raw: dict[str, Any]) -> str:
    """What distinguishes it from a message that `feed.publisher` sends; "" if nothing does. The task itself looks at mirror and keys."""
    headers, body = raw["headers"], raw["body"]
    if headers.get("task") not in TASKS:
        return "there is no such task"
    if not isinstance(headers.get("id"), str) or not _ID.fullmatch(headers["id"]):
        return "it has no id"
    if any(headers.get(name) for name in _MORE) or headers.get("timelimit") not in (None, [None, None]) or headers.get("retries") != 0:
        return "its headers ask for more than a task"
    if not all(headers.get(name) is None or isinstance(headers[name], str) for name in ("root_id", "parent_id", "argsrepr", "kwargsrepr")):
        return "its headers are damaged"
    if len(body) > _LONGEST_BODY:
        return f"its body has {len(body)} characters"
    try:
        args, kwargs, embedded = _READER.decode(binascii.a2b_base64(body, strict_mode=True).decode())
        is_plain = len(args) == 2 and isinstance(args, list) and kwargs == {} and not any(embedded.values())
    except _UNREADABLE:
        return "its body is damaged"
    return "" if is_plain else "its body asks for more than a task"
