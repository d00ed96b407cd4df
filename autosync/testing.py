"""The contract of actors, as tests for pytest. Test an actor of your own like this:

    from autosync.testing import ActorContract

    class TestMyActor(ActorContract):
        @pytest.fixture
        def actor(self):
            yield MyActor(url=...)      # with an empty target

Every test begins with an empty target. For a limitation of a target, set the class attributes below; do not leave tests out. Run all tests
once for an actor that has settings. For other settings, run the part that they affect: `KeyContract`, `ListingContract`,
`UploadContract`, `DeletionContract`.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from .actor import Actor, can_delete_many, listing_of, secret_names
from .compare.scan import Comparison, ScanReport
from .errors import Draining, FileChanged, PermanentError
from .files import File
from .model.keys import Keys, Source
from .source.source_file import SourceFile

__all__ = ["ActorContract", "Content", "DeletionContract", "KeyContract", "ListingContract", "UploadContract", "listed"]


def listed(actor: Actor, prefix: str = "") -> dict[str, int]:
    """The objects whose key begins with the prefix: sizes by key."""
    files = list(listing_of(actor, prefix))
    found = {file.key: file.size for file in files}
    assert len(found) == len(files), "a key is listed twice"
    return {key: size for key, size in found.items() if key.startswith(prefix)}


class Content:
    """Makes files to upload, as workers do.

    Args:
        directory: a directory for the content of the files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[SourceFile] = []
        #: Tokens of uploads in parts that the target may keep open, see `File.begun`; and of all uploads in parts.
        self.open: set[str] = set()
        self.tokens: list[str] = []

    def path(self, file: SourceFile) -> Path:
        """The path of a file's content."""
        return self._directory / f"source-{self._made.index(file)}"

    def file(self, key: str, content: bytes, passing: Callable[[int], None] = lambda count: None) -> SourceFile:
        """Make a file.

        Args:
            key: the file's key.
            content: the bytes of the file.
            passing: called with the number of bytes of each read.
        """
        path = self._directory / f"source-{len(self._made)}"
        path.write_bytes(content)

        def begun(token: str, instead: str) -> None:
            self.open.discard(instead)
            self.open.add(token)
            self.tokens.append(token)

        made = SourceFile(key, os.open(path, os.O_RDONLY), passing, begun, self.open.discard)
        self._made.append(made)
        return made

    def close(self) -> None:
        """Close all files."""
        for file in self._made:
            file.close()


class _Contract:
    """The common base of the contract's parts. A subclass defines the fixture `actor`.

    Attributes:
        small: size of a file that is sent with one request, in bytes.
        large: size of a file that is sent in parts, if the target has uploads in parts, in bytes.
        many: more files than a page of the listing has. Servers for tests can often make smaller pages, which saves time.
        sorts: whether a listing with `already_sorted` is really sorted. False if that depends on the server; a scan checks it.
        odd_keys: keys that the target stores exactly to the byte, or that the actor refuses with `PermanentError`.
    """

    small: ClassVar[int] = 100
    large: ClassVar[int] = (20 << 20) + 5
    many: ClassVar[int] = 1200
    sorts: ClassVar[bool] = True
    odd_keys: ClassVar[Sequence[str]] = (
        "with space", "plus+", "per%20cent", "percent%", "question?", "hash#", "am&per=sand", "semi;colon", "quote'\"", "star*", "[range]",
        "back\\slash", "new\nline", "tab\t", "\x01control", "\x7f", "trailing ", " leading", "-dash", "~tilde", "{brace}", "über",
        "u\u0308ber",
        "日本", "\U0010ffff", "not-\udcffutf8", "/slash", "//two", "a//b", "./dot", "../up", "a/../../up", "a/./b", ".", "..", ".hidden",
        "dir/", "a/ /b", "x" * 255, "x" * 300, "/".join(["d" * 100] * 12), "y" * 1025, "con", "a:b", "<>|", "$HOME", "`id`", "%2e%2e/up",
    )  # fmt: skip

    def spelt(self, key: str) -> str:
        """The spelling of a key in a listing without a prefix: in a file system `/a//b` is `a/b`."""
        return key

    @pytest.fixture
    def actor(self) -> Iterator[Actor]:
        """An actor with an empty target."""
        raise NotImplementedError("define a fixture of this name")

    @pytest.fixture
    def content(self, tmp_path: Path) -> Iterator[Content]:
        """Makes files."""
        directory = tmp_path / "content"
        directory.mkdir()
        made = Content(directory)
        yield made
        made.close()

    def _compare(self, actor: Actor, found: File, same: SourceFile, other: SourceFile) -> None:
        """Compare two files with a listed object: `same` has its content, `other` has its size and other content."""
        assert same.size == other.size
        if found.etag is not None and actor.can_match(found):
            assert actor.matches(same, found.etag), "it has this content"
            assert not actor.matches(other, found.etag), "it has other content"


