"""`make soak`: thousands of random operations and accidents on a tree that autosync keeps, and at every quiet point all must be right.

Options are variables of the environment: SEED (default: a random one, printed first), OPERATIONS (default: 4000), SERVER (moto or
seaweedfs), WORKERS (default: 2), RESCAN (seconds; default: 0, so that no rescan hides what was missed). The exit code is 0 if no promise
was broken.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from lab.chaos import ACCIDENTS, Autosync, Chaos, Observer, World, versioned_bucket  # noqa: E402 - the path had to be set before
from lab.servers import Moto, S3Server, SeaweedFS  # noqa: E402

#: One operation in so many is an accident.
_ACCIDENT = 40
_SERVERS: dict[str, type[S3Server]] = {"moto": Moto, "seaweedfs": SeaweedFS}


def main() -> int:
    """Run it. Returns the exit code."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**9))
    operations = int(os.environ.get("OPERATIONS") or 4000)
    server = os.environ.get("SERVER") or "moto"
    if server not in _SERVERS:
        print(f"soak: SERVER is {' or '.join(_SERVERS)}, not {server}", file=sys.stderr)
        return 2
    print(f"soak: SEED={seed} OPERATIONS={operations}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = Path(tempfile.mkdtemp(prefix="autosync-soak-"))
    with ExitStack() as ends:
        soak = Soak(_SERVERS[server](directory / "s3"), directory, ends)
        try:
            soak.run(Random(seed), operations)
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
    """

    def __init__(self, server: S3Server, directory: Path, ends: ExitStack) -> None:
        ends.callback(server.stop)
        server.start()
        bucket = versioned_bucket(server, "soak")
        world = World(directory / "source", "tree", directory / "beside", hard_names=isinstance(server, SeaweedFS))
        options = [f"--workers={os.environ.get('WORKERS') or 2}", f"--rescan={os.environ.get('RESCAN') or 0}", "--threads=8"]
        autosync = Autosync(directory, directory / "source", server, bucket, options)
        observer = Observer(server, bucket, "tree/", world.book)
        self._chaos = Chaos(world, autosync, observer)
        ends.callback(autosync.end)
        ends.callback(observer.stop)
        self._had = dict.fromkeys(ACCIDENTS, 0)
        self._quiets: list[float] = []
        self._began = time.monotonic()

    def run(self, chance: Random, operations: int) -> None:
        """All of it.

        Raises:
            Broken: a promise was broken.
        """
        chaos = self._chaos
        chaos.autosync.start()
        chaos.observer.start()
        self._quiet()
        while len(chaos.world.done) < operations:
            for _ in range(chance.choice((5, 30, 100))):
                if chance.randrange(_ACCIDENT) == 0:
                    name = chance.choice(list(ACCIDENTS))
                    self._had[name] += 1
                    ACCIDENTS[name](chaos, chance)
                else:
                    chaos.world.operate(chance)
                time.sleep(chance.choice((0.0, 0.0, 0.0, 0.02, 0.3)))
                chaos.check()
            self._quiet()
        code = chaos.autosync.stop()
        if code != 0:
            raise chaos.broken(f"autosync ended with {code}")
        if "Traceback" in chaos.autosync.output():
            raise chaos.broken("there is a traceback in the log")

    def _quiet(self) -> None:
        self._quiets.append(self._chaos.quiet())
        print(f"  {self.summary()}; quiet after {self._quiets[-1]:.1f} s", flush=True)

    def summary(self) -> str:
        """What was done until now."""
        accidents = ", ".join(f"{name} {count}" for name, count in self._had.items() if count)
        seen = f"{self._chaos.observer.versions} versions in {self._chaos.observer.checks} checks"
        return (
            f"{len(self._chaos.world.done)} operations in {time.monotonic() - self._began:.0f} s"
            f" ({accidents or 'no accident'}), {len(self._chaos.world.book.now)} files, {len(self._quiets)} quiet points"
            f" (longest {max(self._quiets, default=0):.1f} s), {seen}"
        )


if __name__ == "__main__":
    sys.exit(main())
