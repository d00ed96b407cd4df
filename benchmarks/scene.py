"""The surroundings of a benchmark: the S3 side, the trees, and the run of one command with a check of its result."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .measure import Measured, Running, measure
from .peers import Site, environment
from .target import BucketContent, Metadata, Target
from .trees import Trees

#: After so many seconds a tool is ended: nothing here takes a tenth of it.
PATIENCE = 1800.0


class NotDone(Exception):  # noqa: N818 - a finding
    """A tool has not done its work; the text has the difference."""


@dataclass
class WorkResult:
    """One run of one tool.

    Attributes:
        seconds: what the work is measured by: most often the wall time from the start of the command to its end.
        count: units of work (files, deletes, ...) that were done in these seconds.
        cpu: CPU seconds of all processes of the tool.
        server_cpu: CPU seconds of the S3 side meanwhile.
        processes: of each process its name, CPU seconds, peak and last resident memory in bytes.
        requests: to the S3 side, by kind.
        figures: further figures, by their names with units.
    """

    seconds: float
    count: int
    cpu: float = 0.0
    server_cpu: float = 0.0
    processes: list[dict[str, Any]] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


class Scene:
    """One work's S3 side, started anew, and what its tools share.

    Args:
        trees: where trees are made.
        target: the S3 side, not started yet.
        home: what programs write goes here.
        autosync: directory of autosync's programs.
        scale: 1 for the real sizes.
    """

    def __init__(self, trees: Trees, target: Target, *, home: Path, autosync: Path, scale: float) -> None:
        self.trees = trees
        self.target = target
        self.home = home
        self.autosync = autosync
        self.scale = scale
        self.environ = environment(home)
        self._names = itertools.count(1)
        self._ends = ExitStack()

    def __enter__(self) -> Scene:
        with ExitStack() as ends:
            ends.callback(self.target.stop)
            self.target.start()
            self._ends = ends.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ends.close()

    def at_end(self, act: Callable[[], object]) -> None:
        """Do this when the work is through."""
        self._ends.callback(act)

    def count(self, full: int) -> int:
        """So many, at this scale; never none."""
        return max(1, round(full * self.scale))

    @property
    def metadata(self) -> Metadata:
        """The S3 side, where it is ours."""
        assert isinstance(self.target, Metadata)
        return self.target

    def site(self) -> Site:
        """An empty bucket, and the rest that a command needs."""
        return Site(self.target.url, self.target.empty(f"bench-{next(self._names)}"), self.home, self.autosync)

    def begin(self, command: list[str], *, directory: Path | None = None, **environ: str) -> Running:
        """Start a command that goes on until it is stopped."""
        log = self.home / f"log-{next(self._names)}.txt"
        return Running(command, environ={**self.environ, **environ}, directory=directory or self.home, log=log)

    def send(self, make: Callable[[Site], list[str]], count: int, size: int, *, delay: float = 0.0) -> WorkResult:
        """Run a command that fills an empty bucket.

        Args:
            make: gives the command.
            count, size: objects, and bytes in all, that must be there then.
            delay: latency of the S3 side in seconds.

        Raises:
            NotDone: they are not.
        """
        site = self.site()
        if delay:
            self.metadata.delay(delay)
        try:
            return self._run(make(site), site, count, count, size)
        finally:
            if delay:
                self.metadata.delay(0)

    def leave_equal(self, make: Callable[[Site], list[str]], tree: Path, count: int, size: int) -> WorkResult:
        """Run a command that finds a bucket equal to a tree and must send nothing.

        Raises:
            NotDone: it did send or delete something.
        """
        site = Site(self.target.url, "bench", self.home, self.autosync)
        content = self.target.content_of(site.bucket)
        if (content.objects, content.bytes) != (count, size) or _changing(content.requests):
            site = self.site()
            self._fill(site, tree)
        found = self._run(make(site), site, count, count, size)
        if changed := _changing(found.requests):
            raise NotDone(f"there was nothing to do, and it did {changed}")
        return found

    def delete(self, make: Callable[[Site], list[str]], before: Path, count: int, left: int, size: int) -> WorkResult:
        """Run a command that deletes `count` objects from a bucket filled with the tree `before`.

        Raises:
            NotDone: not exactly `left` objects of `size` bytes in all remain.
        """
        site = self.site()
        self._fill(site, before)
        return self._run(make(site), site, count, left, size)

    def result(
        self, used: Measured, before: tuple[BucketContent, float], after: tuple[BucketContent, float], seconds: float, count: int
    ) -> WorkResult:
        """What was used between two moments; `before` and `after`: what the S3 side held and had used (`status`)."""
        requests = Counter(after[0].requests)
        requests.subtract(before[0].requests)
        processes = [asdict(use) for use in used.processes]
        return WorkResult(seconds, count, used.cpu, after[1] - before[1], processes, dict(+requests))

    def status(self, bucket: str) -> tuple[BucketContent, float]:
        """What the S3 side holds and has used by now."""
        return self.target.content_of(bucket), self.target.cpu()

    def _fill(self, site: Site, tree: Path) -> None:
        self.trees.let_age()
        self.metadata.fill(site.bucket, tree)

    def _run(self, command: list[str], site: Site, count: int, objects: int, size: int) -> WorkResult:
        before = self.status(site.bucket)
        log = self.home / f"log-{next(self._names)}.txt"
        used = measure(command, environ=self.environ, directory=self.home, log=log, seconds=PATIENCE)
        if used.status:
            raise NotDone(f"ended with status {used.status}: {used.output or 'without output'}")
        cpu = self.target.cpu()
        after = self.target.content_of(site.bucket)
        if (after.objects, after.bytes) != (objects, size):
            raise NotDone(f"{after.objects:,} objects of {after.bytes:,} bytes are there, and {objects:,} of {size:,} should be")
        return self.result(used, before, (after, cpu), used.wall, count)


def _changing(requests: dict[str, int]) -> dict[str, int]:
    """Those requests that are not questions."""
    return {kind: number for kind, number in requests.items() if kind not in ("list", "list uploads", "head", "bucket", "location")}
