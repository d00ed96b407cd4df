"""The definition of a mirror: the same value on every host, a version that differs after any change, and no secret."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync.errors import ConfigurationError, UnknownDefinition
from autosync.model.keys import Keys, Source
from autosync.model.mirror import LEASE, LONGEST_LEASE, SHORTEST_LEASE, Identity, Mirror, version_of

PATHS = st.binary(min_size=1, max_size=6).map(lambda name: "/" + name.decode("utf-8", "surrogateescape"))
TEXTS = st.one_of(st.text(max_size=5), PATHS)
MIRRORS = st.builds(
    Mirror,
    name=TEXTS,
    actor=st.sampled_from(["s3", "file", "module.Class"]),
    sources=st.lists(st.builds(Source, PATHS, st.booleans()), min_size=1, max_size=3).map(tuple),
    identities=st.dictionaries(PATHS, st.builds(Identity, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=2),
    source_prefix=TEXTS,
    target_prefix=TEXTS,
    source_filter=TEXTS,
    source_exclude=st.lists(TEXTS, max_size=2).map(tuple),
    settings=st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.booleans(), st.integers(), TEXTS), max_size=3),
    delete=st.booleans(),
    threads=st.integers(1, 1000),
    attempts=st.integers(1, 100),
    queue=TEXTS,
    host=TEXTS,
    lease=st.one_of(st.just(LEASE), st.floats(SHORTEST_LEASE, LONGEST_LEASE)),
    state_directories=st.lists(TEXTS, max_size=2).map(tuple),
    min_size=st.integers(0, 2**63),
    max_size=st.one_of(st.none(), st.integers(0, 2**63)),
    one_file_system=st.booleans(),
    max_links=st.integers(1, 2**63),
    target_exclude=st.lists(TEXTS, max_size=2).map(tuple),
    overlap=st.lists(TEXTS, max_size=2).map(tuple),
)


@settings(deadline=None, max_examples=200)
@given(MIRRORS)
def test_a_definition_is_read_as_it_was_written(mirror: Mirror) -> None:
    text = mirror.dumps()

    assert Mirror.loads(text) == mirror
    assert Mirror.loads(text).dumps() == text
    assert text.isascii(), "it goes through Redis and through other programs"


ONE = Mirror("m", "file", (Source("/s"),), {"/s": Identity(1, 2)}, settings={"target_container": "/t"})
OTHER = {
    "name": "other",
    "actor": "s3",
    "sources": (Source("/s", is_file=True),),
    "identities": {"/s": Identity(1, 3)},
    "source_prefix": "/s/",
    "target_prefix": "t/",
    "source_filter": "^.*x$",
    "source_exclude": ("x",),
    "temporary": (".*~",),
    "done_marker": "{}.done",
    "follow_links": False,
    "settings": {"target_container": "/u"},
    "secrets": ("password",),
    "delete": False,
    "threads": 1,
    "attempts": 1,
    "queue": "other",
    "host": "other",
    "lease": 60.0,
    "state_directories": ("/s/state",),
    "min_size": 1,
    "one_file_system": True,
    "max_links": 5,
    "max_size": 1 << 40,
    "target_exclude": ("x/",),
    "overlap": ("other",),
}
#: Fields that came later than the first format.
LATER = {"lease", "state_directories", "min_size", "max_size", "one_file_system", "max_links", "target_exclude", "overlap"}


@pytest.mark.parametrize("field", [field.name for field in fields(Mirror)])
def test_the_version_changes_with_any_field(field: str) -> None:
    changed = replace(ONE, **{field: OTHER[field]})

    assert version_of(changed.dumps()) != version_of(ONE.dumps())


def test_the_version_stays_while_the_definition_does() -> None:
    again = Mirror(**{field.name: getattr(ONE, field.name) for field in fields(Mirror)})
    reordered = replace(ONE, settings={"b": 1, "a": 2})

    assert version_of(again.dumps()) == version_of(ONE.dumps())
    assert reordered.dumps() == replace(ONE, settings={"a": 2, "b": 1}).dumps()


def test_the_default_lease_is_30_s_and_changes_nothing_for_versions_without_it() -> None:
    """An older worker refuses a definition with a field that it does not know; an older watcher's definition has none."""
    text = ONE.dumps()

    assert (ONE.lease, "lease" in json.loads(text)) == (30.0, False)
    assert version_of(text) == "af4a721a7d7df93f", "what it was before there was a lease"
    assert Mirror.loads(text).lease == 30.0
    assert Mirror.loads(replace(ONE, lease=6.0).dumps()).lease == 6.0


def test_a_source_without_state_changes_nothing_for_versions_without_the_field() -> None:
    assert "state_directories" not in json.loads(ONE.dumps())
    assert Mirror.loads(ONE.dumps()).state_directories == ()
    assert replace(ONE, state_directories=("/s/state",)).keys().path("/s/state/m/lock") is None


@pytest.mark.parametrize("lease", [0, 5.9, -30, 3601, 1e9, "NaN", "Infinity", "null", "true", '"30"'])
def test_a_lease_out_of_its_bounds_is_no_definition(lease: Any) -> None:
    """A worker would renew claims without a pause, or lose each of them."""
    text = replace(ONE, lease=60.0).dumps().replace('"lease": 60.0', f'"lease": {lease}')
    assert f'"lease": {lease}' in text

    with pytest.raises((ValueError, TypeError)):
        Mirror.loads(text)


