"""Metrics for Prometheus. One exporter serves all mirrors of a broker, since all figures are in their ledgers.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ...errors import BrokerError
from .mirrors import MirrorHandle
from .status import status_of

_MS = 1000.0
#: The bounds of store_results.lua, in ms.
BOUNDS = (10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000, 600_000, 3_600_000)

#: Name, description, and the function that reads the value from the result of `status_of`.
_GAUGES: tuple[tuple[str, str, Callable[[dict[str, Any]], Any]], ...] = (
    ("autosync_lag_seconds", "Age of the oldest change that is not in the target; 0 if there is none.", lambda found: found["lag"]),
    ("autosync_dirty_keys", "Keys whose objects in the target may be wrong.", lambda found: found["dirty"]),
    ("autosync_claimed_keys", "Keys that workers have claimed, or that wait for their next try.", lambda found: found["claimed"]),
    ("autosync_disputed_keys", "Keys at whose paths a worker does not see what the file host saw.", lambda found: found["disputed"]),
    ("autosync_failed_keys", "Keys in the failed list.", lambda found: found["failed"]),
    (
        "autosync_withheld_deletions",
        "Deletions that are withheld: beyond --max-delete, or of a mirror that is not accepted.",
        lambda found: found["withheld_deletions"],
    ),
    (
        "autosync_roots_in_doubt",
        "Roots and mount points that are not what they were, so that keys below them are kept.",
        lambda found: len(found["roots_in_doubt"]),
    ),
    ("autosync_scan_failed", "Whether the last scan has failed.", lambda found: int(found["scan_error"] is not None)),
    ("autosync_skipped_paths", "Paths that are not sent.", lambda found: found["skipped"]),
    ("autosync_queued_messages", "Messages that wait for workers.", lambda found: found["messages"]),
    ("autosync_watcher_up", "Whether a watcher runs for the mirror.", lambda found: int(found["watched_by"] is not None)),
    ("autosync_paused", "Whether it is paused.", lambda found: int(found["paused"])),
    (
        "autosync_last_in_sync_timestamp_seconds",
        "Start of the last scan after which no key was dirty.",
        lambda found: found["last_in_sync"],
    ),
)
#: Figures that the ledger counts, and figures from the watcher: name in the ledger, name and description of the metric.
_COUNTERS = (
    ("files", "autosync_files", "Files sent."),
    ("bytes", "autosync_bytes", "Bytes of them."),
    ("deleted", "autosync_deleted", "Keys deleted."),
    ("failures", "autosync_failures", "Entries made in the failed list."),
)
_WATCHER_GAUGES = (
    ("watches", "autosync_watches", "Directories that are watched."),
    ("unwatched", "autosync_unwatched", "Directories that the kernel refused to watch, or that may not be read."),
    ("looks", "autosync_scans", "Scans begun since the watcher was started."),
)


class MirrorCollector(Collector):
    """The metrics of all mirrors.

    Args:
        find: returns the mirrors, maybe none; raises `BrokerError` if the broker does not respond. Called for each scrape.
    """

    def __init__(self, find: Callable[[], list[MirrorHandle]]) -> None:
        self._find = find

    def describe(self) -> list[Metric]:
        """No descriptions: they would need a broker that responds."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The current metrics; `autosync_up` says whether the broker responds."""
        try:
            found = [(one.name, status_of(one), one.ledger.stats.counters()) for one in self._find()]
        except BrokerError:
            yield GaugeMetricFamily("autosync_up", "Whether the broker responds.", 0)
            return
        yield GaugeMetricFamily("autosync_up", "Whether the broker responds.", 1)
        for metric, about, value_of in _GAUGES:
            gauge = GaugeMetricFamily(metric, about, labels=["mirror"])
            for name, status, _ in found:
                value = value_of(status)
                if value is not None:
                    gauge.add_metric([name], value)
            yield gauge
        for counter_or_gauge, rows in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _WATCHER_GAUGES)):
            for field, metric, about in rows:
                family = counter_or_gauge(metric, about, labels=["mirror"])
                for name, _, counted in found:
                    if field in counted:
                        family.add_metric([name], counted[field])
                yield family
        claimed = GaugeMetricFamily("autosync_worker_keys", "Keys that a worker has claimed.", labels=["mirror", "worker"])
        for name, status, _ in found:
            for worker in status["workers"]:
                claimed.add_metric([name, worker["worker"]], worker["keys"])
        yield claimed
        yield _latency([(name, counted) for name, _, counted in found])


def _latency(found: list[tuple[str, dict[str, int]]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "autosync_latency_seconds", "Time from the change of a file to the change of its object.", labels=["mirror"]
    )
    for name, counted in found:
        buckets, total = [], 0
        for bound in BOUNDS:
            total += counted.get(f"within:{bound}", 0)
            buckets.append((str(bound / _MS), total))
        buckets.append(("+Inf", total + counted.get("within:inf", 0)))
        family.add_metric([name], buckets, counted.get("took", 0) / _MS)
    return family