class KeyContract(_Contract):
    """Unusual keys. A subclass defines the fixture `actor`."""

    def test_an_odd_key_is_kept_to_the_byte_or_refused_for_good(self, actor: Actor, content: Content) -> None:
        expected = {"stays": 1}
        actor.upload(content.file("stays", b"x"))
        for number, key in enumerate(self.odd_keys):
            try:
                actor.upload(content.file(key, bytes(number)))
            except PermanentError:
                pass
            else:
                actor.check_key(key)
                expected[key] = number
                assert listed(actor, key).get(key) == number, f"{key!r} was accepted, and is not listed"

        for key in self.odd_keys:
            assert listed(actor) == {self.spelt(kept): size for kept, size in expected.items()}
            try:
                actor.delete(File(key))
            except PermanentError:
                assert key not in expected, f"{key!r} was accepted, and cannot be deleted"
            expected.pop(key, None)
        if can_delete_many(actor):
            actor.delete_many([File(key) for key in self.odd_keys])
        assert listed(actor) == {"stays": 1}


class ListingContract(_Contract):
    """Listings. A subclass defines the fixture `actor`."""

    def test_a_tree_that_was_sent_has_no_difference(self, actor: Actor, tmp_path: Path) -> None:
        """Nothing is sent again, in whatever order the target lists, and whether or not it lists times and checksums."""
        tree = tmp_path / "tree"
        for name in ("a/b", "a-b", "a/c/d", "b", "Z", "é"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
        keys = Keys((Source(str(tree)),), source_prefix=f"{tree}/")
        comparison = Comparison(keys, actor, exact=True)

        differences = list(comparison.differences("", ScanReport()))
        assert sorted(one.key for one in differences) == sorted(["a/b", "a-b", "a/c/d", "b", "Z", "é"])
        for one in differences:
            assert one.found is not None
            file = SourceFile(one.key, os.open(one.found.path, os.O_RDONLY))
            actor.upload(file)
            file.close()
        settled = time.time() + 60  # as for a mirror that was last in sync then

        assert list(comparison.differences("", ScanReport(), settled)) == []
        (tree / "b").write_text("longer than before")
        (tree / "Z").unlink()
        assert [(one.key, one.found is None) for one in comparison.differences("", ScanReport(), settled)] == [("b", False), ("Z", True)]

    def test_a_listing_has_the_keys_that_begin_with_the_prefix(self, actor: Actor, content: Content) -> None:
        keys = ("a/1", "a/b/2", "a-b/3", "ab/4", "b/5")
        for key in keys:
            actor.upload(content.file(key, b"x"))

        for prefix in ("", "a/", "a/b/", "a/b", "a", "a-", "b/", "b/5", "none/", "a/none/"):
            assert set(listed(actor, prefix)) == {key for key in keys if key.startswith(prefix)}, prefix

    def test_a_listing_that_says_it_is_sorted_is(self, actor: Actor, content: Content) -> None:
        keys = ["a b", "a-b", "a/b", "a0", "aB", "b/c/d", "b-/c", "Z", "é", "z", "\ue000", "\U0001f600"]
        kept = []
        for key in keys:
            try:
                actor.upload(content.file(key, b"x"))
            except PermanentError:
                continue
            kept.append(key)
        listing = listing_of(actor, "")

        found = [file.key for file in listing]

        assert sorted(found) == sorted(kept)
        if self.sorts and getattr(listing, "already_sorted", False):
            assert found == sorted(kept, key=lambda key: key.encode()), "already_sorted is true, and the listing is not sorted"

    def test_a_listing_of_many_pages_is_complete(self, actor: Actor, content: Content) -> None:
        one = content.file("shared", b"x")
        keys = [f"d{number % 7}/{number:05}" for number in range(self.many)]
        files = [SourceFile(key, os.dup(one.descriptor)) for key in keys]
        try:
            self._send(actor, files)
        finally:
            for file in files:
                file.close()

        assert set(listed(actor)) == set(keys)
        assert set(listed(actor, "d3/")) == {key for key in keys if key.startswith("d3/")}

    def _send(self, actor: Actor, files: Sequence[File]) -> None:
        if actor.sends_together:
            for start in range(0, len(files), 100):
                assert not [error for error in actor.upload_many(files[start : start + 100]) if error is not None]
            return
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(actor.upload, files))

    def test_times_and_etags_of_a_listing_can_be_used(self, actor: Actor, content: Content, tmp_path: Path) -> None:
        stamp = tmp_path / "stamp"
        stamp.touch()
        file = content.file("a", b"content")
        actor.upload(file)

        (found,) = listing_of(actor, "")

        assert not found.mtime or abs(found.mtime - stamp.stat().st_mtime) < 60
        self._compare(actor, found, file, content.file("a", b"another"))


