"""Limits for one target: reads them from options, and from the line of text in the ledger."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigurationError

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
#: SI prefixes are powers of 1,000, and those with an i of 1,024 (IEC 80000-13). A small b would be a bit, and is refused.
_BYTES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_NONE = ("", "0", "none")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one target, for the whole fleet together. 0 is no limit.

    Attributes:
        requests: requests that change something, a second.
        bandwidth: bytes of content a second.
        inflight: transfers at once.
    """

    requests: float = 0.0
    bandwidth: float = 0.0
    inflight: int = 0

    @classmethod
    def parse(cls, requests: str | None = None, bandwidth: str | None = None, inflight: str | None = None) -> Limits:
        """Read the values of --limit-requests, --limit-bandwidth and --limit-inflight.

        Raises:
            ConfigurationError: a value is malformed.
        """
        return cls(
            _read("--limit-requests", requests, "", {"": 1}, "write a number per second, minute or hour: 100/s, 6/m, 500/h, or none"),
            _read("--limit-bandwidth", bandwidth, "[A-Za-z]+", _BYTES, "write bytes per second: 512kB/s, 20MB/s, 1GiB/s, or none"),
            _count("--limit-inflight", inflight),
        )

    def words(self) -> str:
        """The limits in the form of the options."""
        requests = f"{self.requests:g}/s" if self.requests else "none"
        bandwidth = f"{self.bandwidth / 1e6:g}MB/s" if self.bandwidth else "none"
        return f"requests {requests}, bandwidth {bandwidth}, inflight {self.inflight or 'none'}"

    def dumps(self) -> str:
        """One line of text for the ledger."""
        return f"{self.requests!r} {self.bandwidth!r} {self.inflight}"

    @classmethod
    def loads(cls, text: str) -> Limits:
        """The limits that `dumps` wrote."""
        requests, bandwidth, inflight = text.split(" ")
        return cls(float(requests), float(bandwidth), int(inflight))


def _read(option: str, text: str | None, unit: str, units: dict[str, int], cure: str) -> float:
    """A rate in units a second."""
    text = (text or "").strip()
    if text.lower() in _NONE:
        return 0.0
    match = re.fullmatch(rf"(\d{{1,15}}(?:\.\d{{1,15}})?) ?({unit})/(s|m|min|h)", text, re.ASCII)
    if match is None or match[2] not in units:
        raise ConfigurationError(f"{option} {text!r} cannot be used", cure)
    return float(match[1]) * units[match[2]] / _SECONDS[match[3]]


def parse_bytes(option: str, text: str | None) -> int | None:
    """Parse a number of bytes with a unit.

    Args:
        option: the option's name, for the error.
        text: such as 512kB, 20MB or 1GiB.

    Returns:
        The number; None for none.

    Raises:
        ConfigurationError: the text is something else.
    """
    text = (text or "").strip()
    if text.lower() in _NONE:
        return None
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z]+)", text, re.ASCII)
    if match is None or match[2] not in _BYTES:
        raise ConfigurationError(f"{option} {text!r} cannot be used", "write bytes with a unit: 1B, 512kB, 20MB, 1GiB, or none")
    size = int(float(match[1]) * _BYTES[match[2]])
    if not size:
        raise ConfigurationError(f"{option} {text!r} cannot be used", "write at least 1B, or none")
    return size


def _count(option: str, text: str | None) -> int:
    text = (text or "").strip()
    if text.lower() in _NONE:
        return 0
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ConfigurationError(f"{option} {text!r} cannot be used", "write a number of transfers, or none")
    return int(text)
