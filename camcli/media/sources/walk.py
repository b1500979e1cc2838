"""Walks the files below a folder that match a pattern, in order.

A pattern is a name with `*`, `?` and `[...]` for each step down; `**` stands for any number of
folders, also none.  Hidden names have to be asked for by a dot.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

from camcli.errors import SourceError

Pattern: TypeAlias = tuple[str, ...]
# all positions in a pattern that a path may have reached
State: TypeAlias = frozenset[int]
Identity: TypeAlias = tuple[int, int]

EVERYTHING: Pattern = ("**", "*")
MAGIC = re.compile(r"[*?[]")


def walk(
    root: Path, pattern: Pattern, passed_over: Collection[Path] = ()
) -> Iterator[tuple[Path, list[str]]]:
    """Yields folders below the root, and the names of files in them that match.

    Links to folders are followed behind all others: each folder once, and never the root or one
    that holds it.  Only folders and links are looked at more closely than their names.  Raises
    SourceError.
    """
    top = root.resolve()
    never = {_find_identity(path) for path in (*passed_over, top, *top.parents)} - {None}
    seen: set[tuple[Identity | None, State]] = set()
    ahead = deque([(Path(), _first_state(pattern))])
    while ahead:
        below, state = ahead.popleft()
        identity = _find_identity(root / below)
        if (identity, state) in seen or (identity in never and below != Path()):
            continue
        seen.add((identity, state))
        listing = _Listing()
        for entry in _list_entries(root / below):
            listing.add(entry, _step(pattern, state, entry.name), len(pattern))
        yield below, listing.files
        ahead.extendleft((below / name, after) for name, after in reversed(listing.folders))
        ahead.extend((below / name, after) for name, after in listing.linked)


def matches(pattern: Pattern, names: Collection[str]) -> bool:
    """Tells whether a path, given by its names, is one of a pattern."""
    state = _first_state(pattern)
    for name in names:
        state = _step(pattern, state, name)
    return len(pattern) in state


@dataclass
class _Listing:
    """The matching files of a folder, and the folders to go on with."""

    files: list[str] = field(default_factory=list)
    folders: list[tuple[str, State]] = field(default_factory=list)
    linked: list[tuple[str, State]] = field(default_factory=list)

    def add(self, entry: os.DirEntry[str], after: State, end: int) -> None:
        goes_on = after - {end}
        if not after:
            return
        if not _is_true(entry.is_dir):
            if end in after and _is_true(entry.is_file):
                self.files.append(entry.name)
        elif goes_on:
            kind = self.linked if entry.is_symlink() else self.folders
            kind.append((entry.name, goes_on))


def _first_state(pattern: Pattern) -> State:
    return _skip_folders(pattern, {0})


def _step(pattern: Pattern, state: State, name: str) -> State:
    """Goes one step down in the pattern."""
    stands = set()
    for place in state - {len(pattern)}:
        step = pattern[place]
        if name.startswith(".") and not step.startswith("."):
            continue
        if step == "**":
            stands.add(place)
        elif fnmatch(name, step):
            stands.add(place + 1)
    return _skip_folders(pattern, stands)


def _skip_folders(pattern: Pattern, stands: set[int]) -> State:
    """Adds where a path may stand since `**` may be no folder at all."""
    for place, step in enumerate(pattern):
        if step == "**" and place in stands:
            stands.add(place + 1)
    return frozenset(stands)


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        # its pictures would be missed in silence
        raise SourceError(f"Folder {str(folder)!r} cannot be listed: {error.strerror}.") from error


def _find_identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_true(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:  # a link that leads round in a circle, or where nobody may go
        return False
