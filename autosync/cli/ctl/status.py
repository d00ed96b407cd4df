"""The status of mirrors, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ...errors import StartError
from ...ledger import Facts, Failure, HistoryEntry, worker_of
from ...model.limits import Limits
from ...model.mirror import Mirror
from ...model.skipped import SkippedList
from ...model.text import human_size, printable
from ...state import pending, root_memory
from .mirrors import MirrorHandle

#: Figures that need attention if they are not 0.
_PROBLEMS = {"failed": "failed", "withheld_deletions": "deletions withheld", "skipped": "skipped", "unwatched": "unwatched"}
#: The most entries of a key's history that are printed.
_MAX_HISTORY = 10
#: The most skipped paths that are printed.
_MAX_SKIPPED = 10
#: From how many seconds on a duration is printed in minutes, and in hours.
_MINUTES_FROM, _HOURS_FROM = 120.0, 7200.0


def status_of(one: MirrorHandle) -> dict[str, Any]:
    """The status of a mirror as plain values. Times are in seconds since the epoch, `lag` in seconds. `definition_error` is the reason if
    this version cannot read the definition; then `target` is None, and `sources` are empty."""
    now = one.ledger.stats.read()
    in_sync = one.ledger.sync_state.last_in_sync()
    limits = one.ledger.limits.read()
    counted = one.ledger.stats.counters()
    mirror: Mirror | None = None
    definition_error: str | None = None
    try:
        mirror = one.mirror()
    except StartError as error:
        definition_error = str(error)
    queue = mirror.queue if mirror else one.ledger.definition.queue() or None
    skipped = one.ledger.sync_state.skipped()
    return {
        "mirror": one.name,
        "target": target_of(mirror) if mirror else None,
        "sources": [source.root for source in mirror.sources] if mirror else [],
        "queue": queue,
        "watched_by": watcher_of(now.holder),
        "paused": now.paused,
        "dirty": now.dirty,
        "claimed": now.claimed,
        "disputed": now.disputed,
        "messages": one.ledger.queues.count_waiting(queue) if queue else None,
        "lag": now.lag if now.dirty else 0.0,
        "failed": now.failed,
        "denied": now.denied,
        "limits": {"requests": limits.requests, "bandwidth": limits.bandwidth, "inflight": limits.inflight},
        "accepted": one.ledger.sync_state.accepted(),
        "withheld_deletions": one.ledger.sync_state.withheld_deletions(),
        "pending": [asdict(item) for item in pending.pending_in_ledger(one.ledger.sync_state.pending())],
        "skipped": skipped.total,
        "skipped_paths": dict(skipped.reasons),
        "files": now.files,
        "bytes": now.bytes,
        "deleted": now.deleted,
        "watches": counted.get("watches", 0),
        "unwatched": counted.get("unwatched", 0),
        "scans": counted.get("looks", 0),
        "last_in_sync": in_sync[1] if in_sync else None,
        "definition_error": definition_error,
        "unreadable_by": one.ledger.definition.unreadable(),
        "roots_in_doubt": root_memory.open_doubts(one.ledger),
        "scan_error": one.ledger.sync_state.scan_error() or None,
        "unseen_by": one.ledger.disputes.unseen.read(),
        "workers": [
            {"worker": worker, "keys": len(keys), "one_of_them": keys[0]}
            for worker, keys in sorted(one.ledger.key_states.claimed_by_worker().items())
        ],
    }


def watcher_of(holder: str) -> dict[str, Any] | None:
    """The owner of the watcher's lock: `host`, `pid`, `started` and others; None if there is none."""
    try:
        found = json.loads(holder) if holder else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else None


def target_of(mirror: Mirror) -> str:
    """Actor, container and prefix of a target, in one text."""
    return f"{mirror.actor}:{mirror.settings.get('target_container') or ''}/{mirror.target_prefix}"


def state_of(found: dict[str, Any]) -> str:
    """The state in a word or two."""
    if found["watched_by"] is None:
        return "not watched"
    if found["paused"]:
        return "paused"
    return "syncing" if found["dirty"] else "in sync"


