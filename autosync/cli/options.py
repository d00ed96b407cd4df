"""The options of the commands, and where their values come from: command line, environment, configuration file, default; in this order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from ..actor import Actor, SecretOption, own_option_names
from ..compare.diff import Compare
from ..errors import ConfigurationError
from ..model import setting_names
from ..model.definition_signature import SIGNING_KEY
from ..model.file_rules import FileRules
from ..model.keys import TEMPORARY, Source
from ..model.mirror import LEASE
from .config_file import config_option

ENVIRONMENT = "AUTOSYNC"


def context_settings() -> dict[str, Any]:
    """Settings of every command: dashes and underscores are the same, and every option has an environment variable."""
    return {
        "auto_envvar_prefix": ENVIRONMENT,
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    }


def actor_option() -> click.Option:
    """--actor."""
    return click.Option(
        ["--actor"],
        default="s3",
        show_default=True,
        metavar="NAME",
        help="Kind of target: s3, file, rsync, http, swift, azure, gcs, or module.Class of your own.",
    )


def parameters(actor_class: type[Actor], *, fixed_actor: bool, one_host: bool) -> list[click.Parameter]:
    """All parameters of a command.

    Args:
        actor_class: may have options of its own.
        fixed_actor: leave --actor out.
        one_host: True for `autosync`, with the option for its workers; False for `autosync-watch`.
    """
    actor = [] if fixed_actor else [actor_option()]
    return [
        click.Argument(["paths"], nargs=-1, metavar="PATH...", type=click.Path()),
        config_option(),
        *actor,
        *_target_options(),
        *actor_class.options,
        *_source_options(),
        *_running_options(one_host=one_host),
        *_output_options(),
    ]


def refuse_empty_secrets(options: Sequence[click.Parameter]) -> None:
    """Check that no variable of a secret is set and empty, as after `AUTOSYNC_PASSWORD="$(cat missing)"`. click treats such a variable like
    one that is not set.

    Raises:
        ConfigurationError: a variable is set and empty.
    """
    for option in options:
        variable = f"{ENVIRONMENT}_{str(option.name).upper()}"
        if (isinstance(option, SecretOption) or option.name == SIGNING_KEY) and os.environ.get(variable) == "":
            raise ConfigurationError(f"{variable} is set and empty", "give it a value (or @FILE), or unset it")


def check_variables(own_options: Callable[[], Iterable[str]], otherwise: str = "unset it") -> list[str]:
    """See `setting_names.check_variables`, here for the variables of this process."""
    return setting_names.check_variables(os.environ, own_options, otherwise)


def names_own_actor_in_environment() -> bool:
    """Whether AUTOSYNC_ACTOR names a class `module.Class` of the user's own."""
    return "." in os.environ.get(f"{ENVIRONMENT}_ACTOR", "")


def own_options_in_environment() -> set[str]:
    """The names of the options of a user's own actor in AUTOSYNC_ACTOR, for a command that has no option --actor."""
    return own_option_names(os.environ.get(f"{ENVIRONMENT}_ACTOR", ""))


def _target_options() -> list[click.Option]:
    return [
        click.Option(["--target-container"], metavar="NAME", help="Bucket, directory, … of the copy."),
        click.Option(["--target-prefix"], default="", metavar="TEXT", help="Put in front of every key, as it is."),
        click.Option(
            ["--target-exclude"], multiple=True, metavar="PREFIX",
            help="Leave out keys that begin so, as if the target did not have them. May be given more than once.",
        ),
        click.Option(
            ["--overlap"], multiple=True, metavar="NAME",
            help="Start although that mirror can make the same keys. Scans delete none of these. May be given more than once.",
        ),
    ]  # fmt: skip


