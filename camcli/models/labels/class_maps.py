"""Files of class names, as people have them -> a name for each class.

A file gives either names in the order of the classes, or indices with names, in any order.  What
can be read both ways, so that each class might get another's name, is refused.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from camcli.errors import ConfigError
from camcli.utils.text_files import read_text

Names: TypeAlias = tuple[str, ...]
Row: TypeAlias = tuple[int, Sequence[str]]  # the number of its line, and its cells

MOST_DIGITS = 18  # of an index; Python reads some thousands and then refuses
# the cells of a table are held apart by these, the usual ones first
SEPARATORS = (",", "\t", ";", "|", ":", "=")
# an index and a name with a space between them: `0 cat`, `0. cat`, `0 -> cat`, `cat 0`
WORDS = (
    rf"[\[(#]?(?P<index>\d{{1,{MOST_DIGITS}}})(?:\s*(?:->|=>|[-.)\]])\s+|\s+)(?P<name>\S.*)",
    rf"(?P<name>.*?\S)(?:\s+(?:->|=>|-)\s+|\s+)(?P<index>\d{{1,{MOST_DIGITS}}})",
)
# other signs that end lines, such as U+2028, are part of a name
LINE_END = re.compile(r"\r\n|\n|\r")
# WordNet's numbers, which ImageNet's lists have in front of the names; before an index, one is the
# name
SYNSET = re.compile(r"n\d{8}[\s,;:]+(?!\d+$)(?=\S)")

INDEX_COLUMNS = frozenset(
    (
        "index", "idx", "id", "class_id", "class_index", "class_idx", "label_id", "label_index",
        "label_idx", "category_id", "target", "number", "no", "nr",
    )
)  # fmt: skip
INDEX_LISTS = frozenset(("ids", "indices", "indexes", "idxs", "class_ids", "label_ids"))
# the first that a table has is its names
NAME_COLUMNS = (
    "name", "class_name", "label_name", "category_name", "description", "label", "class",
    "category", "text", "title", "names", "classes", "labels", "categories", "synset", "wnid",
)  # fmt: skip
# a first line that no class is called, as a class may be called `text` or `title`
TITLES = frozenset(
    ("name", "names", "class", "classes", "label", "labels", "category", "categories", "class_name",
     "class_names", "label_name", "label_names", "category_name")
)  # fmt: skip
# YAML, or a comment: lines that are not names, where others of the file are
NO_NAME = re.compile(r"---|# .*|[\w.-]+:|(?:names|classes|class_names|labels|nc)\s*:.*")
# where JSON of other tools has its names
NAMES_IN_JSON = (
    "id2label", "idx2label", "idx_to_class", "index_to_name", "label2id", "class_to_idx",
    "names", "classes", "class_names", "label_names", "labels", "categories",
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


def read_class_map(file: Path, num_classes: int) -> tuple[Names, tuple[str, ...]]:
    """Reads a file of class names: the names, and what is to be said of how they were read.

    A name a line; an index and a name a line, either first, with or without a header; or JSON: a
    list of names, index to name, name to index, or a model's config that holds one of these.
    Classes without a name get an empty one.  Raises ConfigError, with the line's number.
    """
    known = ClassMap(file, num_classes)
    try:
        text = read_text(file, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "is no UTF-8 text: save it as UTF-8"
        if isinstance(error, OSError):
            why = f"cannot be read ({error.strerror})"
        raise known.fault(f" {why}") from error
    if not text.strip():
        raise known.fault(" is empty")
    if file.suffix.lower() == ".json" or text.lstrip()[0] in "{[":
        return _read_data(_parse(text, known), known)
    return _read_lines(text, known)


def _parse(text: str, known: ClassMap) -> Any:
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


def _read_data(data: Any, known: ClassMap) -> tuple[Names, tuple[str, ...]]:
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
            read.append(_read_data(part, known))
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
        _check_orders(data, known)
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
        either = [(_read_index(one), other) for one, other in (item, item[::-1])]
        pairs = [(i, name) for i, name in either if i is not None and isinstance(name, str)]
        return pairs[0] if len(pairs) == 1 else None
    if not isinstance(item, Mapping):
        return None
    index = next(
        (_read_index(item[key]) for key in item if str(key).lower() in INDEX_COLUMNS), None
    )
    name = _read_name(item)
    return None if index is None or name is None else (index, name)


def _read_mapping(data: Mapping[Any, Any]) -> list[ClassMapEntry]:
    """Reads index to name, or name to index; nothing where it is neither."""
    by_name = [_read_index(value) for value in data.values()]
    # {"3": 0} is the class called 3, as ImageFolder has it: a name is no number in JSON
    is_by_name = all(type(value) is int for value in data.values()) or not all(
        _read_index(key) is not None for key in data
    )
    if is_by_name and all(index is not None for index in by_name):
        return [
            ClassMapEntry(index, str(name), f"{name!r}")
            for name, index in zip(data, by_name, strict=True)
            if index is not None
        ]
    entries = []
    for key, value in data.items():
        index, name = _read_index(key), _read_name(value)
        if index is None or name is None:
            return []
        entries.append(ClassMapEntry(index, name, f"{str(key)!r}"))
    return entries


def _warn_of_numbers(data: Mapping[Any, Any], known: ClassMap) -> Iterator[str]:
    pairs = [(_read_index(key), value) for key, value in data.items() if type(value) is int]
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


def _read_index(value: Any) -> int | None:
    if type(value) is int and value >= 0:
        return value
    is_index = isinstance(value, str) and re.fullmatch(rf"\s*\d{{1,{MOST_DIGITS}}}\s*", value)
    return int(value) if is_index else None


def _read_lines(text: str, known: ClassMap) -> tuple[Names, tuple[str, ...]]:
    lines = LINE_END.split(text)
    while not lines[-1].strip():
        lines.pop()
    if all(SYNSET.match(line.strip()) for line in lines):
        lines = [SYNSET.sub("", line.strip(), count=1) for line in lines]
    readings, faults = _read_all_ways(lines, known)
    if not readings and faults:
        raise faults[0]
    if not readings:
        return _read_one_a_line(lines, known), ()
    first, *others = ({entry.where: entry.index for entry in reading} for reading in readings)
    if any(first.get(line, index) != index for other in others for line, index in other.items()):
        raise known.fault(
            " can be read in several ways: write `index,name` on each line, names in double quotes"
        )
    return known.of_entries(readings[0])


def _read_all_ways(
    lines: Sequence[str], known: ClassMap
) -> tuple[list[list[ClassMapEntry]], list[ConfigError]]:
    """Reads lines in every way in which they hold indices, and tells where that fails."""
    readings, faults = [], []
    ways = (
        *(partial(_read_table, separator=separator) for separator in SEPARATORS),
        *(partial(_read_words, form=form) for form in WORDS),
    )
    for read in ways:
        try:
            entries = read(lines, known)
            if entries:
                known.of_entries(entries)
                readings.append(entries)
        except ConfigError as fault:
            faults.append(fault)
    return readings, faults


def _read_one_a_line(lines: list[str], known: ClassMap) -> Names:
    if len(lines) == known.classes + 1 and _is_header([lines[0]]):
        lines = lines[1:]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise known.fault(
                f", line {number} is empty, and the lines are counted: write `index,name` on each "
                "line to leave classes out"
            )
    if all(line.startswith("- ") for line in lines):  # YAML's
        lines = [line[2:] for line in lines]
    if all(line.rstrip().endswith(",") for line in lines[:-1]):  # from inside a list
        lines = [line.rstrip().removesuffix(",") for line in lines]
    _check_orders(lines, known)
    names = known.of_names([_unquote(line) for line in lines])
    _check_names(lines, known)
    return names


def _check_names(lines: Sequence[str], known: ClassMap) -> None:
    """Raises ConfigError where a line is not a name, but tells of those that are."""
    stripped = [line.strip() for line in lines]
    is_other = [bool(NO_NAME.fullmatch(line)) for line in stripped]
    # all of one form may be names
    other = next((line for line, no in zip(stripped, is_other, strict=True) if no), None)
    is_told_apart = not all(is_other) or stripped[0].startswith(("names", "nc"))
    if other is not None and is_told_apart:
        raise known.fault(
            f" has the line {other!r}, which is hardly the name of a class: write names alone, one "
            "a line, or `index,name`"
        )
    titles = [line for line in stripped if _spell_column(line) in TITLES]
    # some formats begin with how many names there are
    is_count = stripped[0] == str(len(lines) - 1) and not any(map(str.isdecimal, stripped[1:]))
    if len(lines) > 1 and (is_count or titles == stripped[:1]):
        raise known.fault(
            f" begins with {stripped[0]!r}: is that a heading, or the first of {len(lines)} names? "
            "Write `index,name` on each line"
        )


def _check_orders(lines: Sequence[str], known: ClassMap) -> None:
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
    indices = [_read_index(number) for (number,) in numbers]
    known_order = [index for index in indices if index is not None]
    counted = sorted(known_order)
    counts = counted in (list(range(len(lines))), list(range(1, len(lines) + 1)))
    if counts and counted != indices:
        raise known.fault(
            " has names with numbers that count them in another order than they stand in: write "
            "`index,name` on each line"
        )


def _read_table(lines: Sequence[str], known: ClassMap, separator: str) -> list[ClassMapEntry]:
    """Reads lines in which a separator holds indices and names apart; nothing where it does not."""
    rows = _split_rows(lines, separator, known)
    header = rows[0][1] if len(rows) > 1 and _has_header(rows, known) else ()
    data = rows[1:] if header else rows
    column = _find_index_column(data, header, known)
    if column is None:
        return []
    return [_read_entry(row, column, header, separator, known) for row in data]


def _split_rows(lines: Sequence[str], separator: str, known: ClassMap) -> list[Row]:
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, quoting=quoting)
        try:
            rows = [(reader.line_num, [_unquote(cell) for cell in cells]) for cells in reader]
        except csv.Error as error:
            raise known.fault(f" is no CSV: {error}") from error
        # a quote that nothing closes would take the next lines with it
        if len(rows) == len(lines):
            break
    return [(number, cells) for number, cells in rows if any(cells)]


def _has_header(rows: Sequence[Row], known: ClassMap) -> bool:
    """Tells whether the first row names the columns: it has their words, or alone no index."""
    first, others = rows[0][1], rows[1:]
    if len(first) < 2 or any(cell.isdecimal() for cell in first):
        return False
    same = all(len(cells) == len(first) for _, cells in others)
    indexed = all(any(cell.isdecimal() for cell in cells) for _, cells in others)
    return _is_header(first) or (same and indexed and len(others) == known.classes)


def _is_header(cells: Sequence[str]) -> bool:
    return all(word in INDEX_COLUMNS or word in NAME_COLUMNS for word in map(_spell_column, cells))


def _spell_column(cell: str) -> str:
    """Spells the name of a column as the tables above do."""
    return re.sub(r"[\s-]+", "_", cell.strip(" #\"'").lower())


def _find_index_column(data: Sequence[Row], header: Sequence[str], known: ClassMap) -> int | None:
    """Finds the column of indices: one that a header names, or of numbers in most lines."""
    widths = {len(cells) for _, cells in data}
    if len(data) == 1 and known.classes > 1 and widths != {2}:
        return None  # all names in one line
    if len(widths) == 1:
        columns: Sequence[int] = range(min(widths)) if widths != {1} else ()
    else:
        columns = (0, -1)  # a name with separators of its own
    named = [c for c in columns if c >= 0 and header and _spell_column(header[c]) in INDEX_COLUMNS]
    numbers = named or [c for c in columns if _holds_numbers(data, c)]
    usable = [column for column in numbers if _are_indices(data, column, known)]
    if any(cells[usable[0]] != cells[c] for c in usable[1:] for _, cells in data):
        raise known.fault(
            " has several columns of numbers: a first line `index,name` or `name,index` says which "
            "are the indices"
        )
    return next(iter((*usable, *numbers)), None)


def _holds_numbers(data: Sequence[Row], column: int) -> bool:
    numbers = [len(cells) > 1 and cells[column].isdecimal() for _, cells in data]
    # what begins like a table is held to be one
    return 2 * sum(numbers) > len(numbers) or (column == 0 and numbers[0])


def _are_indices(data: Sequence[Row], column: int, known: ClassMap) -> bool:
    indices = [_read_index(cells[column]) for _, cells in data]
    valid_indices = {index for index in indices if index is not None and index < known.classes}
    return len(valid_indices) == len(indices)


def _read_entry(
    row: Row, column: int, header: Sequence[str], separator: str, known: ClassMap
) -> ClassMapEntry:
    number, cells = row
    where = f"line {number}"
    index = _read_index(cells[column]) if len(cells) > 1 and column < len(cells) else None
    name = _find_name(cells, column, header)
    if index is None or not name:
        form = "`index,name`" if column == 0 else "`name,index`"
        raise known.fault(f", {where} is not {form}: {separator.join(cells)!r}")
    return ClassMapEntry(index, name, where)


def _find_name(cells: Sequence[str], column: int, header: Sequence[str]) -> str:
    words = list(map(_spell_column, header))
    if len(header) > 2 and len(cells) == len(header):
        named = next((words.index(word) for word in NAME_COLUMNS if word in words), None)
        if named is not None:
            return cells[named]
    others = [cell for place, cell in enumerate(cells) if place != column % len(cells) and cell]
    named_cells = [cell for cell in others if not re.fullmatch(r"n\d{8}", cell)]
    return ", ".join(named_cells or others)


def _read_words(lines: Sequence[str], known: ClassMap, form: str) -> list[ClassMapEntry]:
    """Reads lines that begin, or end, with an index and a space; nothing where names do."""
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    matches = [(number, re.fullmatch(form, line.strip())) for number, line in numbered]
    if matches[0][1] is None and len(matches) > 1 and _is_header(numbered[0][1].split()):
        matches = matches[1:]
    entries = [
        ClassMapEntry(int(match["index"]), _unquote(match["name"]), f"line {number}")
        for number, match in matches
        if match
    ]
    # of "5 euro" and "10 euro" the numbers are no indices
    tells_apart = 2 * len({entry.name for entry in entries}) > len(entries)
    if len(entries) != len(matches) or not tells_apart:
        return []
    return entries if _has_indices(entries, form == WORDS[1], known) else []


def _has_indices(entries: Sequence[ClassMapEntry], at_end: bool, known: ClassMap) -> bool:
    """Tells whether numbers are indices; raises ConfigError where that cannot be known."""
    indices = [entry.index for entry in entries]
    if len(set(indices)) == len(indices) and max(indices) < known.classes:
        return True
    # names may well end in numbers, as types of cars and aeroplanes do
    counts_from_one = sorted(indices) == list(range(1, known.classes + 1))
    if len(indices) == 1 or (at_end and (not counts_from_one or indices == sorted(indices))):
        return False
    raise known.fault(
        f" has a number in each line, and they are not the indices 0 to {known.classes - 1}: "
        "write `index,name`"
    )


def _unquote(name: str) -> str:
    name = name.strip()
    is_quoted = len(name) > 1 and name[0] in "\"'" and name.find(name[0], 1) == len(name) - 1
    return name[1:-1] if is_quoted else name
