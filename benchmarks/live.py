"""The works in which autosync runs on while something happens: events, a burst, a tree of many directories, a backlog, a fleet."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from lab.servers import Valkey, wait_until

from . import peers
from .measure import Measured, Running, Use
from .peers import Site
from .scene import PATIENCE, NotDone, Scene, WorkResult

REPOSITORY = Path(__file__).resolve().parent.parent
_EVENT_SIZE = 16 << 10
#: How long a program that has just started is left alone, so that it is idle, in seconds.
_IDLE = 2.0
_PATIENCE = 300.0
WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


class NotPossible(Exception):  # noqa: N818 - a finding
    """This machine is not set up for a work; the text has the reason."""


def _await(condition: Callable[[], object], running: Running, what: str, pause: float = 0.05) -> None:
    """Wait for a condition while a program runs.

    Raises:
        NotDone: the program ended, or it took too long.
    """

    def met() -> bool:
        if condition():
            return True
        if running.has_ended():
            raise NotDone(f"it ended before {what}: {running.wait(1).output or 'without output'}")
        return False

    try:
        wait_until(met, _PATIENCE, what, pause)
    except AssertionError as error:
        raise NotDone(str(error)) from error


def _await_ready(scene: Scene, bucket: str, tree: Path, running: Running) -> int:
    """Write a file each second until one is in the target. Returns how many are: mobius3 does not send what stood there before it."""
    scans = 0

    def arrived() -> bool:
        nonlocal scans
        if scans % 20 == 0:
            (tree / f"first-{scans // 20}").write_bytes(b"first")
        scans += 1
        return scene.target.content_of(bucket).objects > 0

    _await(arrived, running, "the first file is in the target")
    time.sleep(_IDLE)
    return scene.target.content_of(bucket).objects


def _write(path: Path, content: bytes) -> float:
    """Write a file and close it. Returns the moment before the close: what comes after that is the other's time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, content)
    closed = time.monotonic()
    os.close(descriptor)
    return closed


def _latencies(seconds: list[float], result: WorkResult) -> WorkResult:
    ranked = sorted(seconds)
    result.seconds, result.count = statistics.median(ranked), 1
    result.figures = {
        "files": len(ranked),
        "median, ms": 1000 * result.seconds,
        "99th percentile, ms": 1000 * ranked[math.ceil(0.99 * len(ranked)) - 1],
        "slowest, ms": 1000 * ranked[-1],
    }
    return result


def events(scene: Scene, make: Callable[[Site, Path], list[str]]) -> WorkResult:
    """200 files of 16 KiB in an idle tree, one at a time, 50 to 150 ms between them.

    Args:
        scene: where.
        make: gives the command that keeps the bucket equal to a tree.

    Returns:
        `seconds` is the median from the close of a file to its object.

    Raises:
        NotDone: an object is missing.
    """
    count = max(20, scene.count(200))
    site, tree = scene.site(), scene.trees.empty("live")
    chance = random.Random(4)
    closed = {}
    with scene.begin(make(site, tree)) as running:
        firsts = _await_ready(scene, site.bucket, tree, running)
        before = scene.status(site.bucket)
        for number in range(count):
            closed[f"{number:04}"] = _write(tree / f"{number:04}", chance.randbytes(_EVENT_SIZE))
            time.sleep(chance.uniform(0.05, 0.15))
        _await(lambda: scene.target.content_of(site.bucket).objects >= count + firsts, running, f"{count} objects are complete")
        done = scene.metadata.times(site.bucket)
        result = scene.result(running.stop(), before, scene.status(site.bucket), 0.0, 1)
    return _latencies([done[key] - moment for key, moment in closed.items()], result)


def events_of_lsyncd(scene: Scene) -> WorkResult:
    """The same for lsyncd and rsync, with another directory as the target, and 20 files: each takes it a second.

    Raises:
        NotDone: a file did not arrive.
    """
    site, tree, copy = scene.site(), scene.trees.empty("live"), scene.trees.empty("copy")
    chance = random.Random(4)
    seconds = []
    with scene.begin(peers.lsyncd(site, tree, copy)) as running:
        (tree / "first").write_bytes(b"first")
        _await((copy / "first").exists, running, "the first file is in the target")
        time.sleep(_IDLE)
        for number in range(20):
            closed = _write(tree / f"{number:04}", chance.randbytes(_EVENT_SIZE))
            _await((copy / f"{number:04}").exists, running, "the file is in the target", pause=0.001)
            seconds.append(time.monotonic() - closed)
            time.sleep(chance.uniform(0.05, 0.15))
        used = running.stop()
    return _latencies(seconds, WorkResult(0.0, 1, used.cpu, processes=[asdict(use) for use in used.processes]))


