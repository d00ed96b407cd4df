"""Reads secrets: a value is the secret itself, or `@` and the path of a file that contains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from ..errors import ConfigurationError


def read_secret(text: str, about: str) -> str:
    """The secret that a value stands for.

    Args:
        text: the secret; or `@` and the path of a file, whose final line break is removed. A secret that begins with `@` is written with
            `@@`.
        about: the option or variable that has the value, for error messages.

    Raises:
        ConfigurationError: the file cannot be read, or is empty.
    """
    if not text.startswith("@"):
        return text
    if text.startswith("@@"):
        return text[1:]
    try:
        found = Path(text[1:]).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{about} {text}: {getattr(error, 'strerror', None) or error}", "name a file that this user may read, or write @@ for an @"
        ) from error
    if not found:
        raise ConfigurationError(f"{about} {text}: the file is empty", "write the secret into it")
    return found


def escape_secret(secret: str) -> str:
    """The text from which `read_secret` returns this secret."""
    return "@" + secret if secret.startswith("@") else secret


def secret_of(secrets: Mapping[str, Any], mirror: str, option: str) -> str | None:
    """The value of a secret option.

    Args:
        secrets: values by option name. A dict under the name of a mirror has the values for that mirror, which take precedence.
        mirror: name of the mirror.
        option: name of the option.

    Returns:
        The secret; None if there is none.

    Raises:
        ConfigurationError: the value is empty, or its file cannot be read.
    """
    own = secrets.get(mirror)
    text = own[option] if isinstance(own, Mapping) and option in own else secrets.get(option)
    if text == "":
        raise ConfigurationError(f"the secret {option} is empty", f"set AUTOSYNC_{option.upper()}, or unset it")
    return read_secret(text, f"secret {option}") if isinstance(text, str) else None


def redacted(text: str, secrets: Iterable[object]) -> str:
    """A text in which the values of secrets are replaced by ***, also URL-quoted ones.

    Args:
        text: a message.
        secrets: the values; empty ones are ignored.
    """
    for value in map(str, filter(None, secrets)):
        for spelling in filter(None, (value, quote(value, safe="", errors="replace"), quote_plus(value, errors="replace"))):
            text = text.replace(spelling, "***")
    return text
