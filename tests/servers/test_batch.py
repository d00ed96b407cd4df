"""A worker's transfers with a real ledger: one operation per key at a time, the last state wins, every result is stored."""

from __future__ import annotations

import itertools
import json
import logging
import mmap
import os
import random
import re
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from celery import signals

from autosync.actor import Actor
from autosync.celery import Secrets
from autosync.errors import BrokerError, PermanentError, TargetError, UnknownDefinition
from autosync.files import File
from autosync.ledger import GONE, UNKNOWN, Claim, Hint, Ledger, connect
from autosync.ledger.uploads import OpenUploads
from autosync.model.keys import Source
from autosync.model.mirror import Mirror, version_of
from autosync.process.boot_id import boot_id
from autosync.source.source_file import SourceFile
from autosync.tasks import transfer
from autosync.tasks.claimed_batch import ClaimedBatch
from autosync.tasks.pipeline import Pipeline
from autosync.tasks.unchanged_files import UnchangedFiles
from autosync.tasks.worker_mirror import WorkerMirror
from autosync.tasks.worker_state import WorkerState
from autosync.watch.watcher import identity_of
from lab.servers import wait_until

STORE: dict[str, bytes] = {}


class Quiet:
    """Progress that nobody sees."""

    def add(self, count: int) -> None:
        pass


class Workbench:
    """A mirror of a tree in a ledger, and as many workers for it as a test needs."""

    def __init__(self, broker: str, tree: Path, **options: object) -> None:
        self.broker = broker
        self.tree = tree
        self.ledger = Ledger(connect(broker), "m")
        fields: dict = {"host": boot_id(), "threads": 4, "attempts": 3, **options}
        actor = str(fields.pop("actor", "test_batch.Recording"))
        mirror = Mirror("m", actor, (Source(str(tree)),), {str(tree): identity_of(str(tree))}, source_prefix=f"{tree}/", **fields)
        self.definition = mirror.dumps()
        self.ledger.definition.publish(self.definition, version_of(self.definition))
        self.workers: list[WorkerState] = []

    def worker(self) -> tuple[WorkerState, WorkerMirror]:
        worker = WorkerState(self.broker, [str(self.tree)], {}, f"box{len(self.workers) + 1}@host")
        self.workers.append(worker)
        return worker, worker.mirror("m")

    def work(self, keys: list[str], worker: tuple[WorkerState, WorkerMirror] | None = None) -> str:
        """What a task does with a message. Returns its line for people."""
        where, mirror = worker or self.worker()
        claimed_at = time.monotonic()
        claims = mirror.ledger.claims.claim(where.owner, mirror.version, keys, mirror.definition.lease) or []
        mirror.claim_table.add(claims, claimed_at, mirror.definition.lease)
        return Pipeline(ClaimedBatch(where, mirror, Quiet(), claimed_at)).run(claims)  # type: ignore[arg-type]


class Recording(Actor):
    """A target in memory that notices two operations on one key at the same time."""

    lock = threading.Lock()
    running: ClassVar[defaultdict[str, int]] = defaultdict(int)
    overlaps: ClassVar[list[str]] = []
    errors: ClassVar[list[Exception]] = []
    slow = 0.0
    meanwhile = None
    operations: ClassVar[list[tuple[str, str]]] = []
    #: Given to `begun`, if set; what is in here when an upload starts is open in the target.
    token = ""
    open_uploads: ClassVar[set[tuple[str, str]]] = set()
    #: Raised by `abandon`, one after the other.
    refusals: ClassVar[list[Exception]] = []

    @classmethod
    def reset(cls) -> None:
        cls.running.clear()
        for record in (cls.overlaps, cls.errors, cls.operations, cls.refusals, cls.open_uploads):
            record.clear()
        cls.slow, cls.meanwhile, cls.token = 0.0, None, ""
        STORE.clear()

    def _enter(self, key: str, what: str) -> None:
        with self.lock:
            self.running[key] += 1
            if self.running[key] > 1:
                self.overlaps.append(key)
            self.operations.append((what, key))
            if self.errors:
                self.running[key] -= 1
                raise self.errors.pop(0)

    def _leave(self, key: str) -> None:
        with self.lock:
            self.running[key] -= 1

    def list(self):  # type: ignore[no-untyped-def, override]
        return [File(key, len(content)) for key, content in STORE.items()]

    def upload(self, file: File) -> None:
        self._enter(file.key, "upload")
        try:
            if self.token:
                self._in_parts(file, self.token)
            with file.open() as source:
                content = source.read()
            if type(self).meanwhile:
                type(self).meanwhile(file.key)
            time.sleep(self.slow * random.random())
            STORE[file.key] = content
        finally:
            self._leave(file.key)

    def _in_parts(self, file: File, token: str) -> None:
        self.open_uploads.add((file.key, token))
        try:
            file.begun(token)
            if type(self).meanwhile:
                type(self).meanwhile(file.key)
        except Killed:
            raise
        except BaseException:
            self.open_uploads.discard((file.key, token))
            file.ended(token)
            raise
        self.open_uploads.discard((file.key, token))
        file.ended(token)

    def abandon(self, key: str, token: str) -> None:
        self._enter(key, f"abandon {token}")
        try:
            if self.refusals:
                raise self.refusals.pop(0)
            self.open_uploads.discard((key, token))
        finally:
            self._leave(key)

    def delete(self, file: File) -> None:
        self._enter(file.key, "delete")
        try:
            time.sleep(self.slow * random.random())
            STORE.pop(file.key, None)
        finally:
            self._leave(file.key)


class Killed(BaseException):
    """As if the process had ended at this point."""


def killed(key: str) -> None:
    Recording.meanwhile = None
    raise Killed


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Recording.reset()


