"""The real command with its children, which accidents stop, freeze and kill."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import redis

from autosync.errors import BrokerError
from autosync.ledger import Ledger

from ..servers import S3Server, frozen, wait_until

#: The name that the mirror has at its broker.
_NAME = "chaos"


class Broken(AssertionError):  # noqa: N818 - a finding
    """A promise was broken; the text describes how."""


class Autosync:
    """The command, running on a tree, with a broker and workers of its own.

    Args:
        directory: for its state and its log.
        tree: the source.
        server: the target.
        bucket: where in the target.
        options: further options.
        may_withhold: whether scans may withhold deletions, as they do by default. Operations remove any part of the tree while autosync is
            not running, so that only a scan finds it.
    """

    def __init__(
        self, directory: Path, tree: Path, server: S3Server, bucket: str, options: Sequence[str], *, may_withhold: bool = False
    ) -> None:
        self.server = server
        self.log = directory / "autosync.log"
        self.may_withhold = may_withhold
        program = str(Path(sys.executable).parent / "autosync")
        self._state = directory / "state"
        kept = [*([] if may_withhold else ["--max-delete=100%"]), f"--name={_NAME}", f"--state-dir={self._state}"]
        own = [f"--source-prefix={tree}/", *kept, str(tree)]
        self._command = [program, "-v", f"--target-container={bucket}", f"--endpoint-url={server.url}", *options, *own]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOSYNC_", "AWS_", "CELERY_", "BOTO_"))}
        #: The environment of its programs.
        self.environ = plain | server.environment() | {"HOME": str(directory), "PYTHONWARNINGS": "ignore"}
        self.process: subprocess.Popen[bytes] | None = None
        self._logged_before = 0

    def start(self) -> None:
        """Start it, without waiting for anything."""
        with open(self.log, "ab") as log:
            self._logged_before = log.tell()
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ, start_new_session=True
            )

    def stop(self) -> int:
        """End it in order. Returns its exit code.

        Raises:
            Broken: it does not end.
        """
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken("autosync did not end within 60 s of SIGTERM") from None

    def kill(self) -> None:
        """Kill it; its children end soon after it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Kill it, if it runs, and wait until its children have ended."""
        if self.runs():
            children = self.children()
            self.kill()
            wait_until(lambda: not any(map(_runs, children)), 60, "its children have ended")

    def runs(self) -> bool:
        """Whether it was started, and has not ended."""
        return self.process is not None and self.process.poll() is None

    def children(self, word: str = "") -> list[psutil.Process]:
        """Its children and theirs that have a word in their command line."""
        assert self.process is not None
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if word in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def output(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_end(self) -> list[str]:
        """The end of its log, with a headline, as lines."""
        return [f"The end of {self.log}:", *self.output().splitlines()[-40:]]

    def is_silent(self) -> bool:
        """Whether it has logged nothing since its start."""
        return self.log.stat().st_size == self._logged_before

    def check(self) -> None:
        """Check that autosync runs.

        Raises:
            Broken: autosync has ended.
        """
        if not self.runs():
            raise Broken("\n  ".join([self.end_status(), *self.log_end()]))

    def end_status(self) -> str:
        """How it has ended, in words."""
        return f"autosync has ended with {self.process and self.process.returncode}"

    def frozen(self) -> contextlib.AbstractContextManager[None]:
        """Freeze its main process."""
        assert self.process is not None
        return frozen(self.process)

    def broker(self) -> redis.Redis | None:
        """Its broker; None while there is none."""
        for child in self.children("valkey"):
            with contextlib.suppress(psutil.NoSuchProcess):
                found = re.search(r"(?:unixsocket:|--unixsocket )(\S+\.sock)", " ".join(child.cmdline()))
                if found:
                    return redis.Redis(unix_socket_path=found[1], socket_timeout=5)
        return None

    @property
    def broker_url(self) -> str:
        """URL of its broker, also while it does not run."""
        return f"redis+socket://{self._state / _NAME / 'broker.sock'}?virtual_host=0"

    def control(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `autosync-ctl`. It fails while there is no broker."""
        program = str(Path(sys.executable).parent / "autosync-ctl")
        command = [program, f"--state-dir={self._state}", f"--name={_NAME}", *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=self.environ, timeout=60)

    def pending(self) -> list[Mapping[str, Any]] | None:
        """What waits for an operator's acceptance, as `status` lists it; None: unknown."""
        with contextlib.suppress(ValueError, IndexError):
            found: list[Mapping[str, Any]] = json.loads(self.control("status", "--json").stdout)[0]["pending"]
            return found
        return None

    def scans_ended(self) -> int:
        """The number of scans of everything that its log has."""
        return len(re.findall(r"compared \d+ files in|scan of everything: ", self.output()))

    def watches(self, directory: Path) -> bool:
        """Whether it has an inotify watch on a directory (proc_pid_fdinfo(5))."""
        assert self.process is not None
        inode = f" ino:{directory.stat().st_ino:x} "
        with contextlib.suppress(OSError):  # a descriptor that is closed meanwhile
            return any(inode in info.read_text() for info in Path(f"/proc/{self.process.pid}/fdinfo").iterdir())
        return False

    def is_idle(self) -> bool:
        """Whether no key in its ledger is dirty."""
        broker = self.broker()
        try:
            return broker is not None and Ledger(broker, _NAME).key_states.count_dirty() == 0
        except (BrokerError, redis.exceptions.RedisError):
            return False


def _runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that has may still be in the kernel's list."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
