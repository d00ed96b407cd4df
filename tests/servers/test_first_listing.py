"""The first listing of a bucket comes from a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.target import Metadata

COUNT = 12_500


#: Lists a bucket twice, with that process and without, and prints how many pages came from there.
LISTED_TWICE = """
import json, os, signal, sys
from autosync.actors import load
from autosync.actors.s3 import listing
from autosync.actors.s3.own_client import list_page
from autosync.process.forked import ForkedGenerator

url, bucket, trouble = sys.argv[1:]
actor = load("s3")(target_container=bucket, endpoint_url=url)

came, children = [], []
quick = list_page.parse_page
given, understood = ForkedGenerator.items, listing.any_page

def items(self, argument):
    children.append(self._child.pid())
    for item in given(self, argument):
        came.append(item)
        yield item
        if trouble == "it is killed":
            os.kill(self._child.pid(), signal.SIGKILL)

def fail(text):
    if os.getpid() != here and "000005500" in text:
        raise OSError("it cannot be read")
    return understood(text)

def stop(text):
    if os.getpid() != here and "000005500" in text:
        signal.pause()  # so there is more to come when it is killed
    return understood(text)

here = os.getpid()
ForkedGenerator.items = items
if trouble == "a page that only expat reads":
    list_page.parse_page = lambda text: None if "000005500" in text else quick(text)
elif trouble == "it fails in the middle":
    listing.any_page = fail
elif trouble == "it is killed":
    listing.any_page = stop
actor.start_prefetch()
actor.check()
found = [file.key for file in actor.list()]
ForkedGenerator.items, listing.any_page = given, understood
again = [file.key for file in actor.list()]
actor.close()
by_boto3 = "botocore" in sys.modules
print(json.dumps({"same": found == again, "keys": len(found), "pages": len(came), "processes": len(children), "boto3": by_boto3}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metadata]:
    made = Metadata(tmp_path_factory.mktemp("server"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def bucket(server: Metadata, tmp_path_factory: pytest.TempPathFactory) -> str:
    tree = tmp_path_factory.mktemp("tree")
    for number in range(COUNT):
        (tree / f"{number:09}").touch()
    made = server.empty("listed")
    server.fill(made, tree)
    return made


@pytest.mark.parametrize(
    ("trouble", "pages"),
    [
        ("none", range(13, 14)),
        ("it is killed", range(1, 6)),
        ("it fails in the middle", range(5, 6)),
        ("a page that only expat reads", range(13, 14)),
    ],
)
def test_the_first_listing_comes_from_a_process_of_its_own_and_goes_on_without_it(
    server: Metadata, bucket: str, trouble: str, pages: range
) -> None:
    message = subprocess.run(
        [sys.executable, "-c", LISTED_TWICE, server.url, bucket, trouble],
        env={**os.environ, **server.environment()}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert message.returncode == 0, message.stderr
    found: dict[str, Any] = json.loads(message.stdout)
    assert (found["same"], found["keys"], found["processes"]) == (True, COUNT, 1)
    assert not found["boto3"], "the other process has passed on what it needs"
    assert found["pages"] in pages
