"""Compares two versions of autosync: each does the same work in turn, several times.

    python -m benchmarks.pairs BEFORE AFTER

BEFORE and AFTER are directories of programs, such as those of two virtual environments. In the environment: WORKS=small,delete (default:
`NAMES`), ROUNDS=5, SCALE=1, and BENCH_DIR, as for `benchmarks.bench`.

Printed are the seconds of each run, and for each work the median of the pairs' ratios: above 1, AFTER is faster.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from .bench import ended_by_signal
from .scene import Scene, WorkResult
from .trees import Trees
from .works import WORKS, Work

#: Those works whose figures depend on the speed of autosync, with the tool that is measured.
NAMES = {
    "small": "autosync",
    "latency": "autosync",
    "unchanged": "autosync",
    "large": "autosync",
    "delete": "autosync",
    "event": "autosync",
    "burst": "autosync",
    "directories": "autosync",
    "overtaking": "autosync",
    "fleet": "2 workers",
}


def compare(work: Work, tool: str, programs: tuple[Path, Path], directory: Path, *, scale: float, rounds: int) -> list[float]:
    """Run one work in pairs.

    Args:
        work: the work.
        tool: its tool that is measured.
        programs: directories of the programs of both versions.
        directory: for trees and for what programs write.
        scale: 1 for the real sizes.
        rounds: the number of pairs.

    Returns:
        For each pair, the seconds before divided by the seconds after.
    """
    ratios = []
    home = directory / work.name
    with Scene(
        Trees(directory / "trees"), work.target(directory / f"server-{work.name}"), home=home, autosync=programs[0], scale=scale
    ) as scene:
        act = work.tools(scene)[tool]
        for number in range(rounds):
            seconds = []
            for version in programs if number % 2 == 0 else programs[::-1]:
                scene.autosync = version
                found: WorkResult = act()
                seconds.append(found.seconds)
            before, after = seconds if number % 2 == 0 else seconds[::-1]
            ratios.append(before / after)
            print(f"  {work.name:<12} before {before:8.4f} s  after {after:8.4f} s  {before / after:6.3f}", flush=True)
    return ratios


def main() -> None:
    """Run the works that the environment selects."""
    before, after = (Path(word).resolve() for word in sys.argv[1:])
    names = [name for name in os.environ.get("WORKS", "").replace(",", " ").split() if name] or list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        raise SystemExit(f"WORKS: there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    scale, rounds = float(os.environ.get("SCALE") or 1), int(os.environ.get("ROUNDS") or 5)
    above = os.environ.get("BENCH_DIR") or ("/dev/shm" if os.path.isdir("/dev/shm") else None)
    signal.signal(signal.SIGTERM, ended_by_signal)  # so that servers and tools end, and the trees go
    medians = {}
    with tempfile.TemporaryDirectory(prefix="autosync-bench-", dir=above, ignore_cleanup_errors=True) as directory:
        for name in names:
            ratios = compare(WORKS[name], NAMES[name], (before, after), Path(directory), scale=scale, rounds=rounds)
            medians[name] = statistics.median(ratios)
    for name, median in medians.items():
        print(f"{name:<12} {median:6.3f}")


if __name__ == "__main__":
    main()
