"""The commands of `autosync-ctl`. Each parses its options, reads or changes the ledger, and prints."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from types import FrameType
from typing import Any

import click

from ...broker.operator_settings import options_in_environment
from ...celery import sending_app
from ...daemon.overlaps import Overlaps
from ...errors import ConfigurationError, Exit, StartError
from ...feed.publisher import Priority, Publisher
from ...ledger import UNKNOWN, connect, registered_mirrors
from ...model.limits import Limits
from ...model.mirror import Mirror
from ...model.paths import is_at_or_below
from ...model.setting_names import OR_NAME_THE_ACTOR, warning_about
from ...model.text import printable
from ..options import (
    check_variables,
    context_settings,
    names_own_actor_in_environment,
    own_options_in_environment,
    state_base,
    state_directory_option,
)
from .accept import accept
from .doctor import Verdict, findings
from .mirrors import MirrorHandle, find_any_mirrors, find_mirrors, search_outside_sources, single_mirror
from .prometheus import MirrorCollector
from .skipped import reason_to_skip
from .status import key_lines, lines, next_try_text, status_of, table, target_of
from .stopped import forget, list_stopped
from .verify import Verifier

_WATCH_SECONDS = 1.0
_FLUSH_SECONDS = 0.05
_MARKED_AT_ONCE = 500
_ALL = "all mirrors found, or the one of --name"


def run(name: str, args: list[str]) -> int:
    """Run a command.

    Args:
        name: the program's name.
        args: arguments of the program.

    Returns:
        The exit code.

    Raises:
        click.ClickException: the arguments are wrong.
        AutosyncError: the command has failed.
    """
    code = _group().main(args or ["--help"], prog_name=name, standalone_mode=False)
    return int(code or 0) if args else Exit.USAGE


class _Control(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Check the variables before a command, but not before its help."""
        if not {*ctx.help_option_names} & {*ctx.args}:
            unknown = check_variables(lambda: _own_options(ctx.params), OR_NAME_THE_ACTOR)
            if unknown:
                click.echo(f"autosync-ctl: {warning_about(unknown)}", err=True)
        return super().invoke(ctx)


def _own_options(options: Mapping[str, Any]) -> set[str]:
    """The names of the options of the actor in AUTOSYNC_ACTOR, whose module is in none of the sources."""
    if not names_own_actor_in_environment():
        return set()
    search_outside_sources(find_any_mirrors(options["broker"], state_base(options["state_dir"]), None))
    return own_options_in_environment()


def _group() -> click.Group:
    group = _Control(
        "autosync-ctl",
        help="Show the status of mirrors and control them: those of --broker, or of every `autosync` that runs on this host.",
        params=[
            click.Option(["--broker"], metavar="URL", help="Redis or Valkey of the mirrors.  [default: the embedded ones here]"),
            state_directory_option(),
            click.Option(["--name"], metavar="TEXT", help="Only the mirror of this name."),
        ],
        callback=_store_options,
        context_settings=context_settings(),
    )
    click.version_option(package_name="autosync", prog_name="autosync-ctl", allow_from_autoenv=False)(group)
    click.help_option("-h", "--help", allow_from_autoenv=False)(group)
    for command in (
        _status,
        _mirrors,
        _failed,
        _retry,
        _why,
        _pause,
        _resume,
        _limit,
        _rescan,
        _flush,
        _verify,
        _doctor,
        _export,
        accept,
        forget,
    ):
        group.add_command(command)
    return group


@click.pass_context
def _store_options(context: click.Context, broker: str | None, state_dir: str, name: str | None) -> None:
    context.obj = (broker, state_base(state_dir), name)


def _mirrors_of_context(context: click.Context) -> list[MirrorHandle]:
    return find_mirrors(*context.obj)


def _search_outside_sources(context: click.Context) -> None:
    """See `search_outside_sources`, here for all mirrors that the command can find, whatever --name is."""
    broker, state, _ = context.obj
    for entry, source in search_outside_sources(find_any_mirrors(broker, state, None)).items():
        click.echo(f"autosync-ctl: no module is loaded from {printable(entry)}, since {printable(source)} is mirrored", err=True)


