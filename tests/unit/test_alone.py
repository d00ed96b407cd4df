"""The lock that keeps other tests out while one measures rates."""

from __future__ import annotations

import threading
from pathlib import Path

from lab.alone import machine_lock
from lab.servers import wait_until


class Entering:
    """A thread that acquires the lock, and holds it until `leave`."""

    def __init__(self, directory: Path, *, alone: bool) -> None:
        self._directory, self._alone = directory, alone
        self.inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._enter, daemon=True)
        self._thread.start()

    def _enter(self) -> None:
        with machine_lock(alone=self._alone, directory=self._directory):
            self.inside.set()
            self._leave.wait(30)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(30)


def is_waited_for(file: Path, count: int) -> bool:
    """Whether so many wait for a lock of the file (proc_locks(5): waiting ones have an arrow)."""
    inode = f":{file.stat().st_ino} "
    return sum(inode in line and "->" in line for line in Path("/proc/locks").read_text().splitlines()) == count


def test_several_tests_share_the_lock_and_none_shares_it_with_one_that_is_alone(tmp_path: Path) -> None:
    first, second = Entering(tmp_path, alone=False), Entering(tmp_path, alone=False)
    assert first.inside.wait(30)
    assert second.inside.wait(30)

    measuring = Entering(tmp_path, alone=True)
    wait_until(lambda: is_waited_for(tmp_path / "lock", 1), what="it waits for the lock")
    late = Entering(tmp_path, alone=False)
    wait_until(lambda: is_waited_for(tmp_path / "turnstile", 1), what="a later one waits behind it")
    first.leave()
    assert not measuring.inside.is_set()
    second.leave()

    assert measuring.inside.wait(30)
    assert not late.inside.is_set()
    measuring.leave()
    assert late.inside.wait(30)
    late.leave()
