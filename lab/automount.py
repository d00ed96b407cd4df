"""An automounter: directories that are mounted when they are used, as automount(8) makes them. Needs root.

It runs as a process group of its own: the kernel lets that group see the directory as it is.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from .parts import lacking
from .servers import wait_until

_READY, _FAIL = 0x9360, 0x9361  # linux/auto_fs.h
_MISSING_INDIRECT = 3
_PACKET = struct.Struct("=iiIIQIIIII256s")


class Automounter:
    """Mounts `behind/NAME` at `at/NAME` when that is used.

    Args:
        behind: directory with the directories that are mounted.
        at: the directory in which they are mounted.
        log: file; it gets a line for each name that was mounted, or was to be.
    """

    def __init__(self, behind: Path, at: Path, log: Path) -> None:
        self.at = at
        self._log = log
        log.touch()
        at.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", __name__, str(behind), str(at), str(log)]
        self._process = subprocess.Popen(command, start_new_session=True, cwd=Path(__file__).parents[1])
        wait_until(lambda: os.path.ismount(at) or self._process.poll() is not None, 20, "the automounter runs")
        if self._process.poll() is not None:
            lacking("autofs cannot be mounted here")

    def tried(self) -> list[str]:
        """The names that were mounted, or were to be, in order."""
        return self._log.read_text().split()

    def mounted(self) -> list[str]:
        """The names that are mounted now."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        paths = [line.split()[4] for line in lines]
        return [path.rpartition("/")[2] for path in paths if path.startswith(f"{self.at}/")]

    def expire(self) -> None:
        """Unmount all that is mounted, as after a time without use."""
        wait_until(self._expired, 30, "nobody uses what is mounted")

    def break_off(self, *, is_broken: bool = True) -> None:
        """Let each mount fail from now on."""
        (self._log.parent / "broken").touch() if is_broken else (self._log.parent / "broken").unlink()

    def close(self) -> None:
        """Unmount everything."""
        self.expire()
        subprocess.run(["umount", "--lazy", str(self.at)], check=False, capture_output=True)
        self._process.kill()
        self._process.wait()

    def _expired(self) -> bool:
        if not self.mounted() and not os.listdir(self.at):
            return True
        self._process.send_signal(signal.SIGUSR1)
        return False


def _serve(behind: str, at: str, log: str) -> None:
    reading, writing = os.pipe()
    options = f"fd={writing},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"automount-test", os.fsencode(at), b"autofs", 0, options.encode()):
        sys.exit(os.strerror(ctypes.get_errno()))
    os.close(writing)
    root = os.open(at, os.O_RDONLY)
    signal.signal(signal.SIGUSR1, lambda *_: _unmount_all(at))
    while packet := os.read(reading, 4096):
        fields = _PACKET.unpack_from(packet)
        kind, token, length, name = fields[1], fields[2], fields[9], fields[10]
        if kind != _MISSING_INDIRECT:
            continue
        text = os.fsdecode(name[:length])
        is_done = not os.path.exists(f"{os.path.dirname(log)}/broken") and _mount(f"{behind}/{text}", f"{at}/{text}")
        with open(log, "a") as lines:
            lines.write(f"{text}\n")
        fcntl.ioctl(root, _READY if is_done else _FAIL, token)


def _mount(behind: str, at: str) -> bool:
    if not os.path.isdir(behind):
        return False
    os.makedirs(at, exist_ok=True)
    return subprocess.run(["mount", "--bind", behind, at], check=False).returncode == 0


def _unmount_all(at: str) -> None:
    for name in os.listdir(at):
        subprocess.run(["umount", f"{at}/{name}"], check=False, capture_output=True)
        with suppress(OSError):  # it is in use, or a signal during this one was faster
            os.rmdir(f"{at}/{name}")


if __name__ == "__main__":
    _serve(*sys.argv[1:])
