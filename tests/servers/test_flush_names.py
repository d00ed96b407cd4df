"""A flush where the names of a file are more than are kept: it ends with 3 and says so. The real command, the real ledger."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from autosync.actor import Actor
from autosync.compare.scan import Policy
from autosync.daemon import mirror_runner
from autosync.daemon.mirror_runner import MirrorRunner, RunSettings
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.process.boot_id import boot_id
from autosync.source.entry import inode_of
from autosync.watch.hard_links import HardLinks
from lab.comparing import fill
from lab.programs import Programs


@pytest.mark.parametrize("max_names", [2, 3])
def test_a_flush_ends_with_3_where_names_are_not_stored(
    broker: str, programs: Programs, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_names: int
) -> None:
    fill(tree, "a")
    os.link(tree / "a", tree / "b")
    os.link(tree / "a", tree / "c")
    monkeypatch.setattr(mirror_runner, "HardLinks", lambda: HardLinks(max_names))
    mirror = Mirror("m", "file", (Source(str(tree)),), queue="q", host=boot_id())
    runner = MirrorRunner(RunSettings(mirror, Policy(), Actor(), broker, tmp_path, once=False, settle=0.0, rescan=0.0), None)
    assert runner.begin(threading.Event())
    runner._hard_link_scans._next = float("inf")  # no thread would carry out the scan
    links = runner._hard_links
    links.begin_scan()
    for name in "abc":
        links.add(str(tree / name), inode_of((tree / name).stat()))
    links.end_scan(complete=True)
    links.saved(str(tree / "a"), inode_of((tree / "a").stat()), 3)

    process = programs.start("autosync-ctl", f"--broker={broker}", "flush")
    while process.poll() is None:
        runner.tick()
    runner.leave()

    assert process.returncode == (3 if max_names == 2 else 0), process.output()
    assert ("m is flushed, except for other names of 1 files\n" in process.output()) == (max_names == 2)
    assert ("autosync-ctl rescan" in process.output()) == (max_names == 2)
