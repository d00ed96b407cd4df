"""Definitions that are signed, and boxes that take no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autosync.errors import ConfigurationError, PermanentError
from autosync.keys import Source
from autosync.ledger import Ledger, connect
from autosync.mirror import Mirror, version_of
from autosync.signing import SIGNING_KEY, is_signed, read_key, sign
from autosync.tasks.box import UploadBox
from lab.buckets import Bucket, equal_soon
from lab.programs import Programs
from lab.servers import wait_until

KEY, OTHER = "k" * 32, "o" * 32


def test_a_signature_is_that_of_one_key_one_mirror_and_one_definition() -> None:
    signature = sign(KEY, "m", "definition \udcff")

    assert is_signed(KEY, "m", "definition \udcff", signature)
    assert not is_signed(OTHER, "m", "definition \udcff", signature)
    assert not is_signed(KEY, "n", "definition \udcff", signature)
    assert not is_signed(KEY, "m", "definition", signature)
    assert not is_signed(KEY, "m", "definition", "")
    assert not is_signed(KEY, "m", "definition", "\udcff")
    assert sign("", "m", "definition") == ""


def test_the_parts_of_what_is_signed_cannot_be_shifted() -> None:
    assert sign(KEY, "m", "x{}") != sign(KEY, "mx", "{}")


def test_a_key_is_read_from_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")

    assert read_key(f"@{file}") == read_key(KEY) == KEY
    assert read_key(None) == read_key("") == ""


@pytest.mark.parametrize("given", ["short", "@/does/not/exist", "@/"])
def test_what_is_no_key_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"signing.key"):
        read_key(given)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(name="m", actor="file", sources=(Source(str(tmp_path), False),), settings={"target_container": str(tmp_path / "copy")})


def publish(broker: str, mirror: Mirror, signature: str) -> None:
    definition = mirror.dumps()
    Ledger(connect(broker), mirror.name).register(definition, version_of(definition), mirror.queue, signature)


def test_a_box_with_a_key_takes_what_was_signed_with_it_and_nothing_else(broker: str, mirror: Mirror, tmp_path: Path) -> None:
    box = UploadBox(broker, [str(tmp_path)], {SIGNING_KEY: KEY})
    publish(broker, mirror, sign(KEY, "m", mirror.dumps()))
    assert box.mirror("m").mirror == mirror

    stolen = replace(mirror, settings={"target_container": "/elsewhere"})
    for signature in ("", sign(OTHER, "m", stolen.dumps()), sign(KEY, "m", mirror.dumps())):
        publish(broker, stolen, signature)
        with pytest.raises(PermanentError, match="is not signed with this worker's key"):
            box.mirror("m", fresh=True)
        assert box.mirror("m").mirror == mirror, "what it knows is what was signed"
    box.close()


def test_a_box_without_a_key_takes_any(broker: str, mirror: Mirror, tmp_path: Path) -> None:
    box = UploadBox(broker, [str(tmp_path)], {})
    publish(broker, mirror, sign(OTHER, "m", mirror.dumps()))

    assert box.mirror("m").mirror == mirror
    box.close()


@pytest.mark.slow
def test_a_fleet_that_signs(programs: Programs, broker: str, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    other = Bucket(bucket.server)
    sources = {"AUTOSYNC_SOURCES": json.dumps([str(tree)])}
    box = programs.worker(broker=broker, AUTOSYNC_SIGNING_KEY=f"@{tmp_path}/key", **sources)
    options = ["--name=m", f"--source-prefix={tree}/", f"--broker={broker}", f"--signing-key=@{tmp_path}/key", *bucket.options(), str(tree)]
    programs.start("autosync-watch", *options)
    (tree / "a").write_text("a")
    equal_soon(bucket, tree, "signed")

    # Somebody who may write to the broker, as autosync's own user.
    ledger = Ledger(connect(broker), "m")
    published = ledger.definition()
    assert published is not None
    forged = json.loads(published.definition)
    forged["settings"]["target_container"] = other.name
    text = json.dumps(forged)
    ledger.register(text, version_of(text), "autosync.m", published.signature)
    (tree / "b").write_text("b")

    wait_until(lambda: "is not signed with this worker's key" in box.said(), 30, "it is refused")
    assert other.sizes() == {}
    assert KEY not in box.said()


@pytest.mark.parametrize("given", ["short", "@/does/not/exist"])
def test_a_key_that_cannot_be_used_is_one_line(programs: Programs, broker: str, tree: Path, given: str) -> None:
    target = ["--actor=file", f"--target-container={tree}-copy"]
    done = programs.run("autosync-watch", *target, f"--broker={broker}", f"--signing-key={given}", str(tree))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = programs.run("celery", "-A", "autosync", "worker", CELERY_BROKER_URL=broker, AUTOSYNC_SIGNING_KEY=given)
    assert done.returncode == 1
    assert "signing" in done.stderr
    assert "Traceback" not in done.stderr
