"""The three standard streams are open, also where a program was started without some of them (`2>&-`). Else the next file or socket that is
opened gets the number of one, and what is written to stderr goes into it."""

from __future__ import annotations

import os
import sys

_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def ensure_open() -> None:
    """Open those that are closed on the null device."""
    for number, name, mode in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so it is this one
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - until the end
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)  # Celery's log goes there
