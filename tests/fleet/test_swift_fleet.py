"""A fleet in front of Swift."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autosync.model.mirror import SHORTEST_LEASE
from autosync.testing import listed
from lab.buckets import on_disk
from lab.faults import Proxy
from lab.programs import Programs
from lab.servers import Valkey, wait_until
from lab.swift import Swift, new_container, swift_actor
from lab.swiftd import KEY

MIB = 1 << 20


@pytest.fixture
def container(swift: Swift) -> str:
    """An empty container."""
    return new_container(swift)


@pytest.fixture
def segments_of(swift: Swift, container: str) -> Callable[[], list[str]]:
    """The names of the segments that are there."""
    return lambda: swift.names(f"{container}_segments")


def test_a_fleet_syncs_a_tree_through_a_killed_worker(
    programs: Programs, own_valkey: Valkey, swift: Swift, container: str, tree: Path, segments_of: Callable[[], list[str]]
) -> None:
    with Proxy(swift.login()[1].partition("/v1")[0]) as proxy:
        for number in range(30):
            (tree / f"d{number % 3}").mkdir(exist_ok=True)
            (tree / f"d{number % 3}/{number}").write_text(str(number))
        expected = {"AUTOSYNC_SOURCES": str(tree), "AUTOSYNC_PASSWORD": KEY}
        boxes = [programs.worker(broker=own_valkey.url, **expected)]
        words = [*swift.options(container), f"--storage-url={proxy.url}/v1/AUTH_lab", "--segment-size=1", f"--broker={own_valkey.url}"]
        words.append(f"--lease={SHORTEST_LEASE:g}")  # so long the killed worker's claims last
        watching = programs.start("autosync-watch", *words, f"--source-prefix={tree}/", str(tree), AUTOSYNC_PASSWORD=KEY)
        actor = swift_actor(swift, container)
        wait_until(lambda: listed(actor) == on_disk(tree), 60, "all is there")

        proxy.speed = MIB
        (tree / "large").write_bytes(os.urandom(16 * MIB))  # four parts at once: when the first have come, it is at it for three seconds
        wait_until(lambda: len(segments_of()) >= 2, 60, "segments arrive")
        boxes[0].kill()
        assert "large" not in swift.names(container), "it was killed in the middle"
        proxy.speed = None
        boxes.append(programs.worker(broker=own_valkey.url, **expected))
        (tree / "d0").rename(tree / "moved")
        wait_until(lambda: listed(actor) == on_disk(tree), 90, "all is there again")

        assert swift.read(container, "large").content == (tree / "large").read_bytes()
        wait_until(lambda: len(segments_of()) == 16, 30, "those of the killed worker are gone")
        (tree / "large").unlink()
        wait_until(lambda: "large" not in listed(actor) and segments_of() == [], 30, "and the others")
        everything = "".join(one.output() for one in (watching, *boxes)) + str(own_valkey.client().keys("*"))
        assert KEY not in everything
        assert watching.poll() is None
