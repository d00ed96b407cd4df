"""`make demo`: mirror a sample tree into an S3 server on this machine, live, and measure it.

    python lab/demo.py [DIRECTORY]

Everything stands in DIRECTORY (default: .demo beside this repository's README.md), which is made anew each time. With ONCE=1 in the
environment it ends by itself; the exit code is 0 if the bucket was right each time, and 1 if not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from lab.servers import ACCESS_KEY, REGION, SECRET_KEY, Missing, SeaweedFS, wait_until  # noqa: E402 - the path had to be set before

BUCKET = "demo"
#: How long each step may take, in seconds.
PATIENCE = 60.0
#: Stands in a directory that was made by this program, and so may be removed by it.
MARK = ".autosync-demo"

#: Asks the kernel for a signal at the death of the parent (prctl(2), PR_SET_PDEATHSIG = 1), then becomes the program.
_WITH_US = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,int(sys.argv[1]),0,0,0);"
    "os.getppid()==int(sys.argv[2]) or os._exit(1);"
    "os.execv(sys.argv[3],sys.argv[3:])"
)


class Failed(Exception):  # noqa: N818 - a finding
    """The demo cannot go on; the text has the reason."""


class Server(SeaweedFS):
    """SeaweedFS that ends when the demo does, however it ends."""

    def command(self) -> list[str]:
        return with_us(super().command(), signal.SIGKILL)


def with_us(command: list[str], at_death: signal.Signals) -> list[str]:
    """The command as a program that gets a signal when this process dies."""
    return [sys.executable, "-I", "-S", "-c", _WITH_US, str(int(at_death)), str(os.getpid()), *command]


class Screen:
    """Prints to the terminal. Colours, and a line that is overwritten, are used only on a terminal."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ

    def colour(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.live else text

    def bold(self, text: str) -> str:
        return self.colour("1", text)

    def good(self, text: str) -> str:
        return self.colour("32", text)

    def print_line(self, text: str = "") -> None:
        print(f"\r\x1b[K{text}" if self.live else text, flush=True)

    def progress(self, text: str) -> None:
        if self.live:
            print(f"\r\x1b[K{text}", end="", flush=True)


# The sample tree


def make_tree(source: Path) -> None:
    """Make the same few dozen files each time: pages, pictures, data, and one file of 20 MiB, which is sent in parts."""
    chance = random.Random(2)
    colours = ("teal", "coral", "gold", "navy")
    for month in ("may", "june", "july"):
        for number in range(1, 7):
            circle = f'<circle cx="{chance.randrange(20, 80)}" cy="50" r="{chance.randrange(5, 20)}" fill="{chance.choice(colours)}"/>'
            picture = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{circle}</svg>\n'
            _write(source / "pictures" / "2025" / month / f"{number}.svg", picture)
    for page in ("index", "about", "contact", "news/first", "news/second", "news/third"):
        _write(source / "site" / f"{page}.html", f"<!doctype html>\n<title>{page}</title>\n<p>A page of the sample tree.\n")
    for station in range(1, 11):
        values = [round(chance.gauss(15, 6), 1) for _ in range(200)]
        _write(source / "measured" / f"station-{station:02}.json", json.dumps({"station": station, "degrees": values}, indent=1))
    for number in range(1, 11):
        lines = (" ".join(chance.choices(("a", "file", "is", "here", "and", "there", "too"), k=12)) for _ in range(40))
        _write(source / "notes" / f"week {number}" / "note.txt", "\n".join(lines) + "\n")
    _write(source / "notes" / "täglich" / "größe 100%.txt", "A name with spaces, umlauts and a percent sign.\n")
    _write(source / "empty.txt", "")
    (source / "film.bin").write_bytes(chance.randbytes(20 << 20))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# Source and target


def folder(source: Path) -> dict[str, str]:
    """Each file of the source, as a key, with a hash of its content."""
    files = (path for path in source.rglob("*") if path.is_file())
    return {str(path.relative_to(source)): _hash(path.read_bytes()) for path in files}


class Bucket:
    """The bucket, read with boto3, so that no code of autosync takes part in the comparison."""

    def __init__(self, server: SeaweedFS) -> None:
        self._client = server.client()
        self._client.create_bucket(Bucket=BUCKET)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}

    def hash(self, key: str) -> str | None:
        """A hash of an object's content; None if the object does not exist."""
        try:
            return _hash(self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def content(self) -> dict[str, str | None]:
        return {key: self.hash(key) for key in self.sizes()}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# The steps


class Demo:
    """One demonstration in one directory."""

    def __init__(self, directory: Path, screen: Screen) -> None:
        self.screen = screen
        self.source = directory / "source"
        self.log = directory / "autosync.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, ends: ExitStack, *, once: bool) -> None:
        """Everything. Raises Failed."""
        screen = self.screen
        screen.print_line(screen.bold("1. A folder, and an S3 server on this machine"))
        make_tree(self.source)
        sizes = [path.stat().st_size for path in self.source.rglob("*") if path.is_file()]
        screen.print_line(f"   {self.source}: {len(sizes)} files, {_mib(sum(sizes))}")
        server = self._start_server(ends)
        bucket = Bucket(server)
        screen.print_line(f"   {server.url}, bucket {BUCKET}: empty")
        screen.print_line(screen.bold("2. autosync makes the bucket equal to the folder"))
        self._start_autosync(server, ends)
        self._first_scan(bucket, sizes)
        screen.print_line(screen.bold("3. And keeps it so"))
        self._live(bucket)
        self._prove(bucket)
        if once:
            return
        self._suggest_next(server)
        self._follow()

    def _start_server(self, ends: ExitStack) -> SeaweedFS:
        self.screen.progress("   the S3 server starts ...")
        for last in (False, True):
            try:
                server = Server(self._directory / "s3")
            except Missing as missing:
                raise Failed(f"the program {missing} is not installed here; `make demo` installs all that is needed") from missing
            ends.callback(server.stop)
            try:
                server.start()
                break
            except AssertionError as error:  # perhaps another program took one of its ports at the same moment
                if last:
                    raise Failed(f"the S3 server did not start: {error}") from error
        return server

    def _start_autosync(self, server: SeaweedFS, ends: ExitStack) -> None:
        options = [
            "--target-container", BUCKET, "--endpoint-url", server.url, "--source-prefix", f"{self.source}/",
            "--state-dir", str(self._directory / "state"), "--verbose", str(self.source),
        ]  # fmt: skip
        command = str(Path(sys.executable).parent / "autosync")
        if not os.access(command, os.X_OK):
            raise Failed(f"autosync is not installed beside {sys.executable}; `make demo` installs all that is needed")
        command_text = f"autosync --target-container {BUCKET} --endpoint-url {server.url} --source-prefix $PWD/source/ source"
        self.screen.print_line(f"   $ {command_text}")
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                with_us([command, *options], signal.SIGTERM), env={**os.environ, **server.environment()},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        ends.callback(self._stop_autosync)

    def _stop_autosync(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its children end with it
                self._process.wait()

    def _check_running(self) -> None:
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            words = self.log.read_text(errors="replace").strip().splitlines()
            raise Failed(f"autosync ended with exit code {status}: {words[-1] if words else 'its log is empty'}")

    def _first_scan(self, bucket: Bucket, sizes: list[int]) -> None:
        began = time.monotonic()
        total = sum(sizes)

        def is_full() -> bool:
            self._check_running()
            there = bucket.sizes()
            sent = sum(there.values())
            bar = "#" * (30 * sent // total)
            progress = f"[{bar:<30}] {len(there)} of {len(sizes)} files, {_mib(sent)} of {_mib(total)}"
            self.screen.progress(f"   {progress if there else 'autosync starts its broker and its workers ...'}")
            return len(there) >= len(sizes) and sent >= total

        self._wait(is_full, "the bucket holds all files", pause=0.05)
        seconds = time.monotonic() - began
        self.screen.print_line(f"   {len(sizes)} files, {_mib(total)} in {seconds:.1f} s, start of the broker and the workers included")
        self._prove(bucket)

    def _live(self, bucket: Bucket) -> None:
        def holds(key: str, text: str) -> Callable[[], bool]:
            return lambda: bucket.hash(key) == _hash(text.encode())

        note, page = "notes/just now.txt", "site/index.html"
        self._change("a new file", note, lambda: _write(self.source / note, "new\n"), holds(note, "new\n"))
        text = "<!doctype html>\n<title>changed</title>\n"
        self._change("a changed file", page, lambda: _write(self.source / page, text), holds(page, text))
        old, new = self.source / "pictures" / "2025", self.source / "pictures" / "2026"
        expected = {key.replace("/2025/", "/2026/") for key in folder(self.source) if key.startswith("pictures/2025/")}
        self._change(
            "a renamed folder", f"pictures/2025 -> pictures/2026 ({len(expected)} files)", lambda: old.rename(new),
            lambda: set(bucket.sizes("pictures/")) == expected,
        )  # fmt: skip
        gone = self.source / "measured" / "station-01.json"
        self._change("a deleted file", "measured/station-01.json", gone.unlink, lambda: not bucket.sizes("measured/station-01.json"))

    def _change(self, what: str, where: str, act: Callable[[], Any], is_right: Callable[[], bool]) -> None:
        """Change the folder, and print after how many milliseconds the bucket was right."""
        began = time.monotonic()
        act()

        def right() -> bool:
            self._check_running()
            return is_right()

        self._wait(right, f"{what}: {where}")
        duration = f"{1000 * (time.monotonic() - began):6.0f} ms"
        self.screen.print_line(f"   {what:<18}{where:<48}{self.screen.bold(duration)}")

    def _prove(self, bucket: Bucket) -> None:
        """Compare every name and every byte."""
        here = folder(self.source)
        there = bucket.content()
        if here != there:
            wrong = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
            raise Failed(f"the bucket does not equal the folder: {len(wrong)} keys differ, the first is {wrong[0]!r}")
        size = sum(bucket.sizes().values())
        proved = f"{len(here)} files, {_mib(size)}: the bucket equals the folder, name for name, byte for byte"
        self.screen.print_line(f"   {self.screen.good(proved)}")

    def _wait(self, condition: Callable[[], bool], what: str, pause: float = 0.002) -> None:
        try:
            wait_until(condition, PATIENCE, what, pause)
        except AssertionError as error:
            raise Failed(f"{error}; see {self.log}") from error

    def _suggest_next(self, server: SeaweedFS) -> None:
        screen = self.screen
        rclone = Path(sys.executable).parent / "rclone"
        keys = f"access_key_id={ACCESS_KEY},secret_access_key={SECRET_KEY}"
        remote = f":s3,provider=SeaweedFS,{keys},endpoint='{server.url}':{BUCKET}"
        log, source = shlex.quote(str(self.log)), shlex.quote(str(self.source))
        environ = f"AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_DEFAULT_REGION={REGION}"
        screen.print_line(screen.bold("It goes on. Try in another terminal:"))
        screen.print_line(f"   cp -r /usr/share/doc/bash {source}/      # any file or folder; what is sent is shown below")
        screen.print_line(f'   {shlex.quote(str(rclone))} ls "{remote}"')
        screen.print_line(f"   {environ} aws s3 ls --recursive --endpoint-url {server.url} s3://{BUCKET}")
        screen.print_line(f"   tail -f {log}")
        screen.print_line("   a fleet, with one file host and several upload boxes: README.md shows the commands")
        screen.print_line(screen.bold("Ctrl-C ends it.") + " The next `make demo` starts anew.")

    def _follow(self) -> None:
        """Print autosync's log until Ctrl-C."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            log.seek(0, os.SEEK_END)
            while True:
                for line in log:
                    self.screen.print_line(f"   {line.rstrip()}")
                self._check_running()
                time.sleep(0.1)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


# The frame


@contextlib.contextmanager
def own(directory: Path) -> Iterator[None]:
    """Empty the directory, and lock it against a second demo."""
    mark = directory / MARK
    if directory.exists() and not mark.exists() and any(directory.iterdir()):
        raise Failed(f"{directory} was not made by this program; name an empty directory or one that is not there")
    directory.mkdir(parents=True, exist_ok=True)
    with open(mark, "a", encoding="utf-8") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Failed(f"another demo runs in {directory}; end that one first") from error
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != mark:
                entry.unlink()
        yield


def clean_environment() -> None:
    """Remove variables for real work from the environment."""
    for name in list(os.environ):
        if name.startswith(("AUTOSYNC_", "AWS_", "CELERY_")) or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; returns the exit code."""
    screen = Screen()
    once = os.environ.get("ONCE", "") not in ("", "0")
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / ".demo").absolute()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    clean_environment()
    interrupted = False
    try:
        with ExitStack() as ends:
            try:
                ends.enter_context(own(directory))
                Demo(directory, screen).run(ends, once=once)
            except KeyboardInterrupt:
                interrupted = True
                screen.print_line("   stopping ...")
            finally:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
    except Failed as failed:
        screen.print_line()
        print(f"demo: {failed}", file=sys.stderr)
        return 1
    except OSError as error:
        screen.print_line()
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 130 if interrupted and once else 0


if __name__ == "__main__":
    sys.exit(main())
