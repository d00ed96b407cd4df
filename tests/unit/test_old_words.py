"""Words that CHANGELOG.md calls old are in no image, dashboard, alert, example or page of the docs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from lab import ROOT

pytestmark = pytest.mark.lint

#: The cells "before" and "now" of the table of words that have changed.
TABLE = (ROOT / "CHANGELOG.md").read_text().partition("Words that have changed")[2].partition("\n### ")[0]
ROWS = re.findall(r"^\|[^|]*\|([^|]*)\|([^|]*)\|$", TABLE, re.MULTILINE)[2:]
SPAN = re.compile(r"`([^`]+)`")


def _old_phrases() -> Iterator[str]:
    """The commands, fields and metrics of the column "before", and those of its phrases that have more than one word and no placeholder."""
    current = " ".join(now for _, now in ROWS)
    for before, _ in ROWS:
        yield from (span.partition(" ")[0] for span in SPAN.findall(before))
        for phrase in re.split(r"[,;:]|\.\.\.", SPAN.sub("", before)):
            phrase = phrase.strip()
            if " " in phrase and not re.search("[A-Z]{2}", phrase) and phrase not in current:
                yield phrase


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


def _texts(panel: object) -> Iterator[str]:
    """Titles, descriptions and legends of a dashboard."""
    if isinstance(panel, dict):
        yield from (panel[name] for name in ("title", "description", "legendFormat") if name in panel)
    if isinstance(panel, (dict, list)):
        for part in panel.values() if isinstance(panel, dict) else panel:
            yield from _texts(part)


def _alerts() -> str:
    """The table of alerts in docs/operations.md."""
    return (ROOT / "docs" / "operations.md").read_text().partition("| alert |")[2].partition("\n\n")[0]


def test_no_file_for_users_has_an_old_word() -> None:
    files = [path for folder in ("docker", "examples", "docs") for path in (ROOT / folder).rglob("*") if path.is_file()]
    phrases = set(_old_phrases())
    old = re.compile(r"(?<![\w.])(" + "|".join(re.escape(phrase) for phrase in sorted(phrases)) + r")(?!\w)", re.IGNORECASE)

    assert {"in hand", "autosync_kept", "kept_by", "look"} <= phrases
    assert len(files) > 15
    assert {f"{path.relative_to(ROOT)}: {found}" for path in files for found in old.findall(" ".join(path.read_text().split()))} == set()


def test_no_panel_or_alert_has_a_part_of_an_old_name() -> None:
    old = set().union(*(_words(span) for before, _ in ROWS for span in SPAN.findall(before)))
    old -= set().union(*(_words(now) for _, now in ROWS))
    texts = list(_texts(json.loads((ROOT / "docker" / "grafana-dashboard.json").read_text())))

    assert {"kept", "held", "hand", "look"} <= old
    assert len(texts) > 20
    assert [text for text in (*texts, *_alerts().splitlines()) if _words(text) & old] == []
    assert _alerts()
