"""What a target must be able to do. One file for each kind of target stands in actors/; a user's own class is as good as ours."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, quote_plus

import click

from .errors import ConfigurationError
from .files import File
from .model.secrets import read_secret


class SecretOption(click.Option):
    """An option of an actor whose value is never published or logged. It is given as it is, which shows it to whoever may list processes;
    as `@FILE`; in AUTOSYNC_NAME; or, after the option without a value, at a prompt. Workers take it from their own environment, or from
    `autosync_secrets` in celeryconfig.py."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"prompt": True, "prompt_required": False, "hide_input": True, "metavar": "TEXT|@FILE", **kwargs})

    def process_value(self, context: click.Context, value: Any) -> Any:
        """The secret itself.

        Raises:
            ConfigurationError: it is empty, or the file that was named cannot be read.
        """
        found = super().process_value(context, value)
        if found == "":
            raise ConfigurationError(f"{self.opts[0]} is empty", "give a value, or leave the option out")
        return read_secret(found, self.opts[0]) if isinstance(found, str) else found


class Actor:
    """Speaks to one kind of target.

    A subclass defines `list`, `upload` and `delete`. It may define `check`, `delete_many`, `matches`, `abandon`, `clock_ahead` and `close`,
    and may bring options of its own. One instance serves a whole worker process, so the methods are called from many threads at once.

    Any exception that a method raises means "try again later"; `PermanentError` means "never try this again", `SlowDown` "too fast".

    Args:
        settings: the values of `options`, and `target_container`; each becomes an attribute of the same name, and one that is not given
            is None. What a constructor makes of them (an absolute path, say) is what the workers are given.

    Raises:
        ConfigurationError: a setting is missing or cannot be used.
    """

    #: The click options that this kind of target adds to the commands.
    options: ClassVar[Sequence[click.Option]] = ()
    #: Whether the target needs `--target-container`; what it is called in an error message.
    container_is: ClassVar[str] = ""

    target_container: str | None = None
    #: A local directory that this actor writes to; autosync refuses to mirror a source into itself.
    directory: str | None = None

    def __init__(self, **settings: Any) -> None:
        for option in self.options:
            if not hasattr(self, str(option.name)):
                setattr(self, str(option.name), None)
        for name, value in settings.items():
            setattr(self, name, value)
        if self.container_is and not self.target_container:
            raise ConfigurationError("--target-container is missing", f"name the {self.container_is}")

    def check(self) -> None:
        """See whether the target can be used, before anything is transferred.

        Raises:
            TargetRefused: it never will, as it is set up now.
            TargetError: it cannot be reached at the moment.
        """

    def stand_by(self) -> None:
        """`check` and the first listing will be asked for soon. Called by the main thread while it is the only one, so this process may be
        forked, and what that finds out may take as long as there are other things to be loaded; not called before each listing, nor by
        workers."""

    def list(self, prefix: str = "") -> Iterable[File]:
        """What the target holds.

        Args:
            prefix: only keys that begin with this are wanted; others are ignored. A subclass whose `list` takes no argument is asked for
                everything.

        Returns:
            Files with `key`, `size`, `mtime` and, if the target has it, `etag`. If the returned iterable has a true attribute
            `already_sorted` (see `autosync.files.Listing`) the keys come in the order of their UTF-8 bytes; if not, autosync sorts them on
            disk.
        """
        raise NotImplementedError

    def upload(self, file: File) -> None:
        """Make the object `file.key` hold exactly what `file.open()` gives; until that is complete, leave what was there.

        `file.open()` raises `FileChanged` before its last byte if the file changed meanwhile; let that through, with nothing made visible.
        """
        raise NotImplementedError

    @property
    def sends_together(self) -> bool:
        """Whether `upload_many` has all of its files on their way at the same time."""
        return False

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Upload several small files, for targets that can have many on their way in one thread (`sends_together`). Returns for each file
        None or what went wrong, which says the same as if `upload` had raised it."""
        raise NotImplementedError

    def delete(self, file: File) -> None:
        """Make the object `file.key` not be there. That it was not there already is no error."""
        raise NotImplementedError

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Delete several objects; for targets that can do so at once. Returns for each file None or what went wrong."""
        raise NotImplementedError

    def can_match(self, listed: File) -> bool:
        """Whether `matches` can compare a file with this listed object, of the same size, by its etag."""
        return False

    def matches(self, file: File, etag: str) -> bool:
        """Whether the content of `file` is what an object with this etag holds. False means that it cannot be told."""
        return False

    def abandon(self, key: str, token: str) -> None:
        """End an upload in parts of `key` whose `File.begun` was given this token by a process that was killed since. That there is no
        such upload any more is no error. After any error it is tried again with the next transfer of the key."""

    def clock_ahead(self) -> float:
        """By how many seconds the target's clock, which gives the times of `list`, is ahead of this host's. Measured anew each time; 0.0
        where it cannot be told.

        Raises:
            TargetError: the target cannot be reached at the moment.
        """
        return 0.0

    def close(self) -> None:
        """Give connections back; called once, at the end."""


def as_actor(found: type) -> type[Actor]:
    """A class as an actor: itself, or, of one that only has the three methods, one that is made of both.

    Raises:
        ConfigurationError: it has not.
    """
    if issubclass(found, Actor):
        return found
    missing = [name for name in ("list", "upload", "delete") if not callable(getattr(found, name, None))]
    if missing:
        raise ConfigurationError(f"{found.__name__} is no actor: it has no {' and no '.join(missing)}", "derive it from autosync.Actor")
    return type(found.__name__, (found, Actor), {"__module__": found.__module__, "__doc__": found.__doc__})


def can_delete_many(actor: Actor) -> bool:
    """Whether the class has a batch form of `delete`."""
    return type(actor).delete_many is not Actor.delete_many


def listing_of(actor: Actor, prefix: str) -> Iterable[File]:
    """Ask an actor for its listing, whether or not its `list` takes a prefix."""
    if inspect.signature(actor.list).parameters:
        return actor.list(prefix)
    return actor.list()


def secret_names(actor_class: type[Actor]) -> set[str]:
    """The names of those settings of a class that must not be published."""
    return {str(option.name) for option in actor_class.options if isinstance(option, SecretOption)}


def without_secrets(actor: Actor, text: str) -> str:
    """What an actor or a library of its own said, fit to be shown: the values of its secret options are struck out, also as in URLs."""
    for name in secret_names(type(actor)):
        value = str(getattr(actor, name, None) or "")
        for written in filter(None, (value, quote(value, safe=""), quote_plus(value))):
            text = text.replace(written, "***")
    return text
