"""Unknown variables and settings in real workers: one warning, at the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.buckets import Bucket
from lab.programs import Programs
from lab.servers import wait_until


@pytest.mark.parametrize("log_format", ["", "json"])
def test_a_box_warns_at_its_start_of_unknown_names(programs: Programs, broker: str, tmp_path: Path, log_format: str) -> None:
    (tmp_path / "celeryconfig.py").write_text("autosync_colour = 'blue'\n")
    environ = {"CELERY_BROKER_URL": broker, "AUTOSYNC_SOURCES": str(tmp_path / "share"), "AUTOSYNC_LOG_FORMAT": log_format}
    worker = programs.start("celery", "-A", "autosync", "worker", cwd=tmp_path, AUTOSYNC_SERVICE_HOST="10.0.0.1", **environ)

    wait_until(lambda: "SERVICE_HOST" in worker.output() or worker.poll() is not None, 60, "the line")

    (line,) = [line for line in worker.output().splitlines() if "SERVICE_HOST" in line]
    message = json.loads(line)["message"] if log_format else line.removeprefix("autosync: ")
    assert message == "unknown names, which autosync does not read: AUTOSYNC_SERVICE_HOST, autosync_colour"


def test_the_workers_of_one_host_repeat_no_warning(programs: Programs, bucket: Bucket, tree: Path) -> None:
    (tree / "a").write_text("a")
    command = ["autosync", "--once", "--workers=2", *bucket.options(), f"--source-prefix={tree}/", str(tree)]

    done = programs.run(*command, AUTOSYNC_SERVICE_HOST="10.0.0.1")

    assert done.returncode == 0, done.stderr
    assert bucket.sizes() == {"a": 1}
    assert done.stderr.count("AUTOSYNC_SERVICE_HOST") == 1
