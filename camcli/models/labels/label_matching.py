"""Which of a model's classes are meant by the names that annotations use."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from camcli.errors import ConfigError, find_closest
from camcli.models.labels.labels import Labels
from camcli.utils.text_files import read_text

MOST_DIGITS = 9  # of an index


@dataclass(frozen=True)
class LabelMatches:
    """The model's classes for each name that has some, and lines on names that have none."""

    categories: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()

    def likeliest(self, name: str, logits: Tensor) -> int | None:
        """Returns the likeliest of the classes that a name means, None for none.  logits [n]"""
        known = self.categories.get(name, ())
        return max(known, key=lambda index: float(logits[index])) if known else None


def match_labels(
    names: Iterable[str], labels: Labels | None, meanings: Mapping[str, Sequence[int]] | None = None
) -> LabelMatches:
    """Finds a model's classes by the names that annotations use.

    `meanings` says it of a name outright (`read_meanings`).  Else a class is meant whose name, or
    one of whose synonyms (`tabby, tabby cat`), is the same but for case, `_`, `-`, spaces, a plural
    s and a number in front (`001.`).  Several classes of one name are all meant.  A name without a
    class gets a line with the closest ones.

    >>> match_labels(["Tabby_cat", "dogs"], ("tabby, tabby cat", "dog")).categories
    {'Tabby_cat': (0,), 'dogs': (1,)}
    """
    by_spelling: dict[str, list[int]] = {}
    for index, label in enumerate(labels or ()):
        for spelling in {_simplify_name(synonym) for synonym in (label, *label.split(","))}:
            by_spelling.setdefault(spelling, []).append(index)
    stated = {_simplify_name(name): tuple(indices) for name, indices in (meanings or {}).items()}
    categories, notes = {}, []
    for name in dict.fromkeys(names):
        spelling = _simplify_name(name)
        indices = stated.get(spelling, tuple(by_spelling.get(spelling, ())))
        if indices:
            categories[name] = indices
        elif name:
            notes.append(_describe_unknown(name, labels))
    return LabelMatches(categories, tuple(notes))


def _simplify_name(name: str) -> str:
    """Reduces a name to what counts when names are compared: `001.Laysan_Albatross`, `cats`."""
    head, dot, tail = name.partition(".")
    plain = tail if dot and head.strip().isdecimal() and tail.strip() else name
    words = plain.replace("_", " ").replace("-", " ").casefold().split()
    # a glass is no gla, and a bus no bu
    return " ".join(
        w[:-1] if len(w) > 3 and w[-1] == "s" and w[-2] not in "su" else w for w in words
    )


def _describe_unknown(name: str, labels: Labels | None) -> str:
    if not labels:
        return f"{name!r} is no class of the model, whose classes have no names: give a class map"
    near = find_closest(name, (synonym.strip() for label in labels for synonym in label.split(",")))
    also = f" Closest: {', '.join(map(repr, near))}." if near else ""
    return (
        f"{name!r} is no class of the model, and is left out.{also} A CSV of names and "
        "indices says what it means."
    )


def read_meanings(path: Path, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Reads which classes names mean: a CSV of `name,indices`, such as `cat,281-285 287`.

    A first line without a number is passed over.  Raises ConfigError.
    """
    try:
        rows = [*csv.reader(read_text(path, encoding="utf-8-sig").splitlines())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{str(path)!r} cannot be read as a CSV of names and classes.") from error
    meanings = {}
    for number, row in enumerate(rows, 1):
        if not any(cell.strip() for cell in row):
            continue
        try:
            name, indices = row
            meanings[name.strip()] = tuple(_list_indices(indices, num_classes))
        except ValueError as error:
            if number > 1 or any(character.isdecimal() for character in row[-1]):
                raise ConfigError(
                    f"{str(path)!r}, line {number} is not `name,indices` with classes from 0 to "
                    f"{num_classes - 1}: {','.join(row)!r}."
                ) from error
    return meanings


def _list_indices(text: str, num_classes: int) -> Iterator[int]:
    """Reads `281 282` and `151-268`; raises ValueError."""
    for word in text.split():
        first, _, last = word.partition("-")
        if max(len(first), len(last)) > MOST_DIGITS or not int(last or first) < num_classes:
            raise ValueError(word)
        yield from range(int(first), int(last or first) + 1)
    if not text.split():
        raise ValueError("no index")