def _source_options() -> list[click.Option]:
    return [
        click.Option(["--source-prefix"], default="", metavar="TEXT", help="Removed from the front of absolute paths that start with it."),
        click.Option(
            ["--source-filter"], default="^.*$", show_default=True, metavar="REGEX",
            help="Mirror only files whose absolute path matches from its start (Python's re.match).",
        ),
        click.Option(
            ["--source-exclude"], multiple=True, metavar="REGEX",
            help="Leave out files and whole directories whose absolute path matches. May be given more than once.",
        ),
        click.Option(
            ["--temporary"], multiple=True, metavar="REGEX", default=TEMPORARY, show_default="names of browsers, editors, rsync and others",
            help="Names (whole, without directories) of files and directories that are left out until they are renamed. Replaces the "
            "default; '' leaves nothing out. May be given more than once.",
        ),
        click.Option(
            ["--done-marker"], default="", metavar="NAME",
            help="Send a file only when a file of this name is in the same directory; {} in it stands for the file's own name.",
        ),
        click.Option(
            ["--min-size"], metavar="BYTES", show_default="none",
            help="Skip files that are smaller: 1B, 512kB, 20MB, 1GiB. What the target has under their names stays.",
        ),
        click.Option(
            ["--max-size"], metavar="BYTES", show_default="none",
            help="Skip files that are larger. Of a file that grows beyond it, the target keeps what was sent last.",
        ),
        click.Option(
            ["--links"], type=click.Choice(["skip", "follow"]), default="follow", show_default=True,
            help="Whether symbolic links are followed to files and directories inside the same PATH.",
        ),
        click.Option(
            ["--one-file-system/--no-one-file-system"], default=False,
            help="Leave out directories below PATH on which another file system is mounted. The target keeps what it has of them.",
        ),
        click.Option(
            ["--max-links"], type=click.IntRange(min=1), default=FileRules().max_links, show_default=True, metavar="N",
            help="How many keys behind links to directories are sent, if that is more than ten times the files that are not behind links.",
        ),
        click.Option(
            ["--compare"], type=click.Choice([one.value for one in Compare]), default=Compare.TIME.value, show_default=True,
            help="What counts as different: the size; the times too; or the content, if the target lists a checksum.",
        ),
        click.Option(
            ["--delete/--no-delete"], default=True, show_default=True, help="Whether keys without a file are deleted from the target."
        ),
        click.Option(
            ["--max-delete"], metavar="N|P%", show_default="25%, or 20 if that is more",
            help="How many keys in scope one scan may delete; further deletions are withheld. Deletions while it watches do not count.",
        ),
        click.Option(
            ["--accept-existing/--no-accept-existing"], default=False,
            help="Let the first scan delete keys without a file in the source, within --max-delete. Without it, such keys are kept.",
        ),
    ]  # fmt: skip


def _running_options(*, one_host: bool) -> list[click.Option]:
    broker_help = "Redis or Valkey to use instead of an embedded one." if one_host else "Redis or Valkey that the upload boxes use."
    broker: dict[str, Any] = {} if one_host else {"default": "redis://127.0.0.1:6379/0", "show_default": True}
    workers = click.Option(
        ["--workers"], type=click.IntRange(min=1), default=min(os.cpu_count() or 1, 4), show_default="one a processor, at most 4",
        help="Worker processes.",
    )  # fmt: skip
    return [
        click.Option(["--once"], is_flag=True, help="Make the target equal the source, wait for the last transfer, end."),
        click.Option(["--dry-run"], is_flag=True, help="Print what would be done, one line a key, and change nothing."),
        click.Option(
            ["--threads"], type=click.IntRange(min=1), default=160, show_default=True, help="Transfers in flight in each worker process."
        ),
        *_limits(),
        *([workers] if one_host else []),
        click.Option(["--name"], metavar="TEXT", help="Name of the mirror.  [default: made from the target]"),
        click.Option(["--broker"], metavar="URL", help=broker_help, **broker),
        click.Option(["--queue"], metavar="NAME", help="Celery queue of its tasks.  [default: autosync. and the mirror's name]"),
        click.Option(
            ["--signing-key"], metavar="@FILE",
            help="Sign the mirror's definition, for upload boxes that have the same key. Give it as a file, or in AUTOSYNC_SIGNING_KEY.",
        ),
        state_directory_option(),
        click.Option(
            ["--settle"], type=click.FloatRange(min=0), default=0.25, show_default=True, metavar="SECONDS",
            help="How long a file must be quiet before it is sent again, or at all if it was not closed.",
        ),
        click.Option(
            ["--rescan"], type=click.FloatRange(min=0), default=3600.0, show_default=True, metavar="SECONDS",
            help="How often everything is scanned again; 0: never.",
        ),
        click.Option(
            ["--attempts"], type=click.IntRange(min=1), default=10, show_default=True,
            help="How often a key is tried before it goes to the failed list.",
        ),
        click.Option(
            ["--lease"], type=float, default=LEASE, show_default=True, metavar="SECONDS",
            help="How long the claims of a worker that is dead or cut off last, before another worker takes over its keys.",
        ),
    ]  # fmt: skip


