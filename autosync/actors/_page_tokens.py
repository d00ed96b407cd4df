"""Finds a listing without an end."""

from __future__ import annotations

#: The most successive pages without an object. Azure and S3 send such pages where many objects were deleted.
_MOST_EMPTY = 1000


class PageTokens:
    """Checks the continuation tokens of one listing, with memory for one token (R. P. Brent, An improved Monte Carlo factorization
    algorithm, 1980: a sequence that runs in a circle comes back to an element that is kept for twice as long each time)."""

    def __init__(self) -> None:
        self._kept: str | None = None
        self._count = 0
        self._renewed_at = 1
        self._empty_pages = 0

    def fault(self, token: str, *, is_empty: bool = False) -> str:
        """What is wrong with the listing; "" for nothing.

        Args:
            token: the token of the next page.
            is_empty: the page with this token has no objects.
        """
        if token == self._kept:
            return "a page of the listing is followed by itself or by an earlier one"
        self._empty_pages = self._empty_pages + 1 if is_empty else 0
        if self._empty_pages > _MOST_EMPTY:
            return f"{_MOST_EMPTY:,} pages of the listing that follow each other are empty"
        self._count += 1
        if self._count == self._renewed_at:
            self._kept, self._renewed_at = token, 2 * self._renewed_at
        return ""
