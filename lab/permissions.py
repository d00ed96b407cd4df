"""Permissions that bind, also where root runs the tests: root may read everything by two of its capabilities."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

#: DAC_OVERRIDE and DAC_READ_SEARCH (capabilities(7)).
_READ_EVERYTHING = 0b110


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Take these capabilities from this thread for a while. Threads that it starts meanwhile never get them."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = _CapabilityHeader(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(ctypes.byref(header), sets) == 0, os.strerror(ctypes.get_errno())
    effective = sets[0]
    sets[0] = effective & ~_READ_EVERYTHING
    assert libc.capset(ctypes.byref(header), sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(ctypes.byref(header), sets) == 0, os.strerror(ctypes.get_errno())
