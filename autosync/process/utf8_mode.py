"""Makes sure that file names are decoded as UTF-8 on every host of a fleet. With different encodings a file would have different keys, and
a worker that does not find the file of a key deletes the object."""

from __future__ import annotations

import os
import sys

from ..errors import ConfigurationError

_MODE = ["-X", "utf8"]


def ensure(*, restarts: bool) -> None:
    """Make Python decode file names as UTF-8. If the locale has another encoding, the program restarts in UTF-8 mode (PEP 540).

    Args:
        restarts: whether this process is a program of its own, which may be restarted.

    Raises:
        ConfigurationError: the program may not be restarted, or the restart did not help.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return
    is_again = sys.orig_argv[1:3] == _MODE
    has_read_its_script = sys.argv[:1] in (["-"], [""])  # the script came from stdin, which cannot be read again
    if not restarts or is_again or has_read_its_script:
        raise ConfigurationError(
            f"names of files are read as {encoding} here, which makes other keys of them", "set PYTHONUTF8=1, without -X utf8=0"
        )
    os.execv(sys.executable, [sys.executable, *_MODE, *sys.orig_argv[1:]])  # noqa: S606 - the same program, without a shell
