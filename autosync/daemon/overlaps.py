"""Mirrors that can make the same keys of one target: each would delete and replace what the other has sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StartError
from ..model.mirror import Mirror
from ..model.target_scope import SharedKeys, TargetScope
from ..model.text import printable
from ..source.mounts import real_paths
from ..state.other_mirrors import OtherMirror, other_mirrors
from ..state.state_file import StateFile

if TYPE_CHECKING:
    from ..ledger import RegisteredMirror

log = logging.getLogger(__name__)


class Overlaps:
    """The overlaps of one mirror with all others that can be found.

    Args:
        mirror: the definition.
        base: the directory with the state directories of this host.
        registered: reads the mirrors of the broker.
        companions: the other mirrors of the same watcher.
        about: prefix of log lines, where there are several mirrors.
        file: the state file of the mirror; None: what it has is not known.

    Attributes:
        shared_keys: the keys that another mirror could have made which may run, or with which an overlap is allowed; see `refresh`.
    """

    def __init__(
        self,
        mirror: Mirror,
        base: Path,
        registered: Callable[[], Iterable[RegisteredMirror]] = tuple,
        companions: Sequence[Mirror] = (),
        *,
        about: str = "",
        file: StateFile | None = None,
    ) -> None:
        self._mirror = mirror
        self._scope = TargetScope(mirror, real_paths)
        self._base = base
        self._registered = registered
        self._companions = companions
        self._about = about
        self._file = file
        self._logged: set[str] = set()
        self._sharing: list[str] = []
        self.shared_keys = SharedKeys(self._scope, ())

    def check(self, *, is_dry: bool = False) -> None:
        """Log the overlaps, and refuse those with mirrors that may run again.

        Args:
            is_dry: only log them.

        Raises:
            StartError: the mirror overlaps with another one that is watched or ran within 30 days, and `--overlap` does not allow it.
            BrokerError: the broker does not respond.
        """
        for other, _ in self._others()[0]:
            what = f"mirror {self._mirror.name} can make the same keys of {self._target()} as mirror {other.name}, which {other.last_run()}"
            gone = f"if that one is gone: autosync-ctl forget {other.name}"
            if other.name in self._mirror.overlap:
                log.info("%s%s; neither deletes by comparison what the other could have made", self._about, what)
            elif other.is_recent and not is_dry:
                raise StartError(
                    f"{what}: each would delete what the other sends",
                    f"part them by --target-prefix, --target-exclude or filters; or allow it with --overlap {other.name}; or, {gone}",
                )
            else:
                log.warning("%s%s; %s", self._about, what, gone)

    def refresh(self) -> bool:
        """Read the other mirrors again, and set `shared_keys`.

        Returns:
            Whether an overlap has ended without being parted: the other mirror was forgotten, or has not run for 30 days and is not
            allowed. What it has sent may be in the target.

        Raises:
            BrokerError: the broker does not respond.
        """
        others, parted = self._others()
        sharing = {
            other.name: scope
            for other, scope in others
            if other.is_recent or other.name in self._mirror.overlap or self._mirror.name in scope.mirror.overlap
        }
        for other, _ in others:
            if other.name in sharing and other.name not in self._logged:
                log.log(
                    logging.INFO if other.name in self._mirror.overlap else logging.WARNING,
                    "%smirror %s, which %s, can make the same keys of %s: scans delete none of these",
                    self._about, other.name, other.last_run(), self._target(),
                )  # fmt: skip
                self._logged.add(other.name)
        self._sharing = sorted(sharing)
        self.shared_keys = SharedKeys(self._scope, list(sharing.values()))
        return not {*self._stored()} <= {*sharing, *parted}

    def refresh_stored(self, revoke: Callable[[], None]) -> bool:
        """As `refresh`, and store the result for later calls, also in other processes. If an overlap has ended, the mirror's acceptance is
        revoked: what the other mirror has left is nothing that this one has sent.

        Args:
            revoke: revokes the acceptance.

        Returns:
            Whether the acceptance was revoked.

        Raises:
            BrokerError: the broker does not respond. The next call does all of it again.
        """
        has_ended = self.refresh()
        if has_ended:
            log.warning("%sa mirror that could make the same keys is gone: what it has left counts as from before", self._about)
            revoke()
        if self._file is not None:
            self._file.update(overlaps=self._sharing or None)
        return has_ended

    def _stored(self) -> list[str]:
        found = self._file.read().get("overlaps") if self._file is not None else None
        return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []

    def _others(self) -> tuple[list[tuple[OtherMirror, TargetScope]], list[str]]:
        """The mirrors that can make the same keys, and the names of those that cannot."""
        found, unreadable = other_mirrors(self._mirror.name, self._base, self._registered(), self._companions)
        for name in unreadable:
            if name not in self._logged:
                log.warning("%swhether mirror %s can make the same keys is not known: its definition cannot be read", self._about, name)
            self._logged.add(name)
        meeting = [(other, scope) for other, scope in found if self._scope.meets(scope)]
        names = {other.name for other, _ in meeting}
        return meeting, [*unreadable, *(other.name for other, _ in found if other.name not in names)]

    def _target(self) -> str:
        settings = self._mirror.settings
        where = settings.get("target_container") or settings.get("url") or ""
        return f"{self._mirror.actor}:{printable(f'{where}/{self._mirror.target_prefix}')}"
