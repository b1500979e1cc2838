"""What the user named -> the pictures behind it; a listing that opens no picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from camcli.errors import SourceError, closest
from camcli.records import Source

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def find_sources(
    paths: Sequence[str | Path], *, leave_out: Path | None = None
) -> tuple[Source, ...]:
    """Lists files as named and the images in folders, each once, in order; raises SourceError.

    A folder to `leave_out` is passed over where it lies in another one, but not where it is named.
    """
    found = (source for path in paths for source in _sources(path, leave_out))
    return tuple(dict.fromkeys(found))


def _sources(given: str | Path, leave_out: Path | None) -> tuple[Source, ...]:
    if given == "":
        # Path("") would be the current folder, and all that lies in it
        raise SourceError("'' names no picture: is a variable of the shell not set?")
    path = Path(given)
    if not _exists(path):
        raise SourceError(f"{str(path)!r} does not exist.{_hint(path)}")
    if not path.is_dir():
        return (Source(path),)
    images = sorted(_images(path, leave_out))
    if not images:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(
            f"Folder {str(path)!r} holds no images ({kinds}). Name a file to have it read anyway."
        )
    return tuple(Source(path / image, image.parent) for image in images)


def _images(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Yields the images below a folder, relative to it; hidden files and folders are skipped."""
    left_out = leave_out and leave_out.resolve()
    for place, subfolders, files in os.walk(folder, onerror=_refuse):
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and Path(place, name).resolve() != left_out
        ]
        for name in files:
            path = Path(place, name)
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
            if is_image and path.is_file():
                yield path.relative_to(folder)


def _refuse(error: OSError) -> None:
    # os.walk would pass over such a folder in silence, and its pictures would be missed
    raise SourceError(f"Folder {error.filename!r} cannot be listed: {error.strerror}.") from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system, or a folder that may not be entered
        return False


def _hint(path: Path) -> str:
    folder = path.parent
    try:
        if path.is_symlink():
            return f" It is a link to {str(path.readlink())!r}."
        near = closest(path.name, (entry.name for entry in folder.iterdir()))
    except (OSError, ValueError):
        return f" Nor does its folder {str(folder)!r}."
    if not near:
        return f" Nothing in {str(folder)!r} has a name like it."
    return f" Closest in {str(folder)!r}: {', '.join(map(repr, near))}."
