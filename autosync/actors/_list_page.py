"""Pages of listings in XML, read by regular expressions, with memory for no more than the page and the names on it.

Nothing is parsed that a page of objects does not have: no document type, so no entities of its own. The page stays bytes, since text may
take four times as much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

#: The most objects that are read of a page; the targets list at most 5,000.
_MOST_OBJECTS = 20_000
#: The most bytes of a value as it is written: 1,024 characters take up to 12 bytes each where each byte is percent-encoded.
_LONGEST = 32 << 10
_REFERENCE = re.compile(rb"&(?:#x([0-9A-Fa-f]{1,6})|#([0-9]{1,7})|([a-z]+));")
_ENTITIES = {b"lt": b"<", b"gt": b">", b"amp": b"&", b"quot": b'"', b"apos": b"'"}


class UnreadablePage(ValueError):  # noqa: N818 - named for what it means
    """A page that is not what the target's description says."""


def entries_of(page: bytes, tag: bytes, root: bytes) -> Iterator[bytes]:
    """Yield the objects of a page.

    Args:
        page: the body of the response.
        tag: the XML tag of an object's element.
        root: tag of the whole.

    Returns:
        For each object the content of its element.

    Raises:
        UnreadablePage: the page is not complete, or has too many objects.
    """
    if b"<!" in page:
        raise UnreadablePage("it has a comment, a document type, or a section of text")
    first, last = b"<" + tag + b">", b"</" + tag + b">"
    if page.rfind(b"</" + root + b">", max(0, len(page) - 1024)) < 0:
        raise UnreadablePage(f"it does not end with </{root.decode()}>")
    count = page.count(first)
    if count > _MOST_OBJECTS:
        raise UnreadablePage(f"it has {count:,} objects")
    end = 0
    for _ in range(count):
        start = page.find(first, end)
        end = page.find(last, start)
        if start < 0 or end < 0:
            raise UnreadablePage(f"an element {tag.decode()} has no end")
        yield page[start + len(first) : end]


def value_of(entry: bytes, pattern: re.Pattern[bytes], name: str) -> bytes:
    """The first group of a pattern, its references replaced.

    Raises:
        UnreadablePage: there is no match.
    """
    found = pattern.search(entry)
    if found is None:
        raise UnreadablePage(f"an object has no {name}")
    return unescaped(found[1])


def unescaped(value: bytes) -> bytes:
    """Replace the references to characters (XML 1.0, 4.1).

    Raises:
        UnreadablePage: a reference is to no character, or the value is too long.
    """
    if len(value) > _LONGEST:
        raise UnreadablePage("a value is too long")
    return _REFERENCE.sub(_character, value) if b"&" in value else value


def text_of(value: bytes) -> str:
    """Decode UTF-8.

    Raises:
        UnreadablePage: it is none.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UnreadablePage("a value is not UTF-8") from None


def times_of(values: Iterable[bytes], parse: Callable[[str], float]) -> list[float]:
    """Parse the times of a page. Many objects have the same one, so each distinct time is parsed once.

    Raises:
        UnreadablePage: a value is no time.
    """
    every = list(values)
    try:
        parsed = {value: parse(value.decode("ascii")) for value in set(every)}
    except (ValueError, OverflowError, TypeError, LookupError):  # the last three are those of email.utils for odd dates
        raise UnreadablePage("an object has a time that is none") from None
    return [parsed[value] for value in every]


def _character(found: re.Match[bytes]) -> bytes:
    if found[3] is not None:
        if found[3] not in _ENTITIES:
            raise UnreadablePage("a value has a reference to an entity")
        return _ENTITIES[found[3]]
    try:
        return chr(int(found[1], 16) if found[1] is not None else int(found[2])).encode()
    except (ValueError, UnicodeEncodeError):
        raise UnreadablePage("a value has a reference to no character") from None