@pytest.fixture
def make(broker: str, tree: Path) -> Iterator[Callable[..., Workbench]]:
    made: list[Workbench] = []

    def one(at: Path = tree, **options: object) -> Workbench:
        made.append(Workbench(broker, at, **options))
        return made[-1]

    yield one
    for workbench in made:
        for worker in workbench.workers:
            worker.close()


@pytest.fixture
def bench(make: Callable[..., Workbench]) -> Workbench:
    return make()


def hint(path: Path) -> Hint:
    return Hint(path.stat().st_size, path.stat().st_mtime_ns)


def test_what_is_on_the_disk_goes_up_and_what_is_not_goes_away(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("a")
    STORE["gone"] = b"old"
    bench.ledger.claims.mark([("a", hint(tree / "a")), ("gone", GONE)])

    summary = bench.work(["a", "gone", "unmarked"])

    assert STORE == {"a": b"a"}
    assert summary == "1 file, 1 B, 1 deleted"
    assert bench.ledger.key_states.count_dirty() == 0


def test_a_change_during_an_upload_is_sent_after_it(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("first")
    bench.ledger.claims.mark([("a", UNKNOWN)])

    def change(key: str) -> None:
        Recording.meanwhile = None
        (tree / "a").write_text("second")
        bench.ledger.claims.mark([("a", UNKNOWN)])

    Recording.meanwhile = change
    bench.work(["a"])

    # The first was found torn, and since the key changed meanwhile its next try is due at once.
    bench.work(bench.ledger.claims.requeue_orphans())
    assert STORE == {"a": b"second"}
    assert bench.ledger.key_states.count_dirty() == 0


def test_a_mark_without_a_change_sends_nothing_twice(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("same")
    bench.ledger.claims.mark([("a", UNKNOWN)])

    def mark_again(key: str) -> None:
        Recording.meanwhile = None
        bench.ledger.claims.mark([("a", UNKNOWN)])

    Recording.meanwhile = mark_again
    bench.work(["a"])

    assert Recording.operations == [("upload", "a")]
    assert bench.ledger.key_states.count_dirty() == 0


def test_a_file_that_is_being_written_is_not_sent_before_the_write_has_ended(bench: Workbench, tree: Path) -> None:
    """A write that is under way has set the file's times already, so that they are the same before and after the reading."""
    with (tree / "a").open("w") as file:
        file.write("under way")
        file.flush()
        bench.ledger.claims.mark([("a", UNKNOWN)])
        bench.work(["a"])
        assert STORE == {}
    bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))

    assert STORE == {"a": b"under way"}
    assert bench.ledger.key_states.count_dirty() == 0


@pytest.fixture(params=[-86_400.0, 0.0, 86_400.0], ids=["a clock behind", "the same clock", "a clock ahead"])
def share(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of files come from another clock, and the kernel knows nothing of who writes."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - request.param)
    monkeypatch.setattr(SourceFile, "has_writer", lambda *_: None)


@pytest.mark.usefixtures("share")
def test_a_file_that_the_file_host_saw_rest_is_sent_at_the_first_try(bench: Workbench, tree: Path) -> None:
    for name in "ab":
        (tree / name).write_text(name)
    bench.ledger.claims.mark([(name, hint(tree / name)._replace(rested=True)) for name in "ab"])
    (tree / "b").write_text("changed since")

    bench.work(["a", "b"])

    assert STORE == {"a": b"a"}


@pytest.mark.usefixtures("share")
def test_a_file_that_may_not_rest_is_sent_once_it_was_seen_unchanged(
    bench: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "a").write_text("a")
    bench.ledger.claims.mark([("a", hint(tree / "a"))])
    worker, mirror = bench.worker()
    now = 0.0
    mirror.unchanged_files = UnchangedFiles(lambda: now)
    for seconds, change in ((0.0, ""), (0.9, "changed"), (0.9, ""), (0.1, "")):
        now += seconds
        if change:
            (tree / "a").write_text(change)
        assert STORE == {}
        bench.ledger.claims.mark([("a", hint(tree / "a"))])  # it need not wait for its next try
        bench.work(["a"], (worker, mirror))

    assert STORE == {"a": b"changed"}


def test_a_file_that_stays_open_for_writing_is_sent_all_the_same(bench: Workbench, tree: Path) -> None:
    with (tree / "log").open("w") as file:
        file.write("a line")
        file.flush()
        bench.ledger.claims.mark([("log", UNKNOWN)])
        bench.work(["log"])
        while bench.ledger.key_states.count_dirty():
            bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))

        assert STORE == {"log": b"a line"}


@pytest.mark.parametrize("pause", [0.15, 0.003])
def test_a_file_that_never_rests_is_sent_in_the_end_and_never_half_written(bench: Workbench, tree: Path, pause: float) -> None:
    (tree / "busy").write_bytes(b"a" * 300_000)

    def write(stop: threading.Event) -> None:
        with (tree / "busy").open("r+b", buffering=0) as file:
            for letter in itertools.cycle(b"abc"):
                file.seek(0)
                file.write(bytes([letter]) * 300_000)
                if stop.wait(pause):
                    return

    with restless(write):
        send(bench, "busy")
    assert len(set(STORE["busy"])) == 1