@click.command("status", help=f"Show the status of {_ALL}.")
@click.option("--watch", is_flag=True, help="Again each second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON list (with --watch: one a line).")
@click.pass_context
def _status(context: click.Context, watch: bool, as_json: bool) -> None:
    stop = _interrupt_event() if watch else threading.Event()
    before: dict[str, dict[str, Any]] = {}
    requested = time.monotonic()
    while True:
        found = [status_of(one) for one in _mirrors_of_context(context)]
        seconds, requested = time.monotonic() - requested, time.monotonic()
        if as_json:
            click.echo(json.dumps(found))
        else:
            detail = [line for one in found for line in lines(one, before.get(one["mirror"]), seconds)]
            click.echo(("\x1b[H\x1b[2J" if watch else "") + "\n".join(map(printable, detail)))
        if not watch:
            return
        before = {one["mirror"]: one for one in found}
        if stop.wait(_WATCH_SECONDS):
            raise KeyboardInterrupt


def _interrupt_event() -> threading.Event:
    """An event that Ctrl-C sets. Python's KeyboardInterrupt is lost if it arrives while a destructor runs, so an endless command cannot use
    it. The second Ctrl-C raises KeyboardInterrupt again."""
    interrupted = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted.set()

    signal.signal(signal.SIGINT, on_interrupt)
    return interrupted


@click.command("mirrors", help="List the mirrors, with their targets and sources.")
@click.option("--stopped", is_flag=True, help="Those that no watcher runs for, with the state directories on this host.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON list.")
@click.pass_context
def _mirrors(context: click.Context, stopped: bool, as_json: bool) -> None:
    if stopped:
        list_stopped(*context.obj, as_json=as_json)
        return
    found = [status_of(one) for one in _mirrors_of_context(context)]
    wanted = ("mirror", "target", "sources", "queue", "watched_by")
    if as_json:
        click.echo(json.dumps([{name: one[name] for name in wanted} for one in found]))
        return
    for line in table([[one["mirror"], one["target"], one["queue"], ", ".join(map(printable, one["sources"]))] for one in found]):
        click.echo(line)


@click.command("failed", help="List the failed keys, with the reasons. autosync tries them again later; see `retry`.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line.")
@click.pass_context
def _failed(context: click.Context, as_json: bool) -> None:
    for one in _mirrors_of_context(context):
        watched = bool(one.ledger.stats.read().holder)
        for failure in one.ledger.failures.all():
            if as_json:
                click.echo(json.dumps({"mirror": one.name, **failure._asdict()}))
            else:
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.time))
                about = f"{when}, {failure.attempts} tries, {failure.worker}: {printable(failure.reason)}"
                again = f"; it is tried again {next_try_text(failure, watched=watched)}" if failure.next_try is not None else ""
                click.echo(f"{one.name}  {printable(failure.key)}  {about}{again}")


@click.command("retry", help="Try keys of the failed list again now.")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.pass_context
def _retry(context: click.Context, keys: tuple[str, ...], everything: bool) -> None:
    if bool(keys) == everything:
        raise ConfigurationError("retry takes keys, or --all")
    one = single_mirror(_mirrors_of_context(context))
    if everything:
        keys = tuple(failure.key for failure in one.ledger.failures.all())
    for key in keys if not everything else ():
        if one.ledger.failures.get(key) is None:
            raise StartError(f"{printable(key)} is not in the failed list of mirror {one.name}", "see autosync-ctl failed")
    queue = one.mirror().queue
    publisher = Publisher(sending_app(one.broker, queue, events=False), one.name, queue, one.ledger)
    try:
        for start in range(0, len(keys), _MARKED_AT_ONCE):
            page = keys[start : start + _MARKED_AT_ONCE]
            publisher.mark([(key, UNKNOWN) for key in page], size=0, priority=Priority.SCAN)
    finally:
        publisher.close()
    click.echo(f"{len(keys)} keys are tried again")


