"""Video files, known by their bytes: whether a file is one, and whether all of it is there.

FFmpeg itself takes more for a video than anybody means by the word: pictures, texts, and playlists
that name other files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

Ends: TypeAlias = Callable[[BinaryIO, int], Iterator[int]]

HEAD = 512  # bytes that tell what a file is

EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


def _of_boxes(file: BinaryIO, size: int) -> Iterator[int]:
    """MP4 and QuickTime: boxes, each of which begins with its length."""
    start = 0
    while start + 8 <= size:
        head = _bytes_at(file, start, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # too large for four bytes
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # zero: as far as the file goes
            return
        start += length
        yield start


def _of_riffs(file: BinaryIO, size: int) -> Iterator[int]:
    """AVI: one RIFF list, or several of a gigabyte."""
    start = 0
    while start + 8 <= size:
        kind, length = struct.unpack("<4sI", _bytes_at(file, start, 8))
        if kind != b"RIFF" or length == 0:  # zero: nobody came to write it in
            return
        yield start + 8 + length
        start += 8 + length + length % 2


def _of_segment(file: BinaryIO, size: int) -> Iterator[int]:  # noqa: ARG001
    """Matroska and WebM: a header, and one segment with all the rest."""
    start, length = _ebml_length(file, len(EBML))
    if length is None or _bytes_at(file, start + length, 4) != SEGMENT:
        return
    start, length = _ebml_length(file, start + length + len(SEGMENT))
    if length is not None:
        yield start + length


def _of_unknown(file: BinaryIO, size: int) -> Iterator[int]:  # noqa: ARG001
    """Streams, which say nowhere how long they are."""
    return iter(())


@dataclass(frozen=True)
class Container:
    """A kind of video file: what stands where in its first bytes, and how to find where it ends."""

    marks: tuple[tuple[int, bytes], ...]
    ends: Ends


CONTAINERS: tuple[Container, ...] = (
    *(
        Container(((4, kind),), _of_boxes)
        for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
    ),
    Container(((0, b"RIFF"), (8, b"AVI ")), _of_riffs),
    Container(((0, EBML),), _of_segment),
    Container(((0, b"\x00\x00\x01\xba"),), _of_unknown),  # MPEG program stream
    Container(((0, b"\x00\x00\x01\xb3"),), _of_unknown),  # MPEG video alone
    Container(((0, b"G"), (188, b"G")), _of_unknown),  # MPEG transport stream
)


def container(path: Path) -> Container | None:
    """Finds out what kind of video a file is; None for what is no video."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    for kind in CONTAINERS:
        if all(head[at : at + len(mark)] == mark for at, mark in kind.marks):
            return kind
    return None


def is_cut_off(path: Path) -> bool:
    """Tells whether a video file ends before its parts do."""
    kind, size = container(path), path.stat().st_size
    if kind is None:
        return False
    with path.open("rb") as file:
        return any(end > size for end in kind.ends(file, size))


def _bytes_at(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count).ljust(count, b"\0")


def _ebml_length(file: BinaryIO, at: int) -> tuple[int, int | None]:
    """Reads a length of 1 to 8 bytes: where it ends, and the length, None for an unknown one."""
    first = _bytes_at(file, at, 1)[0]
    count = 9 - first.bit_length()
    bits = (1 << 7 * count) - 1
    length = int.from_bytes(_bytes_at(file, at, count), "big") & bits
    return at + count, None if first == 0 or length == bits else length
