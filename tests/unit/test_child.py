"""Child processes end when their parent does, and are started again when they die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync.errors import StartError
from autosync.process import child as processes
from autosync.process.child import Child, has_one_thread
from lab.servers import wait_until

pytestmark = pytest.mark.one_thread

LIMIT = 20.0


def is_running(pid: int) -> bool:
    """Whether there is such a process; a zombie does not count."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def program_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture(params=["one thread", "more threads"])
def child(request: pytest.FixtureRequest) -> Iterator[Callable[..., Child]]:
    """Makes children, of a process that may fork and of one that may not, and sees that none is left."""
    made: list[Child] = []
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    if request.param == "more threads":
        thread.start()
        assert not has_one_thread()
    else:
        wait_until(has_one_thread, LIMIT, "threads that were waited for are gone from the kernel's list too")

    def make(*command: str, **more: object) -> Child:
        made.append(Child("the child", command, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.stop(0.0)
    over.set()
    if thread.ident:
        thread.join()


def test_a_child_runs_the_program_itself_under_its_own_pid(child: Callable[..., Child]) -> None:
    one = child("/bin/sleep", "600")
    assert one.pid() is None
    assert one.has_ended() is None

    one.start()
    pid = one.pid()
    assert pid is not None
    wait_until(lambda: program_of(pid) == os.path.realpath("/bin/sleep"), LIMIT, "the program has begun")

    assert one.has_ended() is None
    assert os.getsid(pid) == pid, "Ctrl-C in the terminal must not reach it"


def test_a_child_gets_its_arguments_environment_and_directory_as_they_are(child: Callable[..., Child], tmp_path: Path) -> None:
    code = "import os, sys; open('arguments', 'wb').write(b'|'.join(map(os.fsencode, [sys.argv[1], os.environ['WORD'], os.getcwd()])))"
    odd = "a b\n'$X' \udcff"

    one = child(*python(code), odd, environ={"WORD": odd}, directory=str(tmp_path))
    one.start()
    wait_until(lambda: one.has_ended() is not None, LIMIT)

    assert one.has_ended() == 0
    assert (tmp_path / "arguments").read_bytes() == b"|".join([os.fsencode(odd), os.fsencode(odd), os.fsencode(tmp_path)])


PARENT = """
import signal, sys, threading
from autosync.ledger import connect
from autosync.process.child import Child, has_one_thread
from autosync.broker.embedded_valkey import EmbeddedServer

child = Child("grandchild", sys.argv[2:], at_death=signal.Signals[sys.argv[1]])
child.start()
print(child.pid(), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("moment", ["at once", "when it runs"])
def test_a_child_dies_with_a_parent_that_is_killed(moment: str) -> None:
    with subprocess.Popen([*python(PARENT), "SIGKILL", "/bin/sleep", "600"], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            if moment == "when it runs":
                wait_until(lambda: program_of(pid) == os.path.realpath("/bin/sleep"), LIMIT, "the grandchild has begun")
                assert is_running(pid)
        finally:
            parent.send_signal(signal.SIGKILL)

    wait_until(lambda: not is_running(pid), LIMIT, "the grandchild has ended")


def test_the_signal_at_the_death_of_the_parent_may_be_one_that_the_child_handles(tmp_path: Path) -> None:
    response, ready = tmp_path / "answer", tmp_path / "ready"
    code = LISTENER.format(f"lambda *_: sys.exit(pathlib.Path({str(response)!r}).write_text('SIGTERM'))", str(ready))
    with subprocess.Popen([*python(PARENT), "SIGTERM", *python(code)], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            wait_until(ready.exists, LIMIT, "the grandchild listens")
        finally:
            parent.send_signal(signal.SIGKILL)

    wait_until(lambda: not is_running(pid), LIMIT, "the grandchild has ended")
    assert response.read_text() == "SIGTERM"


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource as r; from autosync.process.child import allow_many_open_files;"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, 512)); allow_many_open_files(); print(r.getrlimit(r.RLIMIT_NOFILE))"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "(512, 512)"


def test_tending_starts_a_child_again_that_died(child: Callable[..., Child], caplog: pytest.LogCaptureFixture) -> None:
    one = child("/bin/sleep", "600", log_fields={"worker": "one@host"})
    one.start()
    first = one.pid()
    assert first is not None
    assert one.restart_if_dead() is None

    os.kill(first, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        dead = wait_until(one.restart_if_dead, LIMIT, "the death is noticed")

    second = one.pid()
    assert second is not None
    assert dead == first != second
    assert is_running(second)
    assert one.restart_if_dead() is None
    assert "the child ended with status -9" in caplog.text
    (record,) = [record for record in caplog.records if "started again" in record.getMessage()]
    assert vars(record)["worker"] == "one@host", "a field of the JSON log"


def test_tending_ends_for_a_child_that_dies_each_time_soon_after_its_start(child: Callable[..., Child]) -> None:
    one = child(*python("raise SystemExit(7)"))
    one.start()
    starts = 1

    def tend_until_it_ends() -> None:
        nonlocal starts
        while starts < 50:
            wait_until(lambda: one.has_ended() is not None, LIMIT)
            starts += one.restart_if_dead() is not None

    with pytest.raises(StartError, match=r"the child cannot be kept running.*status 7"):
        tend_until_it_ends()
    assert starts == processes._TOO_OFTEN


def test_tending_never_ends_for_a_child_that_lived_for_a_while(child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_TOO_SHORT", 0.0)
    one = child("/bin/true")
    one.start()

    for _ in range(2 * processes._TOO_OFTEN):
        wait_until(lambda: one.has_ended() is not None, LIMIT)
        assert one.restart_if_dead() is not None


def test_a_program_that_is_not_there_ends_as_a_child_that_dies(child: Callable[..., Child], capfd: pytest.CaptureFixture[str]) -> None:
    one = child("/no/such/program")
    one.start()
    wait_until(lambda: one.has_ended() is not None, LIMIT)

    assert one.has_ended() != 0
    assert "No such file" in capfd.readouterr().err


LISTENER = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, {})
pathlib.Path({!r}).touch()
while True:
    signal.pause()
"""


def test_stopping_sends_sigterm_first(child: Callable[..., Child], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    one = child(*python(LISTENER.format("lambda *_: sys.exit(5)", str(ready))))
    one.start()
    wait_until(ready.exists, LIMIT)

    one.stop(LIMIT)

    assert one.has_ended() == 5


def test_stopping_kills_what_does_not_listen(child: Callable[..., Child], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ready = tmp_path / "ready"
    one = child(*python(LISTENER.format("signal.SIG_IGN", str(ready))))
    one.start()
    wait_until(ready.exists, LIMIT)

    one.stop(0.1)

    assert one.has_ended() == -signal.SIGKILL
    assert "the child did not end" in caplog.text


def test_stopping_what_was_never_started_or_has_ended_is_nothing(child: Callable[..., Child]) -> None:
    child("/bin/true").stop(LIMIT)
    one = child("/bin/true")
    one.start()
    wait_until(lambda: one.has_ended() is not None, LIMIT)

    one.terminate()
    one.stop(LIMIT)

    assert one.has_ended() == 0


FORKING = """
import os, pathlib, signal, sys, threading
from autosync.process.child import Child, set_process_title

def work():
    {}

handled = lambda *_: os._exit(99)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, handled)
child = Child("grandchild", ["/bin/false"], directory={!r}, inside=work)
child.start()
print(child.pid(), flush=True)
{}
"""


def forking(directory: Path, work: str, then: str = "child.stop(60)\nprint(child.has_ended())") -> list[str]:
    """A program with a child that is its fork; `work` is what that does. It prints the child's process id, and how it ended."""
    return python(FORKING.format("\n    ".join(work.splitlines()), str(directory), then))


@pytest.mark.parametrize(
    ("work", "status", "message"),
    [
        ("return 5", 5, ""),
        ("sys.exit(6)", 6, ""),
        ("sys.exit('so it is')", 1, "so it is"),
        ("raise ValueError('broken')", 1, "ValueError: broken"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("print('nobody reads this'); return 0 if os.getcwd() == directory and sys.stdin.read() == '' else 1", 0, ""),
    ],
)
def test_a_fork_does_its_work_and_ends_with_its_status(work: str, status: int, message: str, tmp_path: Path) -> None:
    work = work.replace("directory", repr(str(tmp_path)))
    ended = subprocess.run(
        forking(tmp_path, work, "print(child._process.wait(60))"), capture_output=True, text=True, check=True, timeout=60
    )

    assert ended.stdout.split()[1:] == [str(status)], ended.stderr
    assert message in ended.stderr
    assert message or not ended.stderr


def test_what_dies_as_a_fork_is_started_again_as_a_program(tmp_path: Path) -> None:
    then = "child._process.wait(60); child.restart_if_dead(); print(child._process.wait(60))"
    ended = subprocess.run(forking(tmp_path, "return 0", then), capture_output=True, text=True, check=True, timeout=60)

    assert ended.stdout.split()[1:] == ["1"], "as /bin/false ends"
    assert "ended with status 0; it is started again" in ended.stderr


def test_a_fork_is_seen_under_its_own_name_and_dies_with_its_parent(tmp_path: Path) -> None:
    work = "set_process_title(['celery', 'worker', 'x' * 10_000])\npathlib.Path('ready').touch()\nthreading.Event().wait()"
    with subprocess.Popen(forking(tmp_path, work, "threading.Event().wait()"), stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            wait_until((tmp_path / "ready").exists, LIMIT, "the fork is at work")
            assert os.getsid(pid) == pid, "Ctrl-C in the terminal must not reach it"
            assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2] == [b"celery", b"worker"]
            assert Path(f"/proc/{parent.pid}/cmdline").read_bytes().startswith(os.fsencode(sys.executable))
        finally:
            parent.send_signal(signal.SIGKILL)

    wait_until(lambda: not is_running(pid), LIMIT, "the grandchild has ended")
