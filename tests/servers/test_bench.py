"""The laboratory of `make bench`: its S3 server answers as S3 does, it measures what a process really used, and makes a page of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.measure import Running, measure, name_of
from benchmarks.scene import NotDone, Scene
from benchmarks.target import Metadata
from benchmarks.trees import Trees
from lab import ROOT
from lab.servers import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metadata]:
    """Our S3 server; on this Python it runs on asyncio, since uvloop is not installed."""
    made = Metadata(tmp_path_factory.mktemp("server"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def bucket(server: Metadata) -> str:
    return server.empty("bench")


# The S3 server

def test_an_object_is_there_until_it_is_deleted(server: Metadata, bucket: str) -> None:
    client = server.client()
    began = time.monotonic()

    put = client.put_object(Bucket=bucket, Key="a/größe 100%.txt", Body=b"hello")
    head = client.head_object(Bucket=bucket, Key="a/größe 100%.txt")

    assert head["ContentLength"] == 5
    assert head["ETag"] == put["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert abs(head["LastModified"].timestamp() - time.time()) < 60
    assert began <= server.times(bucket)["a/größe 100%.txt"] <= time.monotonic()
    client.delete_object(Bucket=bucket, Key="a/größe 100%.txt")
    with pytest.raises(client.exceptions.ClientError, match="404"):
        client.head_object(Bucket=bucket, Key="a/größe 100%.txt")


@pytest.mark.parametrize("version", ["list_objects", "list_objects_v2"])
def test_a_listing_has_pages_prefixes_and_a_delimiter(server: Metadata, bucket: str, version: str) -> None:
    client = server.client()
    keys = ["a", "b & <c>/1", "b & <c>/2", "b & <c>/sub/3", "z/ü"]
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())

    def listed(**more: Any) -> tuple[list[str], list[str], int]:
        pages = list(client.get_paginator(version).paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}, **more))
        found = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return found, [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", ())], len(pages)

    assert listed() == (keys, [], 3)
    assert listed(Prefix="b") == (keys[1:4], [], 2)
    assert listed(Delimiter="/") == (["a"], ["b & <c>/", "z/"], 2)
    assert listed(Prefix="b & <c>/", Delimiter="/") == (keys[1:3], ["b & <c>/sub/"], 2)
    assert listed(Prefix="none") == ([], [], 1)


def test_many_are_deleted_in_one_request(server: Metadata, bucket: str) -> None:
    client = server.client()
    for key in ("a<b", "c", "stays"):
        client.put_object(Bucket=bucket, Key=key, Body=b"1")

    response = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a<b"}, {"Key": "c"}, {"Key": "was never there"}]})

    assert {one["Key"] for one in response["Deleted"]} == {"a<b", "c", "was never there"}
    locked = server.content_of(bucket)
    assert (locked.objects, locked.bytes) == (1, 1)
    assert locked.requests == {"put": 3, "delete many": 1}


def test_an_upload_in_parts_is_there_when_it_is_completed(server: Metadata, bucket: str) -> None:
    client = server.client()
    upload = client.create_multipart_upload(Bucket=bucket, Key="large")["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": client.upload_part(
            Bucket=bucket, Key="large", UploadId=upload, PartNumber=number, Body=b"x" * (2 << 20))["ETag"]}
        for number in (1, 2)
    ]  # fmt: skip
    assert server.content_of(bucket).objects == 0

    client.complete_multipart_upload(Bucket=bucket, Key="large", UploadId=upload, MultipartUpload={"Parts": parts})

    assert client.head_object(Bucket=bucket, Key="large")["ContentLength"] == 4 << 20
    dropped = client.create_multipart_upload(Bucket=bucket, Key="dropped")["UploadId"]
    client.abort_multipart_upload(Bucket=bucket, Key="dropped", UploadId=dropped)
    with pytest.raises(client.exceptions.ClientError, match="NoSuchUpload"):
        client.complete_multipart_upload(Bucket=bucket, Key="dropped", UploadId=dropped, MultipartUpload={"Parts": parts})


def test_it_can_be_filled_and_delayed(server: Metadata, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a & b").mkdir()
    (tmp_path / "a & b" / "1").write_bytes(b"12345")

    server.fill(bucket, tmp_path)
    server.delay(0.2)
    began = time.monotonic()
    try:
        assert server.client().head_object(Bucket=bucket, Key="a & b/1")["ContentLength"] == 5
        assert time.monotonic() - began >= 0.2
    finally:
        server.delay(0)


# Measuring

#: Takes 100 MB and half a second of CPU, in a child of its own.
HUNGRY = """
import subprocess, sys, time
def eat():
    held = bytearray(b"x") * 100_000_000
    until = time.process_time() + 0.5
    while time.process_time() < until: pass
    time.sleep(0.2)
