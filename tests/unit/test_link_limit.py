"""Links to directories that lead to more links: what is beyond the limit is not sent, and reported. Real trees."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from autosync.compare.scan import Comparison, Policy, ScanReport
from autosync.files import File, Listing
from autosync.model.file_rules import FileRules
from autosync.model.keys import Keys, Source
from autosync.source import disk_speed, read_ahead
from autosync.source.link_limit import LinkRules
from autosync.watch.watcher import Watcher
from lab.commands import Commands
from lab.comparing import FixedTarget, fill


def packages(top: Path, count: int) -> None:
    """Packages with a file each, and with links to all later ones, as pnpm makes them: 2 ** count - 1 keys."""
    names = [f"p{number:02}" for number in range(count)]
    fill(top, *(f"{name}/f" for name in names))
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            os.symlink(f"../{other}", top / name / other)


def comparison(tree: Path, target: FixedTarget | None = None, *, max_links: int = 10_000, paths: tuple[str, ...] = (".",)) -> Comparison:
    keys = Keys([Source(os.path.normpath(tree / path)) for path in paths], source_prefix=f"{tree}/")
    return Comparison(keys, target or FixedTarget(), Policy(rules=FileRules(max_links=max_links)))


def sent(compared: Comparison, path: str = "", report: ScanReport | None = None) -> list[str]:
    return [one.key for one in compared.differences(path, report or ScanReport()) if one.found is not None and not one.listed]


def deleted(compared: Comparison, path: str = "") -> list[str]:
    return [one.key for one in compared.differences(path, ScanReport()) if one.found is None]


def behind_links(keys: list[str]) -> list[str]:
    return [key for key in keys if key.count("/") > 1]


def test_fourteen_files_with_links_to_each_other_are_not_sixteen_thousand(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    packages(tree, 14)
    report = ScanReport()
    caplog.set_level(logging.INFO)

    keys = sent(comparison(tree), report=report)

    assert len(behind_links(keys)) == 10_000
    assert {f"p{number:02}/f" for number in range(14)} <= {*keys}, "files that are not behind links are sent"
    assert keys == sorted(keys)
    assert report.beyond_links == report.skipped_list().total > 0
    (line,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert re.search(r"too many keys: 10,000 keys behind links are mirrored, beside 14 files\. .*--max-links.*--links=skip", line)


def test_thirty_directories_are_walked_to_the_limit_and_no_further(tree: Path) -> None:
    """Two to the power of thirty."""
    packages(tree, 30)
    assert len(behind_links(sent(comparison(tree, max_links=300)))) == 300
    for number in range(30):
        (tree / f"p{number:02}/f").unlink()
    fill(tree, "z")
    report = ScanReport()
    assert sent(comparison(tree, max_links=300), report=report) == ["z"]
    assert report.beyond_links > 0, "nor do directories without files multiply"


@pytest.mark.parametrize(("links", "beyond"), [(10, 0), (11, 9)])
def test_ten_times_as_many_keys_as_files_are_not_too_many(tree: Path, links: int, beyond: int) -> None:
    fill(tree, *(f"z/{number}" for number in range(9)))
    for number in range(links):
        os.symlink("z", tree / f"link{number:02}")
    report = ScanReport()

    keys = sent(comparison(tree, max_links=20), report=report)

    assert len(keys) == 9 + 90
    assert report.beyond_links == beyond
    assert sorted(report.skipped) == [f"{tree}/link10/{number}" for number in range(beyond)]


def test_the_decision_is_that_of_the_walks_order_on_a_slow_disk_too(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages(tree, 9)
    report = ScanReport()
    expected = sent(comparison(tree, max_links=100), report=report)
    monkeypatch.setattr(disk_speed, "_MEASURED_SECONDS", -1.0)
    monkeypatch.setattr(disk_speed, "_SLOW_CALL", -1.0)
    monkeypatch.setattr(read_ahead, "_DIRECTORIES_AHEAD", 5)
    again = ScanReport()

    assert sent(comparison(tree, max_links=100), report=again) == expected
    assert (again.skipped, again.beyond_links) == (report.skipped, report.beyond_links)
    assert len(behind_links(expected)) == 100


def test_the_limit_is_one_for_all_paths_of_a_mirror(tree: Path) -> None:
    packages(tree / "a", 7)
    packages(tree / "b", 7)
    fill(tree, *(f"c/{number}" for number in range(20)))
    many = sent(comparison(tree, max_links=50, paths=("a", "b", "c")))
    few = sent(comparison(tree, max_links=50, paths=("a", "b")))

    assert len(many) == 2 * 127 + 20, "beside 34 files, 240 keys behind links are not too many"
    assert len(few) == 14 + 140, "beside 14 files, 140 of them are not"
    assert len([key for key in few if key.startswith("a/")]) == 127, "as far as they come first"


def test_what_the_target_holds_beyond_the_limit_is_kept(tree: Path) -> None:
    packages(tree, 8)
    everything = sent(comparison(tree))
    within = {*sent(comparison(tree, max_links=100))}
    beyond = [key for key in everything if key not in within]
    assert len(beyond) > 50

    target = FixedTarget(*everything, "p00/gone", "p07/gone")
    compared = comparison(tree, target, max_links=100)
    assert deleted(compared) == ["p00/gone", "p07/gone"]
    assert deleted(compared, f"{tree}/{beyond[-1].rpartition('/')[0]}") == []
    assert deleted(comparison(tree, target)) == ["p00/gone", "p07/gone"]


def test_scans_of_parts_and_events_follow_the_last_scan_of_the_whole(tree: Path) -> None:
    packages(tree, 8)
    everything = sent(comparison(tree))
    compared = comparison(tree, max_links=100)
    assert not compared.links.is_beyond(f"{tree}/{everything[-2]}"), "nothing is decided yet"
    within = sent(compared)

    for key in everything:
        assert compared.links.is_beyond(f"{tree}/{key}") == (key not in within)
    for top in ("p00", "p00/p01", "p03/p05", "p06", "p06/p07"):
        report = ScanReport()
        assert sent(compared, f"{tree}/{top}", report) == [key for key in within if key.startswith(f"{top}/")]
        assert not report.needs_whole_scan
    assert not compared.links.is_beyond(f"{tree}/p07/new"), "it is not behind a link"
    assert compared.links.is_beyond(f"{tree}/p06/p07/"), "nor is anything sent below it"


def test_what_multiplies_while_it_is_watched_is_decided_by_a_scan_of_the_whole(tree: Path) -> None:
    fill(tree, *(f"z/{number}" for number in range(4)))
    os.symlink("z", tree / "link")
    target = FixedTarget()
    compared = comparison(tree, target, max_links=50)
    target.keys = tuple(sent(compared))
    assert len(target.keys) == 8

    packages(tree / "new", 6)
    report = ScanReport()
    found = sent(compared, f"{tree}/new", report)
    assert report.needs_whole_scan, "4 keys behind links are known, and 57 are new"
    assert len(behind_links(found)) == 6 + 46
    target.keys += tuple(found)
    whole = ScanReport()
    left = sent(compared, report=whole)
    assert len(left) == 57 - 46
    assert whole.beyond_links == 0, "there are ten files now, beside which 61 keys behind links are not too many"


def test_a_walk_that_is_repeated_counts_once(tree: Path) -> None:
    """A listing that is not in order is read again, and so is the source."""
    packages(tree, 8)

    class Unordered(FixedTarget):
        def list(self, prefix: str = "") -> Listing:
            return Listing((File(key, 0, 0.0) for key in ("p07/y", "p07/x")), already_sorted=True)

    assert {*sent(comparison(tree, Unordered(), max_links=100))} == {*sent(comparison(tree, max_links=100))}


def test_links_can_be_skipped_and_the_limit_raised(commands: Commands, tree: Path, tmp_path: Path) -> None:
    packages(tree, 8)
    options = ("autosync", "--dry-run", "--actor=file", f"--target-container={tmp_path / 'target'}", f"--source-prefix={tree}/")
    (tmp_path / "target").mkdir()

    done = commands.run(*options, "--max-links=100", str(tree))
    assert done.returncode == 3
    assert done.stdout.count("upload ") == 8 + 100
    assert done.stdout.count("is behind links, and beyond --max-links, 100 keys") > 0
    assert "--links=skip" in done.stderr
    assert done.stderr.count("\n") == 1

    for cure, count in (("--max-links=1000", 255), ("--links=skip", 8), ("--max-links=247", 255)):
        done = commands.run(*options, cure, str(tree))
        assert (done.returncode, done.stdout.count("upload "), done.stderr) == (0, count, "")
    for wrong in ("0", "-1", "many"):
        assert commands.run(*options, f"--max-links={wrong}", str(tree)).returncode == 2


# Watches


def directories(keys: list[str], tree: Path) -> set[str]:
    return {f"{tree}/{key}".rpartition("/")[0] for key in keys}


def test_watches_do_not_multiply(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    packages(tree, 25)
    watcher = Watcher(Keys([Source(str(tree))]), lambda _: None, link_rules=LinkRules(lambda: 100))
    watcher._placer.place_sources()

    assert watcher.watches() == 26
    assert len({*watcher._tree.watches}) == 26 + 260, "ten times the directories that are not behind links"
    assert watcher.unwatched == watcher.without_room > 0
    assert len([record for record in caplog.records if "--links=skip" in record.message]) == 1
    watcher.close()


def test_what_is_mirrored_behind_links_is_watched_once_that_is_decided(tree: Path) -> None:
    packages(tree, 10)
    compared = comparison(tree, max_links=200)
    watcher = Watcher(
        Keys([Source(str(tree))]), lambda _: None, link_rules=LinkRules(compared.links.max_directories, compared.links.is_beyond)
    )
    watcher._placer.place_sources()
    assert watcher.without_room > 0
    mirrored = directories(sent(compared), tree)
    assert not mirrored <= {*watcher._tree.watches}, "the watcher meets directories in another order"

    watcher._placer.place_sources()

    assert {*watcher._tree.watches} == {str(tree), *mirrored}
    assert watcher.without_room == 0
    watcher.close()


def test_one_directory_may_have_many_paths(tree: Path) -> None:
    fill(tree, "d/f")
    for number in range(100):
        os.symlink("d", tree / f"link{number}")
    watcher = Watcher(Keys([Source(str(tree))]), lambda _: None)
    watcher._placer.place_sources()
    assert len({*watcher._tree.watches}) == 102

    (tree / "link7").unlink()
    os.symlink("d", tree / "new")
    watcher._placer._place_path(Source(str(tree)), str(tree / "new"))
    watcher._placer._place_path(Source(str(tree)), str(tree / "link7"))
    paths = watcher._tree.watches.paths(watcher._tree.watches._wds[str(tree / "d")])
    assert sorted(paths) == sorted([f"{tree}/d", f"{tree}/new", *(f"{tree}/link{number}" for number in range(100) if number != 7)])
    watcher.close()
