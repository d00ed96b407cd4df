"""The names of variables: the lists against the options and the code, and which names are near each other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import autosync
from autosync.actor import Actor
from autosync.actors import load, short_names
from autosync.broker.celery_settings import DEFAULTS
from autosync.cli.ctl.commands import _group
from autosync.cli.options import parameters
from autosync.errors import ConfigurationError
from autosync.model.setting_names import ACTORS, COMMANDS, CONTROL, NEGATED, WORKERS, check_variables, nearest, warning_about

KNOWN = {f"AUTOSYNC_{name.upper()}" for name in COMMANDS | CONTROL | ACTORS | WORKERS}


def options(*parameters: click.Parameter) -> set[str]:
    """The names of the options that have a variable."""
    return {str(one.name) for one in parameters if isinstance(one, click.Option) and one.allow_from_autoenv}


def test_the_lists_are_those_of_the_options() -> None:
    commands = [*parameters(Actor, fixed_actor=False, one_host=True), *parameters(Actor, fixed_actor=False, one_host=False)]
    group = _group()
    control = options(*group.params)
    for name, command in group.commands.items():
        control |= {f"{name.replace('-', '_')}_{option}" for option in options(*command.params)}

    assert options(*commands) == COMMANDS
    assert control == CONTROL
    assert options(*(option for actor in short_names() for option in load(actor).options)) == ACTORS
    assert {
        secondary.strip("-").replace("-", "_"): one.name
        for one in commands
        if isinstance(one, click.Option)
        for secondary in one.secondary_opts
    } == NEGATED


def test_the_list_for_workers_is_that_of_the_code() -> None:
    """Every variable that is named in the code is known, as an option or as a setting of workers."""
    package = Path(str(autosync.__file__)).parent
    named = {name for file in package.rglob("*.py") for name in re.findall(r"\bAUTOSYNC_[A-Z_]*[A-Z]\b", file.read_text())}

    assert {f"AUTOSYNC_{name.upper()}" for name in WORKERS} <= named
    examples = {"AUTOSYNC_NAME", "AUTOSYNC_VERSION", "AUTOSYNC_SERVICE_HOST"}
    assert named - examples <= KNOWN
    settings = {name.removeprefix("autosync_") for name in DEFAULTS if name.startswith("autosync_")}
    assert settings == WORKERS - {"events"}


def edited(text: str, alphabet: str) -> Iterator[str]:
    """Every text that one edit makes."""
    for at in range(len(text) + 1):
        head, tail = text[:at], text[at:]
        yield from (head + one + tail for one in alphabet)
        if tail:
            yield head + tail[1:]
            yield from (head + one + tail[1:] for one in alphabet)
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]


def test_near_is_what_at_most_two_edits_make() -> None:
    texts = ["".join(one) for length in range(5) for one in itertools.product("abc", repeat=length)]
    for text in texts:
        one = {text, *edited(text, "abc")}
        two = {other for first in one for other in edited(first, "abc")}
        for other in texts:
            assert bool(nearest(text, [other])) == (other in one | two), (text, other)


def test_the_nearest_names_are_named() -> None:
    assert nearest("secre", ["secret", "secrets", "sse"]) == ["secret"]
    assert nearest("abcx", ["abcz", "abcy", "abcdefg"]) == ["abcy", "abcz"]
    assert nearest("traget_prefix", COMMANDS) == ["target_prefix"]
    assert nearest("target_prefix", COMMANDS) == ["target_prefix"]


def test_no_valid_name_is_reported_though_others_are_near() -> None:
    near = [(one, other) for one in KNOWN for other in KNOWN - {one} if nearest(one, [other])]
    assert ("AUTOSYNC_SECRET", "AUTOSYNC_SECRETS") in near

    assert check_variables(KNOWN, lambda: pytest.fail("nothing is loaded")) == []


def test_a_name_that_one_of_our_own_options_has_is_valid() -> None:
    with pytest.raises(ConfigurationError, match="there is no variable AUTOSYNC_PASSWD; write AUTOSYNC_PASSWORD, or unset it"):
        check_variables(["AUTOSYNC_PASSWD"], lambda: ["table"])

    assert check_variables(["AUTOSYNC_PASSWD", "AUTOSYNC_TABLE"], lambda: ["passwd", "table"]) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AUTOSYNC_TARGET_PREFX", "write AUTOSYNC_TARGET_PREFIX, or"),
        ("AUTOSYNC_TRAGET_PREFIX", "write AUTOSYNC_TARGET_PREFIX, or"),
        ("AUTOSYNC_SOURCE", "write AUTOSYNC_SOURCES, or"),
        ("AUTOSYNC_ENDPOINT_ULR", "write AUTOSYNC_ENDPOINT_URL, or"),
        ("AUTOSYNC_target_prefix", "write AUTOSYNC_TARGET_PREFIX, or"),
        ("AUTOSYNC_STATUS_WATHC", "write AUTOSYNC_STATUS_WATCH, or"),
        ("AUTOSYNC_NO_DELETE", "write AUTOSYNC_DELETE=0, or"),
        ("AUTOSYNC_NO_DELET", "write AUTOSYNC_DELETE=0, or"),
        ("AUTOSYNC_SIGNINGKEY", "write AUTOSYNC_SIGNING_KEY, or"),
    ],
)
def test_a_near_name_is_an_error_that_names_the_valid_one(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_variables([*KNOWN, name], set, "unset it")

    assert str(caught.value).startswith(f"there is no variable {name}; {meant}")


#: What Kubernetes and Docker make of a service or a container of this name, and other names that are found in containers.
OF_A_SERVICE = (
    "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_6379_TCP", "PORT_6379_TCP_PROTO", "PORT_6379_TCP_PORT",
    "PORT_6379_TCP_ADDR", "PORT_53_UDP", "PORT_80_TCP_ADDR",
)  # fmt: skip
OTHERS = ("ENV", "VERSION", "IMAGE", "CHART", "NAMESPACE", "POD_IP", "HELP", "DIR", "DEBUG", "GID")


@pytest.mark.parametrize("service", ["", "WATCH_", "S3_", "VALKEY_", "CTL_", "A_"])
def test_what_orchestrators_inject_is_never_an_error(service: str) -> None:
    injected = [f"AUTOSYNC_{service}{name}" for name in OF_A_SERVICE]

    assert check_variables(injected, set) == sorted(injected)
    # Not even if an option of a user's own actor has nearly that name.
    assert check_variables(injected, lambda: ["ports", "a_port_", "port_6379_tcpx", "service_hosts"]) == sorted(injected)


def test_other_unknown_names_are_no_error() -> None:
    unknown = sorted(f"AUTOSYNC_{name}" for name in OTHERS)

    assert check_variables([*unknown, "PATH", "AUTOSYNCD_NAME", "XAUTOSYNC_NAME"], set) == unknown


def test_the_warning_is_bounded_and_printable() -> None:
    assert warning_about(["AUTOSYNC_X\n"]) == "unknown names, which autosync does not read: AUTOSYNC_X\\n"
    many = warning_about([f"AUTOSYNC_{number:04}" for number in range(1000)])
    assert many.endswith("AUTOSYNC_0008, AUTOSYNC_0009 and 990 more")
