"""Checks the place that outputs are to be written to, as far as its name and the disc tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from camcli.errors import OutputError, UsageError
from camcli.media.atomic_files import check_writable
from camcli.media.pictures.output_formats import PICTURE_SUFFIXES, find_format
from camcli.media.sources.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_video
from camcli.records import Source


def is_file(save_path: Path) -> bool:
    """Tells whether a save path is a picture's or a video's, not a folder's."""
    return save_path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def check_output_place(
    save_path: Path, sources: Sequence[Source], picture_format: str | None
) -> None:
    """Raises UsageError or OutputError where nothing can be written there; needs no model."""
    if not is_file(save_path):
        check_writable(save_path)
        return
    if save_path.is_dir():
        raise OutputError(
            f"Cannot write {str(save_path)!r}: Is a directory. Choose another place (--save-path)."
        )
    kind = PICTURE_SUFFIXES.get(save_path.suffix.lower())
    if kind is None and not is_video(Source(save_path)) and not any(map(is_video, sources)):
        find_format(save_path)
    if kind and picture_format and PICTURE_SUFFIXES[f".{picture_format}"] != kind:
        raise UsageError(
            f"--save-path {save_path} and --format {picture_format} name two formats: "
            "give one of them."
        )
    if len(sources) > 1:
        raise too_many_for_a_file(save_path, len(sources))
    if any(_is_same_file(save_path, source.path) for source in sources):
        raise UsageError(
            f"--save-path {save_path} is the picture itself, which would be lost: "
            "name another file, or a folder."
        )
    check_writable(save_path.parent)


def too_many_for_a_file(save_path: Path, pictures: int) -> UsageError:
    """Says that one file cannot hold several pictures."""
    return UsageError(
        f"--save-path {save_path} is one file, but {pictures} pictures are to be "
        "written: name a folder."
    )


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
