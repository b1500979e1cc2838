"""Finds the class that a user's word means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from camcli.errors import UnknownName, UsageError
from camcli.models.labels.class_map_entries import MOST_DIGITS
from camcli.models.labels.labels import Labels


def find_category(text: str, labels: Labels | None, num_classes: int) -> int:
    """Returns the class that an index, a name, one of its synonyms, words or beginnings means.

    Raises UnknownName, or UsageError for an index out of range and for a word with several
    meanings.
    """
    if re.fullmatch(rf"\s*[-+]?\d{{1,{MOST_DIGITS}}}\s*", text):
        index = int(text)
        if not 0 <= index < num_classes:
            raise UsageError(f"There is no category {index}: {_describe_range(num_classes)}.")
        return index
    if not labels:
        hint = (
            f"Its classes have no names: {_describe_range(num_classes)}, or give --class-map FILE."
        )
        raise UnknownName("category", text, (), hint)
    word = _simplify(text)
    for matches in _MATCHES if word else ():
        indices = [index for index, name in enumerate(labels) if matches(name, word)]
        if len(indices) == 1:
            return indices[0]
        if indices:
            raise UsageError(
                f"Category {text!r} could be {_list_some(indices, labels)}: give the index."
            )
    synonyms = (synonym.strip() for name in labels for synonym in name.split(","))
    raise UnknownName("category", text, synonyms, f"Or an index: {_describe_range(num_classes)}.")


def _simplify(text: str) -> str:
    return " ".join(text.replace("_", " ").split()).casefold()


def _split_synonyms(name: str) -> Iterator[str]:
    return (_simplify(synonym) for synonym in name.split(","))


# the first that finds anything decides, so that `lion` is the lion although `lionfish` begins so
_MATCHES: tuple[Callable[[str, str], bool], ...] = (
    lambda name, word: _simplify(name) == word,
    lambda name, word: word in _split_synonyms(name),
    # `cat` may be a tabby cat or a tiger cat, and is no catamaran
    lambda name, word: f" {word} " in f" {_simplify(name.replace(',', ' '))} ",
    lambda name, word: _simplify(name).startswith(word),
    lambda name, word: any(synonym.startswith(word) for synonym in _split_synonyms(name)),
)


def _describe_range(num_classes: int) -> str:
    return f"the model has the classes 0 to {num_classes - 1}"


def _list_some(indices: Iterable[int], labels: Labels, most: int = 5) -> str:
    named = [f"{index} {labels[index]!r}" for index in indices]
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more
