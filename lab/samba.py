"""An SMB server with one share, and a mount of it whose cache is slow: `rclone mount`, since Linux's own client is not everywhere."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from .ports import free_port
from .servers import Missing, Server, wait_until

_RCLONE = Path(sys.executable).parent / "rclone"
_PASSWORD = "secret"


class Samba(Server):
    """Serves a directory as the share `share`, to the user `root`.

    Args:
        directory: for the files of the server.
        shared: the directory that is served.

    Raises:
        Missing: a program, or the right to mount, is missing.
    """

    def __init__(self, directory: Path, shared: Path) -> None:
        super().__init__(directory)
        smbd = shutil.which("smbd") or "/usr/sbin/smbd"
        if os.geteuid() or not (os.path.exists(smbd) and shutil.which("fusermount3") and _RCLONE.exists()):
            raise Missing("root, Samba, fuse3 and rclone")
        self._smbd = smbd
        self._port = free_port()
        self._config = directory / "smb.conf"
        own = ("private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir")
        lines = ["[global]", "server role = standalone server", "bind interfaces only = yes", "interfaces = lo", "disable netbios = yes"]
        lines += [f"smb ports = {self._port}", *(f"{name} = {directory}/state" for name in own), f"log file = {directory}/log"]
        lines += ["load printers = no", "disable spoolss = yes", "[share]", f"path = {shared}", "force user = root"]
        self._config.write_text("\n".join([*lines, ""]))
        (directory / "state").mkdir()
        words = ["pdbedit", f"--configfile={self._config}", "--create", "--user=root", "--password-from-stdin"]
        subprocess.run(words, input=f"{_PASSWORD}\n{_PASSWORD}\n", text=True, check=True, capture_output=True)

    def command(self) -> list[str]:
        return [self._smbd, f"--configfile={self._config}", "--foreground", "--no-process-group", "--debug-stdout"]

    def responds(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False


class SlowMount:
    """A mount of a share that shows for an hour what it has seen, for the length of a with-block, or until `forget`.

    Args:
        server: of the share.
        mount: an empty directory.
    """

    def __init__(self, server: Samba, mount: Path) -> None:
        self._server = server
        self._mount = mount
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SlowMount:
        config = self._server.directory / "rclone.conf"
        config.touch()
        obscured = subprocess.run([_RCLONE, "obscure", _PASSWORD], check=True, capture_output=True, text=True).stdout.strip()
        remote = f":smb,host=127.0.0.1,port={self._server._port},user=root,pass={obscured}:share"
        options = ["--dir-cache-time=1h", "--attr-timeout=1ms", "--vfs-cache-mode=off", f"--config={config}", "--read-only"]
        with open(self._server.directory / "rclone.log", "wb") as log:
            self._process = subprocess.Popen([_RCLONE, "mount", *options, remote, self._mount], stdout=log, stderr=log)
        wait_until(lambda: self._mount.is_mount() or self._process.poll() is not None, 30, "the share is mounted")  # type: ignore[union-attr]
        if not self._mount.is_mount():
            raise Missing("the right to mount through FUSE")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._mount)], check=False, capture_output=True)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Let it see the share anew, as after its time."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
