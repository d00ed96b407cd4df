"""What Prometheus is told: one exporter for all mirrors of a broker, since all that counts stands in their ledgers.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ...errors import BrokerError
from .mirrors import MirrorHandle
from .status import standing

_MS = 1000.0
#: The bounds of done.lua, in ms.
BOUNDS = (10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000, 600_000, 3_600_000)

#: Name, what it is, and how it is taken from `standing`.
_GAUGES: tuple[tuple[str, str, Callable[[dict[str, Any]], Any]], ...] = (
    ("autosync_lag_seconds", "Age of the oldest change that is not in the target; 0 if there is none.", lambda found: found["lag"]),
    ("autosync_dirty_keys", "Keys that are not known to be right in the target.", lambda found: found["dirty"]),
    ("autosync_claimed_keys", "Keys that workers hold, or that wait for their next try.", lambda found: found["claimed"]),
    ("autosync_failed_keys", "Keys that were given up.", lambda found: found["failed"]),
    (
        "autosync_withheld_deletions",
        "Deletions that are withheld: beyond --max-delete, or of a mirror that is not accepted.",
        lambda found: found["withheld_deletions"],
    ),
    ("autosync_skipped_paths", "What is not sent, by its nature.", lambda found: found["skipped"]),
    ("autosync_queued_messages", "Messages that wait for workers.", lambda found: found["messages"]),
    ("autosync_watcher_up", "Whether a watcher runs for the mirror.", lambda found: int(found["watched_by"] is not None)),
    ("autosync_paused", "Whether it is paused.", lambda found: int(found["paused"])),
    (
        "autosync_last_in_sync_timestamp_seconds",
        "When the last scan began after which all was right.",
        lambda found: found["last_in_sync"],
    ),
)
#: Those that the ledger counts or the watcher tells, by their names there.
_COUNTERS = (
    ("files", "autosync_files", "Files sent."),
    ("bytes", "autosync_bytes", "Bytes of them."),
    ("deleted", "autosync_deleted", "Keys deleted."),
    ("failures", "autosync_failures", "Keys given up, each time."),
)
_TOLD = (
    ("watches", "autosync_watches", "Directories that are watched."),
    ("unwatched", "autosync_unwatched", "Directories that the kernel refused to watch."),
    ("looks", "autosync_scans", "Scans begun since the watcher was started."),
)


class Mirrors(Collector):
    """All mirrors that are reached, as metrics.

    Args:
        reached: finds them, anew each time; [] where there is none, and `BrokerError` where that cannot be known.
    """

    def __init__(self, reached: Callable[[], list[MirrorHandle]]) -> None:
        self._reached = reached

    def describe(self) -> list[Metric]:
        """Nothing: what there is to be told is found out when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What there is to be told now; `autosync_up` says whether the broker has answered."""
        try:
            found = [(one.name, standing(one), one.ledger.stats.counters()) for one in self._reached()]
        except BrokerError:
            yield GaugeMetricFamily("autosync_up", "Whether the broker answers.", 0)
            return
        yield GaugeMetricFamily("autosync_up", "Whether the broker answers.", 1)
        for metric, about, take in _GAUGES:
            gauge = GaugeMetricFamily(metric, about, labels=["mirror"])
            for name, stands, _ in found:
                value = take(stands)
                if value is not None:
                    gauge.add_metric([name], value)
            yield gauge
        for counter_or_gauge, rows in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _TOLD)):
            for field, metric, about in rows:
                family = counter_or_gauge(metric, about, labels=["mirror"])
                for name, _, counted in found:
                    if field in counted:
                        family.add_metric([name], counted[field])
                yield family
        in_hand = GaugeMetricFamily("autosync_worker_keys", "Keys that a worker holds.", labels=["mirror", "worker"])
        for name, stands, _ in found:
            for worker in stands["workers"]:
                in_hand.add_metric([name, worker["worker"]], worker["keys"])
        yield in_hand
        yield _latency([(name, counted) for name, _, counted in found])


def _latency(found: list[tuple[str, dict[str, int]]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "autosync_latency_seconds", "From the moment when a change was seen to the moment when the target was right.", labels=["mirror"]
    )
    for name, counted in found:
        buckets, total = [], 0
        for bound in BOUNDS:
            total += counted.get(f"within:{bound}", 0)
            buckets.append((str(bound / _MS), total))
        buckets.append(("+Inf", total + counted.get("within:inf", 0)))
        family.add_metric([name], buckets, counted.get("took", 0) / _MS)
    return family
