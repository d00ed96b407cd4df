"""A file that changes while it is read is torn, and its last byte is not given out before that is known."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from autosync.errors import Draining, FileChanged, SourceUnsure
from autosync.source.source_file import SourceFile
from lab.servers import wait_until

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 100 bytes. Its mtime is long ago, so that any write moves it, however coarse the clock of the file system is."""
    file = tmp_path / "file"
    fill(file, bytes(range(100)))
    return file


def fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))


@pytest.fixture
def opened() -> Iterator[Callable[..., SourceFile]]:
    files: list[SourceFile] = []

    def open_it(path: Path, **more: Callable[[int], None]) -> SourceFile:
        files.append(SourceFile("key", os.open(path, os.O_RDONLY), **more))
        return files[-1]

    yield open_it
    for file in files:
        file.close()


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, 50)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rewrite(path: Path) -> None:
    path.write_bytes(b"something else, of another size" * 10)


def rewrite_with_the_same_size(path: Path) -> None:
    path.write_bytes(b"y" * path.stat().st_size)


def rewrite_one_byte_behind_the_reader(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"y")


def rewrite_and_set_the_time_back(path: Path) -> None:
    probe = path.with_name("probe")

    def clock_has_moved_on() -> bool:
        probe.write_bytes(b"x")
        return probe.stat().st_ctime_ns > path.stat().st_ctime_ns

    wait_until(clock_has_moved_on, 5)
    rewrite_with_the_same_size(path)
    os.utime(path, (1e9, 1e9))


CHANGES = [
    append, truncate, empty, rewrite, rewrite_with_the_same_size, rewrite_one_byte_behind_the_reader, rewrite_and_set_the_time_back,
]  # fmt: skip


# A file that stands still

@pytest.mark.parametrize("size", [0, 1, 100, MIB - 1, MIB, MIB + 1, 3 * MIB + 7])
@pytest.mark.parametrize("step", [-1, None, 64 * 1024, 1000 * 1000])
def test_a_file_that_rests_is_read_whole(path: Path, opened: Callable[..., SourceFile], size: int, step: int | None) -> None:
    content = os.urandom(size)
    fill(path, content)

    source = opened(path).open()
    read = source.read(step) if step in (-1, None) else b"".join(iter(lambda: source.read(step), b""))

    assert read == content
    assert source.read() == b""


def test_key_size_and_times_are_those_of_the_disk(path: Path, opened: Callable[..., SourceFile]) -> None:
    os.utime(path, ns=(0, 1_000_000_007))

    file = opened(path)

    assert (file.key, file.size, file.mtime, file.mtime_ns) == ("key", 100, path.stat().st_mtime, 1_000_000_007)


# A file that does not

@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before", [0, 1, 60, 99])
def test_a_file_that_changes_while_it_is_read_is_torn(
    path: Path, opened: Callable[..., SourceFile], change: Callable[[Path], None], before: int
) -> None:
    source = opened(path).open()
    source.read(before)

    change(path)

    with pytest.raises(FileChanged, match="key"):
        source.read()


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_before_its_first_byte_is_read_is_torn(
    path: Path, opened: Callable[..., SourceFile], change: Callable[[Path], None]
) -> None:
    file = opened(path)

    change(path)

    with pytest.raises(FileChanged):
        file.open().read()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("step", [1, 7, 100, MIB])
def test_the_last_byte_of_a_file_that_changed_is_never_returned(
    path: Path, opened: Callable[..., SourceFile], change: Callable[[Path], None], step: int
) -> None:
    given = bytearray()
    changes = iter([lambda: change(path)])
    source = opened(path, on_read=lambda _: next(changes, lambda: None)()).open()

    def read_all() -> None:
        while chunk := source.read(step):
            given.extend(chunk)

    with pytest.raises(FileChanged):
        read_all()
    assert len(given) < 100


def test_a_large_file_that_changes_at_its_very_end_is_torn(path: Path, opened: Callable[..., SourceFile]) -> None:
    fill(path, bytes(3 * MIB))
    source = opened(path).open()
    got = source.read(3 * MIB - 1)

    rewrite_one_byte_behind_the_reader(path)

    assert len(got) == 3 * MIB - 1
    with pytest.raises(FileChanged):
        source.read(1)


def test_a_change_of_an_empty_file_is_seen(path: Path, opened: Callable[..., SourceFile]) -> None:
    fill(path, b"")
    source = opened(path).open()

    append(path)

    with pytest.raises(FileChanged):
        source.read()


def test_a_file_put_in_its_place_does_not_tear_the_one_that_is_read(path: Path, opened: Callable[..., SourceFile], tmp_path: Path) -> None:
    """What is saved by renaming once a minute, and takes longer than that to send, would else never be sent."""
    source = opened(path).open()
    first = source.read(10)
    fill(tmp_path / "new", b"y" * 100)

    (tmp_path / "new").rename(path)

    assert first + source.read() == bytes(range(100))


def test_a_file_that_was_replaced_and_is_written_to_all_the_same_is_torn(
    path: Path, opened: Callable[..., SourceFile], tmp_path: Path
) -> None:
    source = opened(path).open()
    source.read(10)
    fill(tmp_path / "new", b"y" * 100)

    with open(path, "r+b") as writer:
        (tmp_path / "new").rename(path)
        writer.write(b"y")

    with pytest.raises(FileChanged):
        source.read()


