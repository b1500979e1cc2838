"""Finds the names of classes that training scripts save beside the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from camcli.models.checkpoints.training_args import PLACES, look_up

# where they stand, besides the places of arguments: mmengine and mmcv have a `meta`
WITHIN = ("meta", "dataset_meta")
KEYS = frozenset(
    (
        "class_to_idx", "label2id", "idx_to_class", "id2label", "idx2label", "index_to_name",
        "class_names", "classes", "label_names", "labels", "categories", "names",
    )
)  # fmt: skip
MOST_CLASSES = 100_000


def find_class_names(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns what may name the classes, by its key: lists of names, index to name, name to index.

    What a file holds under such a key may be anything; only plain lists and dictionaries of names
    are returned.
    """
    named: dict[str, Any] = {}
    for place in _list_places(content):
        for key, value in dict.items(place) if isinstance(place, dict) else ():
            plain = _read_plain(value) if isinstance(key, str) and key.lower() in KEYS else None
            if plain:
                named.setdefault(key.lower(), plain)
    return named


def _list_places(content: Mapping[Any, Any]) -> Iterator[Any]:
    yield content
    for key in (*PLACES, *WITHIN):
        place = look_up(content, key)
        # an object that a script saved is replaced by one that holds its attributes
        place = place if isinstance(place, dict) else getattr(place, "__dict__", {})
        yield place
        for inner in WITHIN:
            yield look_up(place, inner)


def _read_plain(value: object) -> list[str] | dict[str, str | int] | None:
    if isinstance(value, list | tuple) and len(value) <= MOST_CLASSES:
        return [*value] if all(type(name) is str for name in value) else None
    if not isinstance(value, dict) or len(value) > MOST_CLASSES:
        return None
    pairs = list(dict.items(value))
    is_plain = all(type(k) in (str, int) and type(v) in (str, int) for k, v in pairs)
    return {str(k): v for k, v in pairs} if is_plain else None
