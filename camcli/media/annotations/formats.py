"""Recognises the format of annotations by what their file or folder holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.errors import AnnotationError, UnknownName
from camcli.media.annotations.coco import read_coco, write_coco
from camcli.media.annotations.cub import IMAGES, read_cub
from camcli.media.annotations.files import list_files, read_rows
from camcli.media.annotations.folders import (
    PICTURES,
    look_like_photos,
    read_image_folder,
    read_masks,
)
from camcli.media.annotations.tables import SHARES, read_table
from camcli.media.annotations.values import Annotations, PictureAnnotations
from camcli.media.annotations.voc import read_voc, write_voc
from camcli.media.annotations.yolo import read_names, read_yolo, write_yolo

OutputWriter = Callable[[Sequence[PictureAnnotations], Path], None]


@dataclass(frozen=True)
class AnnotationFormat:
    """A format: what it is, how it is read, and how it is written, where it can be."""

    summary: str
    read: Callable[[Path, Path | None], Annotations]
    write: OutputWriter | None = None


def _read_masks(path: Path, names: Path | None) -> Annotations:
    return read_masks(path, read_names(names) if names else None)


FORMATS: Mapping[str, AnnotationFormat] = {
    "coco": AnnotationFormat("COCO's JSON", lambda path, _: read_coco(path), write_coco),
    "voc": AnnotationFormat(
        "Pascal VOC's XML, a file a picture", lambda path, _: read_voc(path), write_voc
    ),
    "yolo": AnnotationFormat("YOLO's text, a file a picture", read_yolo, write_yolo),
    "openimages": AnnotationFormat("Open Images' CSV", read_table),
    "csv": AnnotationFormat("a table with a box a line", read_table),
    "cub": AnnotationFormat("CUB-200-2011's text files", lambda path, _: read_cub(path)),
    "masks": AnnotationFormat("PNG masks of the pictures' names", _read_masks),
    "imagefolder": AnnotationFormat(
        "pictures in folders named after classes", lambda path, _: read_image_folder(path)
    ),
}


def read_annotations(
    path: Path,
    format: str | None = None,  # noqa: A002
    names: Path | None = None,
) -> Annotations:
    """Reads annotations in any format of `FORMATS`, found by `find_format` where it is left out.

    `names` is a file of class names, for YOLO, masks and Open Images.  Raises AnnotationError for
    what cannot be read as a whole, UnknownName for a format nobody has heard of.
    """
    if format is not None and format not in FORMATS:
        raise UnknownName("annotation format", format, FORMATS, f"All: {', '.join(FORMATS)}.")
    if not path.exists():
        raise AnnotationError(f"There are no annotations {str(path)!r}.")
    return FORMATS[format or find_format(path)].read(path, names)


def find_format(path: Path) -> str:
    """Tells the format of a file by its suffix and first line, of a folder by what lies in it.

    Raises AnnotationError where none fits.
    """
    if path.is_dir():
        return _find_folder_format(path)
    suffix = path.suffix.lower()
    by_suffix = {
        ".json": "coco", ".xml": "voc", ".txt": "yolo", ".yaml": "yolo", ".yml": "yolo",
        ".png": "masks",
    }  # fmt: skip
    if suffix == ".txt" and path.name == IMAGES:
        raise AnnotationError(f"{path} is one of CUB's files: name the folder it lies in.")
    if suffix == ".csv":
        return "openimages" if set(SHARES) <= set(read_rows(path)[0]) else "csv"
    if suffix in by_suffix:
        return by_suffix[suffix]
    raise AnnotationError(f"{path} is in no known format of annotations; {_list_formats()}.")


def _find_folder_format(folder: Path) -> str:
    if (folder / IMAGES).is_file():
        return "cub"
    kinds = (
        ("voc", [".xml"]),
        ("yolo", [".txt"]),
    )
    for name, suffixes in kinds:
        if list_files(folder, suffixes):
            return name
    pictures = list_files(folder, PICTURES)
    # photos in folders of classes may be PNG, too
    in_folders = [file for file in pictures if file.parent != folder]
    is_png = pictures and all(file.suffix.lower() == ".png" for file in pictures)
    if is_png and not (in_folders and look_like_photos(in_folders)):
        return "masks"
    if pictures:
        return "imagefolder"
    raise AnnotationError(f"{folder} holds no annotations; {_list_formats()}.")


def _list_formats() -> str:
    return "known are " + ", ".join(f"{name} ({f.summary})" for name, f in FORMATS.items())