@pytest.mark.parametrize("where", ["", "/dev/shm"], ids=["disk", "memory"])
def test_a_file_that_is_changed_through_a_mapping_which_sets_no_times_is_not_torn(
    make: Callable[..., Workbench], tree: Path, where: str
) -> None:
    """Two bytes, far apart, that are changed together."""
    size = 4 << 20
    with tempfile.TemporaryDirectory(dir=where or tree) as directory, open(f"{directory}/mapped", "w+b") as file:
        os.ftruncate(file.fileno(), size)
        bench = make(Path(directory))
        with mmap.mmap(file.fileno(), size) as mapped:

            def write(stop: threading.Event) -> None:
                for value in itertools.cycle(range(256)):
                    mapped[0] = mapped[-1] = value
                    if stop.wait(0.0005):
                        return

            with restless(write):
                wait_until(lambda: time.time() - os.fstat(file.fileno()).st_ctime > 1.2, 60, "its times are those of the first change")
                for _ in range(5):
                    bench.ledger.claims.mark([("mapped", UNKNOWN)])
                    bench.work(["mapped"])
                    content = STORE.get("mapped", b"00")
                    assert content[:1] == content[-1:]
            send(bench, "mapped")
            assert STORE["mapped"][:1] == mapped[-1:]


def test_a_large_file_that_grows_all_the_time_is_sent_in_the_end_as_far_as_it_had_come(bench: Workbench, tree: Path) -> None:
    (tree / "recording").write_bytes(os.urandom(20 << 20))

    def write(stop: threading.Event) -> None:
        with (tree / "recording").open("ab", buffering=0) as file:
            while not stop.wait(0.001):
                file.write(os.urandom(1000))

    with restless(write):
        send(bench, "recording")
        assert (tree / "recording").stat().st_size > len(STORE["recording"]), "it grew meanwhile"
    assert len(STORE["recording"]) >= 20 << 20
    assert (tree / "recording").read_bytes().startswith(STORE["recording"])


@contextmanager
def restless(write: Callable[[threading.Event], None]) -> Iterator[None]:
    """Somebody writes until the end of the with-block."""
    stop = threading.Event()
    writer = threading.Thread(target=write, args=(stop,))
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


class Together(Recording):
    """One that takes small files together."""

    groups: ClassVar[list[list[str]]] = []
    fails_as_a_whole = False
    sends_together = True  # type: ignore[assignment]

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        self.groups.append([file.key for file in files])
        if self.fails_as_a_whole:
            raise TargetError("not one of them")
        return [self._answer(file) for file in files]

    def _answer(self, file: File) -> Exception | None:
        try:
            self.upload(file)
        except Exception as error:
            return error
        return None


@pytest.fixture
def together(broker: str, tree: Path) -> Iterator[Workbench]:
    Recording.reset()
    Together.groups.clear()
    made = Workbench(broker, tree, actor="test_batch.Together", threads=20)
    for number in range(50):
        (tree / f"small-{number:02}").write_text(str(number))
    (tree / "large").write_bytes(bytes(100_000))
    made.ledger.claims.mark([(path.name, hint(path)) for path in sorted(tree.iterdir())])
    yield made
    Together.fails_as_a_whole = False
    for worker in made.workers:
        worker.close()


def test_small_files_are_sent_together_where_the_actor_can_do_so(together: Workbench, tree: Path) -> None:
    together.work(sorted(path.name for path in tree.iterdir()))

    assert {key: len(content) for key, content in STORE.items()} == {path.name: path.stat().st_size for path in tree.iterdir()}
    given = [key for group in Together.groups for key in group]
    assert max(map(len, Together.groups)) == 16
    assert "large" not in given
    assert len(given) == len(set(given))
    assert together.ledger.key_states.count_dirty() == 0


def test_of_files_that_go_together_each_has_a_fate_of_its_own(together: Workbench, tree: Path) -> None:
    """One is refused, one is torn, one is gone when it is checked; all others arrive."""
    Recording.meanwhile = lambda key: _happen(key, tree)
    (tree / "small-40").unlink()
    together.ledger.claims.mark([("small-40", GONE)])
    worker = together.worker()
    worker[1].pool.add_response_time(0.001)  # so that they go by the handful from the first on

    together.work(sorted(f"small-{number:02}" for number in range(50)), worker)

    assert sorted(set(STORE) - {f"small-{number:02}" for number in range(50)}) == []
    assert {f"small-{number:02}" for number in range(50)} - set(STORE) == {"small-20", "small-40"}
    assert [failure.key for failure in together.ledger.failures.all()] == ["small-20"]
    dirty = together.ledger.key_states.count_dirty()
    assert dirty == 2, "the one that changed while it was sent; and the large one, which was not in the message"


def _happen(key: str, tree: Path) -> None:
    if key == "small-20":
        raise PermanentError("never this one")
    if key == "small-30":
        (tree / key).write_text("changed while it was on its way")


def test_an_actor_that_fails_for_all_of_a_group_fails_for_each(together: Workbench) -> None:
    Together.fails_as_a_whole = True
    worker = together.worker()
    worker[1].pool.add_response_time(0.001)

    together.work(["small-01", "small-02"], worker)

    assert STORE == {}
    assert Together.groups == [["small-01", "small-02"]]
    assert together.ledger.key_states.count_dirty() == 51, "they are tried again"


def send(bench: Workbench, key: str) -> None:
    """Mark a key, and work until nothing is left to do."""
    bench.ledger.claims.mark([(key, UNKNOWN)])
    while bench.ledger.key_states.count_dirty():
        bench.work(wait_until(lambda: bench.ledger.claims.requeue_orphans(age=0.0), 20, "the next try is due"))


def test_a_claim_that_ends_while_progress_is_reported_sends_nothing_more(bench: Workbench, tree: Path) -> None:
    """Progress goes to the broker, and one that does not respond is waited for, for longer than a claim may hold."""
    (tree / "a").write_text("a")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    worker, mirror = bench.worker()
    claimed_at = time.monotonic()
    claims = mirror.ledger.claims.claim(worker.owner, mirror.version, ["a"]) or []
    mirror.claim_table.add(claims, claimed_at)

    class Slow:
        def add(self, count: int) -> None:
            mirror.claim_table.remove(["a"], claimed_at)

    Pipeline(ClaimedBatch(worker, mirror, Slow(), claimed_at)).run(claims)  # type: ignore[arg-type]

    assert Recording.operations == [("upload", "a")]
    assert STORE == {}


