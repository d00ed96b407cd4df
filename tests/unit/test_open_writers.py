"""Who writes to a file, on the real kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from autosync.source.open_writers import has_writer


def test_a_file_that_this_process_or_another_has_open_for_writing_has_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("w"):
        assert has_writer(str(path)) is True
    assert has_writer(str(path)) is False

    code = f"f = open({str(path)!r}, 'a'); print(); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert has_writer(str(path)) is True
        other.communicate(b"\n")
    assert has_writer(str(path)) is False


def test_a_reader_is_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    with path.open():
        assert has_writer(str(path)) is False


def test_a_link_or_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")

    assert [has_writer(str(tmp_path / name)) for name in ("fifo", "link", "nothing")] == [None, None, None]


def test_a_check_harms_nobody_who_begins_to_write_at_that_moment(tmp_path: Path) -> None:
    """The kernel sends the holder of a lease a signal when somebody wants to write. It must not end this process."""
    path = tmp_path / "f"
    path.touch()
    code = f"""
import threading, time
from autosync.source.open_writers import has_writer
stop = threading.Event()
def write():
    while not stop.is_set():
        open({str(path)!r}, "a").close()
        time.sleep(0.0002)
threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
found, asked, limit = set(), 0, time.monotonic() + 30
while (asked < 3000 or len(found) < 2) and time.monotonic() < limit:
    found.add(has_writer({str(path)!r}))
    asked += 1
stop.set()
for thread in threads:
    thread.join()
print(sorted(found))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert found.returncode not in (-signal.SIGIO, -signal.SIGURG)
    assert found.stdout.strip() == "[False, True]", found
