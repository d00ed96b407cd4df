"""What must never be deleted: whole runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from autosync.ledger import connect
from lab.buckets import Bucket
from lab.comparing import fill
from lab.parts import permitted
from lab.programs import BIN, Programs
from lab.servers import wait_until


def test_one_empty_path_among_several_keeps_its_keys_and_the_others_go_on(
    programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    fill(tree, "a")
    fill(share, "b", "c/d")
    options = ["autosync", "--once", *bucket.options(), f"--source-prefix={tmp_path}/", str(tree), str(share)]
    assert programs.run(*options).returncode == 0
    assert sorted(bucket.sizes()) == ["share/b", "share/c/d", "source/a"]

    share.rename(tmp_path / "before")
    share.mkdir()  # as it is when the share is not mounted; another directory, also by its inode number
    fill(tree, "new")
    (tree / "a").unlink()
    done = programs.run(*options, "--max-delete=100%")

    assert done.returncode == 3
    assert f"{share} holds no file. 2 keys below it that are not in the source are kept" in done.stderr
    assert sorted(bucket.sizes()) == ["share/b", "share/c/d", "source/new"]

    assert f"root {share} holds no file; 2 keys of the target are kept for that" in programs.run("autosync-ctl", "accept", "--yes").stdout
    done = programs.run(*options, "--attempts=1")
    assert (done.returncode, sorted(bucket.sizes())) == (0, ["source/new"]), done.stderr


def run_bound(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the commands so that permissions bind it, also where root runs the tests."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run([*drop, str(BIN / command[0]), *command[1:]], capture_output=True, text=True, timeout=60, check=False)


def test_nothing_behind_an_unreadable_directory_is_deleted_and_the_rest_is(once: list[str], bucket: Bucket, tree: Path) -> None:
    fill(tree, "a/1", "closed/2", "closed/deep/3", "z/4")
    assert run_bound(*once).returncode == 0
    (tree / "a/1").unlink()
    (tree / "z/4").unlink()
    (tree / "closed").chmod(0)
    try:
        done = run_bound(*once)
    finally:
        (tree / "closed").chmod(0o755)

    assert done.returncode == 3
    assert f"{tree}/closed" in done.stderr
    assert "nothing behind it is deleted" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(bucket.sizes()) == ["closed/2", "closed/deep/3"]


@pytest.mark.parametrize("what", ["renamed", "mounted over"])
def test_a_root_that_goes_away_deletes_nothing_and_goes_on_when_it_is_back(
    programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path, what: str
) -> None:
    if what == "mounted over":
        permitted("mount", "-t", "tmpfs", "tmpfs", str(tree))
        subprocess.run(["umount", str(tree)], check=True)  # until later
    try:
        fill(tree, "a", "d/b", "d/c")
        process = programs.start("autosync", "--rescan=1", *bucket.options(), f"--source-prefix={tree}/", str(tree))
        wait_until(lambda: len(bucket.sizes()) == 3, what="the first scan is done")
        _remove(what, tree, tmp_path)
        wait_until(lambda: "is another directory than before" in process.output() or "is gone" in process.output(), what="it is noticed")
        # Whatever is done about it is done by the rescan after that.
        line = "scan of everything" if what == "renamed" else "holds no file. 3 keys below it"
        wait_until(lambda: process.output().count(line) >= 2, 60, "two scans of what is not there")
        assert sorted(bucket.sizes()) == ["a", "d/b", "d/c"]
        assert process.poll() is None

        _bring_back(what, tree, tmp_path)
        (tree / "d/c").unlink()
        fill(tree, "new")
        wait_until(lambda: sorted(bucket.sizes()) == ["a", "d/b", "new"], 60, "it goes on")
        assert "Traceback" not in process.output()
    finally:
        programs.end()
        if what == "mounted over":
            subprocess.run(["umount", "-l", str(tree)], check=False, capture_output=True)


def _remove(what: str, tree: Path, tmp_path: Path) -> None:
    if what == "renamed":
        tree.rename(tmp_path / "elsewhere")
    else:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree)], check=True)


def _bring_back(what: str, tree: Path, tmp_path: Path) -> None:
    if what == "renamed":
        (tmp_path / "elsewhere").rename(tree)
    else:
        subprocess.run(["umount", str(tree)], check=True)


@pytest.mark.parametrize(("ours", "theirs"), [("news/", "news-archive/"), ("x/", "x/y/")])
def test_the_keys_of_another_mirror_beside_ours_stay(
    programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path, ours: str, theirs: str
) -> None:
    """Where one prefix lies in the other, the filter keeps them apart; the keys of a mirror are those that its source can make."""
    other = tmp_path / "other"
    fill(tree, "one", "d/two")
    fill(other, "three", "d/four")
    exclude = [f"--source-exclude={tree}/y"]

    def run(source: Path, prefix: str, *more: str) -> None:
        prefixes = [f"--source-prefix={source}/", f"--target-prefix={prefix}"]
        done = programs.run("autosync", "--once", *bucket.options(), *prefixes, *more, str(source))
        assert done.returncode == 0, done.stderr

    nested = theirs.startswith(ours)
    run(tree, ours, *(exclude if nested else []))
    run(other, theirs)
    (tree / "one").unlink()
    (other / "three").unlink()
    run(tree, ours, *(exclude if nested else []))
    assert sorted(bucket.sizes()) == sorted([f"{ours}d/two", f"{theirs}three", f"{theirs}d/four"])
    run(other, theirs)
    assert sorted(bucket.sizes()) == sorted([f"{ours}d/two", f"{theirs}d/four"])


@pytest.mark.parametrize("narrowed", ["--source-filter=.*\\.mp3$", "--temporary=.*\\.txt"])
def test_what_a_filter_leaves_out_from_now_on_stays(programs: Programs, once: list[str], bucket: Bucket, tree: Path, narrowed: str) -> None:
    fill(tree, "a.mp3", "b.mp3", "c.txt", "d/e.txt")
    assert programs.run(*once).returncode == 0

    for name in ("b.mp3", "c.txt"):
        (tree / name).unlink()
    # Other temporary names than before may bring some of those into the scope.
    accepting = ["--accept-existing"] if "temporary" in narrowed else []
    assert programs.run(*once, narrowed, *accepting).returncode == 0

    assert sorted(bucket.sizes()) == ["a.mp3", "c.txt", "d/e.txt"]


KEYS = [f"{number:04}" for number in range(40)]


def test_what_a_target_held_before_its_first_sync_is_kept_until_it_is_accepted(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    fill(tree, "a", "d/b")
    for key in ("a", "foreign", "d/foreign", "other/foreign", "z"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"foreign")
    both = ["a", "d/b", "d/foreign", "foreign", "other/foreign", "z"]

    for _ in range(2):
        done = programs.run(*once)
        assert done.returncode == 3, done.stderr
        assert (
            "the target held 4 keys in scope before this mirror that the source lacks (d/foreign, foreign, other/foreign and 1 more)"
            in done.stderr
        )
        assert " accept, or start again with --accept-existing;" in done.stderr
        assert sorted(bucket.sizes()) == both
        assert bucket.read("a") == b"", "uploads go on"
    changed = programs.run(*once, "--compare=size", "--max-delete=100%", "--attempts=3")
    assert (changed.returncode, sorted(bucket.sizes())) == (3, both), "with another definition too"
    keeping = programs.run(*once, "--no-delete")
    assert (keeping.returncode, sorted(bucket.sizes())) == (0, both)
    assert "foreign" not in keeping.stderr, "where nothing is to be deleted, nothing is withheld"
    assert programs.run(*once).returncode == 3, "that has accepted nothing"

    accepted = programs.run(*once, AUTOSYNC_ACCEPT_EXISTING="1")
    assert (accepted.returncode, sorted(bucket.sizes())) == (0, ["a", "d/b"]), accepted.stderr

    (tree / "d/b").unlink()
    later = programs.run(*once)
    assert (later.returncode, sorted(bucket.sizes())) == (0, ["a"]), later.stderr


def test_a_mirror_whose_first_scan_finds_nothing_to_delete_is_accepted(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    fill(tree, "a", "b")
    bucket.client.put_object(Bucket=bucket.name, Key="a", Body=b"older")
    assert programs.run(*once).returncode == 0

    (tree / "b").unlink()
    bucket.client.put_object(Bucket=bucket.name, Key="foreign", Body=b"x")
    done = programs.run(*once)

    assert (done.returncode, sorted(bucket.sizes())) == (0, ["a"]), done.stderr


def test_before_a_mirror_is_accepted_what_is_seen_to_be_deleted_goes_and_what_rescans_find_stays(
    programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    fill(tree, "a", "b", "d/c")
    fill(tmp_path, "outside/new")
    for key in ("foreign", "outside/foreign"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    process = programs.start("autosync", "--rescan=1", *bucket.options(), f"--source-prefix={tree}/", str(tree))
    wait_until(lambda: len(bucket.sizes()) == 5, 60, "the source is sent")

    (tree / "a").unlink()
    shutil.rmtree(tree / "d")
    (tree / "outside").mkdir()
    (tree / "outside").rmdir()
    (tmp_path / "outside").rename(tree / "outside")  # a scan of this directory alone

    wait_until(lambda: sorted(bucket.sizes()) == ["b", "foreign", "outside/foreign", "outside/new"], 60, "what was done live is done")
    scans = process.output().count("compared ")
    wait_until(lambda: process.output().count("compared ") >= scans + 2, 60, "rescans find it again")
    assert sorted(bucket.sizes()) == ["b", "foreign", "outside/foreign", "outside/new"]
    found = programs.run("autosync-ctl", "status", "--json")
    assert '"accepted": false, "withheld_deletions": 2' in found.stdout, found
    found = programs.run("autosync-ctl", "status")
    assert "  attention   2 deletions withheld\n" in found.stdout
    assert "  accepted    no: keys that the target held before the mirror are kept; " in found.stdout
    assert "autosync-ctl accept deletes them\n" in found.stdout
    process.terminate()
    process.wait()

    done = programs.run("autosync", "--once", "--accept-existing", *bucket.options(), f"--source-prefix={tree}/", str(tree))
    assert (done.returncode, sorted(bucket.sizes())) == (0, ["b", "outside/new"]), done.stderr


def test_each_of_several_targets_is_accepted_by_itself(programs: Programs, tree: Path, tmp_path: Path) -> None:
    fill(tree, "a")
    for name in ("one", "two", "three"):
        fill(tmp_path, f"{name}/foreign")
    fill(tmp_path, "empty/a")
    config = tmp_path / "targets.toml"
    tables = [(name, "accept-existing = true" if name == "two" else "accept-existing = false") for name in ("one", "two", "three", "empty")]
    config.write_text(
        f"paths = ['{tree}']\nsource-prefix = '{tree}/'\nactor = 'file'\n"
        + "".join(f"[[target]]\nname = '{name}'\ntarget-container = '{tmp_path}/{name}'\n{more}\n" for name, more in tables)
    )

    done = programs.run("autosync", "--once", f"--config={config}", "--accept-existing")

    assert done.returncode == 3, done.stderr
    assert [name for name in ("one", "two", "three", "empty") if f"{name}: the target held 1 key" in done.stderr] == ["one", "three"]
    found = {name: sorted(path.name for path in (tmp_path / name).iterdir()) for name, _ in tables}
    assert found == {"one": ["a", "foreign"], "two": ["a"], "three": ["a", "foreign"], "empty": ["a"]}


def test_a_scan_that_finds_too_much_gone_deletes_nothing_until_an_operator_lifts_that(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    fill(tree, *KEYS)
    assert programs.run(*once).returncode == 0
    for key in KEYS[:30]:
        (tree / key).unlink()
    fill(tree, "new")
    kept = [*KEYS, "new"]

    first = programs.run(*once)
    assert (first.returncode, sorted(bucket.sizes())) == (3, kept), first.stderr
    assert "30 of 40 keys in scope are gone from the source" in first.stderr
    fill(tree, *KEYS[:29], *(f"more/{key}" for key in KEYS), *(f"most/{key}" for key in KEYS))
    kept += [f"{folder}/{key}" for folder in ("more", "most") for key in KEYS]
    grown = programs.run(*once)
    assert (grown.returncode, sorted(bucket.sizes())) == (3, sorted(kept)), "nor where a file is back, and the scope has grown"
    assert "1 of 41 keys in scope are gone from the source (0029), and an earlier scan has found more than" in grown.stderr

    lifted = programs.run(*once, "--max-delete=5")
    assert (lifted.returncode, sorted(bucket.sizes())) == (0, sorted({*kept} - {KEYS[29]})), lifted.stderr
    (tree / KEYS[0]).unlink()
    assert programs.run(*once).returncode == 0
    assert KEYS[0] not in bucket.sizes()


def test_an_end_with_withheld_deletions_has_the_exit_code_for_that(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    fill(tree, *KEYS)
    assert programs.run(*once).returncode == 0
    for key in KEYS[:30]:
        (tree / key).unlink()
    process = programs.start(*[word for word in once if word != "--once"])
    wait_until(lambda: "are gone from the source" in process.output(), 60, "the scan has withheld them")
    wait_until(lambda: "compared 10 files" in process.output(), 60, "the scan has ended")

    process.terminate()

    assert process.wait() == 3
    assert sorted(bucket.sizes()) == KEYS


def dry(programs: Programs, once: list[str], *more: str) -> tuple[int, list[str]]:
    """The exit code of a dry run, and its lines but for the files that were sent as soon as they were written."""
    done = programs.run(*[word for word in once if word != "--once"], "--dry-run", *more)
    return done.returncode, sorted(line for line in done.stdout.splitlines() if not line.startswith("check "))


def test_a_dry_run_prints_what_is_kept_and_what_would_go(programs: Programs, once: list[str], bucket: Bucket, tree: Path) -> None:
    fill(tree, "a")
    bucket.client.put_object(Bucket=bucket.name, Key="foreign", Body=b"x")
    assert dry(programs, once) == (3, ["keep foreign", "upload a"])
    assert dry(programs, once, "--accept-existing") == (0, ["delete foreign", "upload a"])
    assert programs.run(*once).returncode == 3
    assert dry(programs, once) == (3, ["keep foreign"])
    assert programs.run(*once, "--accept-existing").returncode == 0

    fill(tree, *KEYS)
    assert programs.run(*once).returncode == 0
    for key in KEYS[:30]:
        (tree / key).unlink()
    assert dry(programs, once) == (3, [f"keep {key}" for key in KEYS[:30]])
    assert dry(programs, once, "--max-delete=30") == (0, [f"delete {key}" for key in KEYS[:30]])


@pytest.mark.parametrize(("kind", "is_running"), [("existing", False), ("deletions", True)], ids=["existing-stopped", "deletions-running"])
def test_an_operator_accepts_what_waits(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path, is_running: bool, kind: str
) -> None:
    """Of a mirror that is not running, the next start deletes it."""
    fill(tree, *KEYS)
    if kind == "deletions":
        assert programs.run(*once).returncode == 0
        for key in KEYS[:30]:
            (tree / key).unlink()
    else:
        bucket.client.put_object(Bucket=bucket.name, Key="foreign", Body=b"x")
    shown = {
        "existing": "1 key that the target held before this mirror: foreign",
        "deletions": "30 keys that are gone from the source: 0000, 0001, 0002 and 27 more",
    }[kind]
    keeping = [word for word in once if word != "--once"]
    process = programs.start(*keeping)
    wait_until(lambda: "compared " in process.output(), 60, "the scan has ended")
    if not is_running:
        process.terminate()
        assert process.wait() == 3

    refused = programs.run("autosync-ctl", "accept")
    assert (refused.returncode, shown in refused.stdout, "give --yes" in refused.stderr) == (2, True, True), refused
    other = programs.run("autosync-ctl", "accept", "--root", "--yes")
    assert (other.returncode, other.stdout) == (0, "nothing waits for acceptance\n")
    accepted = programs.run("autosync-ctl", "accept", "--yes", f"--{kind}")
    assert (accepted.returncode, shown in accepted.stdout) == (0, True), accepted

    if not is_running:
        process = programs.start(*keeping)
    wait_until(lambda: sorted(bucket.sizes()) == sorted(path.name for path in tree.iterdir()), 60, "what was accepted is gone")
    wait_until(lambda: programs.run("autosync-ctl", "accept").stdout == "nothing waits for acceptance\n", 30, "nothing is left", pause=0.2)
    process.terminate()
    assert process.wait() == 0


def test_a_set_that_has_grown_since_it_was_listed_is_not_accepted(programs: Programs, once: list[str], bucket: Bucket, tree: Path) -> None:
    fill(tree, "a")
    bucket.client.put_object(Bucket=bucket.name, Key="foreign", Body=b"x")
    assert programs.run(*once).returncode == 3
    assert programs.run("autosync-ctl", "accept", "--yes").returncode == 0
    bucket.client.put_object(Bucket=bucket.name, Key="foreign too", Body=b"x")

    again = programs.run(*once)

    assert (again.returncode, sorted(bucket.sizes())) == (3, ["a", "foreign", "foreign too"]), again.stderr
    assert "2 keys that the target held" in programs.run("autosync-ctl", "accept", "--yes").stdout
    assert (programs.run(*once).returncode, sorted(bucket.sizes())) == (0, ["a"])


def test_losing_the_broker_or_the_state_directory_is_no_first_contact_and_losing_both_is(
    programs: Programs, broker: str, bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    options = [f"--broker={broker}", f"--state-dir={state}", "--once", *bucket.options(), f"--source-prefix={tree}/", "--name=m", str(tree)]
    fill(tree, "a", "b", "c", "d")
    assert programs.run("autosync", *options).returncode == 0

    for lost, key in (("the broker's memory", "a"), ("the state directory", "b")):
        (tree / key).unlink()
        if lost == "the state directory":
            shutil.rmtree(state)
        else:
            connect(broker).flushall()
        done = programs.run("autosync", *options)
        assert (done.returncode, key in bucket.sizes()) == (0, False), (lost, done.stderr)
    (tree / "c").unlink()
    shutil.rmtree(state)
    connect(broker).flushall()

    done = programs.run("autosync", *options)

    assert (done.returncode, sorted(bucket.sizes())) == (3, ["c", "d"]), done.stderr
    assert f"{state}/m was empty: if it lies on a volume, that may be missing" in done.stderr


def test_deletions_that_the_kernel_reports_are_not_limited(programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    fill(tree, "one", *(f"moved/{key}" for key in KEYS), *(f"removed/{key}" for key in KEYS), *(f"out/{key}" for key in KEYS))
    process = programs.start("autosync", "--max-delete=0", *bucket.options(), f"--source-prefix={tree}/", str(tree))
    wait_until(lambda: len(bucket.sizes()) == 121, 60, "the first scan is done")

    (tree / "one").unlink()
    (tree / "moved").rename(tree / "here")
    shutil.rmtree(tree / "removed")
    (tree / "out").rename(tmp_path / "out")

    wait_until(lambda: sorted(bucket.sizes()) == [f"here/{key}" for key in KEYS], 60, "all that was deleted is gone")
    assert "are withheld" not in process.output()


def test_files_that_cannot_be_sent_are_reported_and_a_link_that_leads_out_keeps_its_object(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    fill(tmp_path, "archive/film")
    fill(tree, "film", "folder/a", "rest", "pipe")
    assert programs.run(*once).returncode == 0
    for name in ("film", "pipe"):
        (tree / name).unlink()
    shutil.rmtree(tree / "folder")
    (tree / "film").symlink_to(tmp_path / "archive/film")  # as a storage manager leaves it
    (tree / "folder").symlink_to(tmp_path / "archive")
    os.mkfifo(tree / "pipe")
    (tree / "circle").symlink_to("circle")

    done = programs.run(*once)

    assert done.returncode == 0, done.stderr
    # A pipe is certainly not the file; a link may stand for it.
    assert sorted(bucket.sizes()) == ["film", "folder/a", "rest"]
    leads_out = "is a link that leads out of the source"
    for line in (f"film {leads_out}", f"folder {leads_out}", "pipe is a FIFO", "circle is a link that leads to itself"):
        assert f"skipped: {tree}/{line}" in done.stderr
    assert "skipped 4" in done.stderr
    dry = programs.run(*once, "--dry-run")
    assert [line.split()[0] for line in dry.stdout.splitlines()].count("skip") == 4


def test_a_file_that_cannot_be_sent_is_in_the_failed_list_and_the_rest_goes_on(once: list[str], bucket: Bucket, tree: Path) -> None:
    deep = "/".join(["x" * 250] * 4) + "/" + "y" * 50
    fill(tree, deep, "closed", "rest", os.fsdecode(b"not utf-8 \xff"))
    (tree / "closed").chmod(0)

    done = run_bound(*once)

    assert done.returncode == 3
    assert sorted(bucket.sizes()) == ["rest"]
    failed = [line for line in done.stderr.splitlines() if "failed: " in line and "uploaded" not in line]
    assert len(failed) == 3, done.stderr
    for what in ("S3 allows 1024", "closed may not be read", "is not UTF-8"):
        assert sum(what in line for line in failed) == 1, what
