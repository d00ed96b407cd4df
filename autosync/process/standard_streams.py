"""Opens standard streams that a program was started without (`2>&-`). Otherwise the next file or socket would get such a descriptor, and
messages for stderr would be written into it."""

from __future__ import annotations

import os
import sys

_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def ensure_open() -> None:
    """Open the closed ones of the three streams on /dev/null."""
    for number, name, mode in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # open(2) returns the lowest free number, so it is this one
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - stays open until the program ends
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)  # Celery's log goes there


def discard_stderr() -> None:
    """Open stderr on /dev/null, after it could not be written: Python's own exit code for that would replace the program's."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
