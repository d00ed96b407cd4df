"""Keeps a copy of a directory tree equal to the tree, all the time, in an object store, in another directory, or behind an API.

from autosync import Actor, main

class MyActor(Actor):
    def list(self): ...
    def upload(self, file): ...
    def delete(self, file): ...

if __name__ == "__main__":
    main(actor=MyActor)
"""

TYPE_CHECKING = False  # nothing is imported here: with `python -m autosync`, it would come from the current directory

if TYPE_CHECKING:
    from .actor import Actor, SecretOption
    from .cli import main
    from .errors import AutosyncError, PermanentError, SlowDown, TargetError, TargetRefused
    from .files import File, Listing

__all__ = [
    "Actor",
    "AutosyncError",
    "File",
    "Listing",
    "PermanentError",
    "SecretOption",
    "SlowDown",
    "TargetError",
    "TargetRefused",
    "main",
]

_HOMES = {
    "Actor": "actor",
    "SecretOption": "actor",
    "main": "cli",
    "AutosyncError": "errors",
    "PermanentError": "errors",
    "SlowDown": "errors",
    "TargetError": "errors",
    "TargetRefused": "errors",
    "File": "files",
    "Listing": "files",
}
#: Entry points of the commands besides `autosync`: functions in `cli`.
_COMMANDS = {"_watch": "watch", "_control": "control"}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that importing the package loads neither Celery nor boto3."""
    home, wanted = ("cli", _COMMANDS[name]) if name in _COMMANDS else (_HOMES.get(name), name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import sys

    from .process import installation_path

    is_program = name in _COMMANDS or (name == "main" and installation_path.starts_with_program())
    before = sys.path[:]
    installation_path.search_only()
    during = sys.path[:]
    try:
        import importlib

        return getattr(importlib.import_module(f".{home}", __name__), wanted)
    finally:
        if is_program:  # what a script imports after that is searched in the installation first
            installation_path.search_others_last()
        elif sys.path == during:
            sys.path[:] = before