@click.command("why", help="Show the state and the history of a key.")
@click.argument("key")
@click.pass_context
def _why(context: click.Context, key: str) -> None:
    one = single_mirror(_mirrors_of_context(context))
    mirror = one.mirror()
    keys = mirror.keys()
    path = keys.path(key)
    skipped = reason_to_skip(path, mirror, one.ledger.sync_state.skipped()) if path else ""
    facts, recent = one.ledger.key_states.facts(key), one.ledger.history.of_key(key)
    for line in key_lines(key, facts, path, recent, skipped=skipped, watched=bool(one.ledger.stats.read().holder)):
        click.echo(line)
    directory = keys.state_directory_of(key)
    if directory:
        click.echo(f"  left out    autosync keeps its own state in {printable(directory)}")


@click.command("pause", help=f"Stop sending and deleting, for {_ALL}. Transfers in flight are finished; changes stay dirty.")
@click.pass_context
def _pause(context: click.Context) -> None:
    for one in _mirrors_of_context(context):
        one.ledger.requests.pause()
        click.echo(f"{one.name} is paused; {one.ledger.stats.read().dirty} keys wait")


@click.command("resume", help=f"Go on, for {_ALL}.")
@click.pass_context
def _resume(context: click.Context) -> None:
    for one in _mirrors_of_context(context):
        one.ledger.requests.resume()
        click.echo(f"{one.name} goes on; {one.ledger.stats.read().dirty} keys wait")


@click.command(
    "limit",
    help="Show or change the limits of the whole fleet for the target. A change lasts until the mirror's autosync is restarted, which sets "
    "the limits of its own options.",
)
@click.option("--requests", metavar="RATE", help="Uploads and deletes: 100/s, 6/m, 500/h, or none.")
@click.option("--bandwidth", metavar="RATE", help="Content: 512kB/s, 20MB/s, 1GiB/s, or none.")
@click.option("--inflight", metavar="COUNT", help="Transfers at once, or none.")
@click.pass_context
def _limit(context: click.Context, /, **requested: str | None) -> None:
    parsed = Limits.parse(**requested)
    one = single_mirror(_mirrors_of_context(context))
    limits = replace(one.ledger.limits.read(), **{name: getattr(parsed, name) for name, text in requested.items() if text is not None})
    if any(text is not None for text in requested.values()):
        one.ledger.limits.set(limits)
    click.echo(f"{one.name}: {limits.words()}")


@click.command("rescan", help="Scan now: compare source and target, or only what is at or below a directory or file of the source.")
@click.argument("path", required=False, default="")
@click.pass_context
def _rescan(context: click.Context, path: str) -> None:
    one = single_mirror(_mirrors_of_context(context))
    if not one.ledger.stats.read().holder:
        raise StartError(f"no watcher runs for mirror {one.name}", "start its autosync; it scans everything then")
    if path:
        path = os.path.abspath(path)
        roots = [source.root for source in one.mirror().sources]
        if not any(is_at_or_below(path, root) for root in roots):
            raise ConfigurationError(f"{path} is not in the source of mirror {one.name}", f"which is {', '.join(roots)}")
    one.ledger.requests.request_scan(path)
    click.echo(f"{one.name} scans {printable(path) or 'everything'} within a second")


@click.command("flush", help="Wait until all changes in the source up to now are in the target.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer; exit code 1.  [default: no limit]")
@click.pass_context
def _flush(context: click.Context, timeout: float | None) -> int:
    until = time.monotonic() + timeout if timeout is not None else float("inf")
    requested = [(one, uuid.uuid4().hex) for one in _mirrors_of_context(context)]
    for one, name in requested:
        _check_watched(one)
        one.ledger.requests.request_flush_point(name)
    failed = unsure = 0
    for one, name in requested:
        while (left := one.ledger.requests.count_dirty_before(name)) != 0:
            if time.monotonic() > until:
                waits = "the watcher has not seen all changes yet" if left is None else f"{left} keys still wait"
                raise StartError(f"mirror {one.name}: {waits} after {timeout:g} s", "see autosync-ctl status")
            _check_watched(one)
            time.sleep(_FLUSH_SECONDS)
        failed += one.ledger.stats.read().failed
        unsure_here = one.ledger.stats.counters().get("unsure_names", 0)
        click.echo(f"{one.name} is {'flushed' if not unsure_here else f'flushed, except for other names of {unsure_here} files'}")
        unsure += unsure_here
    if failed:
        click.echo(f"{failed} keys are in the failed list", err=True)
    if unsure:
        click.echo(
            f"{unsure} files were saved that have further names (hard links), which are too many to be kept or could not be read: the keys "
            "of these names may be old until the next scan; autosync-ctl rescan",
            err=True,
        )
    return Exit.INCOMPLETE if failed or unsure else Exit.DONE