def state_directory_option() -> click.Option:
    """The option `--state-dir`: the directory in which each mirror has a directory of its own, for broker, lock and state."""
    return click.Option(
        ["--state-dir"], type=click.Path(), default=_default_state_directory, metavar="DIR",
        help="Directory of broker and lock.  [default: $XDG_STATE_HOME/autosync or ~/.local/state/autosync]",
    )  # fmt: skip


def _limits() -> list[click.Option]:
    return [
        click.Option(
            ["--limit-requests"], metavar="N/s", show_default="none",
            help="How many requests a second (/s), minute (/m) or hour (/h) all workers together send to the target.",
        ),
        click.Option(
            ["--limit-bandwidth"], metavar="BYTES/s", show_default="none",
            help="How much content all workers together send to the target: 512kB/s, 20MB/s, 1GiB/s.",
        ),
        click.Option(
            ["--limit-inflight"], metavar="N", show_default="none", help="How many transfers all workers together have in flight at once."
        ),
    ]  # fmt: skip


def _output_options() -> list[click.Option]:
    return [
        click.Option(
            ["--log-format"], type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the lines on stderr."
        ),
        click.Option(["-v", "--verbose"], count=True, help="A line for each transfer too; twice: everything."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Warnings and errors only."),
    ]


def _default_state_directory() -> str:
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "autosync")


def sources_of(paths: Sequence[str]) -> tuple[Source, ...]:
    """The sources for the PATHs of a command line.

    Raises:
        ConfigurationError: there is no PATH, or one is neither a file nor a directory.
    """
    if not paths:
        raise ConfigurationError("PATH is missing", "name the directory or file to mirror")
    return tuple(_source(path) for path in paths)


def _source(path: str) -> Source:
    absolute = _absolute(path)
    if os.path.isdir(absolute):
        kind = os.access(absolute, os.R_OK | os.X_OK)
        if not kind:
            raise ConfigurationError(f"PATH {path} may not be read", "change its permissions, or the user who runs autosync")
        return Source(absolute)
    if os.path.isfile(absolute):
        return Source(absolute, is_file=True)
    if os.path.lexists(absolute):
        raise ConfigurationError(f"PATH {path} is neither a directory nor a file")
    raise ConfigurationError(f"PATH {path} does not exist", "check its spelling, or mount it")


def _absolute(path: str) -> str:
    """An absolute path. The current directory is that of the shell's $PWD, so that $PWD in --source-prefix matches."""
    if path.startswith("/"):
        return os.path.normpath(path)
    here = os.environ.get("PWD", "")
    try:
        if not (here.startswith("/") and os.path.samefile(here, ".")):
            here = os.getcwd()
    except OSError:
        here = os.getcwd()
    return os.path.normpath(os.path.join(here, path))


def state_base(path: str) -> Path:
    """The state directory as an absolute path."""
    return Path(_absolute(os.path.expanduser(path)))
