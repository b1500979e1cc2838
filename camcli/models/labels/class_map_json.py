"""Names of classes out of JSON, or out of what Python prints of its dictionaries."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from camcli.errors import ConfigError
from camcli.models.labels.class_map_entries import (
    INDEX_COLUMNS,
    NAME_COLUMNS,
    ClassMap,
    ClassMapEntry,
    Names,
    check_orders,
    read_index,
)

INDEX_LISTS = frozenset(("ids", "indices", "indexes", "idxs", "class_ids", "label_ids"))
# where JSON of other tools has its names
NAMES_IN_JSON = (
    "id2label", "idx2label", "idx_to_class", "index_to_name", "label2id", "class_to_idx",
    "names", "classes", "class_names", "label_names", "labels", "categories",
)  # fmt: skip


def parse_data(text: str, known: ClassMap) -> Any:
    """Reads JSON, or what Python prints of its dictionaries and lists."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _check_unique(pairs, known))
    except (json.JSONDecodeError, RecursionError) as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise known.fault(f" is no JSON: {error}") from error


def _check_unique(pairs: Sequence[tuple[str, Any]], known: ClassMap) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise known.fault(f" has the key {twice[0]!r} twice")
    return dict(pairs)


def read_data(data: Any, known: ClassMap) -> tuple[Names, tuple[str, ...]]:
    """Takes names out of lists and dictionaries; raises ConfigError for those of another kind."""
    if isinstance(data, list | tuple):
        return _read_entries(data, known)
    if isinstance(data, Mapping):
        entries = _read_mapping(data)
        if entries:
            labels, notes = known.of_entries(entries)
            return labels, (*notes, *_warn_of_numbers(data, known))
        parts = list(_find_named_parts(data))
        if parts:
            return _read_parts(parts, known)
    raise known.fault(
        ' is JSON of another kind: ["cat", "dog"], {"0": "cat", "1": "dog"} or {"cat": 0, "dog": 1}'
        " are read, also as a model's id2label"
    )


def _read_parts(parts: Sequence[Any], known: ClassMap) -> tuple[Names, tuple[str, ...]]:
    """Takes the first part that names the classes; raises ConfigError where another contradicts."""
    read, faults = [], []
    for part in parts:
        try:
            read.append(read_data(part, known))
        except ConfigError as fault:
            faults.append(fault)
    if not read:
        raise faults[0]
    chosen = read[0]
    for other, _ in read[1:]:
        # ImageNet has two cranes, of which name: index keeps one
        if any(a and b and a != b for a, b in zip(chosen[0], other, strict=True)):
            raise known.fault(" holds several lists of names that differ: keep one of them")
    return chosen


def _read_entries(data: Sequence[Any], known: ClassMap) -> tuple[Names, tuple[str, ...]]:
    if data and all(isinstance(item, str) for item in data):
        check_orders(data, known)
        return known.of_names(data), ()
    described = [_read_item(item) for item in data]
    entries = [
        ClassMapEntry(index, name, f"item {number}")
        for number, pair in enumerate(described, 1)
        if pair
        for index, name in [pair]
    ]
    if not data or len(entries) != len(data):
        raise known.fault(" is a list of other things than names")
    return known.of_entries(entries)


def _read_item(item: Any) -> tuple[int, str] | None:
    """Returns the index and the name in `{"id": 0, "name": "cat"}`, `[0, "cat"]`, `["cat", 0]`."""
    if isinstance(item, list | tuple) and len(item) == 2:
        either = [(read_index(one), other) for one, other in (item, item[::-1])]
        pairs = [(i, name) for i, name in either if i is not None and isinstance(name, str)]
        return pairs[0] if len(pairs) == 1 else None
    if not isinstance(item, Mapping):
        return None
    index = next((read_index(item[key]) for key in item if str(key).lower() in INDEX_COLUMNS), None)
    name = _read_name(item)
    return None if index is None or name is None else (index, name)


def _read_mapping(data: Mapping[Any, Any]) -> list[ClassMapEntry]:
    """Reads index to name, or name to index; nothing where it is neither."""
    by_name = [read_index(value) for value in data.values()]
    # {"3": 0} is the class called 3, as ImageFolder has it: a name is no number in JSON
    is_by_name = all(type(value) is int for value in data.values()) or not all(
        read_index(key) is not None for key in data
    )
    if is_by_name and all(index is not None for index in by_name):
        return [
            ClassMapEntry(index, str(name), f"{name!r}")
            for name, index in zip(data, by_name, strict=True)
            if index is not None
        ]
    entries = []
    for key, value in data.items():
        index, name = read_index(key), _read_name(value)
        if index is None or name is None:
            return []
        entries.append(ClassMapEntry(index, name, f"{str(key)!r}"))
    return entries


def _warn_of_numbers(data: Mapping[Any, Any], known: ClassMap) -> Iterator[str]:
    pairs = [(read_index(key), value) for key, value in data.items() if type(value) is int]
    is_numbers = len(pairs) == len(data) and all(index is not None for index, _ in pairs)
    if is_numbers and any(index != value for index, value in pairs):
        yield (
            f"Class map {str(known.file)!r} has numbers for names and for indices: it is read as "
            "name: index."
        )


def _read_name(value: Any) -> str | None:
    """Returns a name, also of Keras's `["n01440764", "tench"]` and of `{"name": "cat"}`."""
    if isinstance(value, list | tuple) and value and all(isinstance(part, str) for part in value):
        return str(value[-1])
    if isinstance(value, Mapping):
        return next(
            (str(value[key]) for key in NAME_COLUMNS if isinstance(value.get(key), str)), None
        )
    return value if isinstance(value, str) else None


def _find_named_parts(data: Mapping[Any, Any]) -> Iterator[Any]:
    """Yields what stands under the usual keys, at any depth."""
    described = data.get("label_descriptions")
    for key in NAMES_IN_JSON:
        part = data.get(key)
        if isinstance(part, list) and isinstance(described, Mapping):  # timm's
            yield [described.get(name, name) for name in part]
        elif isinstance(part, list) and part:
            yield _pair_with_indices(part, data)
        elif isinstance(part, tuple | Mapping) and part:
            yield part
    for key, value in data.items():
        if isinstance(value, Mapping) and key not in NAMES_IN_JSON:
            yield from _find_named_parts(value)


def _pair_with_indices(names: list[Any], data: Mapping[Any, Any]) -> list[Any]:
    """Pairs names with the list of their indices, where one stands beside them."""
    for key, indices in data.items():
        is_list = isinstance(indices, list) and len(indices) == len(names)
        if str(key).lower() in INDEX_LISTS and is_list:
            return [[index, name] for index, name in zip(indices, names, strict=True)]
    return names
