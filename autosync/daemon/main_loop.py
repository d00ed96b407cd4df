"""The main loop of `autosync` and `autosync-watch`: one watcher for all mirrors of the same sources, and child processes."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from types import FrameType

from ..errors import AutosyncError, BrokerError, BrokerRefused, Exit, StartError
from ..ledger import address, check_reachable, connect
from ..model.change import Change, Push
from ..source.link_limit import LinkRules
from ..watch.watcher import Watcher
from .mirror_runner import MirrorRunner, RunSettings
from .one_host import OneHost
from .status_line import StatusLine

log = logging.getLogger(__name__)

_TICK = 1.0
#: The pause before `--once` checks again whether it is through: this share of the time that it has run, but between the two bounds.
_SHORTEST_TICK, _ONCE_TICK, _ONCE_SHARE = 0.005, 0.05, 0.01
#: How long the end waits until workers have nothing to do, in seconds.
_DRAIN = 10.0
#: How long the start waits for a broker that has responded before and went away, and the pause between two tries, in seconds.
_BROKER_PATIENCE, _BROKER_PAUSE = 30.0, 0.1


class Signals:
    """SIGINT and SIGTERM. The first signal requests an end in order, the second one at once."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self.number: int | None = None

    def install(self) -> None:
        """Receive the signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.number = self.number or number
        self.stop.set()


def run_mirrors(runs: Sequence[RunSettings], signals: Signals, host: OneHost | None = None) -> Exit:
    """Run mirrors until a signal arrives, or with `once` until each target equals the source.

    Args:
        runs: the settings of each mirror; all have the same sources.
        signals: installed before.
        host: broker and workers as children, already started; None on a file host.

    Returns:
        The exit code.

    Raises:
        AutosyncError: the program cannot start, or cannot go on.
    """
    return _Loop(runs, signals, host).run()


class _Loop:
    def __init__(self, runs: Sequence[RunSettings], signals: Signals, host: OneHost | None) -> None:
        self._runs = runs
        self._signals = signals
        self._host = host
        self._all = [MirrorRunner(run, host) for run in runs]
        #: For `once`: the runners that are not through, and those that have failed.
        self._open = list(self._all)
        self._failed: dict[MirrorRunner, AutosyncError] = {}
        self._watcher: Watcher | None = None
        self._dead: list[tuple[MirrorRunner, int]] = []
        self._status = StatusLine(sys.stderr)
        self._began = time.monotonic()

    @property
    def _once(self) -> bool:
        return self._runs[0].once

    def run(self) -> Exit:
        with ExitStack() as ends:
            for runner in self._all:
                ends.callback(runner.leave)
                if not self._begin(runner):
                    return Exit.INTERRUPTED if self._once or self._signals.number == signal.SIGINT else Exit.DONE
            self._start(ends)
            finished = self._loop()
            self._status.clear()
            self._drain(finished)
        codes = [runner.end(finished=finished) for runner in self._all]
        if self._signals.number == signal.SIGINT or (self._once and not finished):
            return Exit.INTERRUPTED
        for error in self._failed.values():
            raise error
        return max(codes)

    def _begin(self, runner: MirrorRunner) -> bool:
        """Begin a mirror. Returns False if a signal arrived first."""
        stop = self._signals.stop
        return self._with_broker(lambda: runner.begin(stop)) and self._with_broker(runner.mark_unfinished)

    def _with_broker(self, step: Callable[[], bool]) -> bool:
        """Run a step of the start, and repeat it if the broker goes away. Only this thread restarts an embedded broker that has died.

        Returns:
            The result of the step; False if a signal arrived first.

        Raises:
            BrokerRefused: the broker refuses this program.
            BrokerError: the broker has not responded for `_BROKER_PATIENCE`.
        """
        until = time.monotonic() + _BROKER_PATIENCE
        is_first = True
        while True:
            try:
                return step()
            except BrokerRefused:
                raise
            except BrokerError as error:
                if time.monotonic() > until:
                    raise
                if is_first:
                    log.warning("%s; it is tried again", error)
                is_first = False
            self._restart_dead_children()
            if self._signals.stop.wait(_BROKER_PAUSE):
                return False

    def _start(self, ends: ExitStack) -> None:
        if not self._once:
            run = self._runs[0]
            push = self._all[0].push_changes if len(self._all) == 1 else self._push_to_all
            self._watcher = _watcher(run, push, self._link_rules())
            ends.callback(self._watcher.close)
        for runner in self._all:
            runner.start(self._watcher, ends)
        if self._watcher:
            self._watcher.start()
            if self._host:
                self._host.begin()  # so that the first change does not wait for workers

    def _link_rules(self) -> LinkRules:
        """What is watched behind links: whatever one of the mirrors needs."""
        all_links = [runner.links for runner in self._all]
        return LinkRules(
            lambda: max(links.max_directories() for links in all_links), lambda path: all(links.is_beyond(path) for links in all_links)
        )

    def _push_to_all(self, changes: Iterable[Change]) -> None:
        pushed = tuple(changes)
        for runner in self._all:
            runner.push_changes(pushed)

    def _loop(self) -> bool:
        """Run until a signal arrives (returns False) or `once` is through (returns True)."""
        next_tick = 0.0
        while not self._signals.stop.is_set():
            self._restart_dead_children()
            self._check_threads()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK
                for runner in self._all:
                    runner.tick()
                self._status.write([(runner.name, runner.status()) for runner in self._all])
            if self._once and self._is_through():
                return True
            self._signals.stop.wait(self._pause())
        return False

    def _pause(self) -> float:
        if not self._once:
            return _TICK / 2
        return min(max(_SHORTEST_TICK, _ONCE_SHARE * (time.monotonic() - self._began)), _ONCE_TICK)

    def _is_through(self) -> bool:
        """Whether all runners are through. A runner whose target cannot be listed does not delay the others."""
        for runner in list(self._open):
            try:
                if not runner.is_through():
                    continue
            except AutosyncError as error:
                if len(self._all) == 1:
                    raise
                log.error("%s: %s", runner.name, error)
                self._failed[runner] = error
            self._open.remove(runner)
        return not self._open

    def _restart_dead_children(self) -> None:
        """Restart dead children, and release the claims of dead workers."""
        if self._host is None:
            return
        self._dead += [(runner, dead) for dead in self._host.restart_if_dead() for runner in self._all]
        with suppress(BrokerError):
            while self._dead:
                runner, dead = self._dead[-1]
                runner.release_claims_of_dead(dead)
                self._dead.pop()

    def _check_threads(self) -> None:
        """End the program if a thread has died: without it, events would be lost in silence."""
        found = [runner.broken for runner in self._all] + ([self._watcher.error] if self._watcher else [])
        broken = next((error for error in found if error is not None), None)
        if broken is not None:
            raise StartError(f"cannot go on: {type(broken).__name__}: {broken}", "start it again; everything is scanned then") from broken

    def _drain(self, finished: bool) -> None:
        """Send all changes and, on one host, wait a little until workers have done what they can."""
        if not finished:
            log.info("stopping")
        if self._watcher:
            self._watcher.stop()
        for runner in self._all:
            runner.close(1.0 if self._signals.hurry.is_set() else _DRAIN, finished=finished)
        until = time.monotonic() + (_DRAIN if self._host else 0.0)
        while (
            self._host
            and time.monotonic() < until
            and not self._signals.hurry.is_set()
            and not all(runner.is_drained() for runner in self._all if runner not in self._failed)
        ):
            self._restart_dead_children()
            self._signals.hurry.wait(0.05)
        idle = [runner.read_final_stats() for runner in self._all]
        if self._host:
            self._host.is_idle = all(idle)


def _watcher(run: RunSettings, push: Push, link_rules: LinkRules) -> Watcher:
    try:
        return Watcher(
            run.mirror.keys(),
            push,
            follow=run.mirror.follow_links,
            one_file_system=run.mirror.one_file_system,
            link_rules=link_rules,
        )
    except OSError as error:
        cure = "raise it with: sysctl fs.inotify.max_user_instances=1024" if error.errno == errno.EMFILE else ""
        raise StartError(f"the kernel gives no inotify instance: {error.strerror}", cure) from error


def check_broker(url: str) -> None:
    """Check that a broker responds, before anything else begins.

    Raises:
        StartError: it does not respond.
    """
    try:
        with closing(connect(url)) as client:
            check_reachable(client)
    except BrokerRefused as error:
        raise StartError(str(error)) from error
    except BrokerError as error:
        raise StartError(f"broker {address(url)} does not respond: {error.what}", "start it, or correct --broker") from error
