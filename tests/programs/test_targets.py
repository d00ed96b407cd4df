"""Several targets from one watch: each is kept for itself, with a queue, limits and a lag of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.programs import Programs


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    made = tmp_path / "copy"
    made.mkdir()
    return made


def written(tree: Path, *tables: str, **above: object) -> Path:
    """A configuration file with these tables."""
    lines = [f"paths = [{json.dumps(str(tree))}]", f"source-prefix = {json.dumps(f'{tree}/')}"]
    lines += [f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in above.items()]
    path = tree.parent / "targets.toml"
    path.write_text("\n".join([*lines, *(f"[[target]]\n{table}" for table in tables)]))
    return path


def to_directory(path: Path, *more: str, name: str = "directory") -> str:
    return "\n".join([f'name = "{name}"', 'actor = "file"', f"target-container = {json.dumps(str(path))}", *more])


BAD = {
    "an option that there is not": (['actor = "file"\nnonsense = 1'], "target 1: there is no option 'nonsense'; see --help"),
    "an option of another actor": (['actor = "file"\nregion = "x"'], "target 1: there is no option 'region'"),
    "what holds for all": (['actor = "file"\nsettle = 1'], "target 1: 'settle' holds for all targets; write it above the tables"),
    "no such actor": (['actor = "nope"'], "target 1: there is no actor 'nope'"),
    "no container": (['name = "a"\nactor = "file"'], "target 1: --target-container is missing; name the directory to copy into"),
    "a wrong value": (['actor = "file"\ntarget-container = "/tmp"\nthreads = "many"'], "target 1: Invalid value for '--threads'"),
    "a wrong flag": (['actor = "file"\ntarget-container = "/tmp"\ndelete = "no"'], "target 1: 'delete' is true or false"),
    "the second": (['actor = "file"\ntarget-container = "/usr"', 'actor = "file"\nx = 1'], "target 2: there is no option 'x'"),
    "twins": (['actor = "file"\ntarget-container = "/usr"'] * 2, "two targets have the name file-usr-"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_cannot_be_used_is_one_clear_line(case: str, programs: Programs, tree: Path) -> None:
    tables, said = BAD[case]

    done = programs.run("autosync", f"--config={written(tree, *tables)}")

    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_name_for_all_that_is_no_name_is_one_clear_line(programs: Programs, tree: Path, copy: Path) -> None:
    done = programs.run("autosync", f"--config={written(tree, to_directory(copy), name='../up')}", "--once")

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--name '../up' cannot be used" in done.stderr


def test_what_is_no_list_of_tables_is_one_clear_line(programs: Programs, tree: Path) -> None:
    done = programs.run("autosync", f"--config={written(tree, target='x')}")

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "'target' is not a list of tables; write [[target]]" in done.stderr


def test_what_the_command_line_says_holds_for_all_targets_but_not_against_their_tables(
    programs: Programs, tree: Path, copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    (tree / "file").write_text("x")
    config = written(tree, to_directory(copy), to_directory(tmp_path / "second", 'target-prefix = "own/"', name="second"))

    done = programs.run("autosync", f"--config={config}", "--target-prefix=given/", "--dry-run")

    assert done.stdout.split() == ["directory:", "upload", "given/file", "second:", "upload", "own/file"]
