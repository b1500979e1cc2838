"""The formats in which pictures are written, known by their suffixes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from camcli.errors import OutputError, UnknownName

PICTURE_SUFFIXES: Mapping[str, str] = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

DEFAULT_SUFFIX = ".jpg"


def find_format(path: Path) -> str:
    """Returns the name of the format that a path's suffix asks for; raises OutputError."""
    kind = PICTURE_SUFFIXES.get(path.suffix.lower())
    if kind is None:
        known = " ".join(PICTURE_SUFFIXES)
        raise OutputError(f"Cannot write {str(path)!r}: a picture's suffix is one of {known}.")
    return kind


def find_suffix(format: str) -> str:  # noqa: A002
    """Returns a format's suffix, with its dot; raises UnknownName."""
    suffix = "." + format.lower().removeprefix(".")
    if suffix not in PICTURE_SUFFIXES:
        raise UnknownName("format", format, (known[1:] for known in PICTURE_SUFFIXES))
    return suffix


def list_suffixes_like(suffix: str) -> tuple[str, ...]:
    """Returns every suffix of the format that a suffix stands for."""
    kind = PICTURE_SUFFIXES[suffix.lower()]
    return tuple(other for other, its_kind in PICTURE_SUFFIXES.items() if its_kind == kind)
