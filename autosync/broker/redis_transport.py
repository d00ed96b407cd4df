"""kombu's Redis transport with less work for each message, fair shares for queues, and a check of each message.

Every user with write access to the broker can put anything into a queue. A message with a damaged envelope ends a worker of kombu and
Celery, an unknown message is logged with its content, and the headers of a message are obeyed. So a message that is not autosync's is
dropped here, with one line in the log, before Celery gets it and before its body is read as anything but JSON.

These inner parts of kombu and Celery are relied upon; pyproject.toml has upper bounds for both, and tests/unit/test_bounds.py checks them:

- kombu.transport.redis.Channel: `_create_client`, `_brpop_start` and `_brpop_read` are overridden, as are the public `basic_consume`,
  `basic_ack` and `basic_reject`. `_queue_cycle` (its `consume`), `_fanout_queues`, `_in_poll`, `active_queues`, `pool`, `conn_or_acquire`,
  `qos.prefetch_count` and `do_restore` are read or set; so are `Transport.Channel` and `connection._callbacks`.
- kombu's names in Redis: lists of messages (`ledger/redis_keys.py: queue_list`), channels of pub/sub
  (`ledger/broker_permissions.py`), reply queues.
- The envelope of messages (`_envelope_fault`, `feed/publisher.py`) and Celery's message protocol 2 (`_task_fault`).
- Celery: `Celery._connection` is overridden (`celery.py: App`), and `tasks/queues.py` changes the queues of a worker's consumer. Modules
  that `celery.py` preloads are hints only.
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

#: How long an unread wakeup list stays in the broker, in milliseconds.
_WAKEUP_MS = 60_000
#: The body of the largest batch: 1,000 keys of PATH_MAX, each byte written as six characters, in base64.
_LONGEST_BODY = 32 << 20
#: The form of Celery's task ids, str(uuid4()). Log lines contain them.
_ID = re.compile(r"[0-9a-f-]{36}")
#: Headers that make Celery do more than run the task, such as delay it or send others after it.
_FORBIDDEN_HEADERS = ("eta", "expires", "group", "shadow", "stamped_headers", "stamps")
#: Exceptions of kombu's JSON decoder, which also makes times and other types.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
#: The end of the names of lists that hold no tasks: replies to Celery's remote control.
_REPLIES = ".reply.celery.pidbox"


class Channel(kombu.transport.redis.Channel):
    """Makes one client for all that it sends. kombu makes one for each command, which takes half of the time of a message.

    Of several queues, none gets all threads of a worker: a target that does not respond would occupy them for minutes, while files for
    other targets wait. A queue gets another thread as long as it has fewer threads than are free. So a single busy queue gets half of the
    threads, two get a third each, and one thread is always left for the next queue: the dynamic thresholds of Choudhury and Hahne (IEEE/ACM
    Transactions on Networking 6(2), 1998) for the queues of a switch that share its memory.
    """

    _pooled: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The queue of each unacknowledged message, by its delivery tag.
        self._unacked_queues: dict[str, str] = {}
        #: The channel waits for its queues together with this list. An entry in it ends the wait, so that the channel waits anew for other
        #: queues: when a thread becomes free while some queues are at their limit, or when there is a new queue.
        self._wakeup_list = f"wakeup-{uuid.uuid4().hex}"
        #: Whether some queues are at their limit in the current wait, and it was not ended yet.
        self._may_wake = False
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # kombu wants a client with a connection of its own
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._pooled is None or self._pooled.connection_pool is not self.pool:
            self._pooled = super()._create_client()  # type: ignore[no-untyped-call]
        return self._pooled

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue, and check each message."""
        tag = super().basic_consume(queue, *args, **kwargs)  # type: ignore[no-untyped-call]
        deliver: Callable[[Any], None] = self.connection._callbacks[queue]
        is_for_tasks = queue not in self._fanout_queues and not queue.endswith(_REPLIES)

        def deliver_if_valid(raw: Any) -> None:
            fault = _envelope_fault(raw) or (_task_fault(raw) if is_for_tasks else "")
            if fault:
                log.warning("a message in %s is none of autosync's and is dropped: %s", queue, fault)
                return
            if is_for_tasks:
                self._unacked_queues[raw["properties"]["delivery_tag"]] = queue
            deliver(raw)

        self.connection._callbacks[queue] = deliver_if_valid
        if is_for_tasks and self._in_poll:
            self._wake()  # otherwise the channel would wait for the new queue only after a second, when other workers have emptied it
        return tag

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge a message."""
        queue = self._unacked_queues.pop(delivery_tag, None)
        super().basic_ack(delivery_tag, multiple)  # type: ignore[no-untyped-call]
        self._wake_if_waiting(queue)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a message."""
        queue = self._unacked_queues.pop(delivery_tag, None)
        super().basic_reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]
        self._wake_if_waiting(queue)

    def _wake_if_waiting(self, queue: str | None) -> None:
        """End the wait, since a thread is free that worked on a message of this queue; None if no thread did."""
        if queue is not None and self._may_wake:
            self._may_wake = False
            self._wake()

    def _wake(self) -> None:
        try:
            with self.conn_or_acquire() as client:
                client.lpush(self._wakeup_list, "0")
                client.pexpire(self._wakeup_list, _WAKEUP_MS)
        except Exception as error:  # without an entry, the wait ends after a second
            log.debug("the wait for messages could not be ended: %s", error)

    def _brpop_start(self, timeout: float | None = None) -> None:
        self._may_wake = True  # a thread that becomes free from here on is not counted below
        full = self._queues_at_limit()
        self._may_wake = bool(full)
        self.connection._callbacks[self._wakeup_list] = lambda raw: None
        every, self._queue_cycle = self._queue_cycle, _QueueCycle(self._queue_cycle, full, self._wakeup_list)
        try:
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call]
        finally:
            self._queue_cycle = every

    def _queues_at_limit(self) -> set[str]:
        """The queues that get no further thread now."""
        queues = {queue for queue in self.active_queues if queue != DEFAULT_QUEUE}
        if len(queues) < 2 or not self.qos.prefetch_count:
            return set()
        unacked = Counter(list(self._unacked_queues.values()))
        free = self.qos.prefetch_count - unacked.total()
        return {queue for queue in queues if unacked[queue] >= max(free, 1)}

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except _UNREADABLE as error:  # Redis has removed the message from the list
            log.warning("a message is none of autosync's and is dropped: %s", type(error).__name__)
            return True


