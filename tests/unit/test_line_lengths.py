"""`make lint` names lines of the docs and of Lua that are too long."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import line_lengths

pytestmark = pytest.mark.lint


def test_lines_that_are_too_long_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(line_lengths, "ROOT", tmp_path)
    url = "https://example.org/" + "x" * 140
    (tmp_path / "long.md").write_text(f"{'ü' * 140}\n{'x' * 141}\n{url}\n[name]: {url}\n<{url}>\n- see {url}\n")
    (tmp_path / "short.md").write_text("x\n")

    assert line_lengths.main([tmp_path / "long.md", tmp_path / "short.md"]) == 1
    assert capsys.readouterr().out == f"long.md:2: 141 characters\nlong.md:6: {len('- see ' + url)} characters\n"
    assert line_lengths.main([tmp_path / "short.md"]) == 0