def test_a_batch_does_not_end_while_a_helper_has_the_last_of_it(bench: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper comes late, when the batch's own thread has found no chunk any more, and its report has returned a key that has to be
    checked again."""
    (tree / "a").write_text("a")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    worker, mirror = bench.worker()
    claimed_at = time.monotonic()
    claims = mirror.ledger.claims.claim(worker.owner, mirror.version, ["a"]) or []
    mirror.claim_table.add(claims, claimed_at)
    pipeline = Pipeline(ClaimedBatch(worker, mirror, Quiet(), claimed_at))  # type: ignore[arg-type]
    taken, waiting, go_on = threading.Event(), threading.Event(), threading.Event()
    helpers: list[threading.Thread] = []
    jobs: list[Any] = []
    queue, reporter = pipeline._batch.queue, pipeline._reporter

    def wait(key: str) -> None:
        taken.set()
        assert go_on.wait(20)

    def flush(*, only_if_due: bool = False) -> list[Claim]:
        jobs.extend(mirror.pool._jobs)
        if helpers:
            waiting.set()
        if helpers or not jobs or mirror.pool._jobs:
            return report(only_if_due=only_if_due)
        assert report() == []
        (tree / "a").write_text("again")
        bench.ledger.claims.mark([("a", UNKNOWN)])
        mirror.claim_table.add(again := mirror.ledger.claims.claim(worker.owner, mirror.version, ["a"]) or [], claimed_at)
        Recording.meanwhile = wait
        queue.add(again)
        helpers.append(threading.Thread(target=jobs[0].step))
        helpers[0].start()
        assert taken.wait(20)
        return []

    report = reporter.flush
    monkeypatch.setattr(reporter, "flush", flush)
    running = threading.Thread(target=pipeline.run, args=(claims,))
    running.start()
    assert taken.wait(20)
    wait_until(lambda: waiting.is_set() or not running.is_alive(), 20, "it waits, or has ended")
    ended_early = not running.is_alive()
    go_on.set()
    for thread in (*helpers, running):
        thread.join(20)

    assert not ended_early
    assert (STORE, bench.ledger.key_states.count_dirty()) == ({"a": b"again"}, 0)


def test_a_deletion_during_an_upload_leaves_nothing_behind(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("short life")
    bench.ledger.claims.mark([("a", UNKNOWN)])

    def remove(key: str) -> None:
        Recording.meanwhile = None
        (tree / "a").unlink()
        bench.ledger.claims.mark([("a", GONE)])

    Recording.meanwhile = remove
    bench.work(["a"])
    while bench.ledger.key_states.count_dirty():
        bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))

    assert STORE == {}


def test_a_directory_that_leaves_during_an_upload_leaves_nothing_behind(bench: Workbench, tree: Path) -> None:
    """Nobody marks the key: the scan of the directory cannot see an object that is still on its way."""
    (tree / "d").mkdir()
    (tree / "d/a").write_text("moved")
    bench.ledger.claims.mark([("d/a", UNKNOWN)])

    def move(key: str) -> None:
        Recording.meanwhile = None
        (tree / "d").rename(tree / "e")

    Recording.meanwhile = move
    bench.work(["d/a"])
    while bench.ledger.key_states.count_dirty():
        bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))

    assert STORE == {}


@pytest.mark.parametrize("keys", [["d/a"], ["d/a", "d/b"]], ids=["one", "together"])
def test_a_directory_that_comes_back_during_a_deletion_is_not_missing(
    bench: Workbench, tree: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody marks the keys: a scan saw objects that were right, and were about to be deleted."""
    (tree / "away").mkdir()
    for key in keys:
        (tree / "away" / key[2:]).write_text("back")
        STORE[key] = b"back"
    bench.ledger.claims.mark([(key, GONE) for key in keys])

    def delete_many(self: Recording, files: list[File]) -> list[None]:
        (tree / "away").rename(tree / "d")
        for file in files:
            del STORE[file.key]
        return [None] * len(files)

    def delete(self: Recording, file: File) -> None:
        delete_many(self, [file])

    monkeypatch.setattr(Recording, "delete_many" if len(keys) > 1 else "delete", delete_many if len(keys) > 1 else delete)
    bench.work(keys)
    while bench.ledger.key_states.count_dirty():
        bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))

    assert dict.fromkeys(keys, b"back") == STORE


