"""Folders: PNG masks of the pictures' names, and ImageFolder's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import AnnotationError
from camcli.media.annotations.files import Fault, list_files, list_texts
from camcli.media.annotations.outlines import Bitmap
from camcli.media.annotations.values import Annotations, Instance, PictureAnnotations, list_labels

VOID = 255  # of a mask with a palette: the edge of an object, of no class (Pascal VOC)
LOOKED_AT = 8  # pictures of a folder, to tell masks from photos
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")


def read_masks(folder: Path, names: Mapping[int, str] | None = None) -> Annotations:
    """Reads a PNG mask a picture, of the picture's name; raises AnnotationError where none is.

    A mask of two values, 0 and another one, is an object; its class is the folder it lies in,
    unless that is the given one.  In a mask of more values, or with a palette, each value above 0
    is a class, called by `names` or by its number, and 255 with a palette is nobody's.
    """
    files = list_files(folder, [".png"]) if folder.is_dir() else [folder]
    if not files:
        raise AnnotationError(f"{folder} holds no .png masks.")
    pictures: list[PictureAnnotations] = []
    faults: list[Fault | str] = []
    for file in files:
        try:
            pictures.append(_read_picture(file, folder, names or {}))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            faults.append(Fault(str(file), f"it is no mask ({error})"))
    if not pictures:
        raise AnnotationError(f"{faults[0]}.")
    return Annotations(tuple(pictures), list_labels(pictures), list_texts(faults))


def _read_picture(file: Path, folder: Path, names: Mapping[int, str]) -> PictureAnnotations:
    values, is_indexed = _read_values(file)
    name = file.relative_to(folder) if file != folder else Path(file.name)
    label = name.parent.name
    kinds = [int(v) for v in np.unique(values) if v != 0 and not (is_indexed and v == VOID)]
    if is_indexed or len(kinds) > 1:
        if unknown := [v for v in kinds if names and v not in names]:
            raise ValueError(f"there is no class {unknown[0]}")
        instances = tuple(_make_instance(names.get(v, str(v)), values == v) for v in kinds)
    else:
        instances = (_make_instance(label, values != 0),) if kinds else ()
    stem = name.with_suffix("").as_posix()
    return PictureAnnotations(stem, instances, values.shape, where=str(file))


def _read_values(file: Path) -> tuple[NDArray[np.int64], bool]:
    """Reads a mask's values [h w], and whether they are indices of a palette."""
    with Image.open(file) as image:
        values = np.asarray(image.convert("L") if image.mode == "1" else image)
        is_indexed = image.mode == "P"
    if values.ndim == 3:
        # grey saved as colours, perhaps with opacity
        if not (values[..., :1] == values[..., : min(3, values.shape[2])]).all():
            raise ValueError("it has colours: save it as grey, or with a palette")
        values = values[..., 0]
    return values.astype(np.int64), is_indexed


def look_like_photos(files: Sequence[Path]) -> bool:
    """Tells whether most of the first pictures have colours, which no mask has."""
    first = files[:LOOKED_AT]
    return sum(_has_colours(file) for file in first) * 2 > len(first)


def _has_colours(file: Path) -> bool:
    try:
        _read_values(file)
    except ValueError:
        return True
    except (OSError, SyntaxError, Image.DecompressionBombError):
        pass
    return False


def _make_instance(label: str, mask: NDArray[np.bool_]) -> Instance:
    outline = Bitmap(mask)
    return Instance(label, outline.box, outline)


def read_image_folder(folder: Path) -> Annotations:
    """Reads labels off the folders that pictures lie in, `class/.../picture.jpg` (ImageFolder).

    Raises AnnotationError where there are no such folders.  Pictures beside them have no label, and
    are named in a note.
    """
    pictures, faults = [], []
    for file in list_files(folder, PICTURES):
        name = file.relative_to(folder)
        if len(name.parts) == 1:
            faults.append(Fault(str(file), "it lies in no class's folder"))
            continue
        instance = Instance(name.parts[0])
        pictures.append(PictureAnnotations(name.as_posix(), (instance,), where=str(file)))
    if not pictures:
        raise AnnotationError(f"{folder} holds no pictures in folders named after classes.")
    return Annotations(tuple(pictures), list_labels(pictures), list_texts(faults))
