"""What is loaded for workers before they are forked: of Celery, what is there; of autosync, all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync import celery


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that can be loaded, and one that cannot."""
    (tmp_path / "can_be_loaded.py").write_text("")
    (tmp_path / "cannot_be_loaded.py").write_text("raise RuntimeError('this cannot be loaded')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("can_be_loaded", None)


@pytest.mark.parametrize("name", ["no_such_package", "celery.no_such_module", "celery.no_such.module", "cannot_be_loaded"])
def test_a_module_of_celerys_that_cannot_be_loaded_costs_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery, "_PRELOADED", (name, "can_be_loaded"))

    celery.load_worker()

    assert "can_be_loaded" in sys.modules
    assert name not in sys.modules


@pytest.mark.parametrize(("name", "error"), [("autosync.tasks.no_such_module", ImportError), ("cannot_be_loaded", RuntimeError)])
def test_a_module_of_ours_that_cannot_be_loaded_is_an_error(name: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery, "_TASKS", (name,))

    with pytest.raises(error):
        celery.load_worker()


def test_what_is_preloaded_is_there_in_this_version_of_celery() -> None:
    celery.load_worker()

    assert [name for name in celery._PRELOADED if name not in sys.modules] == []
