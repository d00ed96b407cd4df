"""Whole runs with the actor for files, where a file takes the place of a directory, and the other way round."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.programs import Programs


def contents(directory: Path) -> dict[str, str | None]:
    """What is in a directory; None for a directory below it."""
    found = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*"))}
    return {name: path.read_text() if path.is_file() else None for name, path in found.items()}


def test_files_and_directories_replace_each_other(programs: Programs, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    options = [
        "--once", "--actor=file", f"--target-container={target}", "--name=swaps", f"--source-prefix={tree}/",
        f"--state-dir={tmp_path / 'state'}", str(tree),
    ]  # fmt: skip
    for name in ("file", "directory/1", "directory/below/2", "stays"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    first = programs.run("autosync", *options)
    assert first.returncode == 0, first.stderr
    assert contents(target) == contents(tree)

    (tree / "file").unlink()
    (tree / "file/below").mkdir(parents=True)
    (tree / "file/below/3").write_text("3")
    shutil.rmtree(tree / "directory")
    (tree / "directory").write_text("a file now")
    (tree / "left").write_text("new")
    (target / "left/empty").mkdir(parents=True)  # as of a worker that was killed before its first byte
    second = programs.run("autosync", *options)

    assert second.returncode == 0, second.stderr
    assert contents(target) == contents(tree)


def test_a_foreign_file_in_the_way_is_reported_and_kept(programs: Programs, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "name").mkdir(parents=True)
    (target / "name/foreign").write_text("x")
    (tree / "name").write_text("a file")

    done = programs.run(
        "autosync", "--once", "--actor=file", f"--target-container={target}", "--name=kept", f"--source-prefix={tree}/",
        f"--state-dir={tmp_path / 'state'}", "--no-delete", "--attempts=2", str(tree),
    )  # fmt: skip

    assert done.returncode == 3, done.stderr
    assert (
        f"name: {target}/name is a directory with foreign in it, and a file is to be there; move it elsewhere, or delete it" in done.stderr
    )
    assert contents(target) == {"name": None, "name/foreign": "x"}
