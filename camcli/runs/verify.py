"""Checks that the files named by a folder's manifests are still as they were written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from camcli.errors import UsageError
from camcli.records import FileStamp
from camcli.runs.jsonl import STATE, read_lines
from camcli.runs.manifest import SHARDS, WHOLE
from camcli.utils.compact_map import CompactMap, hash_texts

# `unknown`: the manifest has neither its size nor its checksum
State = Literal["whole", "unknown", "missing", "cut", "changed", "unreadable"]

CHUNK = 2**20  # bytes
UNSTAMPED, CHECKED = 0, 1  # used if a file has no stamp


@dataclass(frozen=True)
class CheckedFile:
    """A file that a manifest names, by its path below the folder, and its state."""

    path: str
    state: State

    @property
    def is_lost(self) -> bool:
        """Whether the file is missing or changed."""
        return self.state not in ("whole", "unknown")


def verify_folder(folder: Path) -> Iterator[CheckedFile]:
    """Reads every file that the manifests of a folder name, each once.

    Raises UsageError if there is no manifest, or if a line is not a record.
    """
    manifests = [path for path in (folder / WHOLE, *sorted(folder.glob(SHARDS))) if path.exists()]
    if not manifests:
        raise UsageError(f"{str(folder)!r} holds no manifest ({WHOLE}): name an output folder.")
    stamps = CompactMap()
    for manifest in manifests:
        end = 0
        for line in read_lines(manifest):
            end = line.start + len(line.text)
            for name, stamp in line.files.items():
                key = hash_texts("file", name)
                # the last record counts; earlier frames of a video have no stamp yet
                if stamp or stamps.get(key) is None:
                    stamps[key] = _stamp_number(stamp)
        if end < manifest.stat().st_size:
            yield CheckedFile(manifest.name, "cut")
    for manifest in manifests:
        for line in read_lines(manifest):
            for name, stamp in line.files.items():
                key = hash_texts("file", name)
                if stamps.get(key) == _stamp_number(stamp):
                    stamps[key] = CHECKED
                    yield CheckedFile(name, _find_state(folder / name, stamp))


def is_unfinished(folder: Path) -> bool:
    """Tells whether a run into a folder was interrupted, or is under way."""
    return any((folder / STATE).glob("run-*.jsonl"))


def read_stamp(path: Path) -> FileStamp:
    """Reads a file's stamp; raises OSError."""
    size = crc32 = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size, crc32 = size + len(chunk), zlib.crc32(chunk, crc32)
    return FileStamp(size, f"{crc32:08x}")


def _stamp_number(stamp: FileStamp | None) -> int:
    return hash_texts("stamp", str(stamp.size), stamp.crc32) if stamp else UNSTAMPED


def _find_state(path: Path, stamp: FileStamp | None) -> State:
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            return "changed"  # a device or pipe, which may never end
        if stamp is None:
            return "unknown" if status.st_size else "cut"
        if status.st_size != stamp.size:
            return "cut" if status.st_size < stamp.size else "changed"
        return "whole" if read_stamp(path) == stamp else "changed"
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null in a name
        return "missing"
    except OSError:
        return "unreadable"
