"""No secret of a mirror reaches the broker."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from autosync.ledger import Ledger, connect
from lab.programs import Programs
from lab.servers import Valkey

USER_PROGRAM = """
import click
from autosync import Actor, SecretOption
from autosync.cli import watch

class Mine(Actor):
    options = [click.Option(["--place"]), SecretOption(["--token"])]
    def list(self):
        assert self.token, "the watcher itself has the secret"
        return []

if __name__ == "__main__":
    watch(actor=Mine)
"""


def test_no_secret_reaches_the_broker(broker: str, valkey: Valkey, tree: Path, tmp_path: Path, programs: Programs) -> None:
    program = tmp_path / "mine.py"
    program.write_text(USER_PROGRAM)
    options = ["--place=here", "--token=the-secret", "--name=m", f"--broker={broker}", "--once", "-vv"]

    ended = programs.run(sys.executable, str(program), *options, str(tree))
    found = Ledger(connect(broker), "m").definition.read()
    # Valkey's append-only file holds every command that it was ever given.
    received = b"".join(path.read_bytes() for path in valkey.directory.rglob("*.aof"))

    assert ended.returncode == 0, ended.stderr
    assert found is not None
    assert json.loads(found[0])["settings"] == {"place": "here", "target_container": None}
    assert b'"place": "here"' in received
    assert b"the-secret" not in received
    assert "the-secret" not in ended.stdout + ended.stderr
