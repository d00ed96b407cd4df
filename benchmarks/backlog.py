"""A first scan of a source of millions of files, none of which exists, and a worker that only reports that all is done.

    python -m benchmarks.backlog scan BROKER COUNT
    python -m benchmarks.backlog work BROKER

Both run on autosync's own Python. `scan` is a real scanner with a real comparison; its walk gives invented entries. Its target is empty.
As soon as so much is dirty that the scanner waits, it starts `work`, which takes each message, claims its keys and reports them as sent.
A line of JSON has how much that was, and one after each tenth has what the broker, the feed and the worker hold in memory.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from autosync.actor import Actor
from autosync.celery import sending_app
from autosync.compare import source_walks
from autosync.compare.scan import Comparison
from autosync.feed.batches import HIGH_WATER, BatchSender
from autosync.feed.broker_retry import BrokerRetry
from autosync.feed.publisher import Publisher
from autosync.feed.scanner import Scanner
from autosync.feed.settled_files import RestQueue
from autosync.feed.skipped_paths import SkippedPaths
from autosync.files import File
from autosync.ledger import PREFIX, Action, Ledger, Result, connect
from autosync.model.keys import Keys, Source
from autosync.source.entry import Entry
from autosync.watch.debounce import Debouncer
from autosync.watch.scan_requests import ScanRequest
from lab.state import deletion_state

_MIRROR, _QUEUE, _VERSION = "backlog", "backlog", "1"
_ROOT = "/invented"
_OLD = 3600.0
_IN_A_FOLDER = 1000
#: For so long a scanner that should wait is given the time to go on, in seconds.
_LONGER = 1.0


class Walk:
    """Stands in for `autosync.source.walk.Walk`: `count` files, a thousand to a directory, in order, and none of them on a disk.

    Args:
        count: how many.
        sampled: called with the number of entries that were given, after each tenth of them.
    """

    count = 0
    sampled = staticmethod(lambda entries: None)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.errors: list[OSError] = []

    def runs(self) -> Iterator[Entry]:
        """See the real one."""
        changed = time.time() - _OLD
        tenth = max(self.count // 10, 1)
        for number in range(self.count):
            path = f"{_ROOT}/{number // _IN_A_FOLDER:07}/file-{number:09}.dat"
            yield Entry(path, 1024, changed, int(changed * 1e9))
            if (number + 1) % tenth == 0:
                self.sampled(number + 1)

    __iter__ = runs


class Nothing(Actor):
    """A target that holds nothing."""

    def list(self, prefix: str = "") -> Iterable[File]:
        return ()


class Worker:
    """The process that works the backlog off; it begins when the scanner has come to wait for it."""

    def __init__(self, broker: str, ledger: Ledger, most: int) -> None:
        self._command = [sys.executable, "-m", "benchmarks.backlog", "work", broker]
        self._ledger = ledger
        self._most = most
        self._process: subprocess.Popen[bytes] | None = None
        self._beginner = threading.Thread(target=self._begin, daemon=True)
        self._beginner.start()

    def resident(self) -> int:
        """Its resident memory in bytes; 0 if it has not begun."""
        return _resident(self._process.pid) if self._process else 0

    def stop(self) -> None:
        """End it."""
        self._beginner.join()
        if self._process:
            self._process.terminate()
            self._process.wait()

    def _begin(self) -> None:
        while self._ledger.key_states.count_dirty() < self._most:
            time.sleep(0.05)
        time.sleep(_LONGER)
        print(json.dumps({"waits at": self._ledger.key_states.count_dirty()}), flush=True)
        self._process = subprocess.Popen(self._command)


def scan(broker: str, count: int) -> None:
    """Scan all that the walk invents, and print what is held in memory meanwhile."""
    client = connect(broker)
    ledger = Ledger(client, _MIRROR)
    ledger.definition.publish("{}", _VERSION)
    worker = Worker(broker, ledger, min(count, HIGH_WATER))
    publisher = Publisher(sending_app(broker, _QUEUE, events=False), _MIRROR, _QUEUE, ledger)
    began = time.monotonic()

    def sample(entries: int) -> None:
        memory = client.info("memory")["used_memory"]
        dirty = ledger.key_states.count_dirty()
        line = {"entries": entries, "broker": memory, "feed": _resident(os.getpid()), "worker": worker.resident(), "dirty": dirty}
        print(json.dumps(line), flush=True)

    Walk.count, Walk.sampled = count, staticmethod(sample)
    keys = Keys([Source(_ROOT)], source_prefix=_ROOT + "/")
    stop = threading.Event()
    retry = BrokerRetry(stop)
    sender, skipped = BatchSender(ledger.key_states, publisher, retry), SkippedPaths(ledger.sync_state, retry)
    scanner = Scanner(Comparison(keys, Nothing()), deletion_state(ledger), Debouncer(0.0), sender, skipped, retry, stop)
    with patch.object(source_walks, "Walk", Walk), patch.object(RestQueue, "_rests", lambda *_: True):  # these files are on no disk
        scanner.scan(ScanRequest(""))
    while ledger.key_states.count_dirty():
        time.sleep(0.1)
    print(json.dumps({"sent": ledger.watcher_lock.heartbeat("benchmark").files, "seconds": time.monotonic() - began}), flush=True)
    worker.stop()
    publisher.close()


def work(broker: str) -> None:
    """Receive messages, one at a time, and report their keys as done."""
    client = connect(broker)
    ledger = Ledger(client, _MIRROR)
    queues = [f"{PREFIX}{_QUEUE}{priority}" for priority in ("", ":5", ":9")]
    while True:
        claimed = cast("tuple[bytes, bytes] | None", client.brpop(queues, timeout=1))
        if claimed is None:
            continue
        (_, keys), *_ = json.loads(base64.b64decode(json.loads(claimed[1])["body"]))
        claims = ledger.claims.claim("benchmark:1:1", _VERSION, keys) or []
        ledger.claims.done("benchmark:1:1", [Result(claim, Action.UPLOADED, claim.hint.size) for claim in claims])


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """`scan BROKER COUNT` or `work BROKER`."""
    what, broker, *more = sys.argv[1:]
    if what == "work":
        work(broker)
    else:
        scan(broker, int(more[0]))


if __name__ == "__main__":
    main()
