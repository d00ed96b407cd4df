"""What real programs do to a tree, and what must come out of it: a table.

Each row runs a program on a watched tree, with the real kernel and ledger. `sent` are the keys that must be sent, last of all in
the state in which they stand on the disk; whatever else is sent must be gone from the disk again, and no temporary name is ever sent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.parts import lacking
from lab.servers import wait_until
from lab.watch_pipeline import WatchPipeline


class Row(NamedTuple):
    """`before` is run before the tree is watched. `also` may be sent or not: names that stood for a moment."""

    name: str
    command: str
    sent: set[str]
    before: str = "true"
    also: frozenset[str] = frozenset()


#: Where programs are searched.
SEARCHED = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
#: In the shell, $T is the tree and $O a directory outside; `python` is this Python.
ROWS = [
    Row("a shell writes a file", "echo x > $T/f", {"f"}),
    Row("a shell appends", "echo y >> $T/f", {"f"}, "echo x > $T/f"),
    Row("touch makes an empty file", "touch $T/f", {"f"}),
    Row("cp", "cp $O/big $T/f", {"f"}),
    Row("cp -p over a file of equal size with an older time", "cp -p $O/old $T/f", {"f"}, "printf 'new!' > $T/f"),
    Row("cp -r of a tree", "cp -r $O/tree $T/", {"tree/1", "tree/a/2", "tree/a/b/3"}),
    Row("cp -l makes hard links", "cp -rl $T/a $T/b", {"b/f", "b/d/g"}, "mkdir -p $T/a/d; echo x > $T/a/f; echo x > $T/a/d/g"),
    Row("mv within one directory", "mv $T/f $T/g", {"f", "g"}, "echo x > $T/f"),
    Row("mv over another file", "mv $T/f $T/g", {"f", "g"}, "echo x > $T/f; echo y > $T/g"),
    Row("mv into the tree", "mv $O/big $T/f", {"f"}),
    Row("mv out of the tree", "mv $T/f $O/", {"f"}, "echo x > $T/f"),
    Row("mv of a tree into the tree", "mv $O/tree $T/t", {"t/1", "t/a/2", "t/a/b/3"}),
    Row("mv from another file system", "mv $E/f $T/f", {"f"}, "echo x > $E/f"),
    Row("install", "install -m 600 $O/big $T/f", {"f"}),
    Row("ln", "ln $T/f $T/g", {"g"}, "echo x > $T/f"),
    Row("ln -s", "ln -s f $T/g", {"g"}, "echo x > $T/f"),
    Row("link and unlink", "ln $O/big $T/f && rm $O/big", {"f"}),
    Row("dd in place", "dd if=/dev/zero of=$T/f bs=1 count=1 conv=notrunc status=none", {"f"}, "echo x > $T/f"),
    Row("truncate", "truncate -s 10 $T/f", {"f"}, "echo x > $T/f"),
    Row("fallocate", "fallocate -l 4096 $T/f", {"f"}),
    Row("sed -i", "sed -i s/x/y/ $T/f", {"f"}, "echo x > $T/f"),
    Row("sed -i with a backup", "sed -i.orig s/x/y/ $T/f", {"f", "f.orig"}, "echo x > $T/f"),
    Row("perl -i", "perl -pi -e s/x/y/ $T/f", {"f"}, "echo x > $T/f"),
    Row("rm", "rm $T/f", {"f"}, "echo x > $T/f"),
    Row("rm and a new file at once", "rm $T/f; echo y > $T/f", {"f"}, "echo x > $T/f"),
    Row("rm -r", "rm -r $T/a", {"a/f", "a/d/g"}, "mkdir -p $T/a/d; echo x > $T/a/f; echo x > $T/a/d/g"),
    Row("mkdir -p and a file", "mkdir -p $T/a/b/c/d && echo x > $T/a/b/c/d/f", {"a/b/c/d/f"}),
    Row("a directory in place of a file", "rm $T/f && mkdir $T/f && echo x > $T/f/g", {"f", "f/g"}, "echo x > $T/f"),
    Row("a file in place of a directory", "rm -r $T/f && echo x > $T/f", {"f", "f/g"}, "mkdir $T/f; echo x > $T/f/g"),
    Row("chmod and chown send nothing", "chmod 600 $T/f; chown 0 $T/f; touch $T/mark", {"mark"}, "echo x > $T/f"),
    Row("reading sends nothing", "cat $T/f; ls -lR $T; grep -r x $T; touch $T/mark", {"mark"}, "echo x > $T/f"),
    Row("vim", "vim -N -u NONE -i NONE -es -c '%s/x/y/' -c wq $T/f", {"f"}, "echo x > $T/f", frozenset({"4913"})),
    Row(
        "vim with backups that it renames", "vim -N -u NONE -i NONE -es -c 'set backup backupcopy=no' -c '%s/x/y/' -c wq $T/f", {"f"},
        "echo x > $T/f", frozenset({"4913"}),
    ),
    Row("vim makes a file", "vim -N -u NONE -i NONE -es -c 'normal ihello' -c wq $T/f", {"f"}, also=frozenset({"4913"})),
    Row(
        "an editor that writes beside and renames",
        "echo y > $T/.goutputstream-ABC123 && ln $T/f $T/f~ && mv $T/.goutputstream-ABC123 $T/f", {"f"}, "echo x > $T/f",
    ),
    Row("an office that locks", 'echo x > "$T/.~lock.f.odt#"; cp $O/big $T/f.odt; rm "$T/.~lock.f.odt#"', {"f.odt"}),
    Row("a browser that downloads", "cd $T; echo x > f.iso.crdownload; echo y >> f.iso.crdownload; mv f.iso.crdownload f.iso", {"f.iso"}),
    Row("rsync -a", "rsync -a $O/tree $T/", {"tree/1", "tree/a/2", "tree/a/b/3"}),
    Row("rsync --inplace", "rsync -a --inplace $O/old $T/f", {"f"}, "echo other > $T/f"),
    Row("rsync --partial", "rsync -a --partial --partial-dir=.rsync-partial $O/big $T/f", {"f"}),
    Row("rsync --delay-updates", "rsync -a --delay-updates $O/tree/ $T/", {"1", "a/2", "a/b/3"}),
    Row("rsync --delete", "rsync -a --delete $O/tree/ $T/", {"1", "a/2", "a/b/3", "gone", "d/gone"}, "mkdir $T/d; touch $T/gone $T/d/gone"),
    Row("rsync --temp-dir elsewhere", "rsync -a --temp-dir=$E $O/big $T/f", {"f"}),
    Row("tar", "tar -xf $O/tree.tar -C $T", {"tree/1", "tree/a/2", "tree/a/b/3"}),
    Row("unzip", "unzip -q $O/tree.zip -d $T", {"tree/1", "tree/a/2", "tree/a/b/3"}),
    Row(
        "git checkout", "git -C $T/r checkout -q other", {"r/.git/HEAD", "r/f", "r/g"},
        "git init -q -b main $T/r; cd $T/r; echo x > f; git add f; $G commit -qm 1; git checkout -qb other; echo y > f; echo g > g;"
        " git add .; $G commit -qm 2; git checkout -q main",
        frozenset({"r/.git/index", "r/.git/logs/HEAD", "r/.git/index.lock", "r/.git/HEAD.lock"}),
    ),
    Row(
        "sqlite3", "sqlite3 $T/f.db 'insert into t values (2)'", {"f.db"}, "sqlite3 $T/f.db 'create table t (a); insert into t values (1)'",
        frozenset({"f.db-journal", "f.db-wal", "f.db-shm"}),
    ),
    Row(
        "Python's tempfile and os.replace",
        "python -c 'import os,tempfile as t; d=os.environ[\"T\"]; f=t.NamedTemporaryFile(dir=d,suffix=\".tmp\",delete=False);"
        " f.write(b\"x\"); f.close(); os.replace(f.name, d+\"/f\")'", {"f"},
    ),
    Row(
        "O_TMPFILE and linkat",
        "python -c 'import os; d=os.environ[\"T\"]; f=os.open(d,os.O_TMPFILE|os.O_WRONLY); os.write(f,b\"x\");"
        " os.link(f\"/proc/self/fd/{f}\",d+\"/f\",src_dir_fd=f,follow_symlinks=True)'", {"f"},
    ),
    Row(
        "mmap",
        "python -c 'import mmap,os; f=open(os.environ[\"T\"]+\"/f\",\"r+b\"); m=mmap.mmap(f.fileno(),0); m[0:1]=b\"y\"'",
        {"f"}, "echo x > $T/f",
    ),
    Row("split", "split -n 3 $O/big $T/part.", {"part.aa", "part.ab", "part.ac"}),
    Row(
        "names of all kinds", r"""touch $T/$'a\nb' "$T/ sp ace " $T/$'\377' $T/$(printf 'x%.0s' $(seq 255))""",
        {"a\nb", " sp ace ", "\udcff", "x" * 255},
    ),
]  # fmt: skip


@pytest.fixture
def shell(tree: Path, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    outside = tmp_path / "outside"
    (outside / "tree/a/b").mkdir(parents=True)
    for name in ("1", "a/2", "a/b/3"):
        (outside / "tree" / name).write_text(name)
    (outside / "big").write_bytes(os.urandom(3 << 20))
    (outside / "old").write_text("old!")
    os.utime(outside / "old", (1e9, 1e9))
    if not os.path.isdir("/dev/shm"):
        lacking("/dev/shm, another file system, is not there")
    elsewhere = tempfile.TemporaryDirectory(prefix="autosync-test-", dir="/dev/shm")
    environ = {
        **os.environ, "T": str(tree), "O": str(outside), "E": elsewhere.name, "LC_ALL": "C.UTF-8", "HOME": str(tmp_path), "TERM": "dumb",
        "G": "git -c user.name=x -c user.email=x@example.org", "PATH": SEARCHED,
    }  # fmt: skip

    def run(command: str) -> None:
        ended = subprocess.run(
            ["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert ended.returncode == 0, (command, ended.stderr)

    for kind in ("tar", "zip"):
        shutil.make_archive(str(outside / "tree"), kind, outside, "tree")
    with elsewhere:
        yield run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_a_program_does_comes_out(row: Row, pipeline: Callable[..., WatchPipeline], tree: Path, shell: Callable[[str], None]) -> None:
    for program in (row.command.split()[0], *row.before.split()[:1]):
        found = subprocess.run(["bash", "-c", f"command -v {program}"], env={"PATH": SEARCHED}, stdout=subprocess.DEVNULL, check=False)
        if found.returncode:
            lacking(f"{program} is not installed")
    shell(row.before)
    for path in tree.rglob("*"):
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    kept = pipeline(quiet=0.1)
    kept.sent.states.clear()
    kept.left.clear()

    shell(row.command)
    # A directory that left is not reported file by file: a scan of it covers the keys that the target has there.
    wait_until(lambda: not row.sent - set(kept.sent.states) - kept.below_left(row.sent), 20, f"{row.sent} are sent")
    wait_until(kept.is_idle, 20)

    for key, state in kept.sent.states.items():
        assert state == kept.state(key), f"{key} was sent last in the state in which it is"
    more = set(kept.sent.states) - row.sent - row.also
    assert {key for key in more if kept.state(key) is not None} == set()
    assert not [key for key in kept.sent.states if not kept.keys.covers(f"{tree}/{key}")]
