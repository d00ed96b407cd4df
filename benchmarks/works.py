"""The table of works. Each has its tools with their commands; the first tool is autosync, and the others are compared with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import live, peers
from .peers import Site
from .scene import Scene, WorkResult
from .target import Metadata, Seaweed, Target

#: The tools of a work, by name, each as a function that does one run.
Tools = dict[str, Callable[[], WorkResult]]

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Work:
    """One work: its name in WORKS, what it is in words, what is counted, and what sets it up."""

    name: str
    title: str
    unit: str
    tools: Callable[[Scene], Tools]
    target: Callable[[Path], Target] = Metadata


def _small(scene: Scene) -> Tools:
    count, tenth = scene.count(100_000), scene.count(10_000)
    tree, few = scene.trees.files(count), scene.trees.files(tenth)

    def all_of(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.send(make, count, count * _KIB)

    def some_of(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.send(make, tenth, tenth * _KIB)

    return {
        "autosync": all_of(lambda site: peers.autosync(site, tree, "--once")),
        "s5cmd cp": all_of(lambda site: peers.s5cmd_cp(site, tree)),
        "rclone copy": all_of(lambda site: peers.rclone_copy(site, tree)),
        "aws s3 sync": some_of(lambda site: peers.aws_sync(site, few)),
        "s3cmd sync": some_of(lambda site: peers.s3cmd_sync(site, few)),
        "boto3, 32 threads": some_of(lambda site: peers.plain_boto3(site, few)),
    }


def _latency(scene: Scene) -> Tools:
    count = scene.count(100_000)
    tree = scene.trees.files(count)

    def sends(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.send(make, count, count * _KIB, delay=0.05)

    return {
        "autosync": sends(lambda site: peers.autosync(site, tree, "--once")),
        "s5cmd cp": sends(lambda site: peers.s5cmd_cp(site, tree)),
        "rclone copy": sends(lambda site: peers.rclone_copy(site, tree, 256)),
    }


def _unchanged(scene: Scene) -> Tools:
    count = scene.count(100_000)
    tree = scene.trees.files(count)

    def finds(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.leave_equal(make, tree, count, count * _KIB)

    return {
        "autosync": finds(lambda site: peers.autosync(site, tree, "--once")),
        "rclone sync": finds(lambda site: peers.rclone_sync(site, tree)),
        "s5cmd sync": finds(lambda site: peers.s5cmd_sync(site, tree)),
        "aws s3 sync": finds(lambda site: peers.aws_sync(site, tree)),
    }


def _million(scene: Scene) -> Tools:
    count = scene.count(1_000_000)
    tree = scene.trees.files(count)
    scene.at_end(lambda: scene.trees.drop(tree))  # 4 GiB of memory, where BENCH_DIR is one

    def finds(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.leave_equal(make, tree, count, count * _KIB)

    return {
        "autosync": finds(lambda site: peers.autosync(site, tree, "--once")),
        "rclone sync": finds(lambda site: peers.rclone_sync(site, tree)),
    }


def _large(scene: Scene) -> Tools:
    count, size = 4, scene.count(256 * _MIB)
    tree = scene.trees.large(count, size)
    scene.at_end(lambda: scene.trees.drop(tree))

    def sends(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.send(make, count, count * size)

    return {
        "autosync": sends(lambda site: peers.autosync(site, tree, "--once")),
        "s5cmd cp": sends(lambda site: peers.s5cmd_cp(site, tree)),
        "rclone copy": sends(lambda site: peers.rclone_copy_large(site, tree)),
    }


def _delete(scene: Scene) -> Tools:
    gone, left = scene.count(10_000), scene.count(1_000)
    before, after = scene.trees.left_over(gone, left)

    def deletes(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.delete(make, before, gone, left, left * _KIB)

    return {
        "autosync": deletes(lambda site: peers.autosync(site, after, "--once", "--accept-existing", "--max-delete", "100%")),
        "s5cmd rm": deletes(lambda site: peers.s5cmd_rm(site, "gone/*")),
        "s5cmd sync --delete": deletes(lambda site: peers.s5cmd_sync(site, after, "--delete")),
    }


def _event(scene: Scene) -> Tools:
    return {
        "autosync": lambda: live.events(scene, lambda site, tree: peers.autosync(site, tree, "--settle", "0")),
        "mobius3": lambda: live.events(scene, peers.mobius3),
        "lsyncd": lambda: live.events_of_lsyncd(scene),
    }


def _burst(scene: Scene) -> Tools:
    return {"autosync": lambda: live.burst(scene, scene.count(20_000))}


def _directories(scene: Scene) -> Tools:
    return {"autosync": lambda: live.directories(scene, scene.count(100_000))}


def _backlog(scene: Scene) -> Tools:
    count = int(os.environ.get("BACKLOG") or scene.count(1_000_000))
    return {"autosync": lambda: live.backlog(scene, count)}


def _overtaking(scene: Scene) -> Tools:
    count = scene.count(20_000)
    tree = scene.trees.files(count)
    return {"autosync": lambda: live.overtaking(scene, tree, count)}


def _fleet(scene: Scene) -> Tools:
    count = scene.count(20_000)
    tree = scene.trees.files(count)

    def with_boxes(boxes: int) -> Callable[[], WorkResult]:
        return lambda: live.fleet(scene, tree, count, boxes, "--threads", "32", delay=0.05)

    return {"1 worker": with_boxes(1), "2 workers": with_boxes(2), "4 workers": with_boxes(4)}


def _limits(scene: Scene) -> Tools:
    count, few = scene.count(2_400), scene.count(240)
    tree, larger = scene.trees.files(count), scene.trees.files(few, 512 * _KIB)

    def requests(boxes: int) -> Callable[[], WorkResult]:
        return lambda: live.limited(scene, tree, count, boxes, _KIB, "--limit-requests 400/s", 400, 1)

    def content(boxes: int) -> Callable[[], WorkResult]:
        return lambda: live.limited(scene, larger, few, boxes, 512 * _KIB, "--limit-bandwidth 20MB/s", 20e6, 512 * _KIB)

    found = {f"400 requests/s, {boxes} worker{'s'[: boxes > 1]}": requests(boxes) for boxes in (1, 2, 4, 8)}
    return found | {f"20 MB/s, {boxes} worker{'s'[: boxes > 1]}": content(boxes) for boxes in (1, 8)}


def _seaweedfs(scene: Scene) -> Tools:
    count = scene.count(20_000)
    tree = scene.trees.files(count)

    def sends(make: Callable[[Site], list[str]]) -> Callable[[], WorkResult]:
        return lambda: scene.send(make, count, count * _KIB)

    return {
        "autosync": sends(lambda site: peers.autosync(site, tree, "--once")),
        "s5cmd cp": sends(lambda site: peers.s5cmd_cp(site, tree)),
        "rclone copy": sends(lambda site: peers.rclone_copy(site, tree)),
    }


WORKS = {
    work.name: work
    for work in (
        Work("small", "100,000 files of 1 KiB, empty target (aws, s3cmd and boto3: 10,000)", "file", _small),
        Work("latency", "100,000 files of 1 KiB, empty target, 50 ms latency", "file", _latency),
        Work("unchanged", "Nothing changed, 100,000 files", "file", _unchanged),
        Work("million", "Nothing changed, 1,000,000 files", "file", _million),
        Work("large", "4 files of 256 MiB, empty target", "file", _large),
        Work("delete", "10,000 deletes, 1,000 files remain", "delete", _delete),
        Work("event", "One event, idle: close of a file of 16 KiB to the object in the target", "event", _event),
        Work("burst", "20,000 files of 1 KiB created in a watched tree, first create to last object", "file", _burst),
        Work("directories", "100,000 directories: until all are watched, and at rest", "directory", _directories),
        Work("backlog", "A first scan of 1,000,000 invented files, faster than they are worked off", "file", _backlog),
        Work("overtaking", "One file saved while 20,000 are sent, 50 ms latency: its close to its object", "event", _overtaking),
        Work("fleet", "20,000 files of 1 KiB, 50 ms latency, workers of --threads 32", "file", _fleet),
        Work("limits", "A fleet with a limit: 2,400 files of 1 KiB at 400 requests/s, 240 of 512 KiB at 20 MB/s", "file", _limits),
        Work("seaweedfs", "20,000 files of 1 KiB, empty bucket of SeaweedFS", "file", _seaweedfs, Seaweed),
    )
}
