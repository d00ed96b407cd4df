"""The trees that the works are about. They are made once, kept between the tools, and removed at the end.

    python -m benchmarks.trees write DIRECTORY COUNT SIZE

writes files as fast as it can into the directories that stand in DIRECTORY, and prints the monotonic time before the first and after the
last.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

_BLOCK = 1 << 20
#: A file that is older than its object by less than this may count as changed: servers list whole seconds, and the margin is 2 s.
_OLD_ENOUGH = 3.0
_FOLDERS = 100


class NoSpace(Exception):  # noqa: N818 - a finding
    """The work directory's file system cannot hold a tree."""


class Trees:
    """Trees by name, in one directory.

    Args:
        directory: where they stand; it is made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made: dict[str, float] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def files(self, count: int, size: int = 1024, *, name: str = "") -> Path:
        """`count` files of `size` bytes in 100 directories (fewer for fewer files), each of other content.

        Raises:
            NoSpace: there is too little of it.
        """
        return self._tree(name or f"files-{count}-{size}", count, count * max(size, 4096), lambda root: write_files(root, count, size))

    def large(self, count: int, size: int) -> Path:
        """`count` files of `size` bytes in one directory.

        Raises:
            NoSpace: there is too little of it.
        """

        def write(root: Path) -> None:
            root.mkdir()
            block = os.urandom(_BLOCK)
            for number in range(count):
                with open(root / f"{number}.bin", "wb") as file:
                    for start in range(0, size, _BLOCK):
                        file.write(block[: size - start])

        return self._tree(f"large-{count}-{size}", count, count * size, write)

    def folders(self, count: int) -> Path:
        """`count` empty directories, in up to 100 others that count too.

        Raises:
            NoSpace: there is too little of it.
        """

        def write(root: Path) -> None:
            root.mkdir()
            above = min(_FOLDERS, max(count // 10, 1))
            for number in range(above):
                (root / f"{number:03}").mkdir()
            for number in range(count - above):
                (root / f"{number % above:03}" / f"{number:06}").mkdir()

        return self._tree(f"folders-{count}", count, 0, write)

    def left_over(self, gone: int, left: int) -> tuple[Path, Path]:
        """A tree of `gone` files under "gone" and `left` under "left", and one as it is after the former were removed."""
        before = self._tree(f"before-{gone}-{left}", gone + left, (gone + left) * 4096, lambda root: self._two(root, gone, left))
        after = self._tree(f"after-{gone}-{left}", left, left * 4096, lambda root: shutil.copytree(before / "left", root / "left"))
        return before, after

    def empty(self, name: str) -> Path:
        """An empty directory, each time anew."""
        root = self.directory / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        return root

    def let_age(self) -> None:
        """Wait until all trees are clearly older than what is put into a bucket now."""
        youngest = max(self._made.values(), default=0.0)
        time.sleep(max(0.0, youngest + _OLD_ENOUGH - time.monotonic()))

    def remove(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self._made.clear()

    def drop(self, root: Path) -> None:
        """Remove one tree: its space is needed."""
        shutil.rmtree(root, ignore_errors=True)
        self._made.pop(root.name, None)

    def _tree(self, name: str, count: int, size: int, write: Callable[[Path], object]) -> Path:
        root = self.directory / name
        if name not in self._made:
            found = os.statvfs(self.directory)
            if found.f_bavail * found.f_frsize < size + (64 << 20):
                raise NoSpace(f"BENCH_DIR has space for {found.f_bavail * found.f_frsize >> 20} MiB, and {size >> 20} are needed")
            if found.f_files and found.f_favail < count + 1000:
                raise NoSpace(f"BENCH_DIR has space for {found.f_favail} more files, and {count} are needed")
            shutil.rmtree(root, ignore_errors=True)
            write(root)
            self._made[name] = time.monotonic()
        return root

    def _two(self, root: Path, gone: int, left: int) -> None:
        write_files(root / "gone", gone, 1024)
        write_files(root / "left", left, 1024)


def make_folders(root: Path, count: int) -> list[Path]:
    """The directories for so many files: 100, or fewer if each would hold less than ten."""
    folders = [root / f"{number:03}" for number in range(min(_FOLDERS, max(count // 10, 1)))]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def write_files(root: Path, count: int, size: int) -> None:
    """Write `count` files of `size` bytes, each of other content, one directory after the other; the directories are made if need be."""
    folders = make_folders(root, count)
    rest = os.urandom(8) * (size // 8 + 1)
    for number in range(count):
        folder = folders[number * len(folders) // count]
        with open(f"{folder}/{number:07}", "wb", buffering=0) as file:
            file.write((b"%07d " % number + rest)[:size])


def main() -> None:
    """`write DIRECTORY COUNT SIZE`."""
    _, what, root, count, size = sys.argv
    if what != "write":
        raise SystemExit(f"{what}: there is only write")
    began = time.monotonic()
    write_files(Path(root), int(count), int(size))
    print(began, time.monotonic())


if __name__ == "__main__":
    main()
