"""Configuration files with several targets."""

from __future__ import annotations

import json
from pathlib import Path


def with_targets(tree: Path, *tables: str, **above: object) -> Path:
    """Write a configuration file beside a tree, with these tables of targets, and options above them."""
    lines = [f"paths = [{json.dumps(str(tree))}]", f"source-prefix = {json.dumps(f'{tree}/')}"]
    lines += [f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in above.items()]
    path = tree.parent / "targets.toml"
    path.write_text("\n".join([*lines, *(f"[[target]]\n{table}" for table in tables)]))
    return path


def to_directory(path: Path, *more: str, name: str = "directory") -> str:
    """A table of the actor `file`, with more lines."""
    return "\n".join([f'name = "{name}"', 'actor = "file"', f"target-container = {json.dumps(str(path))}", *more])
