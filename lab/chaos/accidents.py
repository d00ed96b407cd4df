"""What happens to a running autosync: `ACCIDENTS` lists it all. Operations go on while an accident lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import psutil
import redis

from ..servers import wait_until
from .quiet import Chaos

_OVERFLOWED = "event queue overflowed"


def restart(chaos: Chaos, chance: Random) -> None:
    """It is stopped in order, much is done, and it is started again."""
    chaos.world.note("stopped")
    code = chaos.autosync.stop()
    # Right after its start there is nobody yet who takes the signal, and nothing to be ended in order.
    if code not in chaos.exit_codes and not (code == -signal.SIGTERM and chaos.autosync.is_silent()):
        raise chaos.broken(f"autosync ended with {code}")
    operate(chaos, chance)
    _start_again(chaos)


def kill(chaos: Chaos, chance: Random) -> None:
    """It is killed in the middle, and started again: at once, while its broker has not ended yet, or after much was done."""
    operate(chaos, chance)
    chaos.world.note("killed")
    chaos.autosync.kill()
    if chance.random() < 0.5:
        operate(chaos, chance)
    _start_again(chaos)


def kill_worker(chaos: Chaos, chance: Random) -> None:
    """A worker is killed in the middle."""
    _kill_child(chaos, chance, "celery")


def kill_broker(chaos: Chaos, chance: Random) -> None:
    """The broker is killed in the middle."""
    _kill_child(chaos, chance, "valkey")


def overflow(chaos: Chaos, chance: Random) -> None:
    """More events than the kernel's queue holds, so that the last ones are lost."""

    def watches() -> bool:
        chaos.check()
        return chaos.autosync.watches(chaos.world.root)

    wait_until(watches, 60, "autosync watches the tree: it may only be being started")
    before = chaos.autosync.output().count(_OVERFLOWED)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    one, other = chaos.world.root / "overflow 1", chaos.world.root / "overflow 2"
    os.mkfifo(one)
    with chaos.autosync.frozen():
        for _ in range(most // 4 + 1):  # each rename gives two events
            os.rename(one, other)
            os.rename(other, one)
        one.unlink()
        operate(chaos, chance, 10)
        chaos.world.note("while the kernel's queue was full")

    def overflowed() -> bool:
        chaos.check()
        return chaos.autosync.output().count(_OVERFLOWED) > before

    wait_until(overflowed, 60, "autosync logs that the queue overflowed")


def freeze_target(chaos: Chaos, chance: Random) -> None:
    """The target does not answer for a while."""
    with chaos.autosync.server.frozen():
        chaos.world.note("the target stands still")
        operate(chaos, chance, 30)
        time.sleep(chance.uniform(0.1, 1.5))  # half a second is how long transfers wait before others go on without them
    chaos.world.note("the target answers again")


def empty_broker(chaos: Chaos, chance: Random) -> None:
    """The broker loses all of its data."""
    operate(chaos, chance)

    def is_emptied() -> bool:
        chaos.check()
        broker = chaos.autosync.broker()
        with contextlib.suppress(redis.exceptions.RedisError):
            return broker is not None and bool(broker.flushall())
        return False

    wait_until(is_emptied, 60, "the broker is emptied: it may only be being started")
    chaos.world.note("the broker was emptied")
    operate(chaos, chance)


def operate(chaos: Chaos, chance: Random, most: int = 6) -> None:
    """Some operations, fewer than `most`."""
    for _ in range(chance.randrange(1, most)):
        chaos.world.operate(chance)


def _start_again(chaos: Chaos) -> None:
    chaos.world.note("started again")
    chaos.autosync.start()


def _kill_child(chaos: Chaos, chance: Random, word: str) -> None:
    operate(chaos, chance)

    def is_killed() -> bool:
        chaos.check()
        victims = chaos.autosync.children(word)
        with contextlib.suppress(psutil.NoSuchProcess):
            if victims:
                chance.choice(victims).kill()
                return True
        return False

    wait_until(is_killed, 60, f"{word} is killed: it may only be being started")
    chaos.world.note(f"{word} killed")
    operate(chaos, chance)


ACCIDENTS: dict[str, Callable[[Chaos, Random], None]] = {
    "restart": restart,
    "kill": kill,
    "kill a worker": kill_worker,
    "kill the broker": kill_broker,
    "overflow": overflow,
    "freeze the target": freeze_target,
    "empty the broker": empty_broker,
}
