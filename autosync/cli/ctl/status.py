"""How mirrors stand, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from ...errors import StartError
from ...ledger import Facts, HistoryEntry, worker_of
from ...model.limits import Limits
from ...model.mirror import Mirror
from ...model.text import human_size, printable
from .mirrors import MirrorHandle

#: What needs attention where it is not 0.
_WRONG = {"failed": "failed", "withheld_deletions": "deletions withheld", "skipped": "skipped", "unwatched": "unwatched"}
#: So much of what became of a key is shown.
_PAST_SHOWN = 10
#: From how many seconds on a time is told in minutes, and in hours.
_MINUTES_FROM, _HOURS_FROM = 120.0, 7200.0


def standing(one: MirrorHandle) -> dict[str, Any]:
    """What is known of a mirror as a whole, in plain values. Times are in seconds since the epoch, `lag` in seconds."""
    now = one.ledger.stats.read()
    cleared = one.ledger.sync_state.last_in_sync()
    limits = one.ledger.limits.read()
    counted = one.ledger.stats.counters()
    mirror: Mirror | None = None
    with suppress(StartError):
        mirror = one.mirror()
    return {
        "mirror": one.name,
        "target": target_of(mirror) if mirror else None,
        "sources": [source.root for source in mirror.sources] if mirror else [],
        "queue": mirror.queue if mirror else None,
        "watched_by": watcher_of(now.holder),
        "paused": now.paused,
        "dirty": now.dirty,
        "claimed": now.claimed,
        "messages": one.ledger.queues.count_waiting(mirror.queue) if mirror else None,
        "lag": now.lag if now.dirty else 0.0,
        "failed": now.failed,
        "limits": {"requests": limits.requests, "bandwidth": limits.bandwidth, "inflight": limits.inflight},
        "accepted": one.ledger.sync_state.accepted(),
        "withheld_deletions": one.ledger.sync_state.withheld_deletions(),
        "skipped": len(one.ledger.sync_state.skipped()),
        "files": now.files,
        "bytes": now.bytes,
        "deleted": now.deleted,
        "watches": counted.get("watches", 0),
        "unwatched": counted.get("unwatched", 0),
        "scans": counted.get("looks", 0),
        "last_in_sync": cleared[1] if cleared else None,
        "unreadable_by": one.ledger.definition.unreadable(),
        "workers": [
            {"worker": worker, "keys": len(keys), "one_of_them": keys[0]}
            for worker, keys in sorted(one.ledger.key_states.claimed_by_worker().items())
        ],
    }


def watcher_of(holder: str) -> dict[str, Any] | None:
    """Who has the watcher's place: `host`, `pid`, `started` and the like; None if nobody has."""
    try:
        found = json.loads(holder) if holder else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else None


def target_of(mirror: Mirror) -> str:
    """Actor, container and prefix, as people write a target."""
    return f"{mirror.actor}:{mirror.settings.get('target_container') or ''}/{mirror.target_prefix}"


def state_of(found: dict[str, Any]) -> str:
    """In a word or two."""
    if found["watched_by"] is None:
        return "not watched"
    if found["paused"]:
        return "paused"
    return "syncing" if found["dirty"] else "in sync"


def lines(found: dict[str, Any], before: dict[str, Any] | None = None, seconds: float = 0.0) -> list[str]:
    """What people read of `standing`.

    Args:
        found: as of now.
        before: as of `seconds` ago, for the speed.
        seconds: between the two.
    """
    watcher = found["watched_by"]
    speed = f", {human_size((found['bytes'] - before['bytes']) / seconds)}/s" if before and seconds else ""
    told = [
        f"{found['mirror']}: {state_of(found)}",
        f"  {', '.join(map(printable, found['sources'])) or '?'} -> {found['target'] or '?'}",
        f"  watched by  {'process {} on {}'.format(watcher.get('pid'), watcher.get('host')) if watcher else 'nobody'}",
        f"  waiting     {found['dirty']} keys, {found['claimed']} of them claimed or waiting for their next try; lag {found['lag']:.1f} s",
        f"  done        {found['files']} files ({human_size(found['bytes'])}{speed}), {found['deleted']} deleted",
    ]
    limits = Limits(**found["limits"])
    if limits != Limits():
        told.append(f"  limits      {limits.words()}")
    if watcher:
        told.append(f"  watches     {found['watches']} directories; {found['scans']} scans since it was started")
    wrong = [(found[name], words) for name, words in _WRONG.items()]
    if found["withheld_deletions"] and not found["accepted"]:
        told.append("  accepted    no: what the target held before this mirror is kept; autosync's option --accept-existing lets it go")
    if any(count for count, _ in wrong):
        told.append(f"  attention   {', '.join(f'{count} {what}' for count, what in wrong if count)}")
    unreadable = sorted(found["unreadable_by"].items())
    told += [f"  attention   worker {worker} cannot read the definition: {reason}" for worker, reason in unreadable]
    told.append(f"  in sync     {_moment(found['last_in_sync'])}: when the last scan began after which all was right")
    told += [f"  {one['worker']:<11} {one['keys']} keys, {printable(one['one_of_them'])} is one" for one in found["workers"]]
    return told


def why(key: str, facts: Facts, path: str | None, recent: Sequence[HistoryEntry]) -> list[str]:
    """What is known of a key, line by line; `recent`: what became of it lately, the last first."""
    told = [printable(key), f"  file        {printable(path) if path else 'none: no path in scope has this key'}"]
    if facts.dirty is None:
        told.append("  state       right, as far as is known" if facts.failure is None else "  state       given up")
    else:
        told.append(f"  changed     {_ago(facts.now - facts.dirty)} ago, and not in the target yet")
        if facts.owner:
            lease = _ago((facts.due or facts.now) - facts.now)
            told.append(f"  state       in hand of {worker_of(facts.owner)}, for {lease} without a word from it")
        elif facts.due is not None:
            told.append(f"  state       waits for its next try, in {_ago(facts.due - facts.now)}")
        else:
            told.append("  state       waits in the queue")
        if facts.attempts:
            told.append(f"  tries       {facts.attempts} have failed")
        told.append(f"  seen as     {_seen(facts)}")
    if facts.uploads:
        told.append(f"  uploads     {facts.uploads} in parts may be open in the target")
    if facts.failure:
        failure = facts.failure
        told.append(f"  failed      {_moment(failure.time)} after {failure.attempts} tries, at {failure.worker}: {failure.reason}")
    told += [f"  {_happened(one):<11} {_moment(one.time)} by {one.worker}" for one in recent[:_PAST_SHOWN]]
    return told


def _happened(one: HistoryEntry) -> str:
    if one.what == "sent":
        return f"sent {human_size(one.number)}"
    return f"try {one.number} failed" if one.what in ("retry", "failed") else one.what


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows as columns; the last one is as long as it likes."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)] if texts else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + "  " + row[-1] for row in texts]


def _seen(facts: Facts) -> str:
    hint = facts.hint
    if hint is None or not hint.was_checked:
        return "something that is to be looked at"
    return "gone" if hint.gone else f"{human_size(hint.size)}, changed {_moment(hint.mtime_ns / 1e9)}"


def _moment(seconds: float | None) -> str:
    return "none yet" if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < _MINUTES_FROM:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < _HOURS_FROM else f"{seconds / 3600:.1f} h"