def test_another_batch_of_the_process_may_have_claimed_what_one_has_released(
    bench: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key changes while it is read. Once the first batch has reported that, a second one claims and uploads it without a wait."""
    (tree / "a").write_text("first")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    where, mirror = bench.worker()
    done, second = mirror.ledger.claims.done, []

    def change(key: str) -> None:
        Recording.meanwhile = None
        (tree / "a").write_text("second")
        bench.ledger.claims.mark([("a", UNKNOWN)])

    def claim_as_soon_as_it_is_released(*args: Any) -> Any:
        answer = done(*args)
        monkeypatch.undo()
        claimed_at = time.monotonic()
        claims = mirror.ledger.claims.claim(where.owner, mirror.version, bench.ledger.claims.requeue_orphans())
        assert [claim.key for claim in claims or []] == ["a"]
        mirror.claim_table.add(claims or [], claimed_at)
        second.append((Pipeline(ClaimedBatch(where, mirror, Quiet(), claimed_at)), claims))  # type: ignore[arg-type]
        return answer

    Recording.meanwhile = change
    monkeypatch.setattr(mirror.ledger.claims, "done", claim_as_soon_as_it_is_released)
    bench.work(["a"], (where, mirror))
    for pipeline, claims in second:
        pipeline.run(claims)

    assert STORE == {"a": b"second"}
    assert bench.ledger.key_states.count_dirty() == 0


def test_doubled_late_and_reordered_messages_never_meet_and_the_last_state_wins(bench: Workbench, tree: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    Recording.slow = 0.004
    keys = [f"k{number}" for number in range(12)]
    messages: list[list[str]] = []
    stop = threading.Event()
    workers = [bench.worker() for _ in range(3)]

    def work_on_messages(worker: tuple[WorkerState, WorkerMirror]) -> None:
        while not stop.is_set() or messages:
            try:
                message = messages.pop(rng.randrange(len(messages)))  # in any order
            except (IndexError, ValueError):
                time.sleep(0.001)
                continue
            bench.work(message, worker)

    threads = [threading.Thread(target=work_on_messages, args=(worker,)) for worker in workers for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(400):
        key = rng.choice(keys)
        path = tree / key
        if rng.random() < 0.3:
            path.unlink(missing_ok=True)
        else:
            path.write_text(f"{key} {number}")
        bench.ledger.claims.mark([(key, UNKNOWN if path.exists() else GONE)])
        messages.extend([[key]] * rng.choice((1, 1, 2)))  # some twice

    def settled() -> bool:
        messages.extend([key] for key in bench.ledger.claims.requeue_orphans(age=0.05))
        return bench.ledger.key_states.count_dirty() == 0

    wait_until(settled, 30, "every key is right")
    stop.set()
    for thread in threads:
        thread.join(20)

    assert Recording.overlaps == []
    assert {key: content.decode() for key, content in STORE.items()} == {path.name: path.read_text() for path in tree.iterdir()}


def test_an_error_is_tried_again_later_and_a_permanent_one_is_not(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("a")
    (tree / "b").write_text("b")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    Recording.errors.append(TargetError("not now"))
    bench.work(["a"])
    assert (bench.ledger.key_states.count_dirty(), list(bench.ledger.failures.all())) == (1, [])

    bench.ledger.claims.mark([("b", UNKNOWN)])
    Recording.errors.append(PermanentError("never", "give up"))
    bench.work(["b"])

    (failure,) = bench.ledger.failures.all()
    assert (failure.key, failure.reason, failure.attempts) == ("b", "never; give up", 1)
    bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try of a is due"))
    assert STORE == {"a": b"a"}


def test_the_tries_of_a_key_last_longer_than_a_minute_and_are_no_further_apart_than_half_a_minute(
    make: Callable[..., Workbench], tree: Path
) -> None:
    """So a target that is away for a minute fails nothing, and one that was away for an hour is equal soon after."""
    attempts = Mirror("m", "file", ()).attempts
    bench = make(attempts=attempts + 10)
    (tree / "a").write_text("a")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    delays: list[float] = []
    for _ in range(attempts + 9):
        Recording.errors.append(TargetError("away"))
        bench.work(["a"])
        facts = bench.ledger.key_states.facts("a")
        delays.append((facts.due or 0) - facts.now)
        connect(bench.broker).zadd("autosync:{m}:due", {"a": 0})  # as if that much later

    assert sum(delays[: attempts - 1]) > 60
    assert 30 * 1.25 > max(delays) > 20
    assert list(bench.ledger.failures.all()) == []


def test_what_fails_too_often_is_in_the_failed_list_and_leaves_it_when_it_succeeds(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("a")
    Recording.errors.extend(ValueError("a bug of the user's") for _ in range(3))
    bench.ledger.claims.mark([("a", UNKNOWN)])
    bench.work(["a"])
    for _ in range(2):
        bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))

    (failure,) = bench.ledger.failures.all()
    assert (failure.key, failure.reason, failure.attempts) == ("a", "ValueError: a bug of the user's", 3)
    assert bench.ledger.key_states.count_dirty() == 0

    bench.ledger.claims.mark([("a", UNKNOWN)])
    bench.work(["a"])
    assert list(bench.ledger.failures.all()) == []
    assert STORE == {"a": b"a"}


def test_a_draining_worker_releases_what_it_has_not_begun(bench: Workbench, tree: Path) -> None:
    for number in range(10):
        (tree / str(number)).write_text("x")
    bench.ledger.claims.mark([(str(number), UNKNOWN) for number in range(10)])
    worker = bench.worker()
    worker[0].draining.set()

    bench.work([str(number) for number in range(10)], worker)

    assert STORE == {}
    assert sorted(bench.ledger.claims.requeue_orphans()) == sorted(map(str, range(10))), "another may have them at once"


def test_without_delete_nothing_is_deleted(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(delete=False)
    STORE["gone"] = b"kept"
    bench.ledger.claims.mark([("gone", GONE)])

    bench.work(["gone"])

    assert STORE == {"gone": b"kept"}
    assert bench.ledger.key_states.count_dirty() == 0


def test_another_directory_instead_of_the_source_deletes_nothing(bench: Workbench, tree: Path) -> None:
    STORE["a"] = b"precious"
    bench.ledger.claims.mark([("a", GONE)])
    tree.rename(f"{tree}-away")
    tree.mkdir()

    bench.work(["a"])

    assert STORE == {"a": b"precious"}
    assert bench.ledger.key_states.count_dirty() == 1


def test_a_stale_share_neither_fails_nor_deletes(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(host="another host")
    bench.ledger.watcher_lock.heartbeat("watcher", lease=600)
    STORE.update({"new": b"old", "missing": b"old"})
    (tree / "new").write_text("old")
    seen = hint(tree / "new")
    newer = Hint(seen.size + 1, seen.mtime_ns + 10_000_000)
    bench.ledger.claims.mark([("new", newer), ("missing", newer)])

    bench.work(["new", "missing"])

    assert Recording.operations == []
    assert bench.ledger.key_states.count_dirty() == 2
    for name, content in (("missing", "there"), ("new", "newer")):
        (tree / name).write_text(content)
        os.utime(tree / name, ns=(0, newer.mtime_ns + 1_000_000_000))
    while bench.ledger.key_states.count_dirty():
        bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))
    assert STORE == {"new": b"newer", "missing": b"there"}


def test_a_share_with_times_in_coarser_units_is_not_stale(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(host="another host")
    (tree / "smb").write_text("content")
    os.utime(tree / "smb", ns=(0, 1_700_000_000_123_456_700))
    (tree / "fat").write_text("content")
    os.utime(tree / "fat", ns=(0, 1_700_000_000_000_000_000))
    exact = Hint(len("content"), 1_700_000_000_123_456_789)
    bench.ledger.claims.mark([("smb", exact), ("fat", exact)])

    bench.work(["smb", "fat"])

    assert STORE == {"smb": b"content", "fat": b"content"}
    assert bench.ledger.key_states.count_dirty() == 0


def test_a_key_out_of_scope_or_a_changed_definition_does_no_harm(bench: Workbench, tree: Path) -> None:
    STORE["../outside"] = b"x"
    bench.ledger.claims.mark([("../outside", UNKNOWN), ("a", UNKNOWN)])
    (tree / "a").write_text("a")
    worker = bench.worker()
    mirror = Mirror.loads(bench.definition)
    other = Mirror(**{**{name: getattr(mirror, name) for name in mirror.__slots__}, "source_filter": ".*b$"}).dumps()
    bench.ledger.definition.publish(other, version_of(other))

    assert worker[1].ledger.claims.claim(worker[0].owner, worker[1].version, ["a"]) is None
    fresh = (worker[0], worker[0].mirror("m", fresh=True))
    bench.work(["../outside", "a"], fresh)

    assert STORE == {"../outside": b"x"}
    assert Recording.operations == []
    assert bench.ledger.key_states.count_dirty() == 0


@pytest.fixture
def left_open(bench: Workbench, tree: Path) -> Workbench:
    """A worker was killed when it had begun to send `a`, and its claim has ended."""
    (tree / "a").write_text("content")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    Recording.token, Recording.meanwhile = "first", killed
    with pytest.raises(Killed):
        bench.work(["a"])
    assert Recording.open_uploads == {("a", "first")}
    Recording.operations.clear()
    Recording.token = "second"
    assert bench.ledger.release_all_of_dead("") == 1
    assert bench.ledger.claims.requeue_orphans() == ["a"]
    return bench


def test_an_upload_that_a_killed_worker_left_open_is_ended_before_the_next_begins(left_open: Workbench) -> None:
    left_open.work(["a"])

    assert Recording.operations == [("abandon first", "a"), ("upload", "a")]
    assert (STORE, Recording.open_uploads, left_open.ledger.key_states.count_dirty()) == ({"a": b"content"}, set(), 0)
    left_open.ledger.claims.mark([("a", UNKNOWN)])
    left_open.work(["a"])
    assert Recording.operations[2:] == [("upload", "a")], "it is ended once"


@pytest.mark.parametrize("others", [0, 3])
def test_an_upload_that_was_left_open_is_ended_when_its_file_is_gone(
    others: int, left_open: Workbench, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the target deletes many keys at once, each of which has its line in the log."""
    caplog.set_level(logging.INFO, "autosync.transfer")
    (tree / "a").unlink()
    keys = ["a", *(f"gone {number}" for number in range(others))]
    left_open.ledger.claims.mark([(key, GONE) for key in keys])

    class Many(Recording):
        def delete_many(self, files):  # type: ignore[no-untyped-def, override]
            for file in files:
                self.delete(file)
            return [None] * len(files)

    worker = left_open.worker()
    worker[1].actor = Many()
    left_open.work(keys, worker)

    about_a = [what for what, key in Recording.operations if key == "a"]
    assert about_a == ["abandon first", "delete"]
    assert {key for what, key in Recording.operations if what == "delete"} == set(keys)
    assert {vars(record)["key"] for record in caplog.records if record.getMessage().startswith("deleted ")} == set(keys)
    assert (Recording.open_uploads, left_open.ledger.key_states.count_dirty()) == (set(), 0)


def test_an_upload_that_was_left_open_is_ended_when_its_key_is_out_of_scope_by_now(left_open: Workbench) -> None:
    mirror = Mirror.loads(left_open.definition)
    other = Mirror(**{**{name: getattr(mirror, name) for name in mirror.__slots__}, "source_filter": ".*b$"}).dumps()
    left_open.ledger.definition.publish(other, version_of(other))

    left_open.work(["a"])

    assert Recording.operations == [("abandon first", "a")]
    assert (Recording.open_uploads, left_open.ledger.key_states.count_dirty()) == (set(), 0)


def test_a_target_that_does_not_end_an_upload_now_hinders_nothing_and_is_tried_again_later(left_open: Workbench, tree: Path) -> None:
    Recording.refusals.append(TargetError("not now"))

    left_open.work(["a"])
    assert (STORE, left_open.ledger.key_states.count_dirty()) == ({"a": b"content"}, 0)
    assert Recording.open_uploads == {("a", "first")}

    left_open.ledger.claims.mark([("a", UNKNOWN)])
    left_open.work(["a"])
    assert Recording.open_uploads == set()
    assert Recording.operations == [("abandon first", "a"), ("upload", "a")] * 2


def test_a_target_that_does_not_respond_gets_no_request_for_each_of_many_uploads(
    left_open: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        left_open.ledger.uploads.add("a", f"more {number}")
    monkeypatch.setattr("autosync.tasks.upload._LONGEST_ABANDONING", 0.0)
    Recording.refusals += [TargetError("timed out")] * 6

    left_open.work(["a"])

    assert Recording.operations == [("abandon first", "a"), ("upload", "a")]
    assert len(left_open.ledger.uploads.all()["a"]) == 6


def test_a_file_that_was_torn_a_thousand_times_is_tried_again(make: Callable[..., Workbench], tree: Path) -> None:
    """That is a few hours of a file that is rewritten all the time."""
    bench = make(attempts=5000)
    (tree / "a").write_text("content")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    worker, mirror = bench.worker()
    (claim,) = mirror.ledger.claims.claim(worker.owner, mirror.version, ["a"]) or []
    claimed_at = time.monotonic()
    many = replace(claim, attempts=1100)
    mirror.claim_table.add([many], claimed_at)
    Recording.errors.append(TargetError("not now"))

    Pipeline(ClaimedBatch(worker, mirror, Quiet(), claimed_at)).run([many])  # type: ignore[arg-type]

    stats = bench.ledger.watcher_lock.heartbeat("me")
    assert (bench.ledger.key_states.count_dirty(), stats.claimed, list(bench.ledger.failures.all())) == (1, 1, [])


def test_a_process_has_one_worker_state_however_many_tasks_begin_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class App:
        conf = SimpleNamespace(broker_url="", autosync_sources=[], autosync_secrets=Secrets({}))

    def slowly(*_: object) -> object:
        time.sleep(0.1)
        return object()

    monkeypatch.setattr(transfer, "WorkerState", slowly)
    app: Any = App()
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(transfer.worker_state, [app] * 4, ["box1@host"] * 4))) == 1


