"""Real parts for tests, as fixtures need them. A part that is missing skips a test on a laptop, and fails it where CI=true."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import pytest

from .servers import Missing, Server

AnyServer = TypeVar("AnyServer", bound=Server)


def lacking(what: str) -> NoReturn:
    """This machine lacks something that the test needs: it is skipped on a laptop, and fails where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def running(make: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """For fixtures: a server as long as it is needed."""
    try:
        server = make()
    except Missing as missing:
        lacking(f"{missing} is not installed")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def permitted(*command: str) -> None:
    """Run a command that only root may run."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        lacking(f"{' '.join(command)}: {getattr(error, 'stderr', '') or error}")
