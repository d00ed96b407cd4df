"""Paths that a walk with errors may not have found although they exist."""

from __future__ import annotations

import errno
from collections.abc import Sequence


class UnreadablePaths:
    """The paths that may exist although a walk did not find them: after "permission denied", those below that directory; after any other
    error, all paths, since the whole file system may be unavailable.

    Args:
        errors: of the walk.
    """

    def __init__(self, errors: Sequence[OSError]) -> None:
        self._all = any(error.errno not in (errno.EACCES, errno.EPERM) for error in errors)
        self._tops = {str(error.filename).rstrip("/") for error in errors}

    def __contains__(self, path: str) -> bool:
        while not self._all and self._tops and path:
            if path in self._tops:
                return True
            path = path.rpartition("/")[0]
        return self._all or path in self._tops
