"""Whether a disk is slow, and how many of its files are examined at once."""

from __future__ import annotations

#: Sizes of the portions in which the files of a directory are examined: the small one while it is unknown how long that takes, or if
#: several threads share the work.
_FILES_AT_FIRST, _FILES_AT_ONCE = 32, 1000
#: A disk is slow if a call takes longer than the first (in seconds), on average over the second (in seconds).
_SLOW_CALL, _MEASURED_SECONDS = 50e-6, 0.05


class DiskSpeed:
    """Measures whether system calls are slow. On a local disk one takes about 2 us, over a network hundreds.

    Attributes:
        is_slow: whether they are.
        files_at_once: how many files are examined in one step.

    Args:
        is_measured: False for steps of one file each, whose times are not measured.
    """

    def __init__(self, *, is_measured: bool = True) -> None:
        self._is_measured = is_measured
        self.is_slow = False
        self.files_at_once = _FILES_AT_FIRST if is_measured else 1
        self._calls = 0
        self._seconds = 0.0

    def add(self, calls: int, seconds: float) -> None:
        """Add a measurement.

        Args:
            calls: roughly how many system calls a step took.
            seconds: how long it took.
        """
        if not self._is_measured:
            return
        self._calls += calls
        self._seconds += seconds
        if self._seconds > _MEASURED_SECONDS:
            self.is_slow = self._seconds > self._calls * _SLOW_CALL
            self._calls, self._seconds = 0, 0.0
        if self.is_slow:
            self.files_at_once = _FILES_AT_FIRST
        elif calls >= _FILES_AT_FIRST:
            self.files_at_once = _FILES_AT_ONCE if seconds < calls * _SLOW_CALL else _FILES_AT_FIRST
