"""The page and the plot, made from the results in JSON lines. The newest run of each work counts."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: One line of results: run, date, scale, work, title, unit, tool, round, machine, versions; and an WorkResult's fields, or an error.
Line = dict[str, Any]

_OURS = "autosync"
#: The longest line of the page, in characters; `lab/line_lengths.py` checks it.
_WIDTH = 140


class Results:
    """The newest run of each work.

    Args:
        lines: of any runs; those of one work in the order in which they were written.
        order: the order of works on the page; others come last.
    """

    def __init__(self, lines: Iterable[Line], order: Sequence[str] = ()) -> None:
        self.works: dict[str, list[Line]] = {}
        for line in sorted(lines, key=lambda line: order.index(line["work"]) if line["work"] in order else len(order)):
            values = self.works.setdefault(line["work"], [])
            if values and values[0]["run"] != line["run"]:
                values.clear()
            values.append(line)

    def tools(self, work: str) -> list[str]:
        """The tools of a work, in the order in which they ran."""
        return list(dict.fromkeys(line["tool"] for line in self.works.get(work, ())))

    def good(self, work: str, tool: str) -> list[Line]:
        """The runs of a tool that did the work."""
        return [line for line in self.works.get(work, ()) if line["tool"] == tool and not line.get("error")]

    def error(self, work: str, tool: str) -> str:
        """Why a tool has no figure, or the error of one of its runs; "" for none."""
        return next((line["error"] for line in self.works.get(work, ()) if line["tool"] == tool and line.get("error")), "")

    def seconds(self, work: str, tool: str) -> float | None:
        """Median seconds; None: no run did the work."""
        return _median(line["seconds"] for line in self.good(work, tool))

    def each(self, work: str, tool: str) -> float | None:
        """Median seconds for one unit of the work."""
        return _median(line["seconds"] / line["count"] for line in self.good(work, tool))

    def ratio(self, work: str, tool: str) -> float | None:
        """How many times the seconds of the work's first tool this one takes, for one unit."""
        tools = self.tools(work)
        ours, theirs = self.each(work, tools[0]) if tools else None, self.each(work, tool)
        return theirs / ours if ours and theirs else None

    def figure(self, work: str, tool: str, name: str) -> float | None:
        """Median of a figure."""
        return _median(line["figures"][name] for line in self.good(work, tool) if name in line["figures"])

    def peaks(self, work: str, tool: str) -> dict[str, tuple[int, float]]:
        """The number of processes of each name, and the median over the runs of their largest peak, in bytes."""
        found: dict[str, tuple[int, list[int]]] = {}
        for line in self.good(work, tool):
            for name in {process["name"] for process in line["processes"]}:
                peaks = [process["peak"] for process in line["processes"] if process["name"] == name]
                number, values = found.get(name, (0, []))
                found[name] = max(number, len(peaks)), [*values, max(peaks)]
        return {name: (number, statistics.median(peaks)) for name, (number, peaks) in found.items()}


