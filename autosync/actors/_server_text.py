"""Text of servers in error messages: one line of printable characters, without secrets."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import unquote

#: The most characters of a server's text that an error shows.
_MOST = 300
#: How many times a text may be escaped.
_ROUNDS = 3
#: Parts of a secret that are the same in each encoding. Shorter ones may be words.
_PLAIN = re.compile(r"[A-Za-z0-9]{8,}")


def one_line(text: str, most: int = _MOST) -> str:
    """A text as one line. Characters that are not printable are written as escapes, so they neither begin a line nor control a terminal.

    Args:
        text: whose references and escapes are decoded.
        most: the most characters of the result.
    """
    line = " ".join(text[: 4 * most].split())
    if not line.isprintable():
        line = "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode("ascii") for one in line)
    return line[:most]


def first_line(text: str) -> str:
    """The first line of a text, as by `one_line`."""
    return one_line((text.strip().splitlines() or [""])[0])


def contains_secret(text: str, secret: str) -> bool:
    """Whether a text contains a secret, or a part of it, in whatever encoding: percent-encoded, with references of HTML, in JSON.

    Args:
        text: the text to search.
        secret: a token, or the signature of a URL, not encoded; "" for none.
    """
    parts = _PLAIN.findall(secret) or [secret]
    for _ in range(_ROUNDS if secret else 0):
        if any(part in text for part in parts):
            return True
        text = unescape(unquote(text))
    return False
