"""Reads what other processes add to a manifest, while they write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from os import SEEK_END
from pathlib import Path
from typing import Any

from camcli.errors import UsageError, first_line
from camcli.records import (
    Box,
    Concept,
    FileStamp,
    HotBox,
    Outcome,
    PackedMap,
    Record,
    Source,
    Statistics,
)
from camcli.runs.jsonl import read_lines
from camcli.utils.type_checks import check_fields

FIELDS = frozenset(field.name for field in fields(Record))


class ManifestTail:
    """Reads the records that are added to a manifest from now on."""

    def __init__(self, manifest: Path) -> None:
        self._path, self._folder = manifest, manifest.parent
        self._place = manifest.stat().st_size if manifest.exists() else 0

    def outcomes(self) -> Iterator[Outcome]:
        """Yields the pictures whose records have become complete since the last call."""
        try:
            # opened each time, so that a network file system shows what others wrote
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            # another process may have removed the records of sources that are done again
            self._place = min(self._place, file.seek(0, SEEK_END))
            file.seek(max(self._place - 1, 0))
            if self._place:
                file.readline()
            self._place = file.tell()
        yield from self._whole()

    def _whole(self) -> Iterator[Outcome]:
        records: list[Record] = []
        for line in read_lines(self._path, self._place):
            records.append(parse_record(line.record, self._folder))
            if line.record.get("last"):
                self._place = line.start + len(line.text)
                yield Outcome(Source(Path(records[-1].source)), tuple(records))
                records = []


def parse_record(line: Mapping[str, Any], folder: Path) -> Record:
    """Makes a record of a line, with its files in the manifest's folder.

    Raises UsageError for a line that camviz did not write.
    """
    try:
        return _make_record(line, folder)
    except (TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"A line with the id {line['id']!r} in a manifest of {str(folder)!r} is not a record "
            f"of a heatmap ({first_line(error)}). Remove it, or choose another --save-path."
        ) from error


def _make_record(line: Mapping[str, Any], folder: Path) -> Record:
    values = {name: _to_tuples(value) for name, value in line.items() if name in FIELDS}
    for name, kind in (("view", Box), ("statistics", Statistics), ("map", PackedMap)):
        if values.get(name):
            values[name] = kind(**values[name])
    values["concepts"] = tuple(Concept(**concept) for concept in values.get("concepts", ()))
    boxes = values.get("boxes", ())
    values["boxes"] = tuple(HotBox(Box(**hot["box"]), hot["area"]) for hot in boxes)
    values["outputs"] = tuple(str(folder / output) for output in values.get("outputs", ()))
    values["files"] = {
        str(folder / name): FileStamp(**stamp) for name, stamp in values.get("files", {}).items()
    }
    if values.get("sheet"):
        values["sheet"] = str(folder / values["sheet"])
    record = Record(**values)
    check_fields(record)
    if record.picture_size and min(record.picture_size) < 1:
        raise ValueError(f"a picture of {record.picture_size} pixels")
    Path(record.source)
    return record


def _to_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_to_tuples, value))
    if isinstance(value, dict):
        return {name: _to_tuples(inner) for name, inner in value.items()}
    return value