def load(directory: Path, scale: float, order: Sequence[str] = ()) -> Results:
    """Read all lines of one scale; `order` as of Results."""
    lines = [json.loads(line) for file in sorted(directory.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
    return Results((line for line in lines if line["scale"] == scale), order)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


# Goals


@dataclass(frozen=True)
class Verdict:
    """How far a goal was reached, in words and as a ratio to the goal (1.0 and more: reached)."""

    reached: str
    ratio: float


@dataclass(frozen=True)
class Goal:
    """A goal: its work, its words, and the function that returns the verdict (None: not measured)."""

    work: str
    words: str
    judge: Callable[[Results], Verdict | None]


def _faster(work: str, peer: str, goal: float) -> Goal:
    def judge(results: Results) -> Verdict | None:
        ratio = results.ratio(work, peer)
        return Verdict(f"{ratio:.2f} x", ratio / goal) if ratio else None

    words = f"not slower than {peer}" if goal == 1 else f"{goal:g} x faster than {peer}"
    return Goal(work, words, judge)


def _light(work: str, megabytes: float) -> Goal:
    def judge(results: Results) -> Verdict | None:
        peaks = results.peaks(work, _OURS)
        if not peaks:
            return None
        name, (_, peak) = max(peaks.items(), key=lambda item: item[1][1])
        return Verdict(f"{peak / 1e6:.0f} MB ({name})", megabytes * 1e6 / peak)

    return Goal(work, f"no process above {megabytes:g} MB", judge)


def _below(work: str, words: str, figure: str, most: float, unit: str) -> Goal:
    def judge(results: Results) -> Verdict | None:
        found = results.figure(work, _OURS, figure)
        return Verdict(f"{found:.3g} {unit}", most / max(found, 1e-9)) if found is not None else None

    return Goal(work, words, judge)


def _median_event(results: Results) -> Verdict | None:
    ours, theirs = results.seconds("event", _OURS), results.seconds("event", "mobius3")
    return Verdict(f"{1000 * ours:.1f} ms, mobius3 {1000 * theirs:.1f} ms", theirs / ours) if ours and theirs else None


def _burst_rate(results: Results) -> Verdict | None:
    burst, bulk = results.each("burst", _OURS), results.each("small", _OURS)
    return Verdict(f"{1 / burst:,.0f} files/s, in bulk {1 / bulk:,.0f}; all complete", bulk / burst) if burst and bulk else None


def _placed(results: Results) -> Verdict | None:
    seconds = results.seconds("directories", _OURS)
    return Verdict(f"{seconds:.1f} s", 10 / seconds) if seconds else None


def _at_rest(results: Results) -> Verdict | None:
    runs = results.good("directories", _OURS)
    if not runs:
        return None
    shares = [
        sum(value for name, value in line["figures"].items() if name.startswith("CPU at rest")) / line["figures"]["seconds at rest"]
        for line in runs
    ]
    share = statistics.median(shares)
    return Verdict(f"{100 * share:.1f} % of a core, all processes together", 0.01 / max(share, 1e-6))


def _flat(results: Results) -> Verdict | None:
    grown = [results.figure("backlog", _OURS, f"{process}: growth after a tenth, MB") for process in ("broker", "feed", "worker")]
    values = [one for one in grown if one is not None]
    return Verdict(f"at most {max(values):.1f} MB", 5 / max(*values, 1e-6)) if values else None


def _fleet(boxes: int) -> Goal:
    def judge(results: Results) -> Verdict | None:
        one, more = results.each("fleet", "1 worker"), results.each("fleet", f"{boxes} workers")
        return Verdict(f"{one / more / boxes:.2f} of the ideal", one / more / boxes / 0.9) if one and more else None

    return Goal("fleet", f"{boxes} workers: 0.9 of {boxes} times one worker's throughput", judge)


def _near_the_limit(results: Results) -> Verdict | None:
    figures = [results.figure("limits", tool, "off the limit, %") for tool in results.tools("limits")]
    values = [figure for figure in figures if figure is not None]
    return Verdict(f"{max(values):.1f} % off", 5 / max(*values, 1e-6)) if values else None


GOALS: Sequence[Goal] = (
    _faster("small", "s5cmd cp", 2),
    _faster("small", "rclone copy", 5),
    _faster("latency", "s5cmd cp", 1),
    _faster("unchanged", "rclone sync", 1.5),
    _faster("unchanged", "s5cmd sync", 7),
    _light("million", 150),
    _faster("large", "s5cmd cp", 1.3),
    _light("large", 200),
    _faster("delete", "s5cmd rm", 1),
    _faster("delete", "s5cmd sync --delete", 1),
    Goal("event", "median not above that of mobius3", _median_event),
    _below("event", "99th percentile under 20 ms", "99th percentile, ms", 20, "ms"),
    Goal("burst", "at the bulk rate, nothing lost", _burst_rate),
    Goal("directories", "watched in under 10 s", _placed),
    _below("directories", "under 1 KB of resident memory each", "bytes a directory", 1000, "bytes"),
    Goal("directories", "no CPU at rest (taken as: under 1 % of a core)", _at_rest),
    Goal("backlog", "broker and processes stay flat (taken as: grow by less than 5 MB after the first tenth)", _flat),
    _below("overtaking", "sent within 2 s, before the backlog", "saved meanwhile, s", 2, "s"),
    _fleet(2),
    _fleet(4),
    Goal("limits", "the rate of the fleet within 5 % of the limit, from 1 to 8 workers (the farthest)", _near_the_limit),
)


# The page


def page(results: Results, plot: str, limits: str = "") -> str:
    """The page in Markdown. `plot` is the file name of the picture, and `limits` the text about where the time goes."""
    newest = max((lines[0] for lines in results.works.values()), key=lambda line: str(line["run"]), default=None)
    if newest is None:
        return "# Performance\n\nNothing was measured yet: `make bench` does it.\n"
    machine, versions = newest["machine"], newest["versions"]
    scale = newest["scale"]
    parts = [
        "# Performance",
        "`make bench` writes this page: each tool does the same work in one run, in turn, several times; the figures are medians. A run "
        "counts all of a tool's processes and its start, for autosync the broker and the workers too; what it left in the bucket is "
        "checked after each. The S3 side is `benchmarks/s3server.py`, which keeps no content, so it is the client that is measured; it "
        "runs on the same processors. `benchmarks/peers.py` shows how each tool was called.",
        *([f"**A quick try at {scale:g} of the sizes: start-up is most of it, and the goals do not apply.**"] if scale != 1 else []),
        f"{newest['date']}, {machine['cores']} cores ({machine['processor']}), {machine['memory']}, Linux {machine['kernel']}; trees on "
        f"{machine['trees']}, autosync's state on {machine['state']}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "## Goals",
        _table(["work", "goal", "reached", "reached / goal"], [_goal_row(goal, results) for goal in GOALS]),
    ]
    if limits:
        parts += ["## Where the time goes", limits.strip()]
    if plot:
        parts.append(f"![Seconds of each tool, as a multiple of autosync's]({plot})")
    for name, lines in results.works.items():
        parts += [f"## {name}", lines[0]["title"] + "." + _other_date(lines[0], newest), _work_table(name, results)]
    return "\n\n".join(part if part.startswith(("|", "#", "!")) or part == limits.strip() else _wrapped(part) for part in parts) + "\n"


def _wrapped(text: str, indent: str = "") -> str:
    """Text in lines of up to `_WIDTH` characters; `indent` is for all lines but the first."""
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _goal_row(goal: Goal, results: Results) -> list[str]:
    verdict = goal.judge(results)
    if verdict is None:
        return [goal.work, goal.words, "not measured", ""]
    text = f"{verdict.ratio:.2f}" if verdict.ratio < 100 else "> 100"
    return [goal.work, goal.words, verdict.reached, text if verdict.ratio >= 1 else f"**{text}: not reached**"]


def _other_date(line: Line, newest: Line) -> str:
    return "" if line["run"] == newest["run"] else f" Measured {line['date']}, autosync {line['versions']['autosync']}."


def _work_table(work: str, results: Results) -> str:
    tools = results.tools(work)
    runs = [line for tool in tools for line in results.good(work, tool)]
    figures = list(dict.fromkeys(name for line in runs for name in line["figures"]))
    unit = results.works[work][0]["unit"]
    many = f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"
    head = ["tool", many, "seconds (least to most)", f"µs a {unit}", f"x {tools[0]}", "CPU s", "server's CPU s"]
    return f"{_table(head, [_work_row(work, tool, results) for tool in tools])}\n\n{_notes(work, results, figures)}".strip()


def _notes(work: str, results: Results, figures: Sequence[str]) -> str:
    """A list with a line for each tool: the peak memory of its processes, and the figures of the work."""
    lines = []
    for tool in results.tools(work):
        peaks = [_peak(name, number, peak) for name, (number, peak) in results.peaks(work, tool).items()]
        found = [f"{name}: {_brief(value)}" for name in figures if (value := results.figure(work, tool, name)) is not None]
        notes = [*([f"peak memory, MB: {', '.join(peaks)}"] if peaks else []), *found]
        if notes:
            lines.append(_wrapped(f"- {tool}: {'; '.join(notes)}", "  "))
    return "\n".join(lines)


def _work_row(work: str, tool: str, results: Results) -> list[str]:
    runs, error = results.good(work, tool), results.error(work, tool)
    if not runs:
        return [tool, "", error, "", "", "", ""]
    seconds = sorted(line["seconds"] for line in runs)
    ratio = results.ratio(work, tool)
    span = f"{_brief(statistics.median(seconds))} ({_brief(seconds[0])} to {_brief(seconds[-1])})"
    return [
        tool,
        f"{runs[0]['count']:,}",
        f"{span}; a run failed: {error}" if error else span,
        f"{1e6 * (results.each(work, tool) or 0):,.0f}",
        f"{ratio:.2f}" if ratio else "",
        _brief(statistics.median(line["cpu"] for line in runs)),
        _brief(statistics.median(line["server_cpu"] for line in runs)),
    ]


def _peak(name: str, number: int, peak: float) -> str:
    """The peak of a kind of process; "?" if the process ended before it could be measured."""
    return f"{name}{f' ({number})' if number > 1 else ''} {f'{peak / 1e6:.0f}' if peak else '?'}"


def _brief(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines)


# The plot


def draw(results: Results, file: Path) -> None:
    """A bar for each tool and work: its seconds as a multiple of autosync's, on a logarithmic axis. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "autosync"
    from matplotlib import pyplot

    bars = [
        (work, tool, ratio)
        for work in results.works
        if results.tools(work)[0] == _OURS
        for tool in results.tools(work)[1:]
        if (ratio := results.ratio(work, tool))
    ]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.32 * max(len(bars), 1)))
    for at, (_, _, ratio) in enumerate(bars):
        axes.barh(at, ratio - 1, left=1, color="#2a7f62" if ratio >= 1 else "#b4452f")
        axes.annotate(f"{ratio:.2f}", (ratio, at), xytext=(4 if ratio >= 1 else -4, 0), textcoords="offset points", va="center",
                      ha="left" if ratio >= 1 else "right", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(bars)), [f"{work}: {tool}" for work, tool, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.margins(x=0.15)
    axes.set_xlabel("seconds for one unit of the work, as a multiple of autosync's (right of 1: slower than autosync)", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
