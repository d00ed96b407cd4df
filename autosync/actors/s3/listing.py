"""Listings of a bucket. The next pages are fetched while one is compared, and no more is read of each than is compared. The first listing
is read by the process that has asked the bucket whether it can be used, where there is one: half the time of a look at what has not
changed is spent on it.

boto3 takes ten times as long to read a page: it makes a tree of the XML, and dictionaries of that. Here expressions take the four things
that count out of it. From the first page on in which not every object has each of them, boto3 lists.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote_plus
from xml.sax.saxutils import unescape

from ...errors import PermanentError, TargetError
from ...files import Page
from ...process.forked import ForkedGenerator
from ...process.prefetch import Prefetcher
from .errors import translated
from .fast.requests import Objects

#: Pages that are there before they are compared; each has 1,000 objects, about 250 kB.
_PAGES_AHEAD = 4

#: Of each object in a page, in columns: four passes make no tuples, and are faster than one.
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_TIME = re.compile(r"<LastModified>([^<]*)</LastModified>")
_ETAG = re.compile(r"<ETag>(?:&quot;|&#34;|\")?([^<&\"]*)(?:&quot;|&#34;|\")?</ETag>")
_SIZE = re.compile(r"<Size>([0-9]+)</Size>")
_IS_TRUNCATED = re.compile(r"<IsTruncated>\s*(true|false)\s*</IsTruncated>")
_NEXT = re.compile(r"<NextContinuationToken>([^<&]+)</NextContinuationToken>")
_QUOTES = {"&quot;": '"', "&apos;": "'"}


class ListResponse(NamedTuple):
    """A page as the server wrote it, and the token that it was asked for with; "" for the first one."""

    text: str
    token: str


class Listings:
    """Lists one bucket.

    Args:
        client: gives boto3's for S3.
        objects: the quick way to the bucket; None where there is none, and boto3 lists.
        bucket: its name.
        where: the server, for people.
    """

    def __init__(self, client: Callable[[], Any], objects: Objects | None, bucket: str, where: str) -> None:
        self._client = client
        self._objects = objects
        self._bucket = bucket
        self._about = f"bucket {bucket}"
        self._where = where

    def pages(self, prefix: str, apart: ForkedGenerator | None = None) -> Iterator[Page]:
        """Every object below a prefix, in the order in which the server lists them.

        Args:
            prefix: of the keys.
            apart: a process that waits to yield the `rows`.

        Raises:
            TargetError: the server does not list them.
        """
        token: str | None = ""
        if apart is not None:
            for token, *columns in apart.items(prefix):  # noqa: B007 - the last one counts
                yield Page(*columns)
        if token is not None:  # here it stopped, for a reason that is found out by going on from there
            yield from self._pages_from(prefix, token)

    def rows(self, prefix: str) -> Iterator[tuple[Any, ...]]:
        """The pages as far as they are understood, each behind the token of the next one; None: it was the last. While one is read, the
        server is at the next."""
        objects = self._objects
        if objects is None:
            return
        asked: str | None = ""
        sent = objects.ask_for_page(prefix, "")
        while asked is not None:
            text = objects.page(sent, self._about)
            before, asked = asked, next_token(text)
            if asked is not None:
                sent = objects.ask_for_page(prefix, asked)
            page = read(text)
            if page is None or asked == before:
                return
            yield (asked, *page)

    def _pages_from(self, prefix: str, token: str) -> Iterator[Page]:
        """The pages from this token on. The next ones are fetched while one is compared."""
        if self._objects is None:
            yield from self._by_boto3(prefix, token)
            return
        answers = self._answers(self._objects, prefix, token)
        ahead = Prefetcher(1, "autosync-list")
        waiting: deque[Future[ListResponse | None]] = deque(ahead.ask(partial(next, answers, None)) for _ in range(_PAGES_AHEAD))
        try:
            while (answer := waiting.popleft().result()) is not None:
                waiting.append(ahead.ask(partial(next, answers, None)))
                page = read(answer.text)
                if page is None:
                    yield from self._by_boto3(prefix, answer.token)
                    return
                yield page
        finally:
            ahead.close(wait=False)

    def _answers(self, objects: Objects, prefix: str, first: str) -> Iterator[ListResponse]:
        """The pages as they come. Behind one that does not say plainly whether another follows there is none here."""
        token: str | None = first
        while token is not None:
            text = self._asked_again(objects, prefix, token)
            yield ListResponse(text, token)
            before, token = token, next_token(text)
            if token is not None and token == before:
                raise TargetError(f"{self._about} at {self._where}: a page of the listing is followed by itself")

    def _asked_again(self, objects: Objects, prefix: str, token: str) -> str:
        """Ask once more if it must be: servers fail now and then."""
        try:
            return self._ask(objects, prefix, token)
        except PermanentError:
            raise
        except TargetError:
            return self._ask(objects, prefix, token)

    def _ask(self, objects: Objects, prefix: str, token: str) -> str:
        with translated(self._about, self._where):
            return objects.page(objects.ask_for_page(prefix, token), self._about)

    def _by_boto3(self, prefix: str, token: str) -> Iterator[Page]:
        asks = {"Bucket": self._bucket, "Prefix": prefix} | ({"ContinuationToken": token} if token else {})
        with translated(self._about, self._where):
            for said in self._client().get_paginator("list_objects_v2").paginate(**asks):
                found = said.get("Contents", ())
                yield Page(
                    [one["Key"] for one in found],
                    [one["Size"] for one in found],
                    [one["LastModified"].timestamp() for one in found],
                    [one.get("ETag", "").strip('"') or None for one in found],
                )


def next_token(text: str) -> str | None:
    """The token to ask for the next page with; None if there is no page, or that is not said plainly."""
    more, token = _IS_TRUNCATED.search(text), _NEXT.search(text)
    return token[1] if more is not None and more[1] == "true" and token is not None else None


def read(text: str) -> Page | None:
    """What a page says, or None if not all of it is understood."""
    more = _IS_TRUNCATED.search(text)
    if more is None or (more[1] == "true" and next_token(text) is None) or "</ListBucketResult>" not in text:
        return None
    keys, times, etags, sizes = _KEY.findall(text), _TIME.findall(text), _ETAG.findall(text), _SIZE.findall(text)
    if not text.count("<Contents") == text.count("<Contents>") == len(keys) == len(times) == len(etags) == len(sizes):
        return None
    plain = _plain(keys, is_encoded="<EncodingType>url</EncodingType>" in text)
    if plain is None or not all(plain):
        return None
    try:
        return Page(plain, list(map(int, sizes)), _seconds(times), [etag or None for etag in etags])
    except ValueError:
        return None


def _plain(keys: list[str], *, is_encoded: bool) -> list[str] | None:
    """Keys as they are: the server encodes them, if it knows how to, as in a URL; and XML has its own way. None: it has yet another."""
    together = "".join(keys)
    if "&#" in together:
        return None
    if "&" in together:
        keys = [unescape(key, _QUOTES) for key in keys]
    if is_encoded and ("%" in together or "+" in together):
        keys = [unquote_plus(key, errors="surrogateescape") for key in keys]
    return keys


def _seconds(times: list[str]) -> list[float]:
    """Times as S3 writes them (ISO 8601), in seconds since the epoch. Those of a page are often the same few."""
    known = {told: _moment(told) for told in set(times)}
    return [known[told] for told in times]


def _moment(told: str) -> float:
    moment = datetime.fromisoformat(told)
    if moment.tzinfo is None:
        raise ValueError(told)
    return moment.timestamp()
