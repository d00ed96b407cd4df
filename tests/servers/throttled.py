"""Processes of a fleet that do nothing but take what they may, for `test_throttle.py`: each share that one got is a line on stdout."""

from __future__ import annotations

import os
import sys
import threading
import time

from autosync.ledger import Ledger, connect
from autosync.tasks.throttle import Throttle


def work(broker: str, name: str, requests: int, size: int, threads: int) -> None:
    """Take shares until stdin is closed, and print when each was got."""
    instants: list[float] = []
    throttle = Throttle(Ledger(connect(broker), "m").limits, name, threading.Event())
    throttle.refresh()
    assert throttle.is_on

    def reserve() -> None:
        while True:
            throttle.acquire(requests, size, lambda: None)
            instants.append(time.monotonic())

    throttle.acquire(requests, size, lambda: None)
    with connect(broker) as client:
        client.sadd("came", name)
    for _ in range(threads):
        threading.Thread(target=reserve, daemon=True).start()
    sys.stdin.read()  # until the test closes it
    for line in instants[:]:
        os.write(1, f"{name} {line}\n".encode())  # whole, also where several processes write


def main(broker: str, processes: int, requests: int, size: int, threads: int) -> None:
    """Fork the processes, which have loaded everything by then, and wait for them."""
    children = []
    for number in range(processes):
        child = os.fork()
        if not child:
            try:
                work(broker, f"p{number}", requests, size, threads)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
