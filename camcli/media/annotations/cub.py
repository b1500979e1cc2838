"""CUB-200-2011's text files, `id value ...` a line: a folder with `images.txt`.

`bounding_boxes.txt` has x, y, width, height in pixels from the upper left corner (half-open, from
0), `image_class_labels.txt` the classes, counted from 1, and `classes.txt` their names.
"""

from __future__ import annotations

from pathlib import Path

from camcli.errors import AnnotationError
from camcli.media.annotations.files import Fault, list_texts, parse_numbers, read_file
from camcli.media.annotations.values import Annotations, Instance, PictureAnnotations
from camcli.records import Box

IMAGES, BOXES = "images.txt", "bounding_boxes.txt"
LABELS, CLASSES = "image_class_labels.txt", "classes.txt"


def read_cub(folder: Path) -> Annotations:
    """Reads CUB's folder; a line that is none is left out, with a note; raises AnnotationError.

    Pictures without a box keep their label.  Class names are as they stand there
    (`001.Black_footed_Albatross`).
    """
    faults: list[Fault | str] = []
    images = _read_pairs(folder / IMAGES, faults)
    names = _read_pairs(folder / CLASSES, faults)
    classes = _read_pairs(folder / LABELS, faults)
    boxes = dict(_read_boxes(folder / BOXES, images, faults))
    pictures = []
    for key, name in images.items():
        label = names.get(classes.get(key, ""), "")
        if not label and classes:
            faults.append(Fault(f"{folder / LABELS}, image {key}", "it has no class with a name"))
            continue
        instance = Instance(label, boxes.get(key))
        where = f"{folder / IMAGES}, image {key}"
        pictures.append(PictureAnnotations(name, (instance,), where=where))
    return Annotations(tuple(pictures), tuple(names.values()), list_texts(faults))


def _read_boxes(
    file: Path, images: dict[str, str], faults: list[Fault | str]
) -> list[tuple[str, Box]]:
    boxes = []
    for key, text in _read_pairs(file, faults).items():
        try:
            if key not in images:
                raise ValueError(f"{IMAGES} has no image {key}")
            x, y, width, height = parse_numbers(text.split())
            boxes.append((key, Box(x, y, x + width, y + height)))
        except ValueError as error:
            faults.append(Fault(f"{file}, image {key}", str(error)))
    return boxes


def _read_pairs(file: Path, faults: list[Fault | str]) -> dict[str, str]:
    """Reads `id text` a line; an empty table for a file that is not there, but `images.txt`."""
    if not file.exists() and file.name != IMAGES:
        faults.append(f"{file} is not there: nothing of it is known")
        return {}
    rows: dict[str, str] = {}
    for number, line in enumerate(read_file(file).splitlines(), 1):
        key, _, text = line.strip().partition(" ")
        if key and text:
            rows[key] = text.strip()
        elif key:
            faults.append(Fault(f"{file}, line {number}", f"it is {line!r}, not `id value`"))
    if not rows:
        raise AnnotationError(f"{file} is empty.")
    return rows