def test_verify_raises_if_the_file_has_changed_until_now(path: Path, opened: Callable[..., SourceFile]) -> None:
    file = opened(path)
    file.verify()

    append(path)

    with pytest.raises(FileChanged):
        file.verify()


def test_the_signature_stays_while_the_file_does(path: Path, opened: Callable[..., SourceFile]) -> None:
    first = opened(path).signature
    again = opened(path).signature
    rewrite_with_the_same_size(path)

    assert first == again
    assert opened(path).signature != first


def test_a_share_that_fails_is_no_change(tmp_path: Path, opened: Callable[..., SourceFile]) -> None:
    """Reading a directory fails as reading from a broken share does: with an error from the kernel."""
    file = opened(tmp_path)

    with pytest.raises(SourceUnsure, match="key"):
        file.read_at(0, 10)


# Parts

def test_parts_are_read_independently_and_make_up_the_whole(path: Path, opened: Callable[..., SourceFile]) -> None:
    file = opened(path)
    parts = [file.part(offset, 40 if offset < 80 else 20) for offset in (0, 40, 80)]

    later, first, middle = parts[2].read(), parts[0].read(7) + parts[0].read(), parts[1].read(100)

    assert first + middle + later == bytes(range(100))


@pytest.mark.parametrize("change", [append, rewrite, rewrite_with_the_same_size])
def test_the_last_byte_of_each_part_waits_for_the_verdict(
    path: Path, opened: Callable[..., SourceFile], change: Callable[[Path], None]
) -> None:
    part = opened(path).part(10, 30)
    part.read(29)

    change(path)

    with pytest.raises(FileChanged):
        part.read(1)


def test_a_part_has_a_length_and_can_be_sought_as_a_file(path: Path, opened: Callable[..., SourceFile]) -> None:
    part = opened(path).part(10, 30)

    assert len(part) == 30  # type: ignore[arg-type]
    assert part.readable()
    assert part.seekable()
    assert (part.seek(0, os.SEEK_END), part.tell(), part.read()) == (30, 30, b"")
    assert (part.seek(-5, os.SEEK_END), part.read()) == (25, bytes(range(35, 40)))
    assert (part.seek(3), part.read(2), part.seek(2, os.SEEK_CUR), part.read(1)) == (3, b"\x0d\x0e", 7, b"\x11")
    assert (part.seek(-1), part.seek(99)) == (0, 30)
    assert len(part) == 30  # type: ignore[arg-type]


def test_the_standard_library_can_read_it(path: Path, opened: Callable[..., SourceFile]) -> None:
    """hashlib and io.BufferedReader ask for readinto."""
    file = opened(path)

    assert hashlib.file_digest(file.open(), "sha256").digest() == hashlib.sha256(bytes(range(100))).digest()
    assert io.BufferedReader(file.open()).read() == bytes(range(100))  # type: ignore[arg-type]


class Sink(http.server.BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    got: list[tuple[str | None, bytes]]

    def do_PUT(self) -> None:
        length = self.headers["Content-Length"]
        self.got.append((length, self.rfile.read(int(length or 0))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_an_http_client_sends_it_with_its_length_and_can_send_it_again(path: Path, opened: Callable[..., SourceFile]) -> None:
    content = os.urandom(2 * MIB + 5)
    fill(path, content)
    Sink.got = []
    part = opened(path).part(5, 2 * MIB)

    with http.server.HTTPServer(("127.0.0.1", 0), Sink) as server, requests.Session() as session:
        session.trust_env = False  # no proxy
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            for _ in range(2):
                part.seek(0)
                session.put(f"http://127.0.0.1:{server.server_port}/", data=part, timeout=20).raise_for_status()
        finally:
            server.shutdown()
            thread.join()

    assert Sink.got == [(str(2 * MIB), content[5:])] * 2


# Passing

def test_every_byte_is_counted_once_as_it_passes(path: Path, opened: Callable[..., SourceFile]) -> None:
    fill(path, bytes(2 * MIB + 5))
    passed: list[int] = []

    source = opened(path, on_read=passed.append).open()
    while source.read(64 * 1024):
        pass

    assert sum(passed) == 2 * MIB + 5
    assert len(passed) >= 32


def test_the_function_that_counts_bytes_can_stop_the_transfer(path: Path, opened: Callable[..., SourceFile]) -> None:
    fill(path, bytes(2 * MIB))

    def on_read(count: int) -> None:
        if source.tell():
            raise Draining("the worker is being stopped")

    source = opened(path, on_read=on_read).open()
    assert len(source.read(1000)) == 1000

    with pytest.raises(Draining):
        source.read(1000)


def test_content_in_memory_is_returned_only_as_long_as_the_transfer_may_go_on(path: Path, opened: Callable[..., SourceFile]) -> None:
    """A line may be so slow that the claim ends meanwhile; whole, the content would be sent by two."""
    fill(path, os.urandom(MIB))
    asked: list[int] = []

    def on_read(count: int) -> None:
        asked.append(count)
        if len(asked) > 3:  # one read, two blocks
            raise Draining("the worker is being stopped")

    file = opened(path, on_read=on_read)
    content = file.content()
    assert asked == [MIB]

    given: list[bytes] = []
    with pytest.raises(Draining):
        given.extend(map(bytes, file.limited_blocks(content)))

    assert (len(given), b"".join(given)) == (2, content[: MIB // 2])
    assert sum(asked) == MIB, "nothing is counted twice"
