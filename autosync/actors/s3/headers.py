"""Headers of objects: from options, from the first pattern that the key matches, and the type from the suffix of the key.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import click

from ...errors import ConfigurationError
from .._content import guess_content_type

#: For each option the header.
_HEADERS = {
    "storage_class": "x-amz-storage-class",
    "sse": "x-amz-server-side-encryption",
    "sse_kms_key_id": "x-amz-server-side-encryption-aws-kms-key-id",
    "acl": "x-amz-acl",
    "cache_control": "cache-control",
}
#: Options that are pairs of a name and a value.
_PAIRS = ("metadata", "tag")
#: The name of the tables in the configuration file, and in each table that of the expression for keys.
PATTERN, _MATCH = "pattern", "match"
#: Matches the name of a header (RFC 9110, 5.6.2) in lower case.
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
#: The most tags of an object ("Object tags" in the user guide).
_MOST_TAGS = 10


class ObjectHeaders(NamedTuple):
    """The headers of an object.

    Attributes:
        content_type: the media type.
        lines: the other headers, each as "name:value".
    """

    content_type: str
    lines: tuple[str, ...]


class Patterns(click.ParamType):  # type: ignore[type-arg]  # older versions of click have none
    """Type of an option whose value is a list of tables in the configuration file, and JSON elsewhere."""

    name = "JSON"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Convert to a list of tables."""
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"is no JSON: {error}", parameter, context)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            self.fail(f"is no list of tables; write [[{PATTERN}]] in the configuration file", parameter, context)
        return [{name.replace("-", "_"): setting for name, setting in table.items()} for table in found]


def options() -> list[click.Option]:
    """The options of the S3 target for headers."""
    return [
        click.Option(["--storage-class"], metavar="NAME", help="STANDARD_IA, GLACIER_IR, … for objects that are made."),
        click.Option(["--sse"], type=click.Choice(["AES256", "aws:kms", "aws:kms:dsse"]), help="Encryption by the server."),
        click.Option(["--sse-kms-key-id"], metavar="ID", help="Key for --sse=aws:kms, where it is not the bucket's."),
        click.Option(["--acl"], metavar="NAME", help="Canned ACL: public-read, bucket-owner-full-control, …"),
        click.Option(["--cache-control"], metavar="TEXT", help="Header of responses with an object: max-age=3600, …"),
        click.Option(["--content-type"], metavar="TYPE", help="Type of all objects.  [default: as their names suggest]"),
        click.Option(["--metadata"], multiple=True, metavar="NAME=VALUE", help="Metadata of each object. The option may be repeated."),
        click.Option(["--tag"], multiple=True, metavar="NAME=VALUE", help="A tag of each object. The option may be repeated."),
        click.Option(
            [f"--{PATTERN}"], type=Patterns(), help=f"Other values of these eight by key: [[{PATTERN}]] tables in the configuration file."
        ),
    ]


class Headers:
    """Chooses the headers of the objects of one mirror.

    Args:
        settings: values by the name of the option.
        patterns: tables of such values, each with a regular expression for whole keys. For a key that several match, the first counts;
            values that it lacks come from `settings`.

    Raises:
        ConfigurationError: one of them cannot be used.
    """

    def __init__(self, settings: Mapping[str, Any], patterns: Sequence[Mapping[str, Any]]) -> None:
        self._general = _fixed_headers(settings, "")
        self._patterns = [_pattern(settings, table, f"{PATTERN} {number}: ") for number, table in enumerate(patterns, 1)]

    def of(self, key: str) -> ObjectHeaders:
        """The headers of the object with this key."""
        for expression, headers in self._patterns:
            if expression.fullmatch(key):
                return headers.of(key)
        return self._general.of(key)


class _FixedHeaders:
    """Headers that are the same for each key, except for the type."""

    def __init__(self, content_type: str | None, lines: tuple[str, ...]) -> None:
        self._type = content_type
        self._lines = lines
        self._by_type: dict[str, ObjectHeaders] = {}

    def of(self, key: str) -> ObjectHeaders:
        content_type = self._type or guess_content_type(key)
        found = self._by_type.get(content_type)
        if found is None:
            found = self._by_type[content_type] = ObjectHeaders(content_type, self._lines)
        return found


def _pattern(general: Mapping[str, Any], table: Mapping[str, Any], about: str) -> tuple[re.Pattern[str], _FixedHeaders]:
    names = {*_HEADERS, *_PAIRS, "content_type", _MATCH}
    strange = sorted(table.keys() - names)
    if strange:
        raise ConfigurationError(f"{about}there is no {strange[0]!r}", f"known are {', '.join(sorted(names))}")
    try:
        expression = re.compile(table[_MATCH], re.DOTALL)
    except KeyError:
        raise ConfigurationError(f"{about}{_MATCH!r} is missing", "write a regular expression for the whole key") from None
    except (re.error, TypeError) as error:
        raise ConfigurationError(f"{about}{_MATCH} {table[_MATCH]!r} is no regular expression: {error}") from error
    return expression, _fixed_headers({**general, **table}, about)


def _fixed_headers(settings: Mapping[str, Any], about: str) -> _FixedHeaders:
    lines: list[str] = []
    for option, header in _HEADERS.items():
        value = _value(settings.get(option), f"{about}--{option.replace('_', '-')}")
        if value:
            lines.append(f"{header}:{value}")
    metadata = _pairs(settings.get("metadata"), f"{about}--metadata")
    for name in metadata:
        if not _NAME.fullmatch(name.lower()):
            raise ConfigurationError(f"{about}--metadata {name!r} cannot be the name of a header", "use letters, digits and '-'")
    lines += [f"x-amz-meta-{name}:{value}" for name, value in {name.lower(): value for name, value in metadata.items()}.items()]
    tags = _pairs(settings.get("tag"), f"{about}--tag", is_header=False)
    if len(tags) > _MOST_TAGS:
        raise ConfigurationError(f"{about}there are {len(tags)} tags", f"S3 allows {_MOST_TAGS} tags of an object")
    if tags:
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags.items())
        lines.append(f"x-amz-tagging:{query}")
    return _FixedHeaders(_value(settings.get("content_type"), f"{about}--content-type") or None, tuple(lines))


def _pairs(setting: Any, about: str, *, is_header: bool = True) -> dict[str, str]:
    """Pairs from a table, or from words with an equals sign."""
    if isinstance(setting, Mapping):
        pairs: Iterable[tuple[str, Any]] = setting.items()
    else:
        words = [setting] if isinstance(setting, str) else setting or ()
        if not all(isinstance(word, str) and word.partition("=")[0] and "=" in word for word in words):
            raise ConfigurationError(f"{about} {', '.join(map(str, words))}: one has no name and value", "write NAME=VALUE")
        pairs = [(word.partition("=")[0], word.partition("=")[2]) for word in words]
    return {name: _value(value, f"{about} {name}", is_header=is_header) for name, value in pairs}


def _value(setting: Any, about: str, *, is_header: bool = True) -> str:
    """A value in canonical form, as it is signed: trimmed, and with single spaces."""
    if setting is None:
        return ""
    if not isinstance(setting, str):
        raise ConfigurationError(f"{about}: {setting!r} is no text", "write it in quotes")
    if is_header and not (setting.isascii() and setting.isprintable()):
        raise ConfigurationError(f"{about}: {setting!r} cannot stand in a header", "use printable ASCII")
    return " ".join(setting.split())
