"""What happens to a source that is a symbolic link: it is switched to another tree, as releases are. `LINK_ACCIDENTS` lists it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from .accidents import ACCIDENTS, operate
from .book import Book
from .operations import OPERATIONS
from .quiet import Chaos

#: Operations that need no other path than that of a file, so that they can be done to a tree that is not the source yet.
_PLAIN = ("create", "create by rename", "overwrite in place", "overwrite and age", "append", "delete", "rename")
#: Accidents that may happen while the other tree is the source.
_MEANWHILE = ("restart", "kill", "kill a worker", "kill the broker", "empty the broker", "freeze the target")


def switch_source(chaos: Chaos, chance: Random) -> None:
    """The source is switched to a copy in which some files differ, and mostly back again: then files that were sent are replaced by older
    versions of the same size."""
    releases, world = chaos.releases, chaos.world
    assert releases is not None, "the source is no link"
    world.close_writers(world.root)
    before, files, links = releases.current, dict(world.book.files), dict(world.book.links)
    after = releases.copy()
    book = _change_copy(chaos, chance, after)
    _switch(chaos, after, book.files, book.links)
    operate(chaos, chance)
    if chance.random() < 0.4:
        ACCIDENTS[chance.choice(_MEANWHILE)](chaos, chance)
    if chance.random() < 0.7:
        if chance.random() < 0.5:
            chaos.quiet()  # what it has is sent
        else:
            time.sleep(chance.choice((0.0, 0.3, 1.5)))
        world.close_writers(world.root)
        _switch(chaos, before, files, links)
        before = after
    if chance.random() < 0.5:
        chaos.quiet()  # else events of the tree that is removed may be taken for those of the source
    shutil.rmtree(before)
    world.note(f"{before.name!r} was removed")
    operate(chaos, chance)


def _change_copy(chaos: Chaos, chance: Random, copied: Path) -> Book:
    """Change some files of a copy of the source. Returns the book about it: until the copy is the source, that of the world is right."""
    world = chaos.world.at_other_path(copied)
    world.book = Book(str(chaos.world.top))
    world.book.change(files=chaos.world.book.files, links=chaos.world.book.links)
    path = world.a_file(chance)
    if path is not None:
        world.write(path, world.a_content(chance, path.stat().st_size))
        chaos.world.note(f"in a copy: {world.key(path)!r} has another content of the same size")
    for _ in range(chance.randrange(6)):
        name = chance.choice(_PLAIN)
        chaos.world.note(f"in a copy: {name}: {OPERATIONS[name][1](world, chance) or 'nothing to do it with'}")
    return world.book


def _switch(chaos: Chaos, to: Path, files: dict[str, str], links: dict[str, str]) -> None:
    """Switch the source to a tree with these files and links, by key."""
    book = chaos.world.book
    book.change([key for key in (*book.files, *book.links) if key not in files and key not in links], files, links)
    assert chaos.releases is not None
    chaos.releases.switch(to)
    chaos.world.note(f"the source was switched to {to.name!r}")


LINK_ACCIDENTS: dict[str, Callable[[Chaos, Random], None]] = {"switch the source": switch_source}
