"""An rsync daemon with one module."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path

from .ports import free_port
from .servers import Missing, Server


class Rsyncd(Server):
    """Serves a directory as the module `m`.

    Args:
        directory: for its files.
        password: of the user `user`; "" lets everybody in.
        settings: more lines for the module.
    """

    def __init__(self, directory: Path, password: str = "", *settings: str) -> None:
        super().__init__(directory)
        if shutil.which("rsync") is None:
            raise Missing("rsync")
        self.port = free_port()
        self.module = directory / "module"
        self.module.mkdir(parents=True, exist_ok=True)
        self._config = directory / "rsyncd.conf"
        secrets = directory / "secrets"
        secrets.write_text(f"user:{password}\n")
        secrets.chmod(0o600)
        user = [f"uid = {os.getuid()}", f"gid = {os.getgid()}"] if os.getuid() == 0 else []
        lines = [
            "use chroot = no",
            "address = 127.0.0.1",
            f"port = {self.port}",
            f"log file = {directory}/rsyncd.log",
            *user,
            "socket options = TCP_NODELAY",
            "[m]",
        ]
        lines += [f"path = {self.module}", "read only = no"]
        lines += ["auth users = user", f"secrets file = {secrets}"] if password else []
        self._config.write_text("\n".join([*lines, *settings, ""]))

    @property
    def container(self) -> str:
        """For --target-container."""
        return f"rsync://user@127.0.0.1:{self.port}/m"

    def command(self) -> list[str]:
        return [str(shutil.which("rsync")), "--daemon", "--no-detach", f"--config={self._config}"]

    def stop(self) -> None:
        """End it and its children. In order it would take half a second."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def responds(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
            return line.recv(8).startswith(b"@RSYNCD:")
        return False
