"""Where Python searches for modules until autosync knows which directories are mirrored.

Python puts directories in front of its standard library: the directory of a script, the current directory, and those of PYTHONPATH. If such
a directory is mirrored, Python would run what somebody uploads there as `click.py`, or under the name of a module that a library can use
and that is not installed.

This module imports what Python has built in or has frozen, and nothing else: any other import would be searched for in those directories.
"""

import os
import sys

#: The directories that `search_only` has taken off the search path.
_others: list[str] = []


def search_only() -> None:
    """Search for modules in the installation only: in the standard library and what follows it, and in the directory that holds autosync.
    `pip install --target` puts autosync and what it needs into one directory, which PYTHONPATH then names."""
    library = os.path.dirname(os.__file__)
    if library not in sys.path:
        return
    own = own_directory()
    front = sys.path[: sys.path.index(library)]
    _others.extend(entry for entry in front if entry != own and entry not in _others)
    sys.path[:] = [entry for entry in sys.path if entry not in _others]


def search_others_last() -> None:
    """Search in the other directories as well, behind the installation."""
    sys.path.extend(entry for entry in _others if entry not in sys.path)


def own_directory() -> str:
    """The directory that holds autosync."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def is_celery() -> bool:
    """Whether this process runs Celery's own command."""
    directory, program = os.path.split(sys.argv[0])
    return program == "celery" or (program == "__main__.py" and os.path.basename(directory) == "celery")


def starts_with_program() -> bool:
    """Whether this process was started as `python SCRIPT` or `python -c`, and Python searches in the directory of that program first."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return sys.path[:1] == ["" if script is None else os.path.dirname(os.path.abspath(script))]
