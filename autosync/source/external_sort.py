"""Sorting and storing more rows than fit in memory: sorted runs in temporary files, then one merge."""

from __future__ import annotations

import heapq
import marshal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from operator import itemgetter
from typing import IO, Any

Row = tuple[Any, ...]

_FIRST = itemgetter(0)
#: Number of rows that are read at a time from each run.
_PAGE = 512
#: Number of runs that are open at a time; more are merged into one first.
_FAN_IN = 64


class Spool:
    """Rows in the order in which they were added. They are in memory or, if there are many, in a file without a name.

    `len()` is the number of rows. Iterating yields all of them.

    Args:
        directory: where the file is written; None: the system's temporary directory.
        in_memory: largest number of rows in memory.
    """

    def __init__(self, directory: str | None = None, in_memory: int = 10_000) -> None:
        self._directory = directory
        self._in_memory = in_memory
        self._rows: list[Row] = []
        self._written = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._written + len(self._rows)

    def add(self, row: Row) -> None:
        """Append a row.

        Raises:
            OSError: the file cannot be written.
        """
        self._rows.append(row)
        if len(self._rows) < self._in_memory:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, prefix="autosync-spool-")  # noqa: SIM115 - closed by `close`
        marshal.dump(self._rows, self._file)
        self._written += len(self._rows)
        self._rows = []

    def move_from(self, other: Spool) -> None:
        """Append all rows of another spool, which is empty then. If this one is empty, nothing is read or written.

        Raises:
            OSError: the file cannot be read or written.
        """
        if len(self):
            for row in other:
                self.add(row)
            other.close()
        else:
            self._rows, self._written, self._file = other._rows, other._written, other._file
        other._rows, other._written, other._file = [], 0, None

    def replace(self, other: Spool) -> None:
        """Take the rows of another spool in place of the present ones. The other one is empty then."""
        self.close()
        self._rows, self._written, self._file = other._rows, other._written, other._file
        other._rows, other._written, other._file = [], 0, None

    def __iter__(self) -> Iterator[Row]:
        if self._file is not None:
            yield from _read(self._file)
        yield from self._rows

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()


def disksort(rows: Iterable[Row], directory: str | None = None, in_memory: int = 100_000) -> Iterator[Row]:
    """Sort rows by their first field, holding about `in_memory` of them at a time.

    Args:
        rows: tuples of plain values (str, int, float, bytes, None).
        directory: where the runs are written, in files without names, which vanish with the process. None: the system's temporary
            directory.
        in_memory: number of rows in a run.

    Yields:
        The rows in order. Rows with equal first fields keep their order.

    Raises:
        OSError: the runs cannot be written.
    """
    source = iter(rows)
    first = sorted(islice(source, in_memory), key=_FIRST)
    if len(first) < in_memory:
        yield from first
        return
    with ExitStack() as files:
        runs = [_write(first, directory, files)]
        del first
        while run := sorted(islice(source, in_memory), key=_FIRST):
            runs.append(_write(run, directory, files))
            if len(runs) == _FAN_IN:
                merged = _write(_merge(runs), directory, files)
                for spent in runs:
                    spent.close()
                runs = [merged]
        yield from _merge(runs)


def _merge(runs: list[IO[bytes]]) -> Iterator[Row]:
    return heapq.merge(*map(_read, runs), key=_FIRST)


def _write(rows: Iterable[Row], directory: str | None, files: ExitStack) -> IO[bytes]:
    run = files.enter_context(tempfile.TemporaryFile(dir=directory, prefix="autosync-sort-"))  # noqa: SIM115 - `files` closes it
    source = iter(rows)
    while page := list(islice(source, _PAGE)):
        marshal.dump(page, run)
    return run


def _read(run: IO[bytes]) -> Iterator[Row]:
    run.seek(0)
    while True:
        try:
            page = marshal.load(run)  # noqa: S302 - our own file, which has no name that others could open
        except EOFError:
            return
        yield from page
