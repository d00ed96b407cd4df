"""The picture of the flow is made from its text, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import autosync
from lab import flow_picture

pytestmark = pytest.mark.lint

PACKAGE = Path(autosync.__file__).parent
NAMED = sorted(set(re.findall(r"[a-z_/]+(?:\.py|/(?= ))", flow_picture.TEXT.read_text().partition("lane")[2])))


def test_the_picture_is_made_from_the_text() -> None:
    made = flow_picture.picture(flow_picture.TEXT.read_text())

    assert flow_picture.PICTURE.read_text() == made, "python -m lab.flow_picture makes it"


@pytest.mark.parametrize("name", NAMED)
def test_what_the_picture_names_exists(name: str) -> None:
    assert (PACKAGE / name).exists()


def test_a_line_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match="not understood: bow"):
        flow_picture.picture("lane a A\nbow b a 1 B\n")
