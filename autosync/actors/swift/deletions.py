"""Deleting objects, with few requests."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import swiftclient.client

from ...errors import PermanentError, TargetError, TargetRefused
from .errors import answered_with, meaning
from .identity import Access
from .keys import check_key

#: What Swift answers to a request for an account that it does not know, or not from this login.
_NOT_KNOWN = {403, 404}
#: What may not stand as it is in a list of names. All else does: Swift allows a line little more than a name may have.
_SPECIAL = re.compile(rb"[\x00-\x20%\x7f]")
#: So many are deleted with one request; Swift's own limit is ten times that.
AT_ONCE = 1000
_NOT_FOUND = 404


class _Told(NamedTuple):
    """What came of several deletions: what went wrong, and what was not tried."""

    failed: dict[str, TargetError]
    undone: list[str]


class Deletions:
    """Deletes objects of any container: many with one request, or one by one where Swift does not know how.

    Args:
        access: to Swift.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._bulk = True

    def all(self, container: str, names: Collection[str]) -> None:
        """Delete objects.

        Raises:
            TargetError: some are left.
        """
        for error in self.each(container, names).values():
            raise error

    def each(self, container: str, names: Collection[str]) -> dict[str, TargetError]:
        """Delete objects. Returns what went wrong with which; that one is not there is not wrong."""
        left, by_one = [*names], list[str]()
        failed: dict[str, TargetError] = {}
        while left and self._bulk:
            told = self._delete_together(container, left[:AT_ONCE])
            if told is None:
                self._bulk = False
                break
            failed |= told.failed
            by_one += told.undone
            del left[:AT_ONCE]
        for name in by_one + left:
            try:
                self._delete_one(container, name)
            except TargetError as error:
                failed[name] = error
        return failed

    def _delete_together(self, container: str, names: Sequence[str]) -> _Told | None:
        """With one request (https://docs.openstack.org/swift/latest/api/bulk-delete.html). None if this Swift does not know it, or does not
        let this login ask the account for anything."""
        body = b"".join(b"/%s/%s\n" % (_written(container), _written(name)) for name in names)
        headers = {"Content-Type": "text/plain", "Accept": "application/json"}

        def do(url: str, token: str, connection: Any) -> bytes:
            _, told = swiftclient.client.post_account(url, token, headers, http_conn=connection, query_string="bulk-delete", data=body)
            return cast(bytes, told)

        try:
            told = json.loads(self._access.ask(container, do))
            status, errors, done = str(told["Response Status"]), told["Errors"], told["Number Deleted"] + told["Number Not Found"]
        except PermanentError as error:
            if isinstance(error, TargetRefused) and answered_with(error) not in _NOT_KNOWN:
                raise
            return None
        except (ValueError, KeyError, TypeError):
            return None
        return _understood(container, names, status, errors, done)

    def _delete_one(self, container: str, name: str) -> None:
        def do(url: str, token: str, connection: Any) -> None:
            try:
                swiftclient.client.delete_object(url, token, container, name, http_conn=connection)
            except swiftclient.client.ClientException as error:
                if error.http_status != _NOT_FOUND:
                    raise

        check_key(name)
        self._access.ask(name, do)


def _understood(container: str, names: Sequence[str], status: str, errors: Any, done: int) -> _Told:
    """The answer to a request that deletes many, which has a status of its own inside."""
    failed: dict[str, TargetError] = {}
    for path, said in errors:
        name = unquote(path).removeprefix("/").removeprefix(f"{container}/")
        error = meaning(int(said[:3]), f"{name} in {container}", said[4:])
        # A token that has ended meanwhile is made anew with the next try.
        failed[name] = TargetError(error.what) if said.startswith("401") else error
    if status.startswith("200") or (errors and done + len(errors) == len(names)):
        return _Told(failed, [])
    left = [name for name in names if name not in failed]
    if status.startswith("4") and not status.startswith(("401", "429")):
        return _Told(failed, left)  # it stopped at something that may be none of their business
    rest = meaning(int(status[:3]), f"deleting from {container}", status[4:])
    return _Told(failed | dict.fromkeys(left, TargetError(rest.what) if status.startswith("401") else rest), [])


def _written(name: str) -> bytes:
    return _SPECIAL.sub(lambda found: b"%%%02X" % found[0][0], name.encode())