def burst(scene: Scene, count: int) -> WorkResult:
    """`count` files of 1 KiB, created in a watched tree by another process as fast as it can.

    Returns:
        `seconds` is from the first create to the last object.

    Raises:
        NotDone: objects are missing.
    """
    site, tree = scene.site(), scene.trees.empty("live")
    for number in range(min(100, max(count // 10, 1))):
        (tree / f"{number:03}").mkdir()
    with scene.begin(peers.autosync(site, tree)) as running:
        firsts = _await_ready(scene, site.bucket, tree, running)
        before = scene.status(site.bucket)
        writer = [sys.executable, "-m", "benchmarks.trees", "write", str(tree), str(count), "1024"]
        output = subprocess.run(writer, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        began, ended = (float(word) for word in output.split())
        _await(lambda: scene.target.content_of(site.bucket).objects >= count + firsts, running, f"{count:,} objects are there", pause=0.25)
        after = scene.status(site.bucket)
        last = max(scene.metadata.times(site.bucket).values())
        result = scene.result(running.stop(), before, after, last - began, count)
    if after[0].bytes != count * 1024 + firsts * len(b"first"):
        raise NotDone(f"{after[0].bytes:,} bytes are there: not each object is complete")
    result.figures = {"written in, s": ended - began, "files/s": count / result.seconds}
    return result


def directories(scene: Scene, count: int) -> WorkResult:
    """A tree of `count` directories, and an empty one beside it.

    Returns:
        `seconds` is from the start to the last watch.

    Raises:
        NotPossible: the kernel does not give so many watches.
        NotDone: they were not all placed.
    """
    limit = int(WATCHES.read_text())
    if limit < count * 1.05 + 1000:
        raise NotPossible(f"fs.inotify.max_user_watches is {limit:,}, and more than {count:,} are needed")
    rest = 20.0 if scene.scale >= 1 else 3.0
    bare, _ = _at_rest(scene, scene.trees.empty("live"), 0, 0.0)
    result, _ = _at_rest(scene, scene.trees.folders(count), count, rest)
    grown = result.figures["resident, MB"] - bare.figures["resident, MB"]
    result.figures["bytes a directory"] = grown * 1e6 / count
    return result


def _at_rest(scene: Scene, tree: Path, count: int, rest: float) -> tuple[WorkResult, Measured]:
    site = scene.site()
    began = time.monotonic()
    with scene.begin(peers.autosync(site, tree)) as running:
        _await(lambda: "mirroring " in running.output(), running, "it logs that it mirrors the tree")
        keeping_after = time.monotonic() - began
        _await(lambda: "watches are placed" in running.output(), running, f"{count:,} directories are watched")
        placed = time.monotonic() - began
        if (watched := _watches(running.pid)) < count + 1:
            raise NotDone(f"{watched:,} directories are watched, and {count + 1:,} should be")
        _await_rest(running)
        before, stats = running.now(), scene.status(site.bucket)
        time.sleep(rest)
        after = running.now()
        used = running.stop()
    result = scene.result(used, stats, scene.status(site.bucket), placed, max(count, 1))
    spent = {pid: use.cpu - before.get(pid, Use("?")).cpu for pid, use in after.items()}
    result.figures = {"keeping after, s": keeping_after, "resident, MB": after[running.pid].resident / 1e6, "seconds at rest": rest}
    for name in sorted({use.name for use in after.values()}):
        result.figures[f"CPU at rest, s: {name}"] = sum(spent[pid] for pid, use in after.items() if use.name == name)
    return result, used


def _watches(pid: int) -> int:
    """How many directories a process watches, as the kernel counts them. With many it takes half a second, and no watch can be placed
    meanwhile."""
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "inotify" in os.readlink(descriptor):
                found += Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_bytes().count(b"inotify wd:")
        except OSError:
            continue  # closed meanwhile
    return found


def _await_rest(running: Running) -> None:
    """Wait until all processes together use less than a twentieth of a core for two seconds."""

    def spent() -> float:
        return sum(use.cpu for use in running.now().values())

    last = [0.0, 0.0]

    def rests() -> bool:
        last[:] = spent(), last[0]
        return last[0] - last[1] < 0.1

    _await(rests, running, "it rests", pause=2.0)


def backlog(scene: Scene, count: int) -> WorkResult:
    """A first scan of `count` invented files, with a worker that only reports that all is done (`benchmarks/backlog.py`).

    Returns:
        `seconds` is from the first entry to the last that was reported as done.

    Raises:
        NotDone: not all were.
    """
    with ExitStack() as ends:
        broker = _broker(scene, ends)
        words = [str(scene.autosync / "python"), "-m", "benchmarks.backlog", "scan", broker.url, str(count)]
        running = ends.enter_context(scene.begin(words, directory=REPOSITORY))
        used = running.wait(PATIENCE)
        lines = [json.loads(line) for line in running.output().splitlines() if line.startswith("{")]
    end = lines[-1] if lines else {}
    if used.status or end.get("sent") != count:
        raise NotDone(f"status {used.status}, and {end.get('sent', 0):,} of {count:,} were done: {used.output}")
    samples = [line for line in lines if "entries" in line]
    result = WorkResult(end["seconds"], count, used.cpu, processes=[asdict(use) for use in used.processes])
    result.figures = {"waits at, keys": next(line["waits at"] for line in lines if "waits at" in line)}
    for process in ("broker", "feed", "worker"):
        objects = [sample[process] / 1e6 for sample in samples if sample[process]]
        if objects:
            result.figures |= {f"{process}: most, MB": max(objects), f"{process}: growth after a tenth, MB": objects[-1] - objects[0]}
    return result


def overtaking(scene: Scene, tree: Path, count: int) -> WorkResult:
    """A first scan of `count` files at 50 ms latency, with one worker; when half of them are sent, one more is saved.

    Returns:
        `seconds` is from the close of that file to its object.

    Raises:
        NotDone: objects are missing.
    """
    site = scene.site()
    later = tree / "saved meanwhile"
    later.unlink(missing_ok=True)
    with ExitStack() as ends:
        ends.callback(later.unlink, missing_ok=True)
        broker = _broker(scene, ends)
        worker = _begin_worker(scene, ends, site, tree, broker, 1)
        scene.metadata.delay(0.05)
        ends.callback(scene.metadata.delay, 0)
        before = scene.status(site.bucket)
        watch = ends.enter_context(scene.begin(peers.autosync_watch(site, tree, broker.url, "--threads", "32")))
        _await(lambda: scene.target.content_of(site.bucket).objects >= count // 2, watch, "half of the files are sent")
        closed = _write(later, b"later")
        _await(lambda: scene.target.content_of(site.bucket).objects > count, watch, "all files are sent", pause=0.25)
        after = scene.status(site.bucket)
        done = scene.metadata.times(site.bucket)
        used = [watch.stop(), worker.stop()]
    both = Measured(used[0].wall, sum(one.cpu for one in used), 0, [use for one in used for use in one.processes])
    result = scene.result(both, before, after, done[later.name] - closed, 1)
    result.figures = {"saved meanwhile, s": result.seconds, "the rest of the backlog, s": max(done.values()) - closed}
    return result


def _broker(scene: Scene, ends: ExitStack) -> Valkey:
    """A broker on loopback, that ends with the work."""
    broker = Valkey(scene.home / f"broker-{time.monotonic_ns()}")
    ends.callback(shutil.rmtree, broker.directory, ignore_errors=True)
    ends.callback(broker.stop)
    broker.start()
    return broker


def _begin_worker(scene: Scene, ends: ExitStack, site: Site, tree: Path, broker: Valkey, number: int) -> Running:
    """An upload box that may read the tree, ready."""
    desk = scene.home / "box"
    desk.mkdir(exist_ok=True)
    (desk / "celeryconfig.py").write_text(f"broker_url = {broker.url!r}\nautosync_sources = [{str(tree)!r}]\n")
    running = ends.enter_context(scene.begin(peers.worker(site, number), directory=desk))
    _await(lambda: "ready." in running.output(), running, "the worker is ready")
    return running


def fleet(scene: Scene, tree: Path, count: int, boxes: int, *options: str, delay: float = 0.0, size: int = 1024) -> WorkResult:
    """A broker on loopback, so many workers that are ready, and then `autosync-watch --once`.

    Args:
        scene: where.
        tree: of so many files of `size` bytes each.
        count: of the files.
        boxes: workers.
        options: of autosync-watch.
        delay: of each answer of the target, in seconds.
        size: of each file, in bytes.

    Returns:
        `seconds` is from the first object to the last.

    Raises:
        NotDone: objects are missing.
    """
    site = scene.site()
    with ExitStack() as ends:
        broker = _broker(scene, ends)
        workers = [_begin_worker(scene, ends, site, tree, broker, number) for number in range(1, boxes + 1)]
        scene.metadata.delay(delay)
        ends.callback(scene.metadata.delay, 0)
        before = scene.status(site.bucket)
        watch = ends.enter_context(scene.begin(peers.autosync_watch(site, tree, broker.url, "--once", *options)))
        used = [watch.wait(_PATIENCE)]
        if used[0].status:
            raise NotDone(f"autosync-watch ended with status {used[0].status}: {used[0].output}")
        after = scene.status(site.bucket)
        done = scene.metadata.times(site.bucket).values()
        used += [one.stop() for one in workers]
    objects = after[0]
    if (objects.objects, objects.bytes) != (count, count * size):
        raise NotDone(f"{objects.objects:,} objects are there, and {count:,} should be")
    both = Measured(used[0].wall, sum(one.cpu for one in used), 0, [use for one in used for use in one.processes])
    result = scene.result(both, before, after, max(done) - min(done), count)
    result.figures = {"files/s": count / result.seconds}
    return result


def limited(scene: Scene, tree: Path, count: int, boxes: int, size: int, option: str, a_second: float, unit: int) -> WorkResult:
    """A fleet with a limit. How far its rate is from that, between the first object and the last, is the figure `off the limit, %`.

    Args:
        scene, tree, count, boxes, size: as for `fleet`.
        option: the limit, as it is written.
        a_second: the same as a number.
        unit: how much of it one file takes.
    """
    result = fleet(scene, tree, count, boxes, *option.split(), size=size)
    rate = (count - 1) * unit / result.seconds
    result.figures = {"off the limit, %": 100 * abs(rate / a_second - 1)}
    return result
