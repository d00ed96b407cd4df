"""moto's server without what makes its memory grow: `python lab/moto_server.py` takes the options of `moto_server`.

For its dashboard, moto keeps each object that was ever made, with its content, also after it is deleted. For each page of a listing of
versions it copies all objects of the bucket, and keeps the copies too: an hour of `make soak` took more memory than a machine has.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

from moto.core.model_instances import model_data
from moto.s3.models import FakeDeleteMarker, FakeKey
from moto.server import main

_Version = TypeVar("_Version", FakeKey, FakeDeleteMarker)


def _itself(version: _Version, _memo: dict[int, Any]) -> _Version:
    return version


def forget_models() -> None:
    """Have moto keep no list of the models of S3, and copy no version for a listing: it only notes on the copies which are the latest."""
    for model in model_data["s3"].values():
        model.instances_tracked = deque(maxlen=0)  # type: ignore[attr-defined]
    for version in (FakeKey, FakeDeleteMarker):
        version.__deepcopy__ = _itself  # type: ignore[union-attr]


if __name__ == "__main__":
    forget_models()
    main()