def test_the_shutdown_of_a_worker_drains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a draining worker does then: test_a_draining_worker_releases_what_it_has_not_begun."""

    class App:
        conf = SimpleNamespace(broker_url="redis://127.0.0.1:1/0", autosync_sources=[], autosync_secrets=Secrets({}))

    monkeypatch.setattr(signals.worker_shutting_down, "receivers", [])  # other states of this process go on
    app: Any = App()
    state = transfer.worker_state(app, "box1@host")
    assert not state.draining.is_set()

    signals.worker_shutting_down.send(sender=None)

    assert state.draining.is_set()


def test_an_upload_that_failed_in_order_is_not_ended_twice(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("content")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    Recording.token = "only"

    def fail(key: str) -> None:
        Recording.meanwhile = None
        raise TargetError("in the middle")

    Recording.meanwhile = fail
    bench.work(["a"])
    assert Recording.open_uploads == set()
    bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))

    assert (STORE, Recording.operations) == ({"a": b"content"}, [("upload", "a")] * 2)


def test_an_upload_that_the_broker_could_not_note_is_ended_and_tried_again_however_often(
    make: Callable[..., Workbench], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(attempts=1)
    (tree / "a").write_text("content")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    Recording.token = "unnoted"

    def away(self: OpenUploads, *_: str) -> None:
        raise BrokerError("the broker is away")

    with monkeypatch.context() as patch:
        patch.setattr(OpenUploads, "add", away)
        patch.setattr(OpenUploads, "remove", away)
        bench.work(["a"])
    assert (STORE, Recording.open_uploads, list(bench.ledger.failures.all())) == ({}, set(), [])

    bench.work(wait_until(bench.ledger.claims.requeue_orphans, 20, "the next try is due"))
    assert (STORE, Recording.open_uploads, bench.ledger.key_states.count_dirty()) == ({"a": b"content"}, set(), 0)


def test_a_worker_that_lost_its_claim_does_not_remove_what_the_new_owner_noted(bench: Workbench, tree: Path) -> None:
    (tree / "a").write_text("content")
    bench.ledger.claims.mark([("a", UNKNOWN)])
    Recording.token = "old"

    def claimed_by_another(key: str) -> None:
        """A claim that ended while this worker hung: another has taken the key and has begun to send it."""
        Recording.meanwhile = None
        bench.ledger.release_all_of_dead("")
        (claim,) = bench.ledger.claims.claim("new-holder", version_of(bench.definition), bench.ledger.claims.requeue_orphans()) or []
        assert claim.unfinished == ("old",)
        bench.ledger.uploads.remove("a", "old")
        bench.ledger.uploads.add("a", "new")

    Recording.meanwhile = claimed_by_another
    bench.work(["a"])

    bench.ledger.release_all_of_dead("")
    (claim,) = bench.ledger.claims.claim("third", version_of(bench.definition), bench.ledger.claims.requeue_orphans()) or []
    assert claim.unfinished == ("new",)


# A broker that has lost its memory


def test_a_mirror_that_is_published_again_while_a_worker_finds_none_fails_no_key(
    bench: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker was emptied; the file host publishes the definition and marks the keys just after a worker has found none."""
    (tree / "a").write_text("a")
    client = connect(bench.broker)
    client.flushall()
    worker = WorkerState(bench.broker, [str(tree)], {}, "box1@host")
    bench.workers.append(worker)
    monkeypatch.setattr(transfer, "worker_state", lambda app, name: worker)
    task: Any = SimpleNamespace(app=None, request=SimpleNamespace(hostname="box1@host"))
    mirror = worker.mirror

    def publish_after(*args: Any, **options: Any) -> Any:
        try:
            return mirror(*args, **options)
        finally:
            bench.ledger.definition.publish(bench.definition, version_of(bench.definition))
            bench.ledger.claims.mark([("a", hint(tree / "a"))])

    monkeypatch.setattr(worker, "mirror", publish_after)
    assert transfer.run(task, "m", ["a"]) == "refused: no mirror is called 'm'"
    monkeypatch.setattr(worker, "mirror", mirror)

    assert (bench.ledger.stats.read().dirty, bench.ledger.stats.read().failed, STORE) == (1, 0, {})
    bench.work(["a"])
    assert (bench.ledger.stats.read().dirty, STORE) == (0, {"a": b"a"})