def lines(found: dict[str, Any], before: dict[str, Any] | None = None, seconds: float = 0.0) -> list[str]:
    """The status of a mirror as lines for people.

    Args:
        found: result of `status_of`.
        before: result of `status_of` some time ago, for the rate.
        seconds: between the two.
    """
    watcher = found["watched_by"]
    rate = f", {human_size((found['bytes'] - before['bytes']) / seconds)}/s" if before and seconds else ""
    ends = f"{', '.join(map(printable, found['sources']))} -> {found['target']}"
    text = [
        f"{found['mirror']}: {state_of(found)}",
        f"  attention   {found['definition_error']}" if found["definition_error"] else f"  {ends}",
        f"  watched by  {'process {} on {}'.format(watcher.get('pid'), watcher.get('host')) if watcher else 'nobody'}",
        f"  waiting     {found['dirty']} keys, {found['claimed']} of them claimed or waiting for their next try; lag {found['lag']:.1f} s",
        f"  done        {found['files']} files ({human_size(found['bytes'])}{rate}), {found['deleted']} deleted",
    ]
    if found["disputed"]:
        waits = "workers do not see there what the file host sees" if watcher else "not watched, so they wait for the next scan"
        text.append(f"  disputed    {found['disputed']} of them: {waits}")
    if found["denied"]:
        again = "when their permissions change, else after half a minute up to an hour" if watcher else "at the next start"
        text.append(f"  denied      {found['denied']} failed keys: their files may not be read; they are tried again {again}")
    limits = Limits(**found["limits"])
    if limits != Limits():
        text.append(f"  limits      {limits.words()}")
    if watcher:
        text.append(f"  watches     {found['watches']} directories; {found['scans']} scans since it was started")
    skipped = SkippedList(found["skipped_paths"], found["skipped"] - len(found["skipped_paths"]))
    wrong = [(skipped.total_text() if name == "skipped" and found[name] else found[name], words) for name, words in _PROBLEMS.items()]
    if found["withheld_deletions"] and not found["accepted"]:
        text.append("  accepted    no: keys that the target held before the mirror are kept; autosync-ctl accept deletes them")
    if any(count for count, _ in wrong):
        text.append(f"  attention   {', '.join(f'{count} {what}' for count, what in wrong if count)}")
    text += [f"  waits       {one.text()}; see autosync-ctl accept" for one in map(pending.parse, found["pending"]) if one]
    text += _skipped_lines(skipped)
    unreadable = sorted(found["unreadable_by"].items())
    text += [f"  attention   worker {worker} cannot read the definition: {reason}" for worker, reason in unreadable]
    text += [f"  attention   {printable(path)} {what}; keys below it are kept" for path, what in found["roots_in_doubt"].items()]
    if found["scan_error"]:
        text.append(f"  attention   {printable(found['scan_error'])}; nothing is deleted by comparison until a scan succeeds")
    text += [f"  attention   worker {worker} {what}" for worker, what in sorted(found["unseen_by"].items())]
    text.append(f"  in sync     {_time_text(found['last_in_sync'])}: start of the last scan after which no key was dirty")
    text += [f"  {one['worker']:<11} {one['keys']} keys, {printable(one['one_of_them'])} is one" for one in found["workers"]]
    return text


def _skipped_lines(skipped: SkippedList) -> list[str]:
    listed = sorted(skipped.reasons.items())[:_MAX_SKIPPED]
    text = [f"  skipped     {printable(path)}: {printable(reason)}" for path, reason in listed]
    if skipped.total > len(listed):
        text.append(f"  and {'' if skipped.is_counted else 'at least '}{skipped.total - len(listed)} more")
    return text


def key_lines(
    key: str, facts: Facts, path: str | None, recent: Sequence[HistoryEntry], *, skipped: str = "", watched: bool = True
) -> list[str]:
    """The state of a key as lines for people.

    Args:
        key: the key.
        facts: its state in the ledger.
        path: the path of its file; None if no path in scope has this key.
        recent: its history, the newest first.
        skipped: why the file is not sent; "" if it is sent, or if there is none.
        watched: whether a watcher runs for the mirror.
    """
    text = [printable(key), f"  file        {printable(path) if path else 'none: no path in scope has this key'}"]
    if facts.dirty is None and facts.failure is None:
        text.append(f"  state       skipped: {skipped}" if skipped else "  state       equal")
    elif skipped:
        text.append(f"  skipped     {skipped}")
    if facts.dirty is None:
        text += ["  state       failed"] if facts.failure else []
    else:
        text.append(f"  changed     {_duration_text(facts.now - facts.dirty)} ago, and not in the target yet")
        if facts.owner:
            lease = _duration_text((facts.due or facts.now) - facts.now)
            text.append(f"  state       claimed by {worker_of(facts.owner)}; the claim ends in {lease} unless it is renewed")
        elif facts.dispute and not watched:
            text.append("  state       not watched: it waits until a watcher runs for the mirror")
        elif facts.due is not None:
            text.append(f"  state       waits for its next try, in {_duration_text(facts.due - facts.now)}")
        else:
            text.append("  state       waits in the queue")
        if facts.dispute:
            tries, confirmed = facts.dispute
            verdict = "has not checked it again yet" if confirmed is None else f"confirmed it {_duration_text(confirmed)} ago"
            text.append(f"  disputed    {tries} tries: workers do not see what the file host saw, which {verdict}")
        if facts.attempts:
            text.append(f"  tries       {facts.attempts} have failed")
        text.append(f"  seen as     {_hint_text(facts)}")
    if facts.uploads:
        text.append(f"  uploads     {facts.uploads} in parts may be open in the target")
    if facts.failure:
        failure = facts.failure
        text.append(f"  failed      {_time_text(failure.time)} after {failure.attempts} tries, at {failure.worker}: {failure.reason}")
        if failure.next_try is not None and facts.dirty is None:
            text.append(f"  next try    {next_try_text(failure, watched=watched)}")
    text += [f"  {_history_text(one):<11} {_time_text(one.time)} by {one.worker}" for one in recent[:_MAX_HISTORY]]
    return text


def next_try_text(failure: Failure, *, watched: bool) -> str:
    """When a denied key is tried again.

    Args:
        failure: its entry in the failed list.
        watched: whether a watcher runs for the mirror.
    """
    return f"when its permissions change, and at {_time_text(failure.next_try)}" if watched else "at the next start"


def _history_text(one: HistoryEntry) -> str:
    if one.what == "sent":
        return f"sent {human_size(one.number)}"
    if one.what == "disputed":
        return "not seen"
    return f"try {one.number} failed" if one.what in ("retry", "failed") else one.what


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows as aligned columns; the last column is not padded."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)] if texts else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + "  " + row[-1] for row in texts]


def _hint_text(facts: Facts) -> str:
    hint = facts.hint
    if hint is None or not hint.was_checked:
        return "not checked yet"
    return "gone" if hint.gone else f"{human_size(hint.size)}, changed {_time_text(hint.mtime_ns / 1e9)}"


def _time_text(seconds: float | None) -> str:
    return "none yet" if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _duration_text(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < _MINUTES_FROM:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < _HOURS_FROM else f"{seconds / 3600:.1f} h"
