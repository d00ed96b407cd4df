"""Whatever happens to a tree and to the programs that mirror it: once it is quiet, the target equals it, and nothing wrong was visible.

A seeded generator chooses what happens; the real command, broker, workers and S3 server have to bear it. `lab/chaos` has the operations,
the accidents and the observer; `make soak` does the same for thousands of operations, and worse.
"""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random, SystemRandom
from typing import NamedTuple

import pytest

from autosync.compare.diff import MARGIN
from lab.chaos import (
    ACCIDENTS,
    LINK_ACCIDENTS,
    MOUNT_ACCIDENTS,
    OPERATIONS,
    Autosync,
    Book,
    Box,
    Broken,
    Chaos,
    Observer,
    Releases,
    SourceDisk,
    World,
    content,
    digest,
    unmount_all,
    versioned_bucket,
)  # fmt: skip
from lab.parts import lacking
from lab.servers import Missing, Moto, wait_until

pytestmark = pytest.mark.timeout(300)

_ACCIDENTS = ACCIDENTS | LINK_ACCIDENTS
#: A seed with which the source is switched to another tree, and back when its files are sent; it is removed when all is equal again.
_SWITCHED_BACK = 1


class Running:
    """One autosync that runs for several examples; each has a directory of its own below the source."""

    def __init__(self, directory: Path, moto: Moto) -> None:
        self._releases = Releases(directory)
        self._source = self._releases.top
        self._beside = directory / "beside"
        self._moto = moto
        self._bucket = versioned_bucket(moto, f"machine-{uuid.uuid4().hex[:8]}")
        self._names = (f"example-{number}" for number in itertools.count(1))
        (self._source / "anchor").write_text("A source that holds no file at all deletes nothing.")
        options = ["--workers=1", "--threads=8", "--rescan=0", "--settle=0.1"]
        self.autosync = Autosync(directory, self._source, moto, self._bucket, options)
        #: Whether all examples until now ended well: then the next one can have it too.
        self.is_sound = True

    @contextmanager
    def example(self) -> Iterator[Chaos]:
        """A new example, with the observer at work, that ends with a quiet point."""
        name = next(self._names)
        world = World(self._source, name, self._beside / name)
        chaos = Chaos(world, self.autosync, Observer(self._moto, self._bucket, f"{name}/", world.book), releases=self._releases)
        chaos.observer.start()
        self.is_sound = False
        try:
            yield chaos
            chaos.quiet()
            self.is_sound = True
        finally:
            chaos.observer.stop()
            world.clear()

    def stop(self) -> None:
        """End it in order, and see that it has met with nothing unexpected."""
        code = self.autosync.stop()
        log = self.autosync.output()
        assert code == 0, log[-4000:]
        assert [line for line in log.splitlines() if "Traceback" in line or " critical: " in line] == []


class Shared:
    """The autosync that the tests of this file share, until an example in it does not end well."""

    def __init__(self, factory: pytest.TempPathFactory, moto: Moto) -> None:
        self._factory = factory
        self._moto = moto
        self._running: Running | None = None

    def get(self) -> Running:
        """One that runs, and of which every example ended well."""
        if self._running is None:
            self._running = Running(self._factory.mktemp("machine"), self._moto)
            self._running.autosync.start()
        return self._running

    def check(self) -> None:
        """See that it still runs. If it does not, or an example did not end well, the next test has another."""
        running = self._running
        assert running is not None
        if not (running.is_sound and running.autosync.runs()):
            self._running = None
            running.autosync.end()
        if running.is_sound:
            running.autosync.check()

    def stop(self) -> None:
        """End it in order."""
        if self._running is not None:
            try:
                self._running.stop()
            finally:
                self._running.autosync.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, moto: Moto) -> Iterator[Shared]:
    made = Shared(tmp_path_factory, moto)
    yield made
    made.stop()


@pytest.fixture
def running(shared: Shared) -> Iterator[Running]:
    yield shared.get()
    shared.check()


class Step(NamedTuple):
    """What is done in an example: operations and accidents by their names; none: wait for a quiet point."""

    names: tuple[str, ...]
    seed: int

    def perform(self, chaos: Chaos) -> None:
        """Do it."""
        chance = Random(self.seed)
        for name in self.names:
            if name in _ACCIDENTS:
                _ACCIDENTS[name](chaos, chance)
            else:
                chaos.world.do(name, chance)
        if not self.names:
            chaos.quiet()
        chaos.check()


