"""What other processes add to a manifest, read while they do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

from camcli.records import Box, Concept, FileStamp, Outcome, Record, Source, Statistics

FIELDS = frozenset(field.name for field in fields(Record))


class Follower:
    """Reads what is added to a manifest from now on."""

    def __init__(self, manifest: Path) -> None:
        self._path, self._folder = manifest, manifest.parent
        self._place = manifest.stat().st_size if manifest.exists() else 0

    def outcomes(self) -> Iterator[Outcome]:
        """Yields the pictures of which all records have come since the last call."""
        try:
            # opened anew each time: a network file system shows then what others wrote
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            # whoever goes on there may have taken out what is done again
            self._place = min(self._place, file.seek(0, SEEK_END))
            file.seek(max(self._place - 1, 0))
            if self._place:
                file.readline()
            self._place = file.tell()
            yield from self._whole(file)

    def _whole(self, file: BinaryIO) -> Iterator[Outcome]:
        records: list[Record] = []
        end = self._place
        for text in file:
            if not text.endswith(b"\n"):
                return
            end += len(text)
            line = json.loads(text)
            records.append(record_of(line, self._folder))
            if line["last"]:
                self._place = end
                yield Outcome(Source(Path(line["source"])), tuple(records))
                records = []


def record_of(line: Mapping[str, Any], folder: Path) -> Record:
    """Makes the record again of which a line was written, its files in the manifest's folder."""
    values = {name: _tuples(value) for name, value in line.items() if name in FIELDS}
    for name, kind in (("view", Box), ("statistics", Statistics)):
        if values.get(name):
            values[name] = kind(**values[name])
    values["concepts"] = tuple(Concept(**concept) for concept in values.get("concepts", ()))
    values["outputs"] = tuple(str(folder / output) for output in values.get("outputs", ()))
    values["files"] = {
        str(folder / name): FileStamp(**stamp) for name, stamp in values.get("files", {}).items()
    }
    if values.get("sheet"):
        values["sheet"] = str(folder / values["sheet"])
    return Record(**values)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {name: _tuples(inner) for name, inner in value.items()}
    return value