def _check_watched(one: MirrorHandle) -> None:
    stats = one.ledger.stats.read()
    if not stats.holder:
        raise StartError(f"no watcher runs for mirror {one.name}", "start its autosync")
    if stats.paused:
        raise StartError(f"mirror {one.name} is paused", "autosync-ctl resume")


@click.command("verify", help="Compare source and target, on the file host. Exit code 0: they are equal; 3: they are not.")
@click.option("--checksum", is_flag=True, help="Compare the content, if the target lists a checksum.")
@click.pass_context
def _verify(context: click.Context, checksum: bool) -> int:
    one = single_mirror(_mirrors_of_context(context))
    mirror: Mirror = one.mirror()
    _search_outside_sources(context)
    with closing(connect(one.broker)) as client:
        registered = registered_mirrors(client)
    overlaps = Overlaps(mirror, context.obj[1], lambda: registered)
    overlaps.refresh()
    verifier = Verifier(
        mirror, checksum=checksum, secrets=options_in_environment(), spill=context.obj[1], shared_keys=overlaps.shared_keys
    )  # fmt: skip
    for what, key in verifier.differences():
        waits = ", which waits to be sent" if one.ledger.key_states.facts(key).dirty is not None else ""
        click.echo(f"{what:<8} {printable(key)}{waits}")
    for path, reason in verifier.report.skipped.items():
        click.echo(f"skipped  {printable(path)}: {reason}")
    if verifier.report.unlisted_skipped:
        click.echo(f"and {verifier.report.unlisted_skipped} more skipped paths, {verifier.report.skipped_list().total} in all")
    seen = "" if verifier.report.complete else "; a part of the source could not be read"
    click.echo(f"{target_of(mirror)}: {verifier.report.source_files} files in the source, {verifier.found} differences{seen}")
    return Exit.INCOMPLETE if verifier.found or verifier.report.beyond_links or not verifier.report.complete else Exit.DONE


@click.command("doctor", help="Check broker, file host, sources, workers and target.")
@click.pass_context
def _doctor(context: click.Context) -> int:
    code = Exit.DONE
    found = _mirrors_of_context(context)
    _search_outside_sources(context)
    for one in found:
        click.echo(f"{one.name}:")
        for about, verdict, detail, cure in findings(one, options_in_environment()):
            code = Exit.INCOMPLETE if verdict is Verdict.WRONG else code
            click.echo(f"  {verdict.value:<6} {printable(about)}: {printable(detail)}{f'; {printable(cure)}' if cure else ''}")
    return code


@click.command("export", help="Serve metrics for Prometheus, until it is stopped.")
@click.option("--listen", default="127.0.0.1:9808", show_default=True, metavar="HOST:PORT", help="Address to listen at.")
@click.pass_context
def _export(context: click.Context, listen: str) -> None:
    from prometheus_client import CollectorRegistry, start_http_server

    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        raise ConfigurationError(f"--listen {listen!r} cannot be used", "write HOST:PORT")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MirrorCollector(lambda: find_any_mirrors(*context.obj)))
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise StartError(f"--listen {listen}: {error}", "give another port") from error
    click.echo(f"metrics are at http://{listen}/metrics", err=True)
    try:
        thread.join()
    finally:
        server.shutdown()
