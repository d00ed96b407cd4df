"""Makes docs/flow.svg from docs/flow.txt: columns of boxes, and arrows between them.

`python -m lab.flow_picture` writes the picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

_DOCS = Path(__file__).parent.parent / "docs"
TEXT, PICTURE = _DOCS / "flow.txt", _DOCS / "flow.svg"

#: Sizes in pixels.
_LANE, _ROW, _BOX, _LINE, _TOP, _MARGIN, _BESIDE = 306, 112, 228, 17, 40, 12, 20
_STYLE = """
text { font: 13px sans-serif; fill: #222; text-anchor: middle }
.title { font-weight: bold }
.lane { fill: #f3f4f6 }
.box { fill: #ffffff; stroke: #4b5563 }
.arrow { fill: none; stroke: #2563eb; stroke-width: 1.5; marker-end: url(#head) }
.label { font-size: 12px; fill: #1d4ed8; paint-order: stroke; stroke: #f3f4f6; stroke-width: 5px }
"""


@dataclass
class _Box:
    """A box of the picture: the number of its lane, its row, and its lines of text."""

    lane: int
    row: int
    lines: list[str]

    @property
    def height(self) -> int:
        return _LINE * len(self.lines) + 16

    @property
    def x(self) -> int:
        return _MARGIN + _LANE * self.lane + _LANE // 2

    @property
    def y(self) -> int:
        return _TOP + _ROW * self.row - _ROW // 2


@dataclass
class _Flow:
    """What the text describes."""

    lanes: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, _Box] = field(default_factory=dict)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)


def picture(text: str) -> str:
    """Draw a flow.

    Args:
        text: as in docs/flow.txt.

    Returns:
        An SVG document.

    Raises:
        ValueError, KeyError: a line is not understood, or names what is not there.
    """
    flow = _parse(text)
    width = 2 * _MARGIN + _LANE * len(flow.lanes)
    height = _TOP + _ROW * max(box.row for box in flow.boxes.values()) + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 10 5 0 10z" fill="#2563eb"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, title in enumerate(flow.lanes.values()):
        left = _MARGIN + _LANE * number
        lines.append(f'<rect class="lane" x="{left + 4}" y="{_MARGIN}" width="{_LANE - 8}" height="{height - 2 * _MARGIN}" rx="8"/>')
        lines.append(_text(left + _LANE // 2, _MARGIN + 24, title, "title"))
    boxes = flow.boxes.values()
    lines += [_arrow(flow.boxes[start], flow.boxes[end], boxes) for start, end, _ in flow.arrows]
    for box in boxes:
        lines += _drawn(box)
    lines += [_label(flow.boxes[start], flow.boxes[end], label, boxes) for start, end, label in flow.arrows if label]
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(picture(TEXT.read_text()))


def _parse(text: str) -> _Flow:
    flow = _Flow()
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "lane":
            name, _, title = rest.partition(" ")
            flow.lanes[name] = title.strip()
        elif kind == "box":
            name, lane, row, title = rest.split(maxsplit=3)
            flow.boxes[name] = _Box(list(flow.lanes).index(lane), int(row), [part.strip() for part in title.split("|")])
        elif kind == "arrow":
            start, end, *label = rest.split(maxsplit=2)
            flow.arrows.append((start, end, label[0] if label else ""))
        elif line and kind != "#":
            raise ValueError(f"not understood: {line}")
    return flow


def _drawn(box: _Box) -> list[str]:
    top = box.y - box.height // 2
    frame = f'<rect class="box" x="{box.x - _BOX // 2}" y="{top}" width="{_BOX}" height="{box.height}" rx="5"/>'
    texts = [_text(box.x, top + _LINE * number + 20, line, "title" if not number else "") for number, line in enumerate(box.lines)]
    return [frame, *texts]


def _ends(start: _Box, end: _Box) -> tuple[int, int, int, int]:
    """Where an arrow begins and ends: at the sides of boxes in different lanes, else at the bottom or the top."""
    if start.lane == end.lane:
        down = 1 if end.row > start.row else -1
        return start.x, start.y + down * start.height // 2, end.x, end.y - down * end.height // 2
    right = 1 if end.lane > start.lane else -1
    return start.x + right * _BOX // 2, start.y, end.x - right * _BOX // 2, end.y


def _bend(start: _Box, end: _Box, boxes: Iterable[_Box]) -> int | None:
    """Where an arrow goes up or down beside the boxes that are between its ends; None if there are none."""
    rows = range(min(start.row, end.row) + 1, max(start.row, end.row))
    is_blocked = start.lane == end.lane and any(box.lane == start.lane and box.row in rows for box in boxes)
    return start.x - _BOX // 2 - _BESIDE if is_blocked else None


def _arrow(start: _Box, end: _Box, boxes: Iterable[_Box]) -> str:
    bend = _bend(start, end, boxes)
    if bend is not None:
        side = start.x - _BOX // 2
        return f'<path class="arrow" d="M{side} {start.y} L{bend} {start.y} L{bend} {end.y} L{side} {end.y}"/>'
    x, y, to_x, to_y = _ends(start, end)
    return f'<path class="arrow" d="M{x} {y} L{to_x} {to_y}"/>'


def _label(start: _Box, end: _Box, label: str, boxes: Iterable[_Box]) -> str:
    x, y, to_x, to_y = _ends(start, end)
    above = 6 if y == to_y else -4
    bend = _bend(start, end, boxes)
    return _text((x + to_x) // 2 if bend is None else bend, (y + to_y) // 2 - above, label, "label")


def _text(x: int, y: int, text: str, kind: str) -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    main()
