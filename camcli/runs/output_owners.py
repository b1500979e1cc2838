"""Knows which source of which run owns an output of a folder, and how runs differ."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

from camcli.runs.jsonl import Line
from camcli.utils.compact_map import CompactMap, hash_texts
from camcli.utils.paths import fold_name

# fields of a record that decide a picture, and that its name can say, too
TRAITS = (
    "model", "layers", "layer_fusion", "parts", "precision", "options", "smoothing", "colormap",
    "alpha", "drawing", "beside",
)  # fmt: skip
MARKS = (6, 12, 24)  # hex digits of the mark; more if names with fewer are taken
LONG = 200  # bytes; a longer name is cut for its mark, since file systems allow 255

# names an output by its differences from another run's output, given fields of that record; None if
# the name belongs to another source, or to a file that no run wrote
Rename: TypeAlias = Callable[[Mapping[str, Any] | None], Path]


class OutputOwners:
    """The owners of a folder's outputs: 32 bytes an output, and a few fields a run and method."""

    def __init__(self) -> None:
        self._owners, self._recipes = CompactMap(), CompactMap()
        self._looks: dict[tuple[str, str], Mapping[str, Any]] = {}

    def learn(self, line: Line) -> None:
        """Notes the outputs that a line of a manifest names."""
        record = line.record
        for output in line.outputs:
            self._owners[hash_output(output)] = line.owner
        if (recipe := record.get("recipe")) and line.outputs:
            first, id_ = line.outputs[0], record["id"]
            self._recipes[hash_output(first)] = hash_texts(id_, recipe)
            for ending, made in (record.get("beside") or {}).items():
                own = beside_recipe(recipe, ending, made)
                self._recipes[hash_output(first + ending)] = hash_texts(id_, own)
        run, method = record["run"], str(record.get("method"))
        self._looks.setdefault((run, method), {name: record.get(name) for name in TRAITS})

    def give(self, output: str, owner: int) -> None:
        """Notes the owner of an output."""
        self._owners[hash_output(output)] = owner

    def find_owner(self, output: str) -> int | None:
        """Returns the owner of an output, or None."""
        return self._owners.get(hash_output(output))

    def is_same(self, output: str, id_: str, recipe: str) -> bool:
        """Tells whether an output was made from a source by a recipe."""
        same = hash_texts(id_, recipe)
        return bool(recipe) and self._recipes.get(hash_output(output)) == same

    def find_run(self, output: str, id_: str, method: str) -> Mapping[str, Any] | None:
        """Returns the fields of the run that owns an output, if its source is the same."""
        owner = self.find_owner(output)
        of_source = (run for run, _ in self._looks if hash_texts(run, id_) == owner)
        run = next(of_source, None)
        if run is None:
            return None
        looks = {of: look for (other, of), look in self._looks.items() if other == run}
        return looks.get(method) or next(iter(looks.values()))


def beside_recipe(recipe: str, ending: str, made: str) -> str:
    """Returns the recipe of a file beside a picture; empty if the picture has none."""
    return f"{recipe} {ending} {made}" if recipe else ""


def hash_output(output: str) -> int:
    """Hashes a name: two names that mean one file on some file system have the same number."""
    return hash_texts(lock_name(output))


def lock_name(output: str) -> str:
    """Returns the name of the lock on an output."""
    return "output " + fold_name(output)


def iterate_marked(path: Path, text: str) -> Iterator[Path]:
    """Yields a path with a mark, the digest of a text, with more and more digits."""
    digest = blake2b(text.encode("ascii")).hexdigest()
    for digits in MARKS:
        mark = f"~{digest[:digits]}"
        room = max(LONG, len(os.fsencode(path.name))) - len(os.fsencode(mark + path.suffix))
        stem = os.fsencode(path.stem)
        # cut between two characters; names that are not UTF-8 have surrogates
        short = stem if len(stem) <= room else _cut_name(stem, room)
        yield path.with_name(os.fsdecode(short) + mark + path.suffix)


def _cut_name(name: bytes, size: int) -> bytes:
    while size and name[size] & 0xC0 == 0x80:  # not in the middle of a character
        size -= 1
    return name[:size]
