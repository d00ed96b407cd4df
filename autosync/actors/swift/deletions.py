"""Deleting objects, with few requests."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, cast
from urllib.parse import quote, unquote

import swiftclient.client

from ...errors import PermanentError, TargetError, TargetRefused
from .access import Access
from .answers import meaning
from .keys import insist_on

#: So many are deleted with one request; Swift's own limit is ten times that.
AT_ONCE = 1000
_NOT_FOUND = 404


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
        left = [*names]
        failed: dict[str, TargetError] = {}
        while left and self._bulk:
            found = self._delete_together(container, left[:AT_ONCE])
            if found is None:
                self._bulk = False
                break
            failed |= found
            del left[:AT_ONCE]
        for name in left:
            try:
                self._delete_one(container, name)
            except TargetError as error:
                failed[name] = error
        return failed

    def _delete_together(self, container: str, names: Sequence[str]) -> dict[str, TargetError] | None:
        """With one request (https://docs.openstack.org/swift/latest/api/bulk-delete.html). None if this Swift does not know it."""
        body = "".join(f"/{quote(container)}/{quote(name)}\n" for name in names).encode()
        headers = {"Content-Type": "text/plain", "Accept": "application/json"}

        def do(url: str, token: str, connection: Any) -> bytes:
            _, told = swiftclient.client.post_account(url, token, headers, http_conn=connection, query_string="bulk-delete", data=body)
            return cast(bytes, told)

        try:
            told = json.loads(self._access.ask(container, do))
            status, errors, done = str(told["Response Status"]), told["Errors"], told["Number Deleted"] + told["Number Not Found"]
        except PermanentError as error:
            if isinstance(error, TargetRefused):
                raise
            return None
        except (ValueError, KeyError, TypeError):
            return None
        return self._failed(container, names, status, errors, done)

    def _failed(self, container: str, names: Sequence[str], status: str, errors: Any, done: int) -> dict[str, TargetError]:
        failed: dict[str, TargetError] = {}
        for path, said in errors:
            name = unquote(path).removeprefix("/").removeprefix(f"{container}/")
            failed[name] = meaning(int(said[:3]), f"{name} in {container}", said[4:])
        if status.startswith("200") or (errors and done + len(errors) == len(names)):
            return failed
        rest = meaning(int(status[:3]), f"deleting from {container}", status[4:])
        return {name: failed.get(name, rest) for name in names}

    def _delete_one(self, container: str, name: str) -> None:
        def do(url: str, token: str, connection: Any) -> None:
            try:
                swiftclient.client.delete_object(url, token, container, name, http_conn=connection)
            except swiftclient.client.ClientException as error:
                if error.http_status != _NOT_FOUND:
                    raise

        insist_on(name)
        self._access.ask(name, do)
