"""Limits as people write them, and as the ledger keeps them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import ConfigurationError
from autosync.model.limits import Limits


@pytest.mark.parametrize(
    ("text", "a_second"),
    [
        ("100/s", 100), ("6/m", 0.1), ("6/min", 0.1), ("1800/h", 0.5), ("0.5/s", 0.5), (" 7 /s ", 7), ("0", 0), ("none", 0), ("", 0),
        (None, 0), ("0/s", 0),
    ],
)  # fmt: skip
def test_requests(text: str | None, a_second: float) -> None:
    assert Limits.parse(requests=text) == Limits(requests=pytest.approx(a_second))


@pytest.mark.parametrize(
    ("text", "a_second"),
    [
        ("20MB/s", 20e6), ("1GiB/s", 2**30), ("512kB/s", 512e3), ("512KB/s", 512e3), ("64 KiB/s", 65536), ("100B/s", 100),
        ("1.5MB/s", 1.5e6), ("60MB/m", 1e6), ("1TB/h", 1e12 / 3600), ("0", 0), ("None", 0),
    ],
)  # fmt: skip
def test_bandwidth(text: str, a_second: float) -> None:
    assert Limits.parse(bandwidth=text) == Limits(bandwidth=pytest.approx(a_second))


def test_transfers() -> None:
    assert Limits.parse(inflight="1") == Limits(inflight=1)
    assert Limits.parse(inflight="none") == Limits()


@pytest.mark.parametrize("text", ["100", "fast", "100/d", "-1/s", "1e3/s", "/s", "100/s/s", "\u0661/s", "1.5.2/s", "9" * 400 + "/s"])
def test_requests_that_cannot_be_understood(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--limit-requests .* cannot be used; write a number per second"):
        Limits.parse(requests=text)


@pytest.mark.parametrize("text", ["20", "20/s", "20MB", "20Mb/s", "20mb/s", "20M/s", "-1MB/s", "20MiB/d", "20XB/s"])
def test_bandwidth_that_cannot_be_understood(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--limit-bandwidth .* cannot be used; write bytes per second"):
        Limits.parse(bandwidth=text)


@pytest.mark.parametrize("text", ["1.5", "-1", "few", "1/s"])
def test_transfers_that_cannot_be_understood(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--limit-inflight"):
        Limits.parse(inflight=text)


@given(st.floats(0, 1e12), st.floats(0, 1e15), st.integers(0, 10**9))
def test_the_ledger_returns_what_was_stored(requests: float, bandwidth: float, inflight: int) -> None:
    limits = Limits(requests, bandwidth, inflight)
    assert Limits.loads(limits.dumps()) == limits
