"""Who writes to a file on a share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autosync.source.open_writers import has_writer


def test_a_share_does_not_report_other_writers(bindfs: Callable, tmp_path: Path) -> None:
    """Others may write to it whom this kernel does not see. FUSE stands for them all."""
    behind, share = tmp_path / "behind", tmp_path / "share"
    behind.mkdir()
    (behind / "f").touch()
    share.mkdir()

    bindfs(behind, share)

    assert has_writer(str(share / "f")) is None
    assert has_writer(str(behind / "f")) is False
