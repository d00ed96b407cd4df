"""How much one scan may delete."""

from __future__ import annotations

import pytest

from autosync.compare.delete_limit import DeleteLimit
from autosync.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "scope", "allowed"),
    [
        (None, 10, 20), (None, 80, 20), (None, 84, 21), (None, 5000, 1250), (None, 0, 20),
        ("0", 5000, 0), ("7", 5000, 7), ("10%", 5000, 500), ("0%", 5000, 0), ("100%", 5000, 5000), ("0.5%", 1000, 5), (" 7 ", 1, 7),
    ],
)  # fmt: skip
def test_a_limit_is_a_number_or_percents_of_the_keys_in_scope(text: str | None, scope: int, allowed: int) -> None:
    assert (DeleteLimit() if text is None else DeleteLimit.parse(text)).of(scope) == allowed


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "%", "1.5", "10 %%", "1e3", "٣"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--max-delete"):
        DeleteLimit.parse(text)
