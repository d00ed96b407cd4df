"""Real parts for the tests. A part that is missing skips on a laptop, and fails where CI=true."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from autosync.testing import Content
from lab import one_thread
from lab.alone import machine_lock
from lab.buckets import Bucket
from lab.commands import Commands
from lab.fixed_response import Refusing
from lab.parts import lacking, running
from lab.programs import BIN, Programs
from lab.rsync import Rsyncd
from lab.servers import Missing, Moto, SeaweedFS, Valkey, wait_until
from lab.swift import Swift
from lab.watch_pipeline import WatchPipeline

# On a busy machine an example may take any time.
settings.register_profile("autosync", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("autosync")

FOLDERS = ("fleet", "programs", "servers", "unit")
#: Files of which one worker of pytest-xdist runs all tests: their server takes seconds to start, or they share an interpreter.
ONE_WORKER = frozenset(
    f"test_{name}.py" for name in ("apart", "azure", "first_listing", "gcs", "installed", "machine", "processes", "swift", "swift_fleet")
)  # fmt: skip


def folders_of(path: Path) -> tuple[str, ...]:
    """The folders below `tests` in which a test lies; their names are what it needs."""
    return path.relative_to(Path(__file__).parent).parent.parts


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(one_thread.OPTION, action="store_true", help="run tests that need a process with one thread in this one")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The markers come from the folders. What takes longest comes first, so that no worker is left with it; rates come last."""
    items[:] = map(one_thread.replaced, items)
    for item in items:
        folders = folders_of(item.path)
        if not folders or folders[0] not in FOLDERS:
            raise pytest.UsageError(f"{item.path} lies in none of the folders of tests: {', '.join(FOLDERS)}; see CONTRIBUTING.md")
        for folder in folders:
            item.add_marker(folder)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, bool, int]:
    return item.get_closest_marker("alone") is not None, item.path.name not in ONE_WORKER, FOLDERS.index(folders_of(item.path)[0])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Nothing runs beside a test that measures rates. The wait for that is outside of what is timed and limited."""
    if isinstance(item, one_thread.OneThreadItem):  # the other interpreter does it
        return (yield)
    with machine_lock(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Tests go to whichever worker is free, one by one and in order, but those of a file in ONE_WORKER all to one.

    What pytest-xdist has for that (`--dist=loadgroup`) does nothing with pytest 9.2 (pytest-xdist issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.rpartition("/")[2] in ONE_WORKER else nodeid

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The slowest thirty tests, set-up and teardown included, and the seconds of each folder, as if they had run one by one."""
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid] += report.duration
    if not seconds:
        return
    terminalreporter.section("slowest thirty tests")
    for nodeid in sorted(seconds, key=seconds.__getitem__, reverse=True)[:30]:
        terminalreporter.write_line(f"{seconds[nodeid]:8.2f} s  {nodeid}")
    terminalreporter.section("seconds of each folder")
    for folder in FOLDERS:
        tests = [nodeid for nodeid in seconds if nodeid.startswith(f"tests/{folder}/")]
        if tests:
            terminalreporter.write_line(f"{sum(map(seconds.__getitem__, tests)):8.1f} s  {len(tests):5} tests  {folder}")


@pytest.fixture(autouse=True, scope="session")
def _own_temporary_directory() -> Iterator[None]:
    """What processes leave behind that tests kill goes at the end. The path is short: sockets lie below it (unix(7), 107 bytes)."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        os.environ["TMPDIR"] = directory
        yield
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, credentials, proxies or state of the user who runs it."""
    for name in list(os.environ):
        if name.startswith(("AUTOSYNC_", "AWS_", "AZURE_", "BOTO_", "CELERY_", "GOOGLE_", "OS_", "ST_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for the whole session."""
    yield from running(lambda: Valkey(tmp_path_factory.mktemp("valkey")))


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey for one test, which may kill, freeze or empty it."""
    yield from running(lambda: Valkey(tmp_path / "valkey"))


@pytest.fixture
def broker(valkey: Valkey) -> str:
    """The URL of an empty broker."""
    valkey.client().flushall()
    return valkey.url


@pytest.fixture
def pipeline(tree: Path, broker: str) -> Iterator[Callable[..., WatchPipeline]]:
    """Starts to watch the tree, and to feed what changes in it."""
    started: list[WatchPipeline] = []

    def start(quiet: float = 0.2, max_wait: float = 60.0, until_idle: bool = True, **options: object) -> WatchPipeline:
        started.append(WatchPipeline(tree, broker, quiet, max_wait, until_idle, **options))
        return started[-1]

    yield start
    for kept in started:
        kept.close()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """SeaweedFS for the whole session."""
    yield from running(lambda: SeaweedFS(tmp_path_factory.mktemp("seaweed")))


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """moto's server for the whole session."""
    yield from running(lambda: Moto(tmp_path_factory.mktemp("moto")))


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """Swift for the whole session."""
    yield from running(lambda: Swift(tmp_path_factory.mktemp("swift")))


@pytest.fixture
def rsyncd(tmp_path: Path) -> Iterator[Callable[..., Rsyncd]]:
    """Starts rsync daemons."""
    made: list[Rsyncd] = []

    def start(*settings: str, password: str = "") -> Rsyncd:
        try:
            made.append(Rsyncd(tmp_path / f"rsyncd-{len(made)}", password, *settings))
        except Missing as missing:
            lacking(str(missing))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture
def bucket(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket on SeaweedFS, with its credentials in the environment."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket(seaweed)


@pytest.fixture
def exact_bucket(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket that keeps keys exact to the byte and lists in byte order, as Amazon does."""
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket(moto)


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    """Makes files to be uploaded."""
    made = Content(tmp_path)
    yield made
    made.close()


@pytest.fixture
def refusing() -> Iterator[Callable[..., Refusing]]:
    """Starts servers that answer everything alike: give a status, a body, and headers."""
    servers: list[Refusing] = []

    def start(*message: Any, **headers: str) -> Refusing:
        servers.append(Refusing(*message, **headers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """The commands, as processes."""
    assert shutil.which(str(BIN / "autosync")), "the project is not installed in this environment: see `make test`"
    started = Programs(tmp_path)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """The commands, in this process."""
    return Commands(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty source directory."""
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


@pytest.fixture
def once(bucket: Bucket, tree: Path) -> list[str]:
    """The command that makes `bucket` equal to `tree`, and ends."""
    return ["autosync", "--once", *bucket.options(), f"--source-prefix={tree}/", str(tree)]


@pytest.fixture
def bindfs() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Mounts one directory on another through FUSE, which stands for a share: what is done behind it gives no event in it."""
    if not shutil.which("bindfs"):
        lacking("bindfs is not installed")
    mounted: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def mount(behind: Path, share: Path, *options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["bindfs", "-f", *options, str(behind), str(share)])
        mounted.append((share, process))
        wait_until(lambda: share.is_mount() or process.poll() is not None, what="the share is mounted")
        if not share.is_mount():
            lacking("bindfs may not mount here")
        return process

    yield mount
    for share, process in mounted:
        if subprocess.run(["umount", "--lazy", str(share)], check=False, capture_output=True).returncode:
            subprocess.run(["fusermount", "-uz", str(share)], check=False)  # as who is not root
        process.kill()
        process.wait()