@pytest.mark.parametrize("size", ['"9"', "1.5", "true", "[]"])
def test_a_size_that_is_no_whole_number_is_no_definition(size: str) -> None:
    text = replace(ONE, max_size=7).dumps().replace('"max_size": 7', f'"max_size": {size}')
    assert size in text

    with pytest.raises(ValueError, match="size"):
        Mirror.loads(text)


@pytest.mark.parametrize(("lease", "lock"), [(6.0, 3.0), (20.0, 10.0), (30.0, 15.0), (3600.0, 15.0)])
def test_the_lock_of_the_watcher_is_half_of_the_lease_and_never_longer_than_15_s(lease: float, lock: float) -> None:
    assert replace(ONE, lease=lease).watcher_lease == lock


def test_the_naming_rule_is_that_of_the_definition() -> None:
    mirror = replace(ONE, source_prefix="/s/", target_prefix="t/", source_filter="/s/[^x]", source_exclude=("/s/tmp",))

    keys = mirror.keys()

    assert isinstance(keys, Keys)
    assert [keys.path(key) for key in ("t/a", "t/x", "t/tmp/a", "a")] == ["/s/a", None, None, None]


def with_fields(**more: Any) -> str:
    return json.dumps({**json.loads(ONE.dumps()), **more})


DAMAGED = [
    "", "{}", "[]", "null", "7", '[["name", "m"]]', '{"name": 1}', "[" * 100_000, "1e", ONE.dumps()[:-1],
    ONE.dumps().replace('"path"', '"way"'), with_fields(name="\ud800"), with_fields(settings={"\udfff": "\ud800"}),
    *(with_fields(**{field.name: None}) for field in fields(Mirror) if field.name != "max_size"),
    *(with_fields(identities=found) for found in ([], {"/s": None}, {"/s": {"device": 1}}, {"/s": {"device": 1, "inode": True}})),
    *(with_fields(sources=found) for found in ([], [None], "/s", [{"path": 1}], [{"path": "/s", "is_file": "no"}])),
    *(with_fields(optional=found) for found in (None, "colour", [[]])),
    with_fields(settings=[]), with_fields(source_exclude="x"), with_fields(temporary=[1]), with_fields(secrets={}), with_fields(actor=1),
    with_fields(threads=0), with_fields(threads=True), with_fields(threads=1.5), with_fields(attempts=0), with_fields(min_size=-1),
    with_fields(follow_links="yes"),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_text_that_is_no_definition_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
        Mirror.loads(text)


def test_a_pattern_with_flags_that_exclude_each_other_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="is not a regular expression"):
        replace(ONE, source_filter="(?a)(?u)").keys()


ANY_TEXT = st.one_of(st.text(st.characters(codec=None), max_size=5), st.sampled_from(["/s", "(?", "{}"]))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT)
ANY_JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=3), st.sampled_from(["path", "is_file", "device", "inode", "/s"])), inner, max_size=3),
    ),
    max_leaves=6,
)
FIELD_NAMES = st.sampled_from([*(field.name for field in fields(Mirror)), "format", "optional"])


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(st.one_of(FIELD_NAMES, ANY_TEXT), ANY_JSON, max_size=4), st.booleans())
def test_any_json_is_a_definition_that_can_be_used_or_an_error_that_is_expected(values: dict[str, Any], alone: bool) -> None:
    text = json.dumps(values) if alone else with_fields(**values)
    try:
        mirror = Mirror.loads(text)
    except (ValueError, UnknownDefinition):
        return
    with suppress(ConfigurationError):
        mirror.keys()
    assert Mirror.loads(mirror.dumps()).dumps() == mirror.dumps()


# Versions


def test_a_definition_without_later_fields_is_one_that_the_first_version_reads() -> None:
    assert json.loads(ONE.dumps()).keys() == {field.name for field in fields(Mirror)} - LATER


def test_a_definition_with_later_fields_names_its_format_and_which_of_them_are_optional() -> None:
    written = json.loads(replace(ONE, lease=60.0, state_directories=("/s/state",)).dumps())

    assert (written["format"], written["optional"]) == (1, ["state_directories"])


def test_an_unknown_optional_field_is_ignored() -> None:
    assert Mirror.loads(with_fields(format=1, optional=["colour"], colour="red")) == ONE


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"format": 2}, "its format is 2, and this version reads 1"),
        ({"format": None}, "its format is None, and this version reads 1"),
        ({"format": "2b"}, "its format is '2b', and this version reads 1"),
        ({"format": 0}, "its format is 0, and this version reads 1"),
        ({"format": True}, "its format is True, and this version reads 1"),
        ({"format": float("inf")}, "its format is inf, and this version reads 1"),
        ({"format": []}, r"its format is \[\], and this version reads 1"),
        ({"colour": "red"}, "this version does not know colour"),
        ({"optional": ["colour"], "colour": "red", "b": 1, "a": 2}, "this version does not know a, b"),
    ],
)
def test_what_needs_a_later_version_is_refused_with_the_reason(more: dict[str, Any], what: str) -> None:
    with pytest.raises(UnknownDefinition, match=f"^{what}; install the same version of autosync on all hosts$"):
        Mirror.loads(with_fields(**more))
