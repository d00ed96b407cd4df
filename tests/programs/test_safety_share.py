"""A share inside the tree whose server died."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.comparing import FixedTarget, fill, scan


def test_a_share_inside_the_tree_whose_server_died_keeps_everything(bindfs: Callable, tree: Path, tmp_path: Path) -> None:
    """A FUSE mount whose process was killed answers ENOTCONN, as a real kernel does."""
    fill(tmp_path, "behind/2")
    fill(tree, "a/1")
    (tree / "b").mkdir()
    server = bindfs(tmp_path / "behind", tree / "b")
    assert scan(tree, FixedTarget("a/1", "b/2"))[0] == []

    server.kill()
    server.wait()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(tree / "b")
    deleted, report = scan(tree, FixedTarget("a/1", "a/gone", "b/2"))

    assert deleted == []
    assert not report.complete
