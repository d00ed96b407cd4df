"""Changes of a tree by programs and people, listed in `OPERATIONS`. Each returns a description, or None if it was not possible."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

from .book import Subtree
from .tree import MOST_LINKS, PLAIN, Tree
from .versions import digest

#: A file of this size goes up in parts.
LARGE = (8 << 20) + 1

T = TypeVar("T")
Operation = Callable[[Tree, Random], "str | None"]


def on(choose: Callable[[Tree, Random], T | None], act: Callable[[Tree, Random, T], str | None]) -> Operation:
    """What is done to one thing of a kind, if there is one."""

    def operation(tree: Tree, chance: Random) -> str | None:
        chosen = choose(tree, chance)
        return None if chosen is None else act(tree, chance, chosen)

    return operation


# A file comes to be


def create(tree: Tree, chance: Random) -> str:
    path, data = tree.free_path(chance), tree.a_content(chance)
    tree.write(path, data)
    return _write_down(tree, path, data)


def create_slowly(tree: Tree, chance: Random) -> str:
    path, data = tree.free_path(chance), tree.a_content(chance, chance.choice((200, 20_000)))
    tree.write(path, data, chance.randrange(2, 6))
    return _write_down(tree, path, data)


def create_by_rename(tree: Tree, chance: Random) -> str:
    path, data = tree.free_path(chance), tree.a_content(chance)
    temporary = path.with_name(f".{path.name[:50]}.{chance.randrange(10**6)}")
    tree.write(temporary, data, chance.randrange(1, 3))
    tree.move(temporary, path)
    return _write_down(tree, path, data)


def create_by_hard_link(tree: Tree, chance: Random) -> str | None:
    if not tree.has_outside:
        return None
    path, temporary, data = tree.free_path(chance), tree.free_path_outside(), tree.a_content(chance)
    temporary.write_bytes(data)
    tree.book.will_have(tree.key(path), digest(data))
    os.link(temporary, tree.beside_path(path))
    temporary.unlink()
    return _write_down(tree, path, data)


def create_large(tree: Tree, chance: Random) -> str:
    path, data = tree.free_path(chance), tree.a_content(chance, LARGE + chance.randrange(100_000))
    tree.write(path, data, 3)
    return _write_down(tree, path, data)


def create_with_parents(tree: Tree, chance: Random) -> str:
    top = tree.free_path(chance)
    directory = top.joinpath(*(tree.a_name(chance) for _ in range(chance.randrange(3))))
    directory.mkdir(parents=True)
    _fill(tree, chance, directory, chance.randrange(1, 4))
    return repr(tree.key(directory))


def create_many(tree: Tree, chance: Random) -> str:
    directory = tree.free_path(chance)
    directory.mkdir()
    count = chance.randrange(10, 40)
    for number in range(count):
        tree.write(directory / str(number), tree.a_content(chance, 100))
    return f"{count} files in {tree.key(directory)!r}"


def _write_down(tree: Tree, path: Path, data: bytes) -> str:
    return f"{tree.key(path)!r}, {len(data)} bytes"


def _fill(tree: Tree, chance: Random, directory: Path, count: int) -> None:
    """Write some files into an empty directory."""
    for name in chance.sample(PLAIN, count):
        tree.write(directory / name, tree.a_content(chance))


# A file changes


def overwrite_in_place(tree: Tree, chance: Random, path: Path) -> str:
    data = tree.a_content(chance, path.stat().st_size)
    tree.write(path, data, chance.randrange(1, 4), "r+b")
    return _write_down(tree, path, data)


def overwrite_and_age(tree: Tree, chance: Random, path: Path) -> str:
    """As rsync and tar leave a file: another content of the same size, with a time in the past."""
    tree.write(path, tree.a_content(chance, path.stat().st_size), mode="r+b")
    _age(path, chance)
    return repr(tree.key(path))


def truncate_and_write(tree: Tree, chance: Random) -> str | None:
    path, data = tree.a_file(chance), tree.a_content(chance)
    if path is None:
        return None
    tree.write(path, data, chance.randrange(1, 4))
    return _write_down(tree, path, data)


def append(tree: Tree, chance: Random) -> str | None:
    path, data = tree.a_file(chance), tree.a_content(chance, 300)
    if path is None:
        return None
    tree.write(path, data, chance.randrange(1, 4), "ab")
    return repr(tree.key(path))


def rename_over(tree: Tree, chance: Random, path: Path) -> str:
    same_size = chance.random() < 0.5
    return _replace(tree, chance, path, path.stat().st_size if same_size else None)


def move_over(tree: Tree, chance: Random, old: Path) -> str | None:
    new = tree.a_file(chance)
    if new is None or old == new:
        return None
    tree.move(old, new)
    return f"{tree.key(old)!r} over {tree.key(new)!r}"


def delete_and_create(tree: Tree, chance: Random) -> str | None:
    path, data = tree.a_file(chance), tree.a_content(chance)
    if path is None:
        return None
    tree.remove(path)
    tree.write(path, data)
    return _write_down(tree, path, data)


def touch(tree: Tree, chance: Random, path: Path) -> str:
    if chance.random() < 0.5:
        path.chmod(chance.choice((0o600, 0o644, 0o400)))
    else:
        _age(path, chance)
    return repr(tree.key(path))


def begin_to_write(tree: Tree, chance: Random) -> str | None:
    if len(tree.writers) > 3:
        return None
    path = tree.a_file(chance) if chance.random() < 0.3 else tree.free_path(chance)
    return None if path is None else write_on(tree, chance, tree.open_writer(path))


def write_on(tree: Tree, chance: Random, key: str) -> str:
    tree.write_on(key, tree.a_content(chance, 500))
    return repr(key)


def end_writing(tree: Tree, _: Random, key: str) -> str:
    tree.close_writer(key)
    return repr(key)


def _age(path: Path, chance: Random) -> None:
    past = time.time() - chance.randrange(10**8)
    os.utime(path, (past, past))


def _replace(tree: Tree, chance: Random, path: Path, size: int | None = None) -> str:
    """Replace a file by a new one, at one moment."""
    temporary, data = path.with_name(f".over.{chance.randrange(10**6)}"), tree.a_content(chance, size)
    tree.write(temporary, data)
    tree.move(temporary, path)
    return _write_down(tree, path, data)


# A file, a directory or a link goes, moves, or becomes something else


def remove(tree: Tree, _: Random, path: Path) -> str:
    tree.remove(path)
    return repr(tree.key(path))


def rename(tree: Tree, chance: Random) -> str | None:
    return _move(tree, tree.a_file(chance), tree.free_path(chance))


def move_link(tree: Tree, chance: Random) -> str | None:
    return _move(tree, tree.a_link(chance), tree.free_path(chance))


def rename_directory(tree: Tree, chance: Random, old: Path) -> str | None:
    return _move(tree, old, tree.free_path(chance, outside=old))


def exchange(tree: Tree, chance: Random, one: Path) -> str | None:
    other = tree.a_directory(chance)
    if other is None or one == other or one in other.parents or other in one.parents:
        return None
    between = tree.free_path(chance, outside=one)
    if other in between.parents:
        return None
    tree.move(one, between)
    tree.move(other, one)
    tree.move(between, other)
    return f"{tree.key(one)!r} and {tree.key(other)!r}, by way of {tree.key(between)!r}"


def move_out(tree: Tree, chance: Random) -> str | None:
    path = tree.a_file(chance) if chance.random() < 0.2 else tree.a_directory(chance)
    if path is None or not tree.has_outside:
        return None
    tree.outside.append(tree.move_out(path))
    return repr(tree.key(path))


def move_in(tree: Tree, chance: Random) -> str | None:
    if not tree.outside:
        return None
    away, subtree = tree.outside.pop(chance.randrange(len(tree.outside)))
    path = tree.free_path(chance)
    tree.move_in(away, subtree, path)
    return f"{tree.key(path)!r}, {len(subtree.files)} files"


def move_out_and_in(tree: Tree, chance: Random, path: Path) -> str | None:
    """Out of the tree, changed there where nobody watches, and back at once to the same place."""
    if not tree.has_outside:
        return None
    away, subtree = tree.move_out(path)
    data = tree.a_content(chance)
    if not os.path.lexists(away / "meanwhile"):
        (away / "meanwhile").write_bytes(data)
        subtree.files["/meanwhile"] = digest(data)
    tree.move_in(away, subtree, path)
    return f"{tree.key(path)!r}, {len(subtree.files)} files"


def become_file(tree: Tree, chance: Random, path: Path) -> str:
    tree.remove(path)
    tree.write(path, tree.a_content(chance))
    return repr(tree.key(path))


def become_directory(tree: Tree, chance: Random, path: Path) -> str:
    tree.remove(path)
    path.mkdir()
    _fill(tree, chance, path, chance.randrange(0, 3))
    return repr(tree.key(path))


def _move(tree: Tree, old: Path | None, new: Path) -> str | None:
    if old is None:
        return None
    tree.move(old, new)
    return f"{tree.key(old)!r} to {tree.key(new)!r}"


# What is not mirrored


def make_directory(tree: Tree, chance: Random) -> str:
    path = tree.free_path(chance)
    path.mkdir()
    return repr(tree.key(path))


def make_pipe(tree: Tree, chance: Random) -> str:
    path = tree.free_path(chance)
    os.mkfifo(path)
    return repr(tree.key(path))


def remove_pipe(tree: Tree, chance: Random, path: Path) -> str:
    path.unlink()
    if chance.random() < 0.5:
        tree.write(path, tree.a_content(chance))
    return repr(tree.key(path))


# Symbolic links


def link_to(tree: Tree, chance: Random, target: Path) -> str | None:
    return _link(tree, chance, lambda _: target)


def link_to_nothing(tree: Tree, chance: Random) -> str | None:
    """What it leads to may come into being later."""
    target = tree.free_path(chance)
    return link_to(tree, chance, target / chance.choice(PLAIN) if chance.random() < 0.5 else target)


def link_that_leads_out(tree: Tree, chance: Random) -> str | None:
    outside = [tree.elsewhere, tree.elsewhere / "f.txt", Path("/nowhere"), tree.top.parent]
    return _link(tree, chance, lambda _: chance.choice(outside))


def link_in_a_circle(tree: Tree, chance: Random) -> str | None:
    """To itself, or to a directory that it lies in."""
    return _link(tree, chance, lambda path: chance.choice([path, *path.parents][: len(path.relative_to(tree.top).parts)]))


def retarget(tree: Tree, chance: Random) -> str | None:
    """Let a link lead elsewhere, at one moment; or put one in the place of a file."""
    path = tree.a_link(chance) if chance.random() < 0.8 else tree.a_file(chance)
    target = tree.a_file(chance) if chance.random() < 0.3 else tree.a_directory(chance)
    if chance.random() < 0.15:  # not to be followed, so what was seen under it may stay
        target = tree.elsewhere if path is None or chance.random() < 0.5 else path.parent
    if path is None or target is None:
        return None
    made = _switch(tree, chance, path, target)
    return f"{tree.key(path)!r} by way of {made}" if made else None


def replace_link(tree: Tree, chance: Random, path: Path) -> str:
    return _replace(tree, chance, path)


def move_and_leave_a_link(tree: Tree, chance: Random, path: Path) -> str | None:
    """As somebody does who has moved a directory to where there is more space."""
    if len(tree.book.links) >= MOST_LINKS:
        return None
    new = tree.free_path(chance, outside=path)
    tree.move(path, new)
    made = tree.link(path, new, chance)
    return f"{tree.key(path)!r} moved to {tree.key(new)!r}, link {made}"


def switch_a_release(tree: Tree, chance: Random, path: Path) -> str | None:
    """As releases are made: a new directory beside the old one, the link is switched, and the old one is removed."""
    key = tree.book.leads_to(tree.key(path))
    if key is None or key in tree.book.files or not tree.book.below(key) or tree.root not in (tree.top / key).parents:
        return None
    old, new = tree.top / key, tree.free_path(chance)
    if old in new.parents:
        return None
    subtree = Subtree.of(tree.book, key)
    new.mkdir()
    for below in sorted(subtree.files):
        (new / below[1:]).parent.mkdir(parents=True, exist_ok=True)
        tree.write(new / below[1:], tree.a_content(chance))
    made = _switch(tree, chance, path, new)
    if made is None:
        return f"{tree.key(new)!r}, not switched"
    if old not in path.parents and chance.random() < 0.7:
        tree.remove(old)
    return f"{tree.key(path)!r} by way of {made}"


def fulfil_link(tree: Tree, chance: Random, link: Path) -> str | None:
    """Make what a link leads to, if there is nothing yet."""
    key = tree.book.leads_to(tree.key(link))
    path = tree.top / key if key else tree.root
    if tree.root not in path.parents or os.path.lexists(path) or any(one.is_file() for one in path.parents):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    if chance.random() < 0.5:
        tree.write(path, tree.a_content(chance))
        return repr(tree.key(path))
    path.mkdir()
    _fill(tree, chance, path, chance.randrange(1, 3))
    return f"{tree.key(path)!r}, a directory"


def _link(tree: Tree, chance: Random, target: Callable[[Path], Path]) -> str | None:
    """Make a link at a new path, unless there are enough links; `target` computes from the path where it leads."""
    if len(tree.book.links) >= MOST_LINKS:
        return None
    path = tree.free_path(chance)
    return tree.link(path, target(path), chance)


def _switch(tree: Tree, chance: Random, path: Path, target: Path) -> str | None:
    """Replace a path by a new link, at one moment. Returns a description, or None if the link would make too many keys."""
    temporary = path.with_name(f".link.{chance.randrange(10**6)}")
    made = tree.link(temporary, target, chance)
    if made:
        tree.move(temporary, path)
    return made


#: Each operation with how often it is wanted.
OPERATIONS: dict[str, tuple[int, Operation]] = {
    "create": (8, create),
    "create slowly": (4, create_slowly),
    "create by rename": (6, create_by_rename),
    "create by link": (4, create_by_hard_link),
    "create with parents": (8, create_with_parents),
    "create a large file": (1, create_large),
    "create many": (2, create_many),
    "overwrite in place": (6, on(Tree.a_file, overwrite_in_place)),
    "overwrite and age": (3, on(Tree.a_file, overwrite_and_age)),
    "truncate and write": (6, truncate_and_write),
    "append": (4, append),
    "rename over": (5, on(Tree.a_file, rename_over)),
    "move over": (3, on(Tree.a_file, move_over)),
    "delete": (6, on(Tree.a_file, remove)),
    "delete and create": (5, delete_and_create),
    "remove a tree": (2, on(Tree.a_directory, remove)),
    "rename": (6, rename),
    "rename a directory": (8, on(Tree.a_directory, rename_directory)),
    "exchange directories": (3, on(Tree.a_directory, exchange)),
    "move out": (3, move_out),
    "move in": (4, move_in),
    "move out and in": (3, on(Tree.a_directory, move_out_and_in)),
    "directory becomes file": (2, on(Tree.a_directory, become_file)),
    "file becomes directory": (3, on(Tree.a_file, become_directory)),
    "touch": (3, on(Tree.a_file, touch)),
    "make a directory": (3, make_directory),
    "make a pipe": (2, make_pipe),
    "remove a pipe": (1, on(Tree.a_pipe, remove_pipe)),
    "begin to write": (4, begin_to_write),
    "write on": (4, on(Tree.a_writer, write_on)),
    "end writing": (4, on(Tree.a_writer, end_writing)),
    "link to a file": (4, on(Tree.a_file, link_to)),
    "link to a directory": (5, on(Tree.a_directory, link_to)),
    "link to a link": (1, on(Tree.a_link, link_to)),
    "link to nothing": (3, link_to_nothing),
    "link that leads out": (1, link_that_leads_out),
    "link in a circle": (1, link_in_a_circle),
    "retarget a link": (6, retarget),
    "switch a release": (5, on(Tree.a_link, switch_a_release)),
    "remove a link": (3, on(Tree.a_link, remove)),
    "move a link": (3, move_link),
    "link becomes file": (2, on(Tree.a_link, replace_link)),
    "link becomes directory": (2, on(Tree.a_link, become_directory)),
    "directory becomes link": (2, on(Tree.a_directory, move_and_leave_a_link)),
    "make what a link leads to": (5, on(Tree.a_link, fulfil_link)),
}
