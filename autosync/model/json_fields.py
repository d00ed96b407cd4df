"""Makes dataclasses of values that were read from JSON, and checks the type of each field."""

from __future__ import annotations

import reprlib
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def dataclass_of(kind: type[T], values: Mapping[str, Any], what: str = "") -> T:
    """A dataclass with values of JSON.

    Args:
        kind: a dataclass. Its fields may have the types str, int, float, bool, Any, `X | None`, tuple[X, ...] and dict[str, X], and be
            such dataclasses themselves.
        values: the values of its fields, as `json.loads` returns them.
        what: the path of the value, such as "sources", for the errors; "" for the outermost one.

    Raises:
        ValueError: a value has another type, a required field is missing, or there is no such field.
    """
    kinds, required = _kinds(cast(Hashable, kind))
    prefix = f"{what}." if what else ""
    for name in sorted(values.keys() - kinds.keys()):
        raise ValueError(f"it has {prefix}{name}")
    for name in sorted(required - values.keys()):
        raise ValueError(f"it has no {prefix}{name}")
    return kind(**{name: _value_of(kinds[name], value, prefix + name) for name, value in values.items()})


@lru_cache
def _kinds(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of the fields of a dataclass, and the fields without a default."""
    required = (field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING)
    return get_type_hints(kind), frozenset(required)


def _value_of(kind: Any, value: Any, what: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _value_of(args[0], value, what)
    if origin is tuple and isinstance(value, list):
        return tuple(_value_of(args[0], one, what) for one in value)
    if origin is dict and isinstance(value, dict):
        return {name: _value_of(args[1], one, what) for name, one in value.items()}
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        return dataclass_of(kind, value, what)
    if kind is Any or type(value) is kind or (kind is float and type(value) is int):
        return value
    raise ValueError(f"its {what} is {reprlib.repr(value)}")
