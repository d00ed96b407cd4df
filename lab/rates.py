"""How tests of rates measure: from instants that may be late, since a process waits for its processor, and are never early."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import redis


def steady_rate(instants: Iterable[float], each: float = 1.0) -> float:
    """At what rate shares of equal size were given out.

    Args:
        instants: when each share was used, in seconds.
        each: the size of one.
    """
    return steady_rate_of([(number * each, instant) for number, instant in enumerate(sorted(instants))])


def steady_rate_of(points: Sequence[tuple[float, float]]) -> float:
    """The rate of an amount that grows, measured between the point of the first third and that of the last third which are the least late.

    Args:
        points: the amount up to an instant, and the instant, in seconds; in order.
    """
    (first, begin), (last, end) = points[0], points[-1]
    average = (last - first) / (end - begin)
    third = len(points) // 3

    def lateness(point: tuple[float, float]) -> float:
        amount, instant = point
        return instant - amount / average

    one, other = min(points[:third], key=lateness), min(points[-third:], key=lateness)
    return (other[0] - one[0]) / (other[1] - one[1])


def assert_within(rate: float, limit: float, tolerance: float = 0.05) -> None:
    """Fail if a rate is above its limit, or so far below it that the limit was not what held it back: on a busy machine a share that was
    not taken in time is lost, while a limit that is divided wrongly is wrong by a factor of two at least.

    Args:
        rate: as it was measured.
        limit: in the same unit.
        tolerance: of the measurement, as a part of the limit.

    Raises:
        AssertionError: it is.
    """
    assert 0.6 * limit < rate <= (1 + tolerance) * limit, f"{rate:.5g} under a limit of {limit:.5g}"


def age_last_cut(client: redis.Redis, mirror: str, seconds: float) -> None:
    """Move the time at which a target demanded fewer requests back by some seconds."""
    name = f"autosync:{{{mirror}}}:mirror"
    found = client.hget(name, "slow")
    assert isinstance(found, bytes), "it has demanded no fewer"
    slow, before, instant = found.decode().split(" ")
    client.hset(name, "slow", f"{slow} {before} {float(instant) - seconds * 1e6:.0f}")