def steps_of(chance: Random) -> list[Step]:
    """An example. All of it is chosen before the first step is performed: how the world is then has no part in it."""
    operations = [tuple(chance.choices(sorted(OPERATIONS), k=chance.randrange(1, 13))) for _ in range(4)]
    accidents = [(name,) for name in chance.choices(sorted(_ACCIDENTS), k=3)]
    chosen: list[tuple[str, ...]] = [*operations, *accidents, ()]
    chance.shuffle(chosen)
    begin = ("create with parents", "create with parents", "create many")
    return [Step(names, chance.randrange(2**32)) for names in (begin, *chosen)]


@pytest.mark.parametrize("number", range(4))
def test_random_operations_and_accidents_leave_the_target_equal_to_the_source(running: Running, number: int) -> None:
    """SEED=... repeats an example; with CI=true they are always the same."""
    seed = os.environ.get("SEED") or (number if os.environ.get("CI") == "true" else SystemRandom().randrange(10**9))
    steps = steps_of(Random(int(seed)))
    print(f"SEED={seed}", *steps, sep="\n  ")  # shown if it fails
    with running.example() as chaos:
        for step in steps:
            step.perform(chaos)


def test_every_accident_in_turn_is_borne(running: Running) -> None:
    chance = Random(1)
    with running.example() as chaos:
        chaos.world.do("create many", chance)
        chaos.quiet()

        for accident in _ACCIDENTS.values():
            accident(chaos, chance)


def test_a_switch_back_to_files_that_are_older_than_what_was_sent_is_followed(running: Running) -> None:
    with running.example() as chaos:
        world = chaos.world
        world.do("create many", Random(5))
        newest = max(path.stat().st_ctime for path in world.root.rglob("*"))
        chaos.quiet()
        wait_until(lambda: time.time() > newest + 2 * MARGIN, what="times tell the files from what is sent from now on", pause=0.1)

        LINK_ACCIDENTS["switch the source"](chaos, Random(_SWITCHED_BACK))

        found = [word for what in world.done for word in ("same size", "was switched", "quiet after", "was removed") if word in what]
        assert found == ["quiet after", "same size", "was switched", "quiet after", "was switched", "quiet after", "was removed"]


@pytest.fixture
def mounted(tmp_path: Path, moto: Moto) -> Iterator[Chaos]:
    """An autosync that withholds deletions as it does by default, with a source on a disk, and an upload box."""
    if os.geteuid():
        lacking("root, to mount")
    with ExitStack() as ends:
        try:
            disk = SourceDisk(tmp_path)
        except Missing as missing:
            lacking(f"{missing} is not there")
        ends.callback(disk.close)
        bucket = versioned_bucket(moto, f"mounted-{uuid.uuid4().hex[:8]}")
        world = World(disk.top, "tree", disk.beside, backing=disk.backing)
        options = ["--workers=1", "--threads=8", "--rescan=0", "--settle=0.1"]
        autosync = Autosync(tmp_path, disk.top, moto, bucket, options, may_withhold=True)
        box = Box(tmp_path, autosync.broker_url, disk.top, autosync.environ)
        chaos = Chaos(world, autosync, Observer(moto, bucket, "tree/", world.book), disk, box)
        chaos.waits_for_doubt = True
        ends.callback(unmount_all, chaos)
        ends.callback(box.kill)
        ends.callback(autosync.end)
        ends.callback(chaos.observer.stop)
        autosync.start()
        chaos.observer.start()
        chaos.quiet()
        box.start()
        yield chaos


def test_every_accident_with_mounts_in_turn_is_borne(mounted: Chaos) -> None:
    """Nothing that is only hidden is deleted; what is withheld is listed, and deleted when it is accepted."""
    chance = Random(4)
    mounted.world.do("create many", chance)
    for accident in MOUNT_ACCIDENTS.values():
        accident(mounted, chance)
    for _ in range(3):
        mounted.world.do("create many", chance)
    mounted.quiet(accept=True)

    assert mounted.autosync.stop() == 0
    while mounted.world.a_file(chance):
        mounted.world.do("delete", chance)
    mounted.autosync.start()
    accepted = mounted.accepted
    mounted.quiet(accept=True)
    assert mounted.accepted == accepted + 1, "more than --max-delete allows was removed"
    assert mounted.autosync.stop() == 0


