"""A mirror that is kept in a module of an rsync daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lab.buckets import on_disk
from lab.programs import Programs
from lab.rsync import Rsyncd
from lab.servers import wait_until

PASSWORD = "pass-word-of-the-module"


def test_a_mirror_stays_equal(programs: Programs, rsyncd: Callable[..., Rsyncd], tree: Path, tmp_path: Path) -> None:
    server = rsyncd(password=PASSWORD)
    for number in range(300):
        (tree / f"d{number % 5}").mkdir(exist_ok=True)
        (tree / f"d{number % 5}/{number}").write_text("x" * number)
    (tmp_path / "secret").write_text(PASSWORD)
    process = programs.start(
        "autosync", "--actor=rsync", f"--target-container={server.container}", f"--rsync-password=@{tmp_path}/secret",
        f"--source-prefix={tree}/", str(tree),
    )  # fmt: skip
    wait_until(lambda: "mirroring" in process.output() and is_equal(server, tree), 60, "all is there")

    (tree / "new").write_text("new")
    os.rename(tree / "d0", tree / "renamed")
    wait_until(lambda: is_equal(server, tree), 60, "it is kept so")
    assert not (server.module / "d0").exists()
    assert PASSWORD not in process.output()


def is_equal(server: Rsyncd, tree: Path) -> bool:
    try:
        return on_disk(server.module) == on_disk(tree)
    except FileNotFoundError:  # what is being written has another name until it is whole
        return False
