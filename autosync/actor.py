"""The interface to a target. `actors/` has a file or folder for each kind of target; a user's own class is used in the same way."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import click

from .errors import ConfigurationError
from .files import File
from .model.secrets import read_secret, redacted


class SecretOption(click.Option):
    """An option of an actor whose value is never published or logged. Its value is the secret itself, which other users can see in the list
    of processes; or `@FILE`; or that of AUTOSYNC_NAME; or, for an option without a value, the input at a prompt. Workers read it from their
    own environment, or from `autosync_secrets` in celeryconfig.py."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"prompt": True, "prompt_required": False, "hide_input": True, "metavar": "TEXT|@FILE", **kwargs})

    def process_value(self, context: click.Context, value: Any) -> Any:
        """The secret itself.

        Raises:
            ConfigurationError: the secret is empty, or its file cannot be read.
        """
        found = super().process_value(context, value)
        if found == "":
            raise ConfigurationError(f"{self.opts[0]} is empty", "give a value, or leave the option out")
        return read_secret(found, self.opts[0]) if isinstance(found, str) else found


class Actor:
    """The client of one kind of target.

    A subclass defines `list`, `upload` and `delete`. It may define `check`, `delete_many`, `matches`, `abandon`, `clock_ahead` and `close`,
    and may have options of its own. One instance serves a whole worker process, so several threads call its methods at once.

    Any exception that a method raises means "try again later"; `PermanentError` means "never try this again", `SlowDown` "too fast".

    Args:
        settings: the values of `options`, and `target_container`. Each becomes an attribute of the same name; the attribute of a missing
            one is None. The attributes after the constructor (an absolute path, for example) are the settings for the workers.

    Raises:
        ConfigurationError: a setting is missing or cannot be used.
    """

    #: The click options that this kind of target adds to the commands.
    options: ClassVar[Sequence[click.Option]] = ()
    #: The name of the container in error messages, if the target needs `--target-container`; "" if not.
    container_is: ClassVar[str] = ""

    target_container: str | None = None
    #: A local directory that this actor writes to, if any. autosync refuses to mirror a source into itself.
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
        """Check that the target can be used, before the first transfer.

        Raises:
            TargetRefused: the target cannot be used with these settings.
            TargetError: the target cannot be reached now.
        """

    def check_key(self, key: str) -> None:
        """Check, without a request, that the target can have an object with this key. `--target-prefix` is checked with it at the start.

        Raises:
            PermanentError: it cannot.
        """

    def list(self, prefix: str = "") -> Iterable[File]:
        """The objects in the target.

        Args:
            prefix: only keys that begin with this prefix are used; others are ignored. The method of a subclass may have no such argument;
                then it returns all objects.

        Returns:
            Files with `key`, `size`, `mtime` and, if the target has it, `etag`. If the returned iterable has a true attribute
            `already_sorted` (see `autosync.files.Listing`), the keys are in the order of their UTF-8 bytes; if not, autosync sorts them on
            disk.
        """
        raise NotImplementedError

    def upload(self, file: File) -> None:
        """Store the content of `file.open()` as the object `file.key`. Until the upload is complete, the old object stays as it is.

        Reading from `file.open()` raises `FileChanged` before the last byte if the file changed meanwhile. Let that exception through, and
        store nothing.
        """
        raise NotImplementedError

    @property
    def sends_together(self) -> bool:
        """Whether `upload_many` sends its files at the same time."""
        return False

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Upload several small files, for targets that can send many at the same time in one thread (`sends_together`).

        Returns:
            For each file None, or the exception that `upload` would have raised.
        """
        raise NotImplementedError

    def delete(self, file: File) -> None:
        """Delete the object `file.key`. A missing object is no error."""
        raise NotImplementedError

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Delete several objects, for targets that can delete many with one request.

        Returns:
            For each file None, or the exception that `delete` would have raised.
        """
        raise NotImplementedError

    def can_match(self, listed: File) -> bool:
        """Whether `matches` can compare a file of the same size with this listed object by its etag."""
        return False

    def matches(self, file: File, etag: str) -> bool:
        """Whether an object with this etag has the content of `file`. False if the etag does not prove it."""
        return False

    def abandon(self, key: str, token: str) -> None:
        """Abort an upload in parts that a killed process has left open. A missing upload is no error. After any exception, autosync calls
        this again with the next transfer of the key.

        Args:
            key: the object's key.
            token: the token that the process passed to `File.begun`.
        """

    def clock_ahead(self) -> float:
        """Measure the target's clock, which sets the times of `list`.

        Returns:
            By how many seconds it is ahead of this host's clock; 0.0 if that is unknown.

        Raises:
            TargetError: the target cannot be reached now.
        """
        return 0.0

    def close(self) -> None:
        """Close connections. Called once, at the end."""


def as_actor(found: type) -> type[Actor]:
    """The actor class for a class: the class itself, or, if it only has the three methods, a subclass of it and of `Actor`.

    Raises:
        ConfigurationError: the class lacks a method.
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
    """The listing of an actor whose `list` may or may not have the argument `prefix`."""
    if inspect.signature(actor.list).parameters:
        return actor.list(prefix)
    return actor.list()


def own_option_names(actor: str) -> set[str]:
    """The names of the options of a user's own class `module.Class`; none if the name is not of this form, or cannot be loaded."""
    module, _, name = actor.rpartition(".")
    try:
        return {str(option.name) for option in getattr(importlib.import_module(module), name).options} if module else set()
    except Exception:  # a user's module may fail in any way; the error is reported where it is used
        return set()


def secret_names(actor_class: type[Actor]) -> set[str]:
    """The names of the settings of an actor class that must not be published."""
    return {str(option.name) for option in actor_class.options if isinstance(option, SecretOption)}


def without_secrets(actor: Actor, text: str) -> str:
    """A message of an actor or of its libraries in which the values of secret options are replaced by ***."""
    return redacted(text, (getattr(actor, name, None) for name in secret_names(type(actor))))