class UploadContract(_Contract):
    """Uploads of small and large files. A subclass defines the fixture `actor`."""

    def test_a_large_file_arrives_whole(self, actor: Actor, content: Content) -> None:
        data = random.Random(1).randbytes(self.large)  # noqa: S311
        file = content.file("large", data)

        actor.upload(file)

        (found,) = listing_of(actor, "")
        assert (found.key, found.size) == ("large", self.large)
        assert content.open == set(), "an upload that is complete is noted as one that is open"
        self._compare(actor, found, file, content.file("large", data[:-1] + bytes([data[-1] ^ 1])))
        actor.upload(content.file("large", b"small now"))
        assert listed(actor) == {"large": 9}
        actor.delete(File("large"))
        assert listed(actor) == {}

    @pytest.mark.parametrize("which", ["small", "large"])
    def test_a_torn_file_leaves_what_was_there(self, which: str, actor: Actor, content: Content) -> None:
        actor.upload(content.file("a", b"old"))
        read: list[int] = []

        def meanwhile(count: int) -> None:
            if not read:
                with open(content.path(file), "r+b") as other:
                    other.write(b"changed!")
            read.append(count)

        file = content.file("a", b"x" * getattr(self, which), meanwhile)
        with pytest.raises(FileChanged):
            actor.upload(file)

        assert read, "the file changed while it was read"
        self._is_as_it_was(actor, content)

    @pytest.mark.parametrize("which", ["small", "large"])
    def test_a_file_that_shrinks_leaves_what_was_there(self, which: str, actor: Actor, content: Content) -> None:
        actor.upload(content.file("a", b"old"))
        file = content.file("a", b"x" * getattr(self, which))
        os.truncate(content.path(file), 50)

        with pytest.raises(FileChanged):
            actor.upload(file)

        self._is_as_it_was(actor, content)

    @pytest.mark.parametrize("which", ["small", "large"])
    def test_an_upload_that_is_stopped_leaves_what_was_there(self, which: str, actor: Actor, content: Content) -> None:
        """When a worker stops, reading a file raises `Draining`; `upload` must let it through."""
        actor.upload(content.file("a", b"old"))
        read = [0]

        def stop(count: int) -> None:
            read[0] += count
            if read[0] >= getattr(self, which) / 2:
                raise Draining("a: the worker is being stopped")

        with pytest.raises(Draining):
            actor.upload(content.file("a", b"x" * getattr(self, which), stop))

        assert read[0]
        self._is_as_it_was(actor, content)

    def _is_as_it_was(self, actor: Actor, content: Content) -> None:
        assert listed(actor) == {"a": 3}
        assert content.open == set(), "an aborted upload is noted as one that is open"
        actor.upload(content.file("a", b"newer"))
        assert listed(actor) == {"a": 5}

    def test_several_files_are_uploaded_together_and_each_has_its_own_result(self, actor: Actor, content: Content) -> None:
        torn = content.file("torn", b"old")
        content.path(torn).write_bytes(b"new content")
        files = [content.file(f"d/{number:02}", bytes([number]) * number) for number in range(20)]
        files += [torn, content.file("medium", bytes(200_000))]

        results = actor.upload_many(files) if actor.sends_together else [self._result_of(actor, file) for file in files]

        assert [type(result) for result in results] == [type(None)] * 20 + [FileChanged, type(None)]
        assert listed(actor) == {**{f"d/{number:02}": number for number in range(20)}, "medium": 200_000}

    def _result_of(self, actor: Actor, file: File) -> Exception | None:
        try:
            actor.upload(file)
        except Exception as error:
            return error
        return None

    def test_abandoning_a_complete_upload_is_no_error_and_changes_nothing(self, actor: Actor, content: Content) -> None:
        actor.upload(content.file("large", bytes(self.large)))

        for token in content.tokens:
            actor.abandon("large", token)

        assert listed(actor) == {"large": self.large}


