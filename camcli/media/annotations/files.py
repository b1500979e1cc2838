"""Reads files of annotations up to a largest size; errors name the file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.errors import AnnotationError
from camcli.utils.text_files import read_text

LARGEST = 2**31  # bytes; COCO's largest file of boxes is a fraction of it
SHOWN = 3  # names in a line that counts them


@dataclass(frozen=True)
class Fault:
    """Something wrong in one place of a file, which is left out while the rest is read."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; it is left out"


def read_file(path: Path, largest: int = LARGEST) -> str:
    """Reads a text file, UTF-8 with or without a byte order mark; raises AnnotationError."""
    try:
        return read_text(path, encoding="utf-8-sig", largest=largest)
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is no UTF-8 text: save it as UTF-8.") from error
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror}).") from error


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Reads a file's bytes; raises AnnotationError, also for a file that is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror}).") from error
    if len(content) > largest:
        raise AnnotationError(f"{path} is larger than {largest >> 20} MiB.")
    return content


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Reads a CSV file: its first line, and each other line's number and cells.

    Raises AnnotationError where it is empty or no CSV.
    """
    reader = csv.reader(read_file(path).splitlines(), skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise AnnotationError(f"{path}, line {reader.line_num} is no CSV: {error}.") from error
    if not rows:
        raise AnnotationError(f"{path} is empty.")
    return rows[0][1], rows[1:]


def list_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Lists a folder's files of some suffixes, in its folders too, in the order of their names."""
    kinds = {suffix.lower() for suffix in suffixes}
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in kinds and path.is_file() and not path.name.startswith(".")
    ]


def parse_numbers(cells: Sequence[str]) -> list[float]:
    """Reads cells as numbers; raises ValueError that names the first that is none."""
    values = []
    for cell in cells:
        try:
            values.append(float(cell))
        except ValueError:
            raise ValueError(f"{cell!r} is no number") from None
    return values


def name_some(names: Iterable[str]) -> str:
    """Names the first few of many.

    >>> name_some(["a", "b", "c", "d"])
    "'a', 'b', 'c' and 1 more"
    """
    listed = list(names)
    more = f" and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    return ", ".join(map(repr, listed[:SHOWN])) + more


def list_texts(faults: Iterable[Fault | str]) -> tuple[str, ...]:
    """Writes faults as lines, each once."""
    return tuple(dict.fromkeys(map(str, faults)))


def group_by_name(rows: Iterable[tuple[str, int]]) -> Iterator[tuple[str, list[int]]]:
    """Groups numbers by a name, in the order in which the names occur first."""
    groups: dict[str, list[int]] = {}
    for name, number in rows:
        groups.setdefault(name, []).append(number)
    yield from groups.items()
