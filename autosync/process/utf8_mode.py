"""Names of files are UTF-8, on every host of a fleet. Under another encoding one file would have another key on each host, and a box that
does not find the file of a key deletes the object."""

from __future__ import annotations

import os
import sys

from ..errors import ConfigurationError

_MODE = ["-X", "utf8"]


def ensure(*, restarts: bool) -> None:
    """Have Python decode names of files as UTF-8: where the locale says otherwise, the program starts again in UTF-8 mode (PEP 540).

    Args:
        restarts: whether this process is a program of its own, which may start again from its beginning.

    Raises:
        ConfigurationError: it may not, or that did not help.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return
    is_again = sys.orig_argv[1:3] == _MODE
    has_read_its_script = sys.argv[:1] in (["-"], [""])  # from stdin, which is used up
    if not restarts or is_again or has_read_its_script:
        raise ConfigurationError(
            f"names of files are read as {encoding} here, which makes other keys of them", "set PYTHONUTF8=1, without -X utf8=0"
        )
    os.execv(sys.executable, [sys.executable, *_MODE, *sys.orig_argv[1:]])  # noqa: S606 - the same program, without a shell
