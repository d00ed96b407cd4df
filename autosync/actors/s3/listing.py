"""Listings of a bucket. The next pages are fetched while one is compared.

The own client fetches the pages, and `fast.list_page` parses them. From the first page that it does not understand, boto3 lists. The first
listing is read by the prefetch process, if there is one: a scan that finds no change spends half its time on the listing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from ...errors import PermanentError, TargetError
from ...files import Page
from ...process.forked import ForkedGenerator
from ...process.prefetch import Prefetcher
from .errors import translated
from .fast.list_page import next_token, parse_page
from .fast.requests import ObjectRequests

#: How many pages are fetched ahead; each has 1,000 objects, about 250 kB.
_PAGES_AHEAD = 4


class ListResponse(NamedTuple):
    """A page that was not parsed.

    Attributes:
        text: the body of the response.
        token: the continuation token of its request; "" for the first page.
    """

    text: str
    token: str


class Listings:
    """Lists one bucket.

    Args:
        client: returns boto3's client for S3.
        objects: the own client of the bucket; None behind a proxy, where boto3 lists.
        bucket: its name.
        server: name of the server in error messages.
    """

    def __init__(self, client: Callable[[], Any], objects: ObjectRequests | None, bucket: str, server: str) -> None:
        self._client = client
        self._objects = objects
        self._bucket = bucket
        self._about = f"bucket {bucket}"
        self._server = server

    def pages(self, prefix: str, prefetch: ForkedGenerator | None = None) -> Iterator[Page]:
        """Every object below a prefix, in the order in which the server lists them.

        Args:
            prefix: of the keys.
            prefetch: the process that yields the `rows`; None for none.

        Raises:
            TargetError: the listing failed.
        """
        token: str | None = ""
        if prefetch is not None:
            for token, *columns in prefetch.items(prefix):  # noqa: B007 - the last one counts
                yield Page(*columns)
        if token is not None:  # the process stopped here; if that was due to an error, it shows again when this process continues
            yield from self._pages_from(prefix, token)

    def rows(self, prefix: str) -> Iterator[tuple[Any, ...]]:
        """Yield the pages up to the first one that is not understood. While one is parsed, the server prepares the next.

        Returns:
            Of each page the token of the next one (None if it is the last), and the columns of `Page`.
        """
        objects = self._objects
        if objects is None:
            return
        token: str | None = ""
        request = objects.request_page(prefix, "")
        while token is not None:
            text = objects.read_page(request, self._about)
            before, token = token, next_token(text)
            if token is not None:
                request = objects.request_page(prefix, token)
            page = parse_page(text)
            if page is None or token == before:
                return
            yield (token, *page)

    def _pages_from(self, prefix: str, token: str) -> Iterator[Page]:
        """Yield the pages from this token on, with the next ones being fetched."""
        if self._objects is None:
            yield from self._by_boto3(prefix, token)
            return
        responses = self._responses(self._objects, prefix, token)
        ahead = Prefetcher(1, "autosync-list")
        waiting: deque[Future[ListResponse | None]] = deque(ahead.ask(partial(next, responses, None)) for _ in range(_PAGES_AHEAD))
        try:
            while (response := waiting.popleft().result()) is not None:
                waiting.append(ahead.ask(partial(next, responses, None)))
                page = parse_page(response.text)
                if page is None:
                    yield from self._by_boto3(prefix, response.token)
                    return
                yield page
        finally:
            ahead.close(wait=False)

    def _responses(self, objects: ObjectRequests, prefix: str, first: str) -> Iterator[ListResponse]:
        """Yield the responses from this token on. A page whose next token is not understood is the last."""
        token: str | None = first
        while token is not None:
            text = self._fetch_with_retry(objects, prefix, token)
            yield ListResponse(text, token)
            before, token = token, next_token(text)
            if token is not None and token == before:
                raise TargetError(f"{self._about} at {self._server}: a page of the listing is followed by itself")

    def _fetch_with_retry(self, objects: ObjectRequests, prefix: str, token: str) -> str:
        """Fetch a page, with one retry: servers fail now and then."""
        try:
            return self._fetch(objects, prefix, token)
        except PermanentError:
            raise
        except TargetError:
            return self._fetch(objects, prefix, token)

    def _fetch(self, objects: ObjectRequests, prefix: str, token: str) -> str:
        with translated(self._about, self._server):
            return objects.read_page(objects.request_page(prefix, token), self._about)

    def _by_boto3(self, prefix: str, token: str) -> Iterator[Page]:
        parameters = {"Bucket": self._bucket, "Prefix": prefix} | ({"ContinuationToken": token} if token else {})
        with translated(self._about, self._server):
            for response in self._client().get_paginator("list_objects_v2").paginate(**parameters):
                found = response.get("Contents", ())
                yield Page(
                    [one["Key"] for one in found],
                    [one["Size"] for one in found],
                    [one["LastModified"].timestamp() for one in found],
                    [one.get("ETag", "").strip('"') or None for one in found],
                )
