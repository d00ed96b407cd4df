"""The broker of one host, as a child process."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from autosync.ledger import connect
from autosync.server import EmbeddedServer
from lab.servers import wait_until

LIMIT = 20.0


def test_a_broker_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    killed: list[int] = []

    def kill() -> None:
        killed.append(wait_until(lambda: server.pid, LIMIT, "it is being started", pause=0.0001) or 0)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        server.start()
        server.wait()
        killer.join(LIMIT)
        assert server.pid != killed[0]
        with connect(server.url) as client:
            assert client.ping()
    finally:
        server.stop()