# A definition of a later version


def test_a_definition_of_a_later_version_is_left_to_other_workers(
    bench: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "a").write_text("a")
    later = json.dumps({**json.loads(bench.definition), "format": 2})
    bench.ledger.definition.publish(later, version_of(later))
    bench.ledger.claims.mark([("a", hint(tree / "a"))])
    worker = WorkerState(bench.broker, [str(tree)], {}, "box1@host")
    bench.workers.append(worker)
    monkeypatch.setattr(transfer, "worker_state", lambda app, name: worker)
    task: Any = SimpleNamespace(app=None, request=SimpleNamespace(hostname="box1@host"))

    results = [transfer.run(task, "m", ["a"]) for _ in range(3)]

    reason = "its format is 2, and this version reads 1; install the same version of autosync on all hosts"
    assert results == ["left to workers of a later version"] * 3
    assert (bench.ledger.stats.read().dirty, bench.ledger.stats.read().failed, STORE) == (1, 0, {})
    assert bench.ledger.definition.unreadable() == {worker.name: reason}
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == f"the definition of mirror m cannot be read here, so its keys are left to other workers: {reason}"
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (vars(record)["mirror"], vars(record)["worker"]) == ("m", "box1@host")

    bench.ledger.definition.publish(bench.definition, version_of(bench.definition))
    assert worker.mirror("m").definition.name == "m"  # type: ignore[arg-type]
    assert bench.ledger.definition.unreadable() == {}, "the next definition is another matter"


