"""The entry points: the commands `autosync`, `autosync-watch` and `autosync-ctl`, and `main(actor=MyActor)` for a user's own target."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from ..actor import Actor
from ..errors import AutosyncError, ConfigurationError, Exit
from ..process import installation_path
from ..process import standard_streams as streams
from ..process import utf8_mode as utf8


def main(args: Sequence[str] | None = None, *, actor: type[Actor] | None = None) -> NoReturn:
    """The command `autosync`.

    Args:
        args: command line arguments; None: those of the process.
        actor: a class of the caller's, in place of --actor. Worker processes import it, so it must be in a file whose call of `main` is
            guarded by `if __name__ == "__main__"`.
    """
    _run_mirror_command("autosync", args, actor, one_host=True)


def watch(args: Sequence[str] | None = None, *, actor: type[Actor] | None = None) -> NoReturn:
    """The command `autosync-watch`; arguments as for `main`."""
    _run_mirror_command("autosync-watch", args, actor, one_host=False)


def control(args: Sequence[str] | None = None) -> NoReturn:
    """The command `autosync-ctl`; arguments as for `main`."""

    def run(arguments: list[str]) -> int:
        from .ctl.commands import run

        return run("autosync-ctl", arguments)

    _door("autosync-ctl", args, run)


def _run_mirror_command(name: str, args: Sequence[str] | None, actor: type[Actor] | None, *, one_host: bool) -> NoReturn:
    def run(arguments: list[str]) -> int:
        from .mirror_command import run

        return run(name, arguments, actor, one_host=one_host)

    _door(name, args, run)


def _door(name: str, args: Sequence[str] | None, run: Callable[[list[str]], int]) -> NoReturn:
    """Run a command, and end the process with its exit code. Every error is printed as one line."""
    installation_path.search_only()
    streams.ensure_open()
    arguments = list(sys.argv[1:] if args is None else args)
    atexit.register(gc.freeze)  # otherwise Python's last garbage collection takes nearly as long as its start
    gc.disable()  # while modules are loaded; `run` enables it again
    try:
        utf8.ensure(restarts=args is None)
        code = run(arguments)
    except click.exceptions.Exit as stop_request:
        code = stop_request.exit_code
    except click.UsageError as error:
        code = _print_error(f"{name}: {_one_line(error.format_message())}; see {name} --help", Exit.USAGE)
    except ConfigurationError as error:
        code = _print_error(f"{name}: {error}", Exit.USAGE)
    except AutosyncError as error:
        code = _print_error(f"{name}: {error}", Exit.FAILED)
    except (KeyboardInterrupt, click.Abort):
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        code = Exit.FAILED
    except OSError as error:
        code = _print_error(f"{name}: {error}", Exit.FAILED)
    except Exception as error:  # a bug of autosync, or of a user's actor
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        code = _print_error(f"{name}: unexpected {type(error).__name__}: {_one_line(str(error))}; -vv shows where", Exit.FAILED)
    sys.exit(int(code))


def _print_error(line: str, code: Exit) -> Exit:
    try:
        print(line, file=sys.stderr)
    except OSError:  # a full disk, for example; the exit code is the same
        streams.discard_stderr()
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
