"""Recognises video files by their bytes, and tells whether all of a file is there.

FFmpeg itself takes more for a video than anybody means by the word: pictures, texts, and playlists
that name other files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

Ends: TypeAlias = Callable[[BinaryIO, int], Iterator[int]]

HEAD = 512  # bytes that tell what a file is

EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


def _end_boxes(file: BinaryIO, size: int) -> Iterator[int]:
    """MP4 and QuickTime: boxes, each of which begins with its length."""
    start = 0
    while start + 8 <= size:
        head = _read_bytes(file, start, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # too large for four bytes
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # zero: as far as the file goes
            return
        start += length
        yield start


def _end_riffs(file: BinaryIO, size: int) -> Iterator[int]:
    """AVI: one RIFF list, or several of a gigabyte."""
    start = 0
    while start + 8 <= size:
        kind, length = struct.unpack("<4sI", _read_bytes(file, start, 8))
        if kind != b"RIFF" or length == 0:  # zero: nobody came to write it in
            return
        yield start + 8 + length
        start += 8 + length + length % 2


def _end_segment(file: BinaryIO, size: int) -> Iterator[int]:  # noqa: ARG001
    """Matroska and WebM: a header, and one segment with all the rest."""
    start, length = _read_ebml_length(file, len(EBML))
    if length is None or _read_bytes(file, start + length, 4) != SEGMENT:
        return
    start, length = _read_ebml_length(file, start + length + len(SEGMENT))
    if length is not None:
        yield start + length


def _end_unknown(file: BinaryIO, size: int) -> Iterator[int]:  # noqa: ARG001
    """Streams, which say nowhere how long they are."""
    return iter(())


@dataclass(frozen=True)
class Container:
    """A kind of video file: FFmpeg's name for it, its first bytes, and how to find where it ends.

    In one that `joins`, parts of several recordings may follow each other, and time may jump; one
    that is not `timed` says at most when frames are decoded, and not when they are shown.
    """

    name: str
    marks: tuple[tuple[int, bytes], ...]
    ends: Ends = _end_unknown
    joins: bool = False
    timed: bool = True


CONTAINERS: tuple[Container, ...] = (
    *(
        Container("mov", ((4, kind),), _end_boxes)
        for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
    ),
    Container("avi", ((0, b"RIFF"), (8, b"AVI ")), _end_riffs, timed=False),
    Container("matroska", ((0, EBML),), _end_segment),
    Container("mpeg", ((0, b"\x00\x00\x01\xba"),), joins=True),  # MPEG program stream
    Container("mpegvideo", ((0, b"\x00\x00\x01\xb3"),), timed=False),  # MPEG video alone
    Container("mpegts", ((0, b"G"), (188, b"G")), joins=True),  # MPEG transport stream
    Container("mpegts", ((4, b"G"), (196, b"G")), joins=True),  # the same, of a camcorder
    Container("dv", ((0, b"\x1f\x07\x00"),)),
    Container("ogg", ((0, b"OggS"),)),
    Container("flv", ((0, b"FLV\x01"),)),
    Container("asf", ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)),
    Container("mxf", ((0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01"),)),
)


def find_container(file: BinaryIO) -> Container | None:
    """Finds out what kind of video a file is; None for what is no video."""
    head = _read_bytes(file, 0, HEAD)
    for kind in CONTAINERS:
        if all(head[at : at + len(mark)] == mark for at, mark in kind.marks):
            return kind
    return None


def is_cut_off(file: BinaryIO) -> bool:
    """Tells whether a video file ends before its parts do."""
    kind, size = find_container(file), file.seek(0, 2)
    return kind is not None and any(end > size for end in kind.ends(file, size))


def _read_bytes(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count).ljust(count, b"\0")


def _read_ebml_length(file: BinaryIO, at: int) -> tuple[int, int | None]:
    """Reads a length of 1 to 8 bytes: where it ends, and the length, None for an unknown one."""
    first = _read_bytes(file, at, 1)[0]
    count = 9 - first.bit_length()
    bits = (1 << 7 * count) - 1
    length = int.from_bytes(_read_bytes(file, at, count), "big") & bits
    return at + count, None if first == 0 or length == bits else length
