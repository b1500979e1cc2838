"""Reads lists of paths, with the category to explain for each.

Names are bytes and need not be UTF-8.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, TypeAlias

from camcli.errors import SourceError, find_closest

LARGEST = 2**28  # bytes, some millions of paths
BETWEEN_NULS, LINES = re.compile(rb"[^\0]+"), re.compile(rb"[^\n]+")

# path and category
Entry: TypeAlias = tuple[str, str]


def read_list(file: BinaryIO, name: str) -> bytes:
    """Reads a list that has an end; raises SourceError, or OSError."""
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise SourceError(
            f"{name} is larger than {LARGEST >> 20} MiB: is there an end to it? Name a folder, or "
            "several lists."
        )
    return content


def read_paths(content: bytes, name: str) -> Iterator[Entry]:
    """Reads a path a line, or between NULs where there are some; raises SourceError."""
    whole = _decode(content, name)
    if b"\0" in whole:
        # found and not split: there may be millions of NULs on end
        lines = BETWEEN_NULS.findall(whole)
    else:
        lines = [line.removesuffix(b"\r") for line in LINES.findall(whole) if line.strip()]
    return ((os.fsdecode(line), "") for line in lines if line)


def read_text_list(content: bytes, name: str) -> Iterator[Entry]:
    """Reads a path a line, without lines that begin with `#`; raises SourceError."""
    return (entry for entry in read_paths(content, name) if not entry[0].startswith("#"))


def read_table(content: bytes, name: str) -> Iterator[Entry]:
    """Reads the columns `path` and `category`, which may be missing; raises SourceError."""
    rows = csv.reader(io.StringIO(os.fsdecode(_decode(content, name)), newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(rows, [])]
        _check_header(header, name)
        for row in rows:
            if row:
                yield _read_entry(header, row, f"{name}, line {rows.line_num}")
    except csv.Error as error:
        raise SourceError(f"{name}, line {rows.line_num} is no CSV: {error}.") from error


READERS: Mapping[str, Callable[[bytes, str], Iterator[Entry]]] = {".csv": read_table}


def _decode(content: bytes, name: str) -> bytes:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SourceError(f"{name} is UTF-16 text: save it as UTF-8.")
    return content.removeprefix(codecs.BOM_UTF8)


def _check_header(header: list[str], name: str) -> None:
    if "path" not in header:
        near = find_closest("path", header)
        also = f" Closest: {near[0]!r}." if near else ""
        raise SourceError(
            f"{name} has no column 'path': its first line has to be path or path,category, and is "
            f"{','.join(header)!r}.{also}"
        )


def _read_entry(header: list[str], row: list[str], where: str) -> Entry:
    if len(row) != len(header):
        raise SourceError(
            f"{where} has {len(row)} values, and the first line {len(header)} names: put a value "
            "that holds a comma in double quotes."
        )
    fields = dict(zip(header, row, strict=True))
    if not fields["path"].strip():
        raise SourceError(f"{where} has no path.")
    return fields["path"], fields.get("category", "").strip()
