"""Listings of a bucket. The next pages are fetched while one is compared.

The first listing is read by the prefetch process, if there is one: a scan that finds no change spends half its time on the listing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from ...errors import TargetError
from ...files import Page
from ...process.forked import ForkedGenerator
from ...process.prefetch import Prefetcher
from .._page_tokens import PageTokens
from .errors import translated
from .own_client.list_page import any_page, token_after
from .own_client.requests import ObjectRequests, with_retry

#: How many pages are fetched ahead; each has 1,000 objects, about 250 kB.
_PAGES_AHEAD = 4


class Listings:
    """Lists one bucket.

    Args:
        objects: the client of the bucket.
        bucket: the bucket's name.
        server: name of the server in error messages.
    """

    def __init__(self, objects: ObjectRequests, bucket: str, server: str) -> None:
        self._objects = objects
        self._about = f"bucket {bucket}"
        self._server = server

    def pages(self, prefix: str, prefetch: ForkedGenerator | None = None) -> Iterator[Page]:
        """Every object below a prefix, in the order in which the server lists them.

        Args:
            prefix: only keys that begin with it are listed.
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
        """Yield the pages. While one is parsed, the server prepares the next.

        Returns:
            Of each page the token of the next one (None if it is the last), and the columns of `Page`.

        Raises:
            Exception: the listing failed; `pages` then lists from there, and reports what is wrong.
        """
        objects, tokens = self._objects, PageTokens()
        token: str | None = ""
        request = objects.request_page(prefix, "")
        while token is not None:
            text = objects.read_page(request, self._about)
            token = token_after(text)
            if token is not None:
                if tokens.fault(token, is_empty=_is_empty(text)):
                    return
                request = objects.request_page(prefix, token)
            yield (token, *any_page(text))

    def _pages_from(self, prefix: str, token: str) -> Iterator[Page]:
        """Yield the pages from this token on, with the next ones being fetched."""
        texts = self._texts(prefix, token)
        ahead = Prefetcher(1, "autosync-list")
        waiting: deque[Future[str | None]] = deque(ahead.submit(partial(next, texts, None)) for _ in range(_PAGES_AHEAD))
        try:
            while (text := waiting.popleft().result()) is not None:
                waiting.append(ahead.submit(partial(next, texts, None)))
                with translated(self._about, self._server):
                    page = any_page(text)
                yield page
        finally:
            ahead.close(wait=False)

    def _texts(self, prefix: str, first: str) -> Iterator[str]:
        """Yield the pages from this token on, not parsed."""
        token: str | None = first
        tokens = PageTokens()
        while token is not None:
            text = self.fetch(prefix, token)
            yield text
            with translated(self._about, self._server):
                token = token_after(text)
            fault = tokens.fault(token, is_empty=_is_empty(text)) if token is not None else ""
            if fault:
                raise TargetError(f"{self._about} at {self._server}: {fault}")

    def fetch(self, prefix: str, token: str = "") -> str:
        """Fetch a page, with one retry: servers fail now and then.

        Args:
            prefix: only keys that begin with it are listed.
            token: the continuation token that the page before contained; "" for the first page.

        Returns:
            The page, for `list_page`.

        Raises:
            TargetError: it cannot be fetched.
        """
        return with_retry(lambda: self._fetch(prefix, token))

    def _fetch(self, prefix: str, token: str) -> str:
        with translated(self._about, self._server):
            return self._objects.read_page(self._objects.request_page(prefix, token), self._about)


def _is_empty(text: str) -> bool:
    """Whether a page has no objects."""
    return "Contents" not in text
