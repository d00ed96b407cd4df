"""The names that mean something in environment variables, and the near name of one that does not.

The names are listed here, since not every program may import every option: a worker loads no command, and no command loads the actors of
other targets. tests/unit/test_setting_names.py compares the lists with the options and with the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from ..errors import ConfigurationError
from .text import listed, printable

PREFIX = "AUTOSYNC_"

#: Options of `autosync` and `autosync-watch`.
COMMANDS = frozenset({
    "accept_existing", "actor", "attempts", "broker", "compare", "config", "delete", "done_marker", "dry_run", "lease",
    "limit_bandwidth", "limit_inflight", "limit_requests", "links", "log_format", "max_delete", "max_links", "max_size", "min_size", "name",
    "once", "one_file_system", "overlap", "queue", "quiet", "rescan", "settle", "signing_key", "source_exclude", "source_filter",
    "source_prefix", "state_dir",
    "target_container", "target_exclude", "target_prefix", "temporary", "threads", "verbose", "workers",
})  # fmt: skip
#: Options of `autosync-ctl`; those of its commands follow the name of the command.
CONTROL = frozenset({
    "accept_deletions", "accept_existing", "accept_mount", "accept_root", "accept_yes", "broker", "name", "state_dir", "export_listen",
    "failed_as_json", "flush_timeout", "forget_yes", "limit_bandwidth", "limit_inflight",
    "limit_requests", "mirrors_as_json", "mirrors_stopped", "retry_everything", "status_as_json", "status_watch", "verify_checksum",
})  # fmt: skip
#: Options of the actors in `actors/`.
ACTORS = frozenset({
    "account", "account_key", "acl", "application_credential", "application_credential_secret", "auth_url", "auth_version",
    "cache_control", "client_id", "client_secret", "content_type", "endpoint_url", "identity", "interface", "key_id", "metadata",
    "password", "pattern", "profile", "project", "project_domain", "region", "rsync_password", "sas_token", "secret", "segment_size",
    "service_account", "sse", "sse_kms_key_id", "staging", "storage_class", "storage_url", "tag", "tenant_id", "url", "user",
    "user_domain",
})  # fmt: skip
#: Settings of workers, which `celery` reads.
WORKERS = frozenset({"events", "log_format", "queues", "secrets", "sources", "verbosity"})
#: Flags that are written in another way than on the command line, where `--no-delete` is an option.
NEGATED = {"no_accept_existing": "accept_existing", "no_one_file_system": "one_file_system", "no_delete": "delete"}

#: What a program that loads no actor advises: it cannot know the options of a user's own one.
OR_NAME_THE_ACTOR = f"unset it; if an actor of your own has that option, name the actor in {PREFIX}ACTOR"

_EDITS = 2
#: What Kubernetes and Docker put into each container about a service, here one whose name begins with "autosync".
_OF_A_SERVICE = PREFIX + r"(?:.+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT(?:_[0-9]+_[A-Z]+(?:_(?:PROTO|PORT|ADDR))?)?)"
_LISTED = 10


def check_variables(environ: Iterable[str], own_options: Callable[[], Iterable[str]], otherwise: str = "unset it") -> list[str]:
    """The variables of autosync's prefix that mean nothing, sorted.

    Args:
        environ: the names of all variables.
        own_options: called if there is such a variable: the names of the options of users' own actors.
        otherwise: what can be done besides writing the near name, for the error message.

    Raises:
        ConfigurationError: one of them differs little from a name that means something.
    """
    names = set(map(_variable, COMMANDS | CONTROL | ACTORS | WORKERS))
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in names)
    if not unknown:
        return []
    names |= set(map(_variable, own_options()))
    unknown = [name for name in unknown if name not in names]
    written = {name: name for name in names} | {_variable(name): f"{_variable(option)}=0" for name, option in NEGATED.items()}
    for name in unknown:
        near = [] if re.fullmatch(_OF_A_SERVICE, name) else nearest(name.upper(), written)
        if near:
            meant = " or ".join(dict.fromkeys(written[one] for one in near))
            raise ConfigurationError(f"there is no variable {printable(name)}", f"write {meant}, or {otherwise}")
    return unknown


def warning_about(unknown: Collection[str]) -> str:
    """The line about variables or settings that mean nothing."""
    return f"unknown names, which autosync does not read: {listed(sorted(unknown)[:_LISTED], len(unknown))}"


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Those of the candidates from which this name differs by the fewest edits, sorted; none if these are more than two.

    An edit inserts, removes or replaces a character, or swaps two neighbours (Damerau-Levenshtein).
    """
    ordered = sorted(candidates)
    for edits in range(_EDITS + 1):
        found = [one for one in ordered if _is_within(name, one, edits)]
        if found:
            return found
    return []


def _is_within(one: str, other: str, edits: int) -> bool:
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[same:], other[same:]
    if not (one and other and edits) or abs(len(one) - len(other)) > edits:
        return max(len(one), len(other)) <= edits
    left = edits - 1
    return (
        _is_within(one[1:], other, left)
        or _is_within(one, other[1:], left)
        or _is_within(one[1:], other[1:], left)
        or (one[1:2] == other[0] and _is_within(_swapped(one), other, left))
        or (other[1:2] == one[0] and _is_within(one, _swapped(other), left))
    )


def _swapped(text: str) -> str:
    return text[1] + text[0] + text[2:]


def _variable(option: str) -> str:
    return f"{PREFIX}{option.upper()}"
