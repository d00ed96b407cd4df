"""Secrets as people give them: themselves, or behind `@` the name of a file that holds one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError


def read_secret(given: str, about: str) -> str:
    """The secret.

    Args:
        given: itself; or `@` and the path of a file, without the line break at its end. One that begins with `@` is given with two of them.
        about: where it was given, for people.

    Raises:
        ConfigurationError: the file cannot be read, or is empty.
    """
    if not given.startswith("@"):
        return given
    if given.startswith("@@"):
        return given[1:]
    try:
        found = Path(given[1:]).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{about} {given}: {getattr(error, 'strerror', None) or error}", "name a file that this user may read, or write @@ for an @"
        ) from error
    if not found:
        raise ConfigurationError(f"{about} {given}: the file is empty", "write the secret into it")
    return found


def written(secret: str) -> str:
    """A secret as it is given to `read_secret`."""
    return "@" + secret if secret.startswith("@") else secret


def secret_of(secrets: Mapping[str, Any], mirror: str, option: str) -> str | None:
    """The value of a secret option.

    Args:
        secrets: values by option name; those of one mirror alone stand in a dict under the mirror's name, and count more.
        mirror: its name.
        option: its name.

    Returns:
        The secret; None if there is none.

    Raises:
        ConfigurationError: it is empty, or stands in a file that cannot be read.
    """
    own = secrets.get(mirror)
    given = own[option] if isinstance(own, Mapping) and option in own else secrets.get(option)
    if given == "":
        raise ConfigurationError(f"the secret {option} is empty", f"set AUTOSYNC_{option.upper()}, or unset it")
    return read_secret(given, f"secret {option}") if isinstance(given, str) else None
