"""A file that is written to all the time is given out as it stood at one moment, or not at all."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync.actors import load
from autosync.actors._parts import ROUNDS
from autosync.actors.s3.own_client.multipart import PART_BYTES
from autosync.errors import FileChanged
from autosync.source.open_writers import wait_for_writes
from autosync.source.source_file import SourceFile
from autosync.source.stable_read import StableReader
from lab.buckets import Bucket
from lab.faults import Proxy
from lab.servers import wait_until

MIB = 1 << 20
SIZE = 3 * MIB + 7


@pytest.fixture(params=["", "/dev/shm"], ids=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    file = Path(request.param or tmp_path) / f"autosync-test-{os.getpid()}"
    file.write_bytes(os.urandom(SIZE))
    yield file
    file.unlink()


@pytest.fixture
def opened() -> Iterator[Callable[..., StableReader]]:
    files: list[SourceFile] = []

    def open_it(path: Path, on_read: Callable[[int], None] = lambda _: None) -> StableReader:
        files.append(SourceFile("key", os.open(path, os.O_RDONLY), on_read))
        return StableReader(files[-1])

    yield open_it
    for file in files:
        file.close()


def poke(path: Path, offset: int) -> None:
    """Change four bytes. They count, so that they are not soon what they were."""
    with path.open("r+b") as file:
        file.seek(offset)
        count = int.from_bytes(file.read(4), "little")
        file.seek(offset)
        file.write(((count + 1) % (1 << 32)).to_bytes(4, "little"))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("step", [-1, MIB, 1000 * 1000])
def test_a_file_that_grows_is_read_as_far_as_it_had_come(path: Path, opened: Callable[..., StableReader], step: int) -> None:
    before = path.read_bytes()
    source = opened(path, lambda _: append(path)).open()

    read = source.read() if step < 0 else b"".join(iter(lambda: source.read(step), b""))

    assert read == before
    assert path.stat().st_size > SIZE, "it did grow"


@pytest.mark.parametrize("offset", [0, 2 * MIB, SIZE - 4])
def test_the_last_byte_of_a_file_that_is_changed_behind_the_reader_is_not_returned(
    path: Path, opened: Callable[..., StableReader], offset: int
) -> None:
    reads = itertools.count()
    source = opened(path, lambda count: poke(path, offset) if count and next(reads) == 3 else None).open()
    given = bytearray()

    def read_all() -> None:
        while chunk := source.read(MIB):
            given.extend(chunk)

    with pytest.raises(FileChanged, match="changed while it was read"):
        read_all()
    assert len(given) == 3 * MIB


def test_what_is_changed_before_it_is_read_is_no_matter(path: Path, opened: Callable[..., StableReader]) -> None:
    source = opened(path).open()
    read = source.read(MIB)
    poke(path, 2 * MIB)

    assert read + source.read() == path.read_bytes()


def test_a_file_that_becomes_shorter_is_torn(path: Path, opened: Callable[..., StableReader]) -> None:
    source = opened(path).open()
    source.read(MIB)
    os.truncate(path, 2 * MIB)

    with pytest.raises(FileChanged, match="shorter"):
        source.read()


def test_the_parts_that_changed_are_returned_and_with_them_read_anew_it_is_one_version(
    path: Path, opened: Callable[..., StableReader]
) -> None:
    file = opened(path)
    chunks = [(0, MIB), (MIB, MIB), (2 * MIB, SIZE - 2 * MIB)]
    read = {chunk: file.part(*chunk).read() for chunk in chunks}
    poke(path, MIB)

    with pytest.raises(FileChanged) as torn:
        file.verify()
    assert torn.value.parts == [(MIB, MIB)]

    read |= {chunk: file.part(*chunk).read() for chunk in torn.value.parts}
    file.verify()
    assert b"".join(read[chunk] for chunk in chunks) == path.read_bytes()


def test_every_part_counts_at_each_verdict(path: Path, opened: Callable[..., StableReader]) -> None:
    """What was the same at the last verdict may have changed by the time at which another part is read anew."""
    file = opened(path)
    file.part(0, MIB).read()
    file.verify()
    poke(path, 5)
    file.verify()
    file.part(MIB, MIB).read()

    with pytest.raises(FileChanged) as torn:
        file.verify()
    assert torn.value.parts == [(0, MIB)]


def test_what_is_read_twice_must_be_the_same_both_times(path: Path, opened: Callable[..., StableReader]) -> None:
    """An HTTP client that sends a part again may have sent either."""
    part = opened(path).part(0, MIB)
    first = part.read()
    part.seek(0)
    assert part.read() == first

    poke(path, 5)
    part.seek(0)
    with pytest.raises(FileChanged):
        part.read()


def test_it_is_read_from_the_start_to_the_end(path: Path, opened: Callable[..., StableReader]) -> None:
    part = opened(path).part(0, MIB)
    part.seek(0, os.SEEK_END)
    part.seek(0)
    assert len(part.read(10)) == 10
    part.seek(20)
    with pytest.raises(FileChanged, match="out of turn"):
        part.read(10)


def test_a_write_that_is_under_way_is_waited_for(path: Path) -> None:
    """The kernel shows the beginning of what a long write(2) brings while the end is still to come."""
    size = 64 * MIB
    path.write_bytes(bytes(size))

    def ends() -> bytes:
        return os.pread(descriptor, 1, 0) + os.pread(descriptor, 1, size - 1)

    def met(content: bytes) -> bool:
        """Whether a long write was met in the middle; then it was over after the wait."""
        old = os.pread(descriptor, 1, 0)
        writer = threading.Thread(target=lambda: os.pwrite(writing, content, 0))
        writer.start()
        while (seen := ends()) == old * 2:
            pass
        wait_for_writes(descriptor)
        after = ends()
        writer.join()
        assert after == content[:1] * 2
        return seen == content[:1] + old

    descriptor, writing = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    try:
        contents = itertools.cycle([b"x" * size, b"y" * size])
        wait_until(lambda: met(next(contents)), 60, "a write was met in the middle")
    finally:
        os.close(descriptor)
        os.close(writing)


def test_an_empty_file_has_nothing_to_wait_for(path: Path, opened: Callable[..., StableReader]) -> None:
    os.truncate(path, 0)

    assert opened(path).open().read() == b""


# With the parts of S3

def test_a_part_that_changed_while_others_were_sent_is_sent_again(bucket: Bucket, path: Path, opened: Callable[..., StableReader]) -> None:
    """A recorder writes its data at the end and, now and then, how long they are at the beginning."""
    path.write_bytes(os.urandom(2 * PART_BYTES + 7))
    changes = iter([*[lambda: append(path)] * 40, lambda: poke(path, 5)])
    file = opened(path, lambda count: next(changes, lambda: None)() if count else None)

    load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url).upload(file)

    assert next(changes, None) is None, "it did change"
    assert bucket.read("key") == path.read_bytes()[: 2 * PART_BYTES + 7]
    assert bucket.open_uploads() == []


def test_a_part_that_is_tried_again_may_have_changed_meanwhile(bucket: Bucket, path: Path, opened: Callable[..., StableReader]) -> None:
    path.write_bytes(os.urandom(PART_BYTES + 7))
    changes = iter([lambda: poke(path, PART_BYTES + 1)])
    file = opened(path, lambda count: next(changes, lambda: None)() if count == 7 else None)

    with Proxy(bucket.server.url) as proxy:
        proxy.cut_parts = 2
        load("s3")(target_container=bucket.name, endpoint_url=proxy.url).upload(file)

    assert (next(changes, None), proxy.counts["cut part"]) == (None, 2), "it did change, and both parts were cut"
    assert bucket.read("key") == path.read_bytes()
    assert bucket.open_uploads() == []


def test_a_file_that_rests_only_in_the_last_round_is_sent(bucket: Bucket, path: Path, opened: Callable[..., StableReader]) -> None:
    path.write_bytes(os.urandom(PART_BYTES + 7))
    changes = iter([lambda: poke(path, PART_BYTES + 1)] * ROUNDS)
    file = opened(path, lambda count: next(changes, lambda: None)() if count == 7 else None)

    load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url).upload(file)

    assert next(changes, None) is None, "it did change"
    assert bucket.read("key") == path.read_bytes()


def test_a_file_that_changes_more_often_than_it_can_be_read_is_not_sent(
    bucket: Bucket, path: Path, opened: Callable[..., StableReader]
) -> None:
    path.write_bytes(os.urandom(PART_BYTES + 7))
    file = opened(path, lambda _: poke(path, PART_BYTES + 1))

    with pytest.raises(FileChanged):
        load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url).upload(file)

    assert (bucket.sizes(), bucket.open_uploads()) == ({}, [])