def test_every_operation_in_turn_is_mirrored(running: Running) -> None:
    chance = Random(2)
    with running.example() as chaos:
        for name in [*OPERATIONS, *OPERATIONS]:
            chaos.world.do(name, chance)


def test_the_queue_overflows_also_where_autosync_was_only_just_started(running: Running) -> None:
    with running.example() as chaos:
        ACCIDENTS["restart"](chaos, Random(3))
        before = running.autosync.output().count("event queue overflowed")
        ACCIDENTS["overflow"](chaos, Random(3))
        assert running.autosync.output().count("event queue overflowed") == before + 1


def test_an_autosync_that_ended_in_one_test_is_not_that_of_the_next(tmp_path_factory: pytest.TempPathFactory, moto: Moto) -> None:
    shared = Shared(tmp_path_factory, moto)
    try:
        first = shared.get()
        with pytest.raises(Broken, match=r"autosync has ended with -9(.|\n)*The end of .*autosync\.log"), first.example() as chaos:
            chaos.autosync.kill()
        shared.check()  # the example has failed, and not the one behind it

        second = shared.get()
        assert second is not first
        second.autosync.kill()
        with pytest.raises(Broken, match="autosync has ended with -9"):
            shared.check()
        third = shared.get()
        assert third is not second
        assert third.autosync.runs()
        shared.check()
        assert shared.get() is third
    finally:
        shared.get().autosync.end()


# The observer itself: what it has to notice, it notices.


@pytest.fixture
def watched(moto: Moto, tmp_path: Path) -> Iterator[tuple[Observer, Book, Callable[[bytes | None], object]]]:
    """An observer at a quiet point: the file `a` holds version 1, and so does the object, which the third part puts or deletes."""
    book, bucket, client = Book(), versioned_bucket(moto, f"watched-{uuid.uuid4().hex[:8]}"), moto.client()

    def put(data: bytes | None) -> object:
        return client.delete_object(Bucket=bucket, Key="a") if data is None else client.put_object(Bucket=bucket, Key="a", Body=data)

    observer = Observer(moto, bucket, "", book, pause=0.01)
    book.will_have("a", digest(content(1, 200)))
    assert observer.differences() == ["'a': missing"]
    put(content(1, 200))
    assert observer.differences() == []
    observer.check_versions()
    book.quiet()
    observer.start()
    try:
        yield observer, book, put
    finally:
        observer.stop()


def test_the_observer_sees_a_mixture_of_two_versions(watched: tuple[Observer, Book, Callable]) -> None:
    observer, book, put = watched
    book.will_have("a", digest(content(2, 200)))

    put(content(2, 128) + content(1, 200)[128:])

    wait_until(lambda: observer.violations, what="it is noticed")
    assert "200 bytes: 2 lines of version 00000002, 2 lines of version 00000001" in observer.violations[0]


def test_the_observer_sees_in_hindsight_what_was_visible_for_a_moment(watched: tuple[Observer, Book, Callable]) -> None:
    observer, _, put = watched
    observer.stop()

    put(content(9, 200))
    put(content(1, 200))
    assert observer.differences() == []
    assert observer.violations == []
    observer.check_versions()

    assert "was never the content of its file" in observer.violations[0]


def test_the_observer_sees_a_deletion_without_proof(watched: tuple[Observer, Book, Callable]) -> None:
    observer, _, put = watched

    put(None)

    wait_until(lambda: observer.violations, what="it is noticed")
    assert "'a' was missing" in observer.violations[0]
    put(content(1, 200))
    observer.check_versions()
    assert "'a' was deleted" in observer.violations[-1]


def test_the_observer_accepts_a_deletion_of_what_left_and_came_back(watched: tuple[Observer, Book, Callable]) -> None:
    observer, book, put = watched
    book.change(gone=["a"])
    book.will_have("a", digest(content(2, 200)))

    put(None)
    checks = observer.checks
    wait_until(lambda: observer.checks > checks + 1, what="the observer has checked again")
    put(content(2, 200))
    observer.check_versions()

    assert observer.violations == []
    assert observer.differences() == []
