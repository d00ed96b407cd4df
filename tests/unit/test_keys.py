"""Where a key is decided: the table of issue 2, exactness to the character, and the way back from a key to its path."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autosync.actor import Actor
from autosync.cli.options import context_settings, parameters
from autosync.errors import ConfigurationError
from autosync.model.keys import TEMPORARY, Keys, Source, Span
from autosync.model.paths import is_plain, slashed
from autosync.source.walk import Walk

HERE = "/home/adeprince"
FILES = ("1", "a/2", "a/b/3", "c/4")


def options_of(command: str) -> dict[str, object]:
    """What the real command line makes of a command, as a shell in HERE would give it."""
    words = shlex.split(command.replace("$PWD", HERE))[1:]
    door = click.Command("autosync", params=parameters(Actor, fixed_actor=False, one_host=True), context_settings=context_settings())
    return door.make_context("autosync", words).params


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("autosync mystuff", [f"/home/adeprince/mystuff/{file}" for file in FILES]),
        ("autosync --source_prefix=/home/ mystuff", [f"adeprince/mystuff/{file}" for file in FILES]),
        ("autosync --source_prefix=$PWD/mystuff/ mystuff", ["1", "a/2", "a/b/3", "c/4"]),
        ("autosync --source_prefix=$PWD/mystuff mystuff", ["/1", "/a/2", "/a/b/3", "/c/4"]),
        ("autosync --source_prefix=$PWD/mystuff/ --target-prefix=/foo/bar/ mystuff", [f"/foo/bar/{file}" for file in FILES]),
    ],
)
def test_the_table_of_issue_2_holds_word_for_word(command: str, expected: list[str]) -> None:
    given_options = options_of(command)
    keys = Keys([Source(f"{HERE}/mystuff")], str(given_options["source_prefix"]), str(given_options["target_prefix"]))

    made = [keys.key(f"{HERE}/mystuff/{file}") for file in FILES]

    assert given_options["paths"] == ("mystuff",)
    assert made == expected
    assert [keys.path(key) for key in made] == [f"{HERE}/mystuff/{file}" for file in FILES]


@pytest.mark.parametrize(
    ("source_prefix", "target_prefix", "path", "key"),
    [
        ("", "", "/s/f", "/s/f"),
        ("", "x/", "/s/f", "x//s/f"),
        ("/s", "x/", "/s/f", "x//f"),
        ("/s/", "//", "/s/f", "//f"),
        ("/s/", "%2F", "/s/100% %41", "%2F100% %41"),
        ("/s/", "", "/s/s/f", "s/f"),
        ("/s/", "/s/", "/s/f", "/s/f"),
        ("/s/f", "", "/s/", "/s/"),
        ("/.*/", "", "/s/f", "/s/f"),
        ("/s/", "", "/s/\udcff\n", "\udcff\n"),
    ],
)
def test_a_key_is_exact_to_the_character(source_prefix: str, target_prefix: str, path: str, key: str) -> None:
    assert Keys([Source("/t")], source_prefix, target_prefix).key(path) == key


# Any sources, prefixes and paths

NAMES = st.one_of(
    st.sampled_from(["a", "b", "a-b", "a.b", "0", "...", "é", "\n", "a\n", "\udcff", "%2F", "a b", "😀"]),
    st.binary(min_size=1, max_size=3).filter(lambda name: not {b"/", b"\0"} & {name[i : i + 1] for i in range(len(name))}).map(os.fsdecode),
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
TARGET_PREFIXES = st.sampled_from(["", "/", "x", "x/", "//", "/foo/bar/", "\n", "."])


class Mirror(NamedTuple):
    """A naming rule that is accepted, and paths in its scope."""

    sources: list[Source]
    source_prefix: str
    target_prefix: str
    paths: list[str]

    def keys(self) -> Keys:
        return Keys(self.sources, self.source_prefix, self.target_prefix)


@st.composite
def mirrors(draw: st.DrawFn) -> Mirror:
    """The source prefix is cut anywhere from a path or a source, or is odd."""
    sources = draw(st.lists(st.builds(Source, PATHS, st.booleans()), min_size=1, max_size=3))
    paths = [
        source.path if source.is_file else slashed(source.path) + "/".join(draw(st.lists(NAMES, min_size=1, max_size=3)))
        for source in (draw(st.sampled_from(sources)) for _ in range(3))
    ]
    uncut = draw(st.sampled_from([*paths, *(slashed(source.path) for source in sources)]))
    prefix = uncut[: draw(st.integers(0, len(uncut)))] + draw(st.sampled_from(["", "", "", "/", "//", "./", "../"]))
    mirror = Mirror(sources, prefix, draw(TARGET_PREFIXES), paths)
    try:
        keys = mirror.keys()
    except ConfigurationError:
        assume(False)
    return mirror._replace(paths=[path for path in paths if keys.covers(path)])


@settings(deadline=None, max_examples=200)
@given(mirrors())
def test_every_path_in_scope_is_found_again_from_its_key(mirror: Mirror) -> None:
    keys = mirror.keys()

    assert [keys.path(keys.key(path)) for path in mirror.paths] == mirror.paths


@settings(deadline=None, max_examples=200)
@given(mirrors(), st.one_of(PATHS, st.text(max_size=8), st.sampled_from(["", "/", "..", "a//b"])))
def test_a_key_leads_to_a_plain_path_in_scope_that_has_this_key_or_to_none(mirror: Mirror, key: str) -> None:
    keys = mirror.keys()

    path = keys.path(key)

    assert path is None or (is_plain(path) and keys.covers(path) and keys.key(path) == key)


@settings(deadline=None, max_examples=300)
@given(st.lists(PATHS, min_size=1, max_size=2), st.booleans(), TARGET_PREFIXES, st.lists(NAMES, min_size=1, max_size=4), st.booleans())
def test_what_is_found_for_a_whole_directory_is_what_is_found_for_each_file(
    sources: list[str], is_cut: bool, target_prefix: str, names: list[str], is_temporary: bool
) -> None:
    """The quick way of `path` and the careful one; also for keys that are in no scope, and for names that are left out."""
    strip = f"{sources[0]}/" if is_cut else ""
    temporary = (r"[ab0]", r"\udcff") if is_temporary else ()
    keys = Keys([Source(path) for path in sources], strip, target_prefix, temporary=temporary)
    assert keys._is_simple
    below = "/".join(names)

    begins = ("", f"{sources[0]}/", f"{sources[-1]}/", "x/", "/", "../")
    for rest in (*(begin + below for begin in begins), f"{below}/", f"{below}/.."):
        for key in (target_prefix + rest, rest):
            assert keys.path(key) == keys._path_of_one(key)


@settings(deadline=None, max_examples=200)
@given(mirrors(), st.integers(1, 4))
def test_the_spans_of_any_directory_hold_every_key_below_it_once(mirror: Mirror, height: int) -> None:
    keys = mirror.keys()
    for path in mirror.paths:
        directory = path.rsplit("/", height)[0]

        locked = [key for span in keys.spans(directory) if (key := key_in(span, path)) is not None]

        assert locked == [keys.key(path)]


def key_in(span: Span, path: str) -> str | None:
    """The key that a walk of this span gives a path; None if it does not come by."""
    if span.only:
        return span.prefix if path == span.only else None
    top = slashed(span.directory)
    if not path.startswith(top) or (span.without and path.startswith(slashed(span.without))):
        return None
    return span.prefix + path[len(top) :]


# A prefix inside a source

def test_a_prefix_strictly_inside_a_source_makes_two_spans() -> None:
    keys = Keys([Source("/s")], "/s/a/", "t/")

    assert keys.spans("") == [Span("/s", "t//s/", without="/s/a"), Span("/s/a", "t/")]
    assert keys.spans("/s/a") == [Span("/s/a", "t/")]
    assert keys.spans("/s/a/b") == [Span("/s/a/b", "t/b/")]
    assert keys.spans("/s/b") == [Span("/s/b", "t//s/b/")]


def test_the_keys_of_each_span_come_in_order_when_its_tree_is_walked(tree: Path) -> None:
    files = ["a-b", "a/1", "a/b/2", "a/b-c", "a0", "b/a/3", "z"]
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).touch()
    keys = Keys([Source(str(tree))], f"{tree}/a/")

    walked = [
        [key_in(span, found.path) for found in Walk(str(tree), span.directory, lambda directory, span=span: directory != span.without)]
        for span in keys.spans("")
    ]

    assert walked == [sorted(f"{tree}/{file}" for file in files if not file.startswith("a/")), ["1", "b-c", "b/2"]]


@pytest.mark.parametrize(
    ("sources", "prefix"),
    [
        ([Source("/s")], "/s/a"),
        ([Source("/s"), Source("/x")], "/s"),
        ([Source("/a/x", is_file=True), Source("/x", is_file=True)], "/a"),
        ([Source("/a/x"), Source("/x/y")], "/a"),
        ([Source("/a/x/y"), Source("/x")], "/a"),
        ([Source("/d/file", is_file=True)], "/d/file"),
    ],
    ids=["inside a name", "a root and another", "two files", "above", "below", "nothing is left"],
)
def test_a_prefix_that_makes_keys_ambiguous_or_empty_is_refused_in_one_line(sources: list[Source], prefix: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Keys(sources, prefix)

    assert "--source-prefix" in str(refused.value)
    assert prefix in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("sources", "prefix"),
    [
        ([Source("/s")], "/s"),
        ([Source("/s"), Source("/x")], "/s/"),
        ([Source("/home/a"), Source("/x")], "/ho"),
        ([Source("/s/file")], "/s/fi"),
        ([Source("/d/file", is_file=True)], "/d/fi"),
    ],
)
def test_a_prefix_that_is_not_ambiguous_is_accepted(sources: list[Source], prefix: str) -> None:
    assert Keys(sources, prefix).sources == tuple(sources)


# Filters

def test_a_filter_is_matched_from_the_start_of_the_absolute_path() -> None:
    keys = Keys([Source("/s")], "/s/", source_filter="/s/a")

    assert keys.covers("/s/a")
    assert keys.covers("/s/ab/c")
    assert not keys.covers("/s/b/s/a")
    assert keys.path("b") is None


def test_the_default_filter_accepts_every_name() -> None:
    keys = Keys([Source("/s")])

    assert all(keys.covers(f"/s/{name}") for name in ("a\nb", "\n", "\udcff\udc80", "a\r\n\n", " "))


def test_a_dot_in_a_filter_matches_a_newline_too() -> None:
    keys = Keys([Source("/s")], source_filter=r".*\.txt$", source_exclude=[r".*/\.git"])

    assert keys.covers("/s/two\nlines.txt")
    assert not keys.covers("/s/two\nlines/.git/x.txt")


def test_an_exclude_leaves_out_files_and_whole_directories() -> None:
    keys = Keys([Source("/s")], source_exclude=["/s/tmp$", r".*/node_modules$", r".*\.o$"])

    assert not keys.enters("/s/tmp")
    assert not keys.covers("/s/tmp/deep/er/file")
    assert not keys.enters("/s/a/node_modules")
    assert not keys.covers("/s/a/node_modules/b/c")
    assert not keys.covers("/s/a/b.o")
    assert keys.enters("/s/tmp2")
    assert keys.covers("/s/tmp2/file")
    assert keys.path("/s/tmp/file") is None


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(["a", "b", "tmp", "a.o", "x\ny"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["/s/a", "/s/tmp$", ".*/b", r".*\.o$", "/s$", "/s", "x"]), max_size=2),
)
def test_a_path_is_covered_exactly_if_the_walk_gets_there(names: list[str], excludes: list[str]) -> None:
    source = Source("/s")
    keys = Keys([source], source_exclude=excludes)
    above = ["/s/" + "/".join(names[:depth]) for depth in range(1, len(names))]
    path = "/s/" + "/".join(names)

    left_out = [place for place in (*above, path) if any(re.match(pattern, place, re.DOTALL) for pattern in excludes)]

    assert keys.covers(path) == keys.accepts(path, source) == (not left_out)
    assert [directory for directory in above if not keys.enters(directory)] == [place for place in left_out if place != path]


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a{4294967295}", "(?P<"])
@pytest.mark.parametrize("option", ["--source-filter", "--source-exclude"])
def test_an_expression_that_does_not_compile_is_refused_in_one_line(option: str, pattern: str) -> None:
    chosen = {"source_filter": pattern} if option == "--source-filter" else {"source_exclude": [pattern]}

    with pytest.raises(ConfigurationError) as refused:
        Keys([Source("/s")], **chosen)  # type: ignore[arg-type]

    assert option in str(refused.value)
    assert pattern in str(refused.value)
    assert "\n" not in str(refused.value)


# Several PATHs

def test_a_path_inside_another_is_folded_into_it() -> None:
    sources = [Source("/s/a"), Source("/s-b"), Source("/s"), Source("/s/f", is_file=True), Source("/s"), Source("/s.c")]

    assert set(Keys(sources).sources) == {Source("/s"), Source("/s-b"), Source("/s.c")}


def test_the_root_directory_is_a_source_like_any_other() -> None:
    keys = Keys([Source("/"), Source("/s")], "/")

    assert keys.sources == (Source("/"),)
    assert keys.spans("") == [Span("/", "")]
    assert keys.path("etc/hosts") == "/etc/hosts"


def test_a_single_file_is_a_source_without_neighbours() -> None:
    file = Source("/s/f", is_file=True)
    keys = Keys([file], "/s/", "t/")

    assert file.root == "/s"
    assert keys.covers("/s/f")
    assert not keys.covers("/s/g")
    assert not keys.covers("/s/f/g")
    assert keys.path("t/f") == "/s/f"
    assert keys.spans("") == keys.spans("/s") == keys.spans("/s/f") == [Span("/s", "t/f", only="/s/f")]
    assert keys.spans("/s/g") == []


def test_a_place_above_several_sources_has_the_spans_of_all_below_it() -> None:
    keys = Keys([Source("/s/a"), Source("/s/b"), Source("/s/f", is_file=True), Source("/x")])

    assert keys.spans("/s") == [Span("/s/a", "/s/a/"), Span("/s/b", "/s/b/"), Span("/s", "/s/f", only="/s/f")]
    assert keys.spans("/s/a/deep") == [Span("/s/a/deep", "/s/a/deep/")]
    assert keys.spans("/y") == []


# Keys that nobody may have made

@pytest.mark.parametrize("key", ["../x", "a/../../x", "..", "a/..", "a//b", "/a", "a\0b", ".", "./a", "a/", "", "/", "/s/f"])
def test_a_key_that_no_path_in_scope_has_leads_nowhere(key: str) -> None:
    assert Keys([Source("/s")], "/s/").path(key) is None


@pytest.mark.parametrize("key", ["s/f", "f", "/s/../s/f", "/s/./f", "//s/f", "/s//f", "/s/", "/s", "/etc/passwd", "/s/a\0", ""])
def test_without_a_prefix_a_key_must_be_the_plain_path_itself(key: str) -> None:
    assert Keys([Source("/s")]).path(key) is None


def test_a_key_without_the_target_prefix_is_not_ours() -> None:
    keys = Keys([Source("/s")], "/s/", "mine/")

    assert keys.path("mine/f") == "/s/f"
    assert keys.path("f") is None
    assert keys.path("min/f") is None


# Temporary names

TEMPORARY_NAMES = [
    "film.mov.part", "film.mov.filepart", "film.mov.partial", "film.mov.crdownload", "film.tmp", ".~lock.text.odt#", ".~tmp~", "text.txt~",
    "text.~1~", "~$text.docx", ".#text", "#text#", ".text.swp", ".text.swo", ".film.mov.a1B2c3", ".film.mov.ABCdef", ".rsync-partial",
    ".rsync-tmp", "sedAb12Cd", ".in.film.mov.", ".in.film.mov", ".goutputstream-AB12CD", ".nfs000000000123456700000001",
    ".fuse_hidden0000000100000001", ".autosync-0123456789abcdef",
]  # fmt: skip
ORDINARY_NAMES = [
    "film.mov", "part", "partial.mov", ".hidden", ".hidden.config", ".sums.sha256", ".profile.backup", "sedation", "sedatives", "a#b", "~",
    "x.~y", ".swp.txt", "text.swp.txt", ".nfs", "4913", "#include", "tmp", "tmp.txt", "A.TMPX", ".in", "core.123456",
]  # fmt: skip


@pytest.mark.parametrize("name", TEMPORARY_NAMES)
def test_a_temporary_name_is_left_out_as_a_file_and_as_a_directory(name: str) -> None:
    keys = Keys([Source("/s")], temporary=TEMPORARY)

    assert not keys.covers(f"/s/{name}")
    assert not keys.covers(f"/s/a/{name}/b/c")
    assert not keys.enters(f"/s/a/{name}")
    assert keys.path(f"/s/{name}") is None
    assert Keys([Source("/s")]).covers(f"/s/{name}")


@pytest.mark.parametrize("name", ORDINARY_NAMES)
def test_a_name_that_only_resembles_a_temporary_one_stays(name: str) -> None:
    keys = Keys([Source("/s")], temporary=TEMPORARY)

    assert keys.covers(f"/s/{name}")
    assert keys.covers(f"/s/{name}/b")
    assert keys.enters(f"/s/{name}")


def test_names_above_a_source_and_of_a_single_file_are_the_operators_choice() -> None:
    keys = Keys([Source("/x.tmp/s"), Source("/files/one.part", is_file=True)], temporary=TEMPORARY)

    assert keys.covers("/x.tmp/s/f")
    assert keys.covers("/files/one.part")


def test_a_pattern_for_temporary_names_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--temporary '\('"):
        Keys([Source("/s")], temporary=["ok", "("])


# Done-markers

@pytest.mark.parametrize(
    ("marker", "file", "expected"),
    [("{}.done", "film.mov", "film.mov.done"), (".{}.ok", "film.mov", ".film.mov.ok"), ("READY", "film.mov", "READY")],
)
def test_a_done_marker_speaks_for_its_file_or_its_directory_and_is_not_mirrored(marker: str, file: str, expected: str) -> None:
    keys = Keys([Source("/s")], done_marker=marker)

    assert keys.marker_of(f"/s/d/{file}") == f"/s/d/{expected}"
    assert keys.is_marker(f"/s/d/{expected}")
    assert not keys.is_marker(f"/s/d/{file}")
    assert not keys.covers(f"/s/d/{expected}")
    assert keys.covers(f"/s/d/{file}")
    assert keys.marked_by(f"/s/d/{expected}") == (("/s/d", True) if marker == "READY" else (f"/s/d/{file}", False))


@pytest.mark.parametrize("marker", ["a/b", "{}", "..", "{}{}", "\0"])
def test_a_done_marker_that_can_mark_nothing_is_refused(marker: str) -> None:
    with pytest.raises(ConfigurationError, match="--done-marker"):
        Keys([Source("/s")], done_marker=marker)


def test_without_a_marker_nothing_waits() -> None:
    assert Keys([Source("/s")]).marker_of("/s/f") == ""
    assert not Keys([Source("/s")]).is_marker("/s/f.done")


# autosync's own state

STATE = "/s/.state"


@pytest.mark.parametrize("more", [{}, {"source_filter": "/"}], ids=["by directories", "one by one"])
def test_the_own_state_is_out_of_the_scope_with_all_below_it(more: dict[str, str]) -> None:
    keys = Keys([Source("/s"), Source("/t")], "/s/", state_directories=(STATE,), **more)  # type: ignore[arg-type]

    assert not keys.enters(STATE)
    for path in (STATE, f"{STATE}/m", f"{STATE}/m/lock"):
        assert not keys.covers(path)
        assert keys.path(path.removeprefix("/s/")) is None, "a key that an older version has sent, or a forged one"
        assert keys.spans(path) == []
    for path in ("/s/.states", "/s/.state-2/m/lock", "/s/a/.state/x", "/t/.state/x"):
        assert keys.covers(path)
        assert keys.path(keys.key(path)) == path
    assert keys.enters("/s/.states")
    assert [span.directory for span in keys.spans("")] == ["/s", "/t"]
    assert keys.state_directory_of(".state/m/lock") == STATE
    assert [keys.state_directory_of(key) for key in (".states", "/t/.state/x")] == ["", ""]
    assert keys.state_beneath("/s") == {".state"}
    assert keys.state_beneath("/t") == set()