class DeletionContract(_Contract):
    """Deletions, one by one and together. A subclass defines the fixture `actor`."""

    def test_deleting_a_missing_object_is_no_error(self, actor: Actor, content: Content) -> None:
        actor.upload(content.file("d/stays", b"x"))
        for key in ("nothing", "no/thing/here", "d", "d/stays/below", "d/sta"):
            actor.delete(File(key))

        assert listed(actor) == {"d/stays": 1}

    def test_many_are_deleted_together(self, actor: Actor, content: Content) -> None:
        keys = [f"d/{number}" for number in range(30)]
        for key in keys:
            actor.upload(content.file(key, b"x"))
        gone = [File(key) for key in [*keys[:20], "d/never-was"]]

        if can_delete_many(actor):
            assert list(actor.delete_many(gone)) == [None] * 21
        else:
            for file in gone:
                actor.delete(file)

        assert set(listed(actor)) == set(keys[20:])


class ActorContract(KeyContract, ListingContract, UploadContract, DeletionContract):
    """All tests. A subclass defines the fixture `actor`, and may set `many`, `large` and the other attributes above."""

    def test_a_worker_can_make_it_from_the_published_settings(self, actor: Actor) -> None:
        names = {str(option.name) for option in actor.options} | {"target_container"}
        secrets = {name: getattr(actor, name) for name in secret_names(type(actor))}
        public = json.loads(json.dumps({name: getattr(actor, name) for name in names - secrets.keys()}))
        assert not [value for value in secrets.values() if value and value in json.dumps(public)], "a secret is published"

        again = type(actor)(**public, **secrets)
        try:
            again.check()
            assert listed(again) == {}
        finally:
            again.close()

    def test_what_is_uploaded_is_listed_and_what_is_deleted_is_not(self, actor: Actor, content: Content) -> None:
        actor.check()
        assert listed(actor) == {}

        actor.upload(content.file("a", b"1"))
        actor.upload(content.file("d/e/f", b"22"))
        actor.upload(content.file("d/empty", b""))
        assert listed(actor) == {"a": 1, "d/e/f": 2, "d/empty": 0}
        actor.upload(content.file("a", b"longer"))
        assert listed(actor) == {"a": 6, "d/e/f": 2, "d/empty": 0}

        actor.delete(File("a"))
        actor.delete(File("d/e/f"))
        assert listed(actor) == {"d/empty": 0}

    def test_random_operations_end_as_they_do_in_a_dictionary(self, actor: Actor, content: Content) -> None:
        dice = random.Random(7)  # noqa: S311
        model: dict[str, int] = {}
        keys = [f"{directory}{name}" for directory in ("", "d/", "d-/", "d/e/") for name in "xyz"]
        for _ in range(60):
            key = dice.choice(keys)
            if dice.random() < 0.6:
                size = dice.randrange(50)
                actor.upload(content.file(key, bytes(size)))
                model[key] = size
            else:
                actor.delete(File(key))
                model.pop(key, None)

        assert listed(actor) == model

    def test_many_threads_use_it_at_once(self, actor: Actor, content: Content) -> None:
        files = [content.file(f"t/{number:03}", bytes([number % 256]) * (number % 40)) for number in range(120)]

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(actor.upload, files))
            assert listed(actor) == {file.key: file.size for file in files}
            list(pool.map(actor.delete, [File(file.key) for file in files[:60]]))

        assert set(listed(actor)) == {file.key for file in files[60:]}

    def test_the_clock_differs_by_less_than_a_minute(self, actor: Actor) -> None:
        assert abs(actor.clock_ahead()) < 60