class _QueueCycle:
    """The order of a channel's queues, without some of them, and with the wakeup list."""

    def __init__(self, cycle: Any, out: set[str], wakeup_list: str) -> None:
        self._cycle = cycle
        self._out = out
        self._wakeup_list = wakeup_list

    def consume(self, count: int) -> list[str]:
        """The queues in their order."""
        return [*(queue for queue in self._cycle.consume(count) if queue not in self._out), self._wakeup_list]


def install() -> None:
    """Make kombu use this channel for every connection to Redis."""
    kombu.transport.redis.Transport.Channel = Channel
    # When a connection breaks, kombu tries to put unacknowledged messages back. While the broker is away it cannot, and then kombu 5.7 ends
    # the worker.
    Channel.do_restore = False


def _without_types(found: dict[str, Any]) -> dict[str, Any]:
    """Reject an object that kombu would turn into another type."""
    if "__type__" in found:
        raise ValueError("an object with a type")
    return found


#: Made once: json.loads would make one for each message.
_READER = json.JSONDecoder(object_hook=_without_types)


def _envelope_fault(raw: Any) -> str:
    """What is wrong with the envelope that kombu puts around every message; "" if nothing is."""
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
    """How a message differs from those of `feed.publisher`; "" if it does not. The task itself checks mirror and keys."""
    headers, body = raw["headers"], raw["body"]
    if headers.get("task") not in TASKS:
        return "there is no such task"
    if not isinstance(headers.get("id"), str) or not _ID.fullmatch(headers["id"]):
        return "it has no id"
    has_timelimit = headers.get("timelimit") not in (None, [None, None])
    if any(headers.get(name) for name in _FORBIDDEN_HEADERS) or has_timelimit or headers.get("retries") != 0:
        return "its headers request more than a task"
    if not all(headers.get(name) is None or isinstance(headers[name], str) for name in ("root_id", "parent_id", "argsrepr", "kwargsrepr")):
        return "its headers are damaged"
    if len(body) > _LONGEST_BODY:
        return f"its body has {len(body)} characters"
    try:
        args, kwargs, embedded = _READER.decode(binascii.a2b_base64(body, strict_mode=True).decode())
        is_plain = len(args) == 2 and isinstance(args, list) and kwargs == {} and not any(embedded.values())
    except _UNREADABLE:
        return "its body is damaged"
    return "" if is_plain else "its body requests more than a task"
