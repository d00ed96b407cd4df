"""Whatever happens to a tree and to the programs that mirror it: once it is quiet, the target equals it, and nothing wrong was visible.

Hypothesis chooses what happens; the real command, broker, workers and S3 server have to bear it. `lab/chaos` has the operations, the
accidents and the observer; `make soak` does the same for thousands of operations, and worse.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from lab.chaos import ACCIDENTS, OPERATIONS, Autosync, Book, Chaos, Observer, World, content, digest, versioned_bucket
from lab.servers import Moto, wait_until

pytestmark = pytest.mark.timeout(300)

SEEDS = st.integers(0, 2**32 - 1)


class Running:
    """One autosync for the whole module; each example has a directory of its own below the source."""

    def __init__(self, directory: Path, moto: Moto) -> None:
        self.source = directory / "source"
        self.beside = directory / "beside"
        self.moto = moto
        self.bucket = versioned_bucket(moto, "machine")
        self.names = (f"example-{number}" for number in itertools.count(1))
        self.source.mkdir()
        (self.source / "anchor").write_text("A source that holds no file at all deletes nothing.")
        options = ["--workers=1", "--threads=8", "--rescan=0", "--settle=0.1"]
        self.autosync = Autosync(directory, self.source, moto, self.bucket, options)

    def begin(self) -> Chaos:
        """A new example, with the observer at work."""
        name = next(self.names)
        world = World(self.source, name, self.beside / name)
        chaos = Chaos(world, self.autosync, Observer(self.moto, self.bucket, f"{name}/", world.book))
        chaos.observer.start()
        return chaos

    def end(self, chaos: Chaos) -> None:
        """The example is over."""
        chaos.observer.stop()
        chaos.world.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, moto: Moto) -> Iterator[Running]:
    started = Running(tmp_path_factory.mktemp("machine"), moto)
    started.autosync.start()
    try:
        yield started
        assert started.autosync.stop() == 0
        assert [line for line in started.autosync.said().splitlines() if "Traceback" in line or " critical: " in line] == []
    finally:
        started.autosync.end()


@pytest.fixture
def chaos(running: Running) -> Iterator[Chaos]:
    begun = running.begin()
    yield begun
    running.end(begun)


def test_random_operations_and_accidents_leave_the_target_equal_to_the_source(running: Running) -> None:
    class Machine(RuleBasedStateMachine):
        """What is chosen are the name of an operation or an accident, and the seed from which it takes its details."""

        @initialize(seed=SEEDS)
        def begin(self, seed: int) -> None:
            self.chaos = running.begin()
            chance = Random(seed)
            for name in ("create with parents", "create with parents", "create many"):
                self.chaos.world.do(name, chance)

        @rule(names=st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=12), seed=SEEDS)
        def operate(self, names: list[str], seed: int) -> None:
            chance = Random(seed)
            for name in names:
                self.chaos.world.do(name, chance)
            self.chaos.insist()

        @rule()
        def be_quiet(self) -> None:
            self.chaos.quiet()

        @rule(accident=st.sampled_from(sorted(ACCIDENTS)), seed=SEEDS)
        def have_an_accident(self, accident: str, seed: int) -> None:
            ACCIDENTS[accident](self.chaos, Random(seed))

        def teardown(self) -> None:
            if not hasattr(self, "chaos"):
                return
            try:
                self.chaos.quiet()
            finally:
                running.end(self.chaos)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=4,  # some 30 s
            stateful_step_count=10,
            deadline=None,
            database=None,
            derandomize=os.environ.get("CI") == "true",
            phases=[Phase.explicit, Phase.generate],  # to make a failing example smaller would take hours
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_accident_in_turn_is_borne(chaos: Chaos) -> None:
    chance = Random(1)
    chaos.world.do("create many", chance)
    chaos.quiet()

    for accident in ACCIDENTS.values():
        accident(chaos, chance)

    chaos.quiet()


def test_every_operation_in_turn_is_mirrored(chaos: Chaos) -> None:
    chance = Random(2)

    for name in [*OPERATIONS, *OPERATIONS]:
        chaos.world.do(name, chance)

    chaos.quiet()


def test_the_queue_overflows_also_where_autosync_was_only_just_started(running: Running) -> None:
    chaos = running.begin()
    try:
        ACCIDENTS["restart"](chaos, Random(3))
        before = running.autosync.said().count("event queue overflowed")
        ACCIDENTS["overflow"](chaos, Random(3))
        assert running.autosync.said().count("event queue overflowed") == before + 1
        chaos.quiet()
    finally:
        chaos.observer.stop()
        chaos.world.clear()


# The observer itself: what it has to notice, it notices.


@pytest.fixture
def watched(moto: Moto, tmp_path: Path) -> Iterator[tuple[Observer, Book, Callable[[bytes | None], object]]]:
    """An observer at a quiet point: the file `a` holds version 1, and so does the object, which the third part puts or deletes."""
    book, bucket, client = Book(), versioned_bucket(moto, f"watched-{uuid.uuid4().hex[:8]}"), moto.client()

    def put(data: bytes | None) -> object:
        return client.delete_object(Bucket=bucket, Key="a") if data is None else client.put_object(Bucket=bucket, Key="a", Body=data)

    observer = Observer(moto, bucket, "", book, pause=0.01)
    book.stands("a", digest(content(1, 200)))
    assert observer.differences() == ["'a': missing"]
    put(content(1, 200))
    assert observer.differences() == []
    observer.look_back()
    book.quiet()
    observer.start()
    try:
        yield observer, book, put
    finally:
        observer.stop()


def test_the_observer_sees_a_mixture_of_two_versions(watched: tuple[Observer, Book, Callable]) -> None:
    observer, book, put = watched
    book.stands("a", digest(content(2, 200)))

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
    observer.look_back()

    assert "was never the content of its file" in observer.violations[0]


def test_the_observer_sees_a_deletion_without_proof(watched: tuple[Observer, Book, Callable]) -> None:
    observer, _, put = watched

    put(None)

    wait_until(lambda: observer.violations, what="it is noticed")
    assert "'a' was missing" in observer.violations[0]
    put(content(1, 200))
    observer.look_back()
    assert "'a' was deleted" in observer.violations[-1]


def test_the_observer_accepts_a_deletion_of_what_left_and_came_back(watched: tuple[Observer, Book, Callable]) -> None:
    observer, book, put = watched
    book.change(gone=["a"])
    book.stands("a", digest(content(2, 200)))

    put(None)
    looks = observer.looks
    wait_until(lambda: observer.looks > looks + 1, what="it has looked again")
    put(content(2, 200))
    observer.look_back()

    assert observer.violations == []
    assert observer.differences() == []
