"""`make soak`: thousands of random operations and accidents on a tree that autosync keeps, and at every quiet point all must be right.

Options are variables of the environment: SEED (default: a random one, printed first), OPERATIONS (default: 4000), SERVER (moto or
seaweedfs), WORKERS (default: 2), RESCAN (seconds; default: 0, so that no rescan hides what was missed), MINUTES (default: no limit; the run
ends after them), MAX_DELETE (default: 100%, so that all must become equal; `default`: scans withhold deletions as they do by default, and
nothing that is wanted may be lost), MOUNTS (default: 1 for root; 0: no accidents with mounts; the source is a link then, which is switched
to other trees). The exit code is 0 if no promise was broken.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from lab.chaos import (  # noqa: E402 - the path had to be set before
    ACCIDENTS,
    LINK_ACCIDENTS,
    MOUNT_ACCIDENTS,
    Autosync,
    Box,
    Chaos,
    Observer,
    Releases,
    SourceDisk,
    World,
    unmount_all,
    versioned_bucket,
)  # fmt: skip
from lab.servers import Moto, S3Server, SeaweedFS  # noqa: E402

#: One operation in so many is an accident; with mounts there are twice as many kinds, and twice as many accidents.
_ACCIDENT, _ACCIDENT_WITH_MOUNTS = 40, 20
#: Where deletions may be withheld: one quiet point in so many accepts them.
_ACCEPTANCE = 3
_SERVERS: dict[str, type[S3Server]] = {"moto": Moto, "seaweedfs": SeaweedFS}


def main() -> int:
    """Run it. Returns the exit code."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**9))
    operations = int(os.environ.get("OPERATIONS") or 4000)
    server = os.environ.get("SERVER") or "moto"
    if server not in _SERVERS:
        print(f"soak: SERVER is {' or '.join(_SERVERS)}, not {server}", file=sys.stderr)
        return 2
    limit = os.environ.get("MAX_DELETE") or "100%"
    if limit not in ("100%", "default"):
        print(f"soak: MAX_DELETE is 100% or default, not {limit}", file=sys.stderr)
        return 2
    has_mounts = (os.environ.get("MOUNTS") or ("0" if os.geteuid() else "1")) == "1"
    minutes = float(os.environ.get("MINUTES") or "inf")
    print(f"soak: SEED={seed} OPERATIONS={operations} SERVER={server} MAX_DELETE={limit} MOUNTS={has_mounts:d}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = Path(tempfile.mkdtemp(prefix="autosync-soak-"))
    with ExitStack() as ends:
        soak = Soak(_SERVERS[server](directory / "s3"), directory, ends, has_mounts=has_mounts, may_withhold=limit == "default")
        try:
            soak.run(Random(seed), operations, minutes * 60)
        except KeyboardInterrupt:
            print(f"soak: interrupted; no promise was broken until then: {soak.summary()}", flush=True)
            code = 130
        except Exception as broken:  # also a wait that was in vain
            print(
                f"\nsoak: FAILED after {soak.summary()}\n  {broken}\nsoak: all of it is in {directory}; again with SEED={seed}", flush=True
            )
            return 1
        else:
            print(f"soak: no promise was broken: {soak.summary()}", flush=True)
            code = 0
    shutil.rmtree(directory)
    return code


class Soak:
    """One run in one directory.

    Args:
        server: the target; it is started here.
        directory: for all that it leaves.
        ends: what has to be ended is put here.
        has_mounts: whether there are accidents with mounts, and an upload box.
        may_withhold: whether scans may withhold deletions.
    """

    def __init__(self, server: S3Server, directory: Path, ends: ExitStack, *, has_mounts: bool, may_withhold: bool) -> None:
        ends.callback(server.stop)
        server.start()
        bucket = versioned_bucket(server, "soak")
        disk = SourceDisk(directory) if has_mounts else None
        if disk is not None:
            ends.callback(disk.close)
        releases = None if disk else Releases(directory)
        top, beside = (disk.top, disk.beside) if disk else (directory / "source", directory / "beside")
        world = World(top, "tree", beside, hard_names=isinstance(server, SeaweedFS), backing=disk.backing if disk else None)
        options = [f"--workers={os.environ.get('WORKERS') or 2}", f"--rescan={os.environ.get('RESCAN') or 0}", "--threads=8"]
        autosync = Autosync(directory, top, server, bucket, options, may_withhold=may_withhold)
        observer = Observer(server, bucket, "tree/", world.book)
        box = Box(directory, autosync.broker_url, top, autosync.environ) if has_mounts else None
        self._chaos = chaos = Chaos(world, autosync, observer, disk, box, releases)
        if box is not None:
            ends.callback(unmount_all, chaos)
            ends.callback(box.kill)
        ends.callback(autosync.end)
        ends.callback(observer.stop)
        self._accidents: dict[str, Callable[[Chaos, Random], None]] = ACCIDENTS | (MOUNT_ACCIDENTS if has_mounts else LINK_ACCIDENTS)
        self._had = dict.fromkeys(self._accidents, 0)
        self._quiets: list[float] = []
        self._began = time.monotonic()

    def run(self, chance: Random, operations: int, seconds: float) -> None:
        """All of it.

        Args:
            chance: chooses.
            operations: the number of operations after which it ends,
            seconds: and the time.

        Raises:
            Broken: a promise was broken.
        """
        chaos = self._chaos
        chaos.autosync.start()
        chaos.observer.start()
        self._quiet()
        if chaos.box is not None:
            chaos.box.start()
        while len(chaos.world.done) < operations and time.monotonic() - self._began < seconds:
            for _ in range(chance.choice((5, 30, 100))):
                if chance.randrange(_ACCIDENT_WITH_MOUNTS if chaos.disk else _ACCIDENT) == 0:
                    name = chance.choice(list(self._accidents))
                    self._accidents[name](chaos, chance)
                    self._had[name] += 1
                else:
                    chaos.world.operate(chance)
                time.sleep(chance.choice((0.0, 0.0, 0.0, 0.02, 0.3)))
                chaos.check()
            if chaos.box is not None:
                chaos.box.ensure()
            self._quiet(accept=chance.randrange(_ACCEPTANCE) == 0)
        self._quiet(accept=True)
        code = chaos.autosync.stop()
        if code != 0:
            raise chaos.broken(f"autosync ended with {code}")
        if "Traceback" in chaos.autosync.output():
            raise chaos.broken("there is a traceback in the log")

    def _quiet(self, *, accept: bool = False) -> None:
        self._quiets.append(self._chaos.quiet(accept=accept))
        print(f"  {self.summary()}; quiet after {self._quiets[-1]:.1f} s", flush=True)

    def summary(self) -> str:
        """What was done until now."""
        accidents = ", ".join(f"{name} {count}" for name, count in self._had.items() if count)
        seen = f"{self._chaos.observer.versions} versions in {self._chaos.observer.checks} checks"
        if self._chaos.autosync.may_withhold:
            seen += f", {self._chaos.withheld} deletions withheld, {self._chaos.accepted} acceptances"
        if self._chaos.box is not None:
            seen += f", {self._chaos.box.starts} starts of the box, {self._chaos.box.results()} results of it"
        return (
            f"{len(self._chaos.world.done)} operations in {time.monotonic() - self._began:.0f} s"
            f" ({accidents or 'no accident'}), {len(self._chaos.world.book.now)} files, {len(self._quiets)} quiet points"
            f" (longest {max(self._quiets, default=0):.1f} s), {seen}"
        )


if __name__ == "__main__":
    sys.exit(main())
