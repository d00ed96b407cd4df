"""Which mirrors can make the same objects of one target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosync.actors import load
from autosync.model.keys import TEMPORARY, Source
from autosync.model.mirror import Mirror
from autosync.model.target_scope import ADDRESS, SharedKeys, TargetScope
from autosync.source.mounts import real_paths


def mirror(actor: str = "s3", container: str | None = "c", source: str = "/s", **fields: Any) -> Mirror:
    settings = {"target_container": container, **fields.pop("settings", {})}
    return Mirror("m", actor, (Source(source),), **{"source_prefix": f"{source}/", "settings": settings, "temporary": TEMPORARY, **fields})


def meet(one: Mirror, other: Mirror) -> bool:
    scopes = [TargetScope(each, real_paths) for each in (one, other)]
    found = scopes[0].meets(scopes[1])
    assert scopes[1].meets(scopes[0]) == found
    return found


ONE = mirror()


@pytest.mark.parametrize(
    "other",
    [
        mirror(source="/other"),
        mirror(source="/other", target_prefix="deep/er/"),
        mirror(source="/other", target_prefix="dee"),
        mirror(source="/other", delete=False),
        mirror(source="/other", settings={"endpoint_url": "https://s3.eu-west-1.amazonaws.com/"}),
        mirror(source="/other", settings={"region": "eu-west-1", "storage_class": "GLACIER"}),
        replace(mirror(source="/other"), sources=(Source("/other/f", is_file=True),)),
    ],
)
def test_scopes_that_share_keys_of_one_target_meet(other: Mirror) -> None:
    assert meet(ONE, other)


@pytest.mark.parametrize(
    "other",
    [
        mirror(container="d"),
        mirror("gcs"),
        mirror(settings={"endpoint_url": "http://127.0.0.1:9000"}),
        mirror(source_prefix=""),  # its keys begin with a slash, and no path below /s gives such a key
        mirror(target_prefix="a//"),
        mirror(target_prefix="x.part/"),  # a temporary name
        mirror(target_prefix="a/../"),
    ],
)
def test_scopes_without_a_common_key_do_not_meet(other: Mirror) -> None:
    assert not meet(ONE, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"target_exclude": ("in/",)}, {"target_prefix": "in/"}),
        ({"target_exclude": ("i",)}, {"target_prefix": "in/ner/"}),
        ({"source_exclude": ("/s/in$",)}, {"target_prefix": "in/"}),
        ({"state_directories": ("/s/in",)}, {"target_prefix": "in/x/"}),
        ({"source_filter": r".*\.jpg$"}, {"source_filter": r".*\.txt$"}),
        ({"source_filter": "/s/a/"}, {"source_exclude": ("/t/a$",)}),
        ({"source_filter": r".*\.jpg$"}, {"source_exclude": (r".*\.jpg$",)}),
        ({"target_prefix": "a/"}, {"target_prefix": "b/"}),
    ],
)
def test_what_filters_and_excluded_prefixes_part_does_not_meet(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert not meet(mirror(**one), mirror(source="/t", **other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"target_exclude": ("in/x/",)}, {"target_prefix": "in/"}),
        ({"target_exclude": ("in/",)}, {}),
        ({"source_exclude": ("/s/in$",)}, {"target_prefix": "i"}),
        ({"source_filter": r".*\.jpg"}, {"source_filter": r".*\.txt$"}),
        ({"max_size": 10}, {"min_size": 11}),  # a key depends on no size
    ],
)
def test_what_is_parted_only_partly_meets(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert meet(mirror(**one), mirror(source="/t", **other))


def test_a_single_file_meets_exactly_where_the_other_can_make_its_key() -> None:
    single = replace(mirror(source="/t"), sources=(Source("/t/f.txt", is_file=True),))

    assert meet(single, mirror(source_filter=r".*\.txt$"))
    assert not meet(single, mirror(source_filter=r".*\.jpg$"))
    assert meet(single, single)
    assert not meet(single, replace(single, sources=(Source("/t/g.txt", is_file=True),)))


def test_directories_in_one_another_meet_by_their_real_paths(tmp_path: Path) -> None:
    for name in ("to/in", "beside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "to/in")
    outer = mirror("file", f"{tmp_path}/to")

    assert meet(outer, mirror("file", f"{tmp_path}/link", source="/t"))
    assert meet(outer, mirror("file", f"{tmp_path}", source="/t"))
    assert meet(outer, mirror("file", f"{tmp_path}/to", source="/t", source_prefix="/t")), "for a file system, /x is x"
    assert not meet(outer, mirror("file", f"{tmp_path}/beside", source="/t"))
    assert not meet(outer, mirror("file", f"{tmp_path}/to2", source="/t"))
    assert not meet(mirror("file", f"{tmp_path}/to", target_exclude=("in/",)), mirror("file", f"{tmp_path}/link", source="/t"))


def test_modules_of_one_rsync_server_meet_in_any_spelling() -> None:
    one = mirror("rsync", "rsync://host/module/dir")

    assert meet(one, mirror("rsync", "user@HOST::module"))
    assert meet(one, mirror("rsync", "rsync://host:873/module/dir/in/"))
    assert not meet(one, mirror("rsync", "rsync://host:1873/module/dir"))
    assert not meet(one, mirror("rsync", "host::module/dir2"))


def test_of_an_actor_of_ones_own_the_container_decides_or_all_options() -> None:
    assert meet(mirror("my.Actor", settings={"fast": True}), mirror("my.Actor", settings={"fast": False}))
    assert not meet(mirror("my.Actor", None, settings={"url": "a"}), mirror("my.Actor", None, settings={"url": "b"}))
    assert meet(mirror("my.Actor", None, settings={"url": "a"}), mirror("my.Actor", None, settings={"url": "a"}))


def test_the_settings_that_name_a_target_are_options_of_its_actor() -> None:
    for actor, settings in ADDRESS.items():
        assert settings.keys() <= {option.name for option in load(actor).options}


def test_shared_keys_are_those_that_another_mirror_can_make(tmp_path: Path) -> None:
    own = TargetScope(mirror("file", f"{tmp_path}/to"), real_paths)
    inner = mirror("file", f"{tmp_path}/to/in", source="/t", source_filter=r".*\.jpg$", target_exclude=("no/",))
    shared = SharedKeys(own, [TargetScope(inner, real_paths)])

    assert [key for key in ("a.jpg", "in/a.jpg", "in/a.txt", "in/no/a.jpg", "in/b/a.jpg", "in/b.part") if key in shared] == [
        "in/a.jpg",
        "in/b/a.jpg",
    ]
