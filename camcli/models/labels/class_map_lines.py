"""Names of classes out of lines and tables, with or without indices."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from camcli.errors import ConfigError
from camcli.models.labels.class_map_entries import (
    INDEX_COLUMNS,
    MOST_DIGITS,
    NAME_COLUMNS,
    ClassMap,
    ClassMapEntry,
    Names,
    check_orders,
    read_index,
)

Row: TypeAlias = tuple[int, Sequence[str]]  # the number of its line, and its cells
# the cells of a table are held apart by these, the usual ones first
SEPARATORS = (",", "\t", ";", "|", ":", "=")
# an index and a name with a space between them: `0 cat`, `0. cat`, `0 -> cat`, `cat 0`
WORDS = (
    rf"[\[(#]?(?P<index>\d{{1,{MOST_DIGITS}}})(?:\s*(?:->|=>|[-.)\]])\s+|\s+)(?P<name>\S.*)",
    rf"(?P<name>.*?\S)(?:\s+(?:->|=>|-)\s+|\s+)(?P<index>\d{{1,{MOST_DIGITS}}})",
)
# other signs that end lines, such as U+2028, are part of a name
LINE_END = re.compile(r"\r\n|\n|\r")
# a field in double quotes that goes on in another line
BROKEN_FIELD = re.compile(
    r'(?:^|(?<=[,;|\t]))"(?:[^"\r\n]|"")*[\r\n](?:[^"]|"")*"(?=[ ]*(?:[,;|\t]|[\r\n]|\Z))',
    re.MULTILINE,
)
# WordNet's numbers, which ImageNet's lists have in front of the names; before an index, one is the
# name
SYNSET = re.compile(r"n\d{8}[\s,;:]+(?!\d+$)(?=\S)")
# a first line that no class is called, as a class may be called `text` or `title`
TITLES = frozenset(
    ("name", "names", "class", "classes", "label", "labels", "category", "categories", "class_name",
     "class_names", "label_name", "label_names", "category_name")
)  # fmt: skip
# YAML, or a comment: lines that are not names, where others of the file are
NO_NAME = re.compile(r"---|# .*|[\w.-]+:|(?:names|classes|class_names|labels|nc)\s*:.*")


def read_lines(text: str, known: ClassMap) -> tuple[Names, tuple[str, ...]]:
    """Takes names out of lines; raises ConfigError where they can be read in several ways."""
    broken = BROKEN_FIELD.search(text)
    if broken:
        number = len(LINE_END.findall(text, 0, broken.start())) + 1
        raise known.fault(
            f", line {number} begins a name in double quotes that goes on in the next line: write "
            "it in one"
        )
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
    check_orders(lines, known)
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
    indices = [read_index(cells[column]) for _, cells in data]
    valid_indices = {index for index in indices if index is not None and index < known.classes}
    return len(valid_indices) == len(indices)


def _read_entry(
    row: Row, column: int, header: Sequence[str], separator: str, known: ClassMap
) -> ClassMapEntry:
    number, cells = row
    where = f"line {number}"
    index = read_index(cells[column]) if len(cells) > 1 and column < len(cells) else None
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
