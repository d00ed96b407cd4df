"""What a target lists, and by which clock."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import repeat

from ..actor import Actor, listing_of, without_secrets
from ..errors import AutosyncError, TargetError
from ..files import File, Listing, Page, paged
from ..source.external_sort import disksort
from .repeated_keys import without_end_refused

log = logging.getLogger(__name__)

#: A clock difference above this is logged, in seconds.
_LOGGED_CLOCK_DIFFERENCE = 5.0


class TargetListing:
    """Lists one target. Errors of its actor become a `TargetError`.

    Args:
        actor: lists the target.
        spill: directory for listings that are sorted on disk; None: the system's temporary directory.
    """

    def __init__(self, actor: Actor, spill: str | None) -> None:
        self._actor = actor
        self._spill = spill

    def pages(self, prefix: str, *, without: tuple[str, ...] = (), is_sorted_here: bool) -> Iterator[Page]:
        """The files whose keys begin with a prefix, in order if the target lists in order or they are sorted here.

        Args:
            prefix: only keys that begin with it are listed.
            without: keys that begin with one of these texts are left out.
            is_sorted_here: whether they are sorted on disk, although the target claims to list in order.

        Raises:
            TargetError: the target could not be listed.
        """
        try:
            listing = listing_of(self._actor, prefix)
            pages = _with_prefix(prefix, without, listing.pages() if isinstance(listing, Listing) else paged(listing))
            if is_sorted_here or not getattr(listing, "already_sorted", False):
                rows = disksort((row for page in without_end_refused(pages) for row in zip(*page, strict=True)), self._spill)
                pages = paged(File(*row) for row in rows)
            yield from pages
        except AutosyncError:
            raise
        except Exception as error:  # a user's actor may fail in any way
            reason = without_secrets(self._actor, f"{type(error).__name__}: {error}")
            raise TargetError(f"the target could not be listed: {reason}") from error

    def clock_ahead(self) -> float:
        """How far the target's clock is ahead of this host's, in seconds.

        Raises:
            TargetError: it could not be read.
        """
        try:
            ahead = self._actor.clock_ahead()
        except AutosyncError:
            raise
        except Exception as error:  # a user's actor may fail in any way
            reason = without_secrets(self._actor, f"{type(error).__name__}: {error}")
            raise TargetError(f"the target's clock could not be read: {reason}") from error
        if abs(ahead) > _LOGGED_CLOCK_DIFFERENCE:
            log.info("the target's clock is %.0f s %s this host's; that is allowed for", abs(ahead), "ahead of" if ahead > 0 else "behind")
        return ahead


def _with_prefix(prefix: str, without: tuple[str, ...], pages: Iterable[Page]) -> Iterator[Page]:
    """The files whose keys begin with a prefix, and with none of other texts. A target may list others too."""
    for page in pages:
        has_excluded = without and any(map(str.startswith, page.keys, repeat(without)))
        if not has_excluded and all(map(str.startswith, page.keys, repeat(prefix))):
            yield page
        else:
            wanted = [row for row in zip(*page, strict=True) if row[0].startswith(prefix) and not row[0].startswith(without)]
            yield from [Page(*map(list, zip(*wanted, strict=True)))] if wanted else []