if len(sys.argv) > 1: eat()
else: subprocess.run([sys.executable, sys.argv[0], "child"], check=True, start_new_session=True); print("error: made up"); print("done")
"""


@pytest.fixture
def hungry(tmp_path: Path) -> list[str]:
    (tmp_path / "hungry.py").write_text(HUNGRY)
    return [sys.executable, "-I", str(tmp_path / "hungry.py")]


def test_memory_and_cpu_of_a_child_are_measured(hungry: list[str], tmp_path: Path) -> None:
    used = measure(hungry, environ=os.environ, directory=tmp_path, log=tmp_path / "log", seconds=60)

    assert used.status == 0
    assert used.output == "error: made up ... done"
    assert [use.name for use in used.processes] == ["hungry", "hungry"]
    child = max(used.processes, key=lambda use: use.peak)
    assert 100_000_000 < child.peak < 160_000_000
    assert min(use.peak for use in used.processes) < 50_000_000
    assert 0.4 <= child.cpu <= used.cpu
    assert 0.5 <= used.cpu < 3
    assert used.wall > 0.7


def test_what_runs_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.run(['sleep', '600'], start_new_session=True)"
    with Running([sys.executable, "-c", script], environ=os.environ, directory=tmp_path, log=tmp_path / "log") as running:
        wait_until(lambda: len(running.now()) == 2, 20, "it has a child")
        used = running.wait(0.1)

    assert used.status == -9
    assert sorted(use.name for use in used.processes) == ["python", "sleep"]
    assert not [pid for pid in running.uses if os.path.exists(f"/proc/{pid}")]


@pytest.mark.parametrize(("words", "name"), [
    (["/venv/bin/python", "/venv/bin/autosync", "--once"], "autosync"),
    (["/venv/bin/python3", "-W", "ignore:You're", "-m", "celery", "--quiet", "-A", "autosync", "worker"], "celery worker"),
    (["celery", "worker", "s3-bucket-1"], "celery worker"),
    (["/lib/valkey-server unixsocket:/state/broker.sock"], "valkey-server"),
    (["/lib/s5cmd", "cp"], "s5cmd"),
    (["python3.11", "-c", "pass"], "python"),
    (["python", "/b/plain_boto3.py", "x"], "plain_boto3"),
])  # fmt: skip
def test_processes_have_the_names_that_people_use(words: list[str], name: str) -> None:
    assert name_of(words) == name


def test_a_tool_that_did_not_do_its_work_has_no_time(server: Metadata, tmp_path: Path) -> None:
    scene = Scene(Trees(tmp_path / "trees"), server, home=tmp_path / "home", autosync=tmp_path, scale=1)

    with pytest.raises(NotDone, match="0 objects of 0 bytes are there, and 2 of 2,048 should be"):
        scene.send(lambda site: ["true"], 2, 2048)
    with pytest.raises(NotDone, match="status 1"):
        scene.send(lambda site: ["false"], 2, 2048)


def test_a_backlog_is_made_and_worked_off(broker: str) -> None:
    command = [sys.executable, "-m", "benchmarks.backlog", "scan", broker, "500"]
    message = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    lines = [json.loads(line) for line in message.splitlines()]
    assert [line["entries"] for line in lines if "entries" in line] == list(range(50, 501, 50))
    assert {"waits at": 500} in lines
    assert lines[-1]["sent"] == 500


def test_trees_have_the_files_that_are_requested(tmp_path: Path) -> None:
    trees = Trees(tmp_path / "trees")

    files = [path for path in trees.files(250, 1024).rglob("*") if path.is_file()]
    assert len(files) == len({path.read_bytes() for path in files}) == 250
    assert {path.stat().st_size for path in files} == {1024}
    assert len({path.parent for path in files}) == 25
    assert [path.stat().st_size for path in trees.large(2, 1_500_000).iterdir()] == [1_500_000] * 2
    assert len(list(trees.folders(1000).rglob("*"))) == 1000
    before, after = trees.left_over(30, 10)
    assert {path.relative_to(after) for path in after.rglob("*")} < {path.relative_to(before) for path in before.rglob("*")}
    trees.remove()
    assert not (tmp_path / "trees").exists()


# The page

def line(work: str, tool: str, seconds: float, *, run: str = "2", **more: Any) -> report.Line:
    """A made-up result."""
    process = {"name": "worker", "cpu": 1.0, "peak": 100_000_000, "resident": 1}
    machine = {"cores": 2, "processor": "a | processor", "memory": "4 GiB", "kernel": "6.1", "trees": "tmpfs", "state": "ext4"}
    return {
        "run": run, "date": f"day {run}", "scale": 1.0, "machine": machine, "versions": {"autosync": "0.1"}, "work": work, "title": work,
        "unit": "file", "tool": tool, "round": 1, "seconds": seconds, "count": 10, "cpu": 1.0, "server_cpu": 0.5,
        "processes": [process, process], "requests": {}, "figures": {}, **more,
    }  # fmt: skip


MADE_UP = [
    line("large", "autosync", 1.0, run="1"),
    line("large", "s5cmd cp", 1.2, run="1"),
    line("small", "autosync", 99.0, run="1"),
    line("small", "autosync", 2.0),
    line("small", "s5cmd cp", 5.0),
    line("small", "autosync", 3.0),
    line("small", "autosync", 1.0),
    line("small", "boto3", 4.0, count=1),
    {key: value for key, value in line("small", "aws", 1.0, error="error: 3 of 10 objects").items() if key != "seconds"},
]


def test_the_page_has_medians_ratios_goals_and_errors() -> None:
    page = report.page(report.Results(MADE_UP), "plot.svg")

    assert "| small | 2 x faster than s5cmd cp | 2.50 x | 1.25 |" in page
    assert "| large | 1.3 x faster than s5cmd cp | 1.20 x | **0.92: not reached** |" in page
    assert "| fleet | 2 workers: 0.9 of 2 times one worker's throughput | not measured |  |" in page
    assert "| autosync | 10 | 2 (1 to 3) | 200,000 | 1.00 | 1 | 0.5 |\n" in page
    assert "- autosync: peak memory, MB: worker (2) 100" in page
    assert max(map(len, page.splitlines())) <= 140
    assert "| boto3 | 1 | 4 (4 to 4) | 4,000,000 | 20.00 |" in page
    assert "| aws |  | error: 3 of 10 objects |" in page
    assert "large. Measured day 1, autosync 0.1." in page
    assert "small. Measured" not in page
    assert "a \\| processor" not in page.split("## Goals")[1]
    assert "![Seconds of each tool, as a multiple of autosync's](plot.svg)" in page
    assert "Nothing was measured" in report.page(report.Results([]), "")


def test_only_results_of_the_same_scale_are_put_together(tmp_path: Path) -> None:
    lines = [line("small", "autosync", 2.0), line("small", "autosync", 7.0, run="3", scale=0.01)]
    (tmp_path / "small.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))

    assert report.load(tmp_path, 1.0).seconds("small", "autosync") == 2.0
    assert report.load(tmp_path, 0.01).seconds("small", "autosync") == 7.0
