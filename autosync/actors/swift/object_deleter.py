"""Deletes objects with few requests: Swift's bulk-delete middleware, or one request for each object where there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import swiftclient.client

from ...errors import PermanentError, TargetError, TargetRefused
from .._key_checks import has_dots
from .errors import error_of_status, status_of
from .identity import Access
from .keys import LONGEST_NAME, check_key

#: Statuses of a POST to an account that does not exist, or that this login may not use.
_NO_ACCESS = {403, 404}
#: Bytes that must be quoted in a list of names. No others are quoted, because Swift's limit for a line is little more than that for a name.
_SPECIAL = re.compile(rb"[\x00-\x20%\x7f]")
#: Objects deleted with one request. Swift's own limit is 10,000.
AT_ONCE = 1000
_BAD_REQUEST, _NOT_FOUND = 400, 404


class _BulkResult(NamedTuple):
    """Result of a bulk delete: the errors by name, and the names that Swift did not try."""

    failed: dict[str, TargetError]
    undone: list[str]


class ObjectDeleter:
    """Deletes objects of any container: many with one request, or one by one if Swift has no bulk delete.

    Args:
        access: the access to Swift.
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
        """Delete objects. An object that does not exist is no error.

        Returns:
            The errors by name.
        """
        left, by_one = [*names], list[str]()
        failed: dict[str, TargetError] = {}
        while left and self._bulk:
            result = self._delete_together(container, left[:AT_ONCE])
            if result is None:
                self._bulk = False
                break
            failed |= result.failed
            by_one += result.undone
            del left[:AT_ONCE]
        for name in by_one + left:
            try:
                self.one(container, name)
            except TargetError as error:
                failed[name] = error
        return failed

    def one(self, container: str, name: str) -> None:
        """Delete one object. It is no error if there is none.

        Raises:
            TargetError: it was not deleted.
        """

        def do(url: str, token: str, connection: Any) -> None:
            try:
                swiftclient.client.delete_object(url, token, container, name, http_conn=connection)
            except swiftclient.client.ClientException as error:
                # A Swift that refuses a name for its length has no object of that name (proxy-server, check_object_creation).
                if error.http_status != _NOT_FOUND and not (error.http_status == _BAD_REQUEST and is_long):
                    raise

        is_long = len(name.encode()) > LONGEST_NAME
        if not is_long or has_dots(name):
            check_key(name)
        self._access.request(name, do)

    def _delete_together(self, container: str, names: Sequence[str]) -> _BulkResult | None:
        """Delete objects with one request (https://docs.openstack.org/swift/latest/api/bulk-delete.html).

        Returns:
            None if this Swift has no bulk delete, or this login may send no requests to the account.
        """
        body = b"".join(b"/%s/%s\n" % (_quoted_name(container), _quoted_name(name)) for name in names)
        headers = {"Content-Type": "text/plain", "Accept": "application/json"}

        def do(url: str, token: str, connection: Any) -> bytes:
            _, content = swiftclient.client.post_account(url, token, headers, http_conn=connection, query_string="bulk-delete", data=body)
            return cast(bytes, content)

        try:
            report = json.loads(self._access.request(container, do))
            status, errors, done = str(report["Response Status"]), report["Errors"], report["Number Deleted"] + report["Number Not Found"]
            return _parse_bulk_response(container, names, status, errors, done)
        except PermanentError as error:
            if isinstance(error, TargetRefused) and status_of(error) not in _NO_ACCESS:
                raise
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _parse_bulk_response(container: str, names: Sequence[str], status: str, errors: Any, done: int) -> _BulkResult:
    """Read the report of a bulk delete, whose body carries a status of its own.

    Args:
        container: that held the objects.
        names: the names of the objects in the request.
        status: `Response Status` of the report.
        errors: `Errors` of the report: pairs of path and status.
        done: number of objects that were deleted or did not exist.
    """
    failed: dict[str, TargetError] = {}
    for path, reason in errors:
        name = unquote(path).removeprefix("/").removeprefix(f"{container}/")
        error = error_of_status(int(reason[:3]), f"{name} in {container}", reason[4:])
        # A token that has expired meanwhile is renewed by the next try.
        failed[name] = TargetError(error.what) if reason.startswith("401") else error
    if status.startswith("200") or (errors and done + len(errors) == len(names)):
        return _BulkResult(failed, [])
    left = [name for name in names if name not in failed]
    if status.startswith("4") and not status.startswith(("401", "429")):
        return _BulkResult(failed, left)  # Swift stopped at one name, and the others may be fine
    rest = error_of_status(int(status[:3]), f"deleting from {container}", status[4:])
    return _BulkResult(failed | dict.fromkeys(left, TargetError(rest.what) if status.startswith("401") else rest), [])


def _quoted_name(name: str) -> bytes:
    return _SPECIAL.sub(lambda found: b"%%%02X" % found[0][0], name.encode())