def test_another_reason_within_the_minute_is_reported_at_once(bench: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    worker = WorkerState(bench.broker, [str(bench.tree)], {}, "box1@host")
    bench.workers.append(worker)

    for reason in ("the first", "the first", "the second", "the second"):
        worker.report_unreadable("m", UnknownDefinition(reason))

    assert bench.ledger.definition.unreadable() == {"box1@host": "the second"}
    lines = [record.getMessage().rpartition(": ")[2] for record in caplog.records if record.levelname == "WARNING"]
    assert lines == ["the first", "the second"]


def test_a_worker_that_was_upgraded_removes_its_own_note_and_no_other(bench: Workbench) -> None:
    """A worker of an earlier version still renews its note of the same definition."""
    bench.ledger.definition.note_unreadable("box1@host", "what it was before")
    bench.ledger.definition.note_unreadable("box2@host", "earlier")

    worker, _ = bench.worker()

    assert worker.name == "box1@host"
    assert bench.ledger.definition.unreadable() == {"box2@host": "earlier"}


SAME_VERSION = "use the same version of autosync on all hosts"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"identities": []}, rf"the definition of mirror 'm' cannot be read: its identities is \[\]; {SAME_VERSION}"),
        ({"settings": None}, f"the definition of mirror 'm' cannot be read: its settings is None; {SAME_VERSION}"),
        ({"sources": None}, f"the definition of mirror 'm' cannot be read: its sources is None; {SAME_VERSION}"),
        ({"settings": {"self": 1}}, "actor 'test_batch.Recording' cannot use its settings: TypeError: .*; start its autosync-watch .*"),
    ],
)
def test_a_damaged_definition_is_the_reason_of_failed_keys(
    bench: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], reason: str
) -> None:
    (tree / "a").write_text("a")
    damaged = json.dumps({**json.loads(bench.definition), **more})
    bench.ledger.definition.publish(damaged, version_of(damaged))
    bench.ledger.claims.mark([("a", hint(tree / "a"))])
    worker = WorkerState(bench.broker, [str(tree)], {}, "box1@host")
    bench.workers.append(worker)
    monkeypatch.setattr(transfer, "worker_state", lambda app, name: worker)
    task: Any = SimpleNamespace(app=None, request=SimpleNamespace(hostname="box1@host"))

    result = transfer.run(task, "m", ["a"])

    assert re.fullmatch(f"refused: {reason}", result)
    (failure,) = bench.ledger.failures.all()
    assert re.fullmatch(reason, failure.reason)
    assert (failure.key, STORE) == ("a", {})


def test_a_file_that_has_grown_beyond_the_largest_size_since_it_was_marked_is_not_sent(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(max_size=4)
    (tree / "a").write_text("1234")
    STORE["a"] = b"before"
    bench.ledger.claims.mark([("a", hint(tree / "a"))])
    (tree / "a").write_text("12345")

    summary = bench.work(["a"])

    assert (STORE, summary, bench.ledger.key_states.count_dirty()) == ({"a": b"before"}, "nothing to send", 0)


def test_a_stale_share_that_still_has_too_large_a_file_is_checked_again(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(max_size=4, host="another")
    bench.ledger.watcher_lock.heartbeat("watcher", lease=600)
    (tree / "a").write_text("12345")
    now = (tree / "a").stat()
    bench.ledger.claims.mark([("a", Hint(1, now.st_mtime_ns + 10**9))])

    bench.work(["a"])

    assert bench.ledger.key_states.count_dirty() == 1
    (tree / "a").write_text("1")
    os.utime(tree / "a", ns=(now.st_atime_ns, now.st_mtime_ns + 10**9))
    wait_until(lambda: bench.work(bench.ledger.claims.requeue_orphans()) and STORE == {"a": b"1"}, 30, "the share shows the file")
