"""One process of a fleet that does nothing but take what it may, for `test_pace.py`: each share that it got is a line on stdout."""

from __future__ import annotations

import sys
import threading
import time

from autosync.ledger import Ledger, connect
from autosync.tasks.pace import Pace


def main(broker: str, name: str, requests: int, size: int, threads: int) -> None:
    stop = threading.Event()
    pace = Pace(Ledger(connect(broker), "m").gate, name, stop)
    pace.look()
    assert pace.is_on

    def work() -> None:
        while not stop.is_set():
            pace.take(requests, size, lambda: None)
            sys.stdout.write(f"{time.clock_gettime(time.CLOCK_MONOTONIC)}\n")

    pace.take(requests, size, lambda: None)
    with connect(broker) as client:
        client.sadd("came", name)
    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    sys.stdin.read()  # until the test closes it
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
