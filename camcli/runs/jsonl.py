"""Writes and reads the lines of a manifest; each is a JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.errors import OutputError, UsageError
from camcli.records import FileStamp
from camcli.utils.compact_map import hash_texts
from camcli.utils.jsonable import encode_json

STATE = ".camviz"  # the hidden folder with the files that a run needs while it lasts


@dataclass(frozen=True)
class Line:
    """A line: its record, and the byte of the file at which it begins."""

    record: dict[str, Any]
    text: bytes
    start: int

    @property
    def owner(self) -> int:
        """A number that identifies the record's run and source."""
        return hash_texts(self.record["run"], self.record["id"])

    @property
    def outputs(self) -> list[str]:
        """The files that the record names, relative to the manifest's folder."""
        sheet = self.record.get("sheet")
        return [*self.record.get("outputs", ()), *([sheet] if sheet else [])]

    @property
    def files(self) -> dict[str, FileStamp | None]:
        """The files that the record names, each with its stamp, or None without one.

        Lines of older versions have no stamps, and a video's stamp is in its source's last line.
        """
        stamps = self.record.get("files", {}).items()
        return dict.fromkeys(self.outputs) | {name: FileStamp(**stamp) for name, stamp in stamps}


def read_manifest(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a manifest; raises UsageError for a line that is not a record.

    An incomplete last line is left out: it was cut off, or is being written.
    """
    return (line.record for line in read_lines(Path(path)))


def read_lines(path: Path, start: int = 0) -> Iterator[Line]:
    """Yields the complete lines of a manifest, none if there is no file; raises UsageError.

    `start` is the byte at which the first of them begins.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(
            f"Cannot read {str(path)!r}: {error.strerror}. Choose another --save-path."
        ) from error
    with file:
        where = f"behind byte {start} " if start else ""
        file.seek(start)
        for count, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return
            if text.strip():
                yield Line(_parse_record(text, f"{count} {where}of {str(path)!r}"), text, start)
            start += len(text)


def _parse_record(text: bytes, place: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        record = json.loads(text)
        if isinstance(record, dict) and _is_of_a_heatmap(record):
            return record
    raise UsageError(
        f"Line {place} is not a record of a heatmap: it was torn or changed. Remove it, or choose "
        "another --save-path."
    )


def _is_of_a_heatmap(record: Mapping[str, Any]) -> bool:
    """Tells whether a line has the form that a run writes."""
    outputs, files = record.get("outputs", []), record.get("files", {})
    if not isinstance(outputs, list) or not isinstance(files, dict):
        return False
    beside = record.get("beside") or {}
    if not isinstance(beside, dict):
        return False
    texts = [record.get("run"), record.get("id"), record.get("sheet", ""), *outputs]
    texts += [record.get("recipe", ""), *beside.values()]
    return all(isinstance(text, str) for text in texts) and all(map(_is_stamp, files.values()))


def _is_stamp(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"size", "crc32"}
        and isinstance(value["size"], int)
        and isinstance(value["crc32"], str)
    )


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Encodes a record as a line of ASCII; numbers that are not finite become null.

    File names that are not UTF-8 survive a round trip, and no character of a line can control a
    terminal.
    """
    return encode_json(record).encode("ascii") + b"\n"


def remove_lines(path: Path, doomed: Callable[[Line], bool]) -> None:
    """Removes lines from a manifest, and a torn last line; no other process may write to it."""
    whole, first, kept_behind = 0, None, False
    for line in read_lines(path):
        whole = line.start + len(line.text)
        if first is None:
            first = line.start if doomed(line) else None
        elif not doomed(line):
            kept_behind = True
            break
    if kept_behind:
        write_durably(path, (line.text for line in read_lines(path) if not doomed(line)))
    else:
        truncate(path, whole if first is None else first)


def write_durably(path: Path, texts: Iterable[bytes]) -> None:
    """Writes a file that replaces the old one once it is on the disk; raises OutputError."""
    hidden = path.parent if path.parent.name == STATE else path.parent / STATE
    temporary = hidden / f"{path.name}.{os.getpid()}.part"
    try:
        with temporary.open("wb") as file:
            file.writelines(texts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise unwritable_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def truncate(path: Path, size: int) -> None:
    """Cuts a file to a number of bytes, if there is one; raises OutputError."""
    try:
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)
    except OSError as error:
        raise unwritable_error(path, error) from error


def find_file_size(path: Path) -> int:
    """Returns a file's size in bytes, 0 for none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def take_back(file: int, written: int) -> None:
    """Removes the written part of a line, unless another process has written behind it."""
    end = os.lseek(file, 0, os.SEEK_CUR)
    with suppress(OSError):
        if written and os.fstat(file).st_size == end:
            os.ftruncate(file, end - written)


def unwritable_error(path: Path, error: OSError) -> OutputError:
    """Makes the error for a file that could not be written: why, and how to go on."""
    return OutputError(
        f"Cannot write {str(path)!r}: {error.strerror or error}. Make room for it and go on with "
        "--resume, or choose another place (--save-path)."
    )
