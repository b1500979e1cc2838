"""Names of classes with their indices, held against the classes that a model has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from camcli.errors import ConfigError

Names: TypeAlias = tuple[str, ...]
MOST_DIGITS = 18  # of an index; Python reads some thousands and then refuses
INDEX_COLUMNS = frozenset(
    (
        "index", "idx", "id", "class_id", "class_index", "class_idx", "label_id", "label_index",
        "label_idx", "category_id", "target", "number", "no", "nr",
    )
)  # fmt: skip
# the first that a table has is its names
NAME_COLUMNS = (
    "name", "class_name", "label_name", "category_name", "description", "label", "class",
    "category", "text", "title", "names", "classes", "labels", "categories", "synset", "wnid",
)  # fmt: skip


@dataclass(frozen=True)
class ClassMapEntry:
    """A class's index and name, and where a file has them."""

    index: int
    name: str
    where: str


@dataclass(frozen=True)
class ClassMap:
    """A file of names for a number of classes, and what its faults are told as."""

    file: Path
    classes: int

    def fault(self, what: str) -> ConfigError:
        """Says what is wrong with the file."""
        return ConfigError(f"Class map {str(self.file)!r}{what}.")

    def of_names(self, names: Sequence[str]) -> Names:
        """Takes names in the order of the classes; raises ConfigError for another number."""
        if len(names) != self.classes:
            raise self.fault(f" names {len(names)} classes, and the model has {self.classes}")
        return tuple(name.strip() for name in names)

    def of_entries(self, entries: Sequence[ClassMapEntry]) -> tuple[Names, tuple[str, ...]]:
        """Takes names by their indices, with gaps allowed, and says where their order differs."""
        names: dict[int, str] = {}
        if sorted(e.index for e in entries) == list(range(1, self.classes + 1)):
            raise self.fault(
                f" counts from 1 to {self.classes}, and the model's classes are 0 to "
                f"{self.classes - 1}: which of them is meant cannot be known; count from 0"
            )
        for entry in entries:
            if entry.index >= self.classes:
                last = self.classes - 1
                raise self.fault(
                    f", {entry.where}: the model has the classes 0 to {last}, not {entry.index}"
                )
            if entry.index in names:
                raise self.fault(f", {entry.where} names class {entry.index} a second time")
            names[entry.index] = entry.name
        order = [entry.index for entry in entries]
        said = (
            f"Class map {str(self.file)!r} has its classes in another order than their indices: the"
            " indices count."
        )
        labels = tuple(names.get(index, "") for index in range(self.classes))
        return labels, () if order == sorted(order) else (said,)


def read_index(value: Any) -> int | None:
    """Reads an index, a whole number or its digits; None for anything else."""
    if type(value) is int and value >= 0:
        return value
    is_index = isinstance(value, str) and re.fullmatch(rf"\s*\d{{1,{MOST_DIGITS}}}\s*", value)
    return int(value) if is_index else None


def check_orders(lines: Sequence[str], known: ClassMap) -> None:
    """Raises ConfigError where the first or last numbers of the lines count them otherwise."""
    for at in (0, -1):
        _check_order(lines, at, known)


def _check_order(lines: Sequence[str], at: int, known: ClassMap) -> None:
    """Raises ConfigError where numbers in the lines count them in another order."""
    numbers = [re.findall(r"\d+", line)[at:][:1] for line in lines]
    # names of numbers alone, or of the same words beside them, are told apart by nothing else
    words = {re.sub(r"[\W\d_]+", "", line) for line in lines}
    if not all(numbers) or 2 * len(words) <= len(lines):
        return
    indices = [read_index(number) for (number,) in numbers]
    known_order = [index for index in indices if index is not None]
    counted = sorted(known_order)
    counts = counted in (list(range(len(lines))), list(range(1, len(lines) + 1)))
    if counts and counted != indices:
        raise known.fault(
            " has names with numbers that count them in another order than they stand in: write "
            "`index,name` on each line"
        )
