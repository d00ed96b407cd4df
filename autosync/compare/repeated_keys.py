"""Finds a listing that gives the same keys again and again, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import TargetError
from ..files import Page

#: On how many further pages a key may be listed. A key that was deleted and created again may be listed twice, and one at the edge of two
#: pages, too; a listing that runs in a circle has it on any number of pages.
_MOST_REPEATS = 8


def without_end_refused(pages: Iterable[Page]) -> Iterator[Page]:
    """Pass on the pages of a listing, with memory for one key (R. P. Brent, An improved Monte Carlo factorization algorithm, 1980: a
    sequence that runs in a circle comes back to an element that is remembered for twice as long each time).

    Raises:
        TargetError: a key is listed on more than `_MOST_REPEATS` further pages.
    """
    remembered: str | None = None
    renewed_at = 1
    repeats = 0
    for count, page in enumerate(pages, 1):
        if remembered is not None and remembered in page.keys:
            repeats += 1
            if repeats > _MOST_REPEATS:
                raise TargetError("the listing of the target gives the same keys again and again, and does not come to its end")
        if count == renewed_at and page.keys:
            remembered, renewed_at, repeats = page.keys[-1], 2 * renewed_at, 0
        elif count == renewed_at:
            renewed_at += 1
        yield page
