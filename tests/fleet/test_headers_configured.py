"""Patterns of headers in the configuration file."""

from __future__ import annotations

import json
from pathlib import Path

from autosync.actors.s3 import SMALL
from lab.buckets import Bucket, on_disk
from lab.programs import Programs


def test_patterns_come_from_the_configuration_file(programs: Programs, exact_bucket: Bucket, tree: Path) -> None:
    for name in ("a.mp3", "b.txt", "large.mp3"):
        (tree / name).write_bytes(b"x" * (SMALL + 1 if name.startswith("large") else 5))
    config = tree.parent / "mirror.toml"
    config.write_text(
        f'paths = [{json.dumps(str(tree))}]\nsource-prefix = "{tree}/"\ntarget-container = "{exact_bucket.name}"\n'
        f'endpoint-url = "{exact_bucket.server.url}"\nmetadata = ["by=autosync"]\n'
        "[[pattern]]\nmatch = '.*mp3'\ncache-control = 'max-age=5'\ntag = ['kind=music']\n"
    )

    done = programs.run("autosync", f"--config={config}", "--once")

    assert done.returncode == 0, done.stderr
    assert exact_bucket.sizes() == on_disk(tree)
    for key, control, tags in (("a.mp3", "max-age=5", 1), ("large.mp3", "max-age=5", 1), ("b.txt", None, 0)):
        found = exact_bucket.client.head_object(Bucket=exact_bucket.name, Key=key)
        assert (found.get("CacheControl"), found["Metadata"]) == (control, {"by": "autosync"})
        assert len(exact_bucket.client.get_object_tagging(Bucket=exact_bucket.name, Key=key)["TagSet"]) == tags
