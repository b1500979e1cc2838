"""YOLO's text files: a file a picture, a line an object, in shares of the picture.

A line is `class x y width height` (the box's centre), or `class x y x y x y ...` (a polygon);
classes are counted from 0, and their names stand in `data.yaml` or `classes.txt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from camcli.errors import AnnotationError
from camcli.media.annotations.files import (
    Fault,
    list_files,
    list_texts,
    name_some,
    parse_numbers,
    read_file,
)
from camcli.media.annotations.outlines import Polygons
from camcli.media.annotations.values import Annotations, Instance, PictureAnnotations, list_labels
from camcli.records import Box

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "labels.txt")
ABOVE = 2  # folders above the labels that the names are looked for in
SPLITS = ("val", "valid", "test", "train")
BOX, SCORED_BOX, SHORTEST_POLYGON = 5, 6, 7  # values on a line


def read_yolo(path: Path, names: Path | None = None) -> Annotations:
    """Reads the `.txt` files of a folder, or of the labels that a `data.yaml` names.

    `names` is the file of class names; left out, `data.yaml`, `classes.txt` and the like are looked
    for in the folder and two above it, and without one classes are called by their numbers.  A
    line that is no object is left out, with a note.  Raises AnnotationError.
    """
    folder = path if path.is_dir() else path.parent
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    names = path if is_yaml else names or _find_names(folder)
    known = read_names(names) if names is not None else {}
    folder = _find_labels_folder(path) if is_yaml else folder
    files = [path] if path.suffix.lower() == ".txt" else list_files(folder, [".txt"])
    files = [file for file in files if file.name not in NAMES]
    if not files:
        raise AnnotationError(f"{folder} holds no .txt file of YOLO's labels.")
    faults: list[Fault | str] = []
    if not known:
        faults.append(
            f"{folder} has no data.yaml or classes.txt that names the classes: they are called by "
            "their numbers"
        )
    pictures = [_read_picture(file, folder, known, faults) for file in files]
    labels = tuple(known[index] for index in sorted(known)) or list_labels(pictures)
    return Annotations(tuple(pictures), labels, list_texts(faults))


def read_names(file: Path) -> dict[int, str]:
    """Reads class names: `names` of a YAML file, or a name a line; raises AnnotationError."""
    text = read_file(file)
    if file.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    names = _parse_yaml(file, text).get("names")
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
        return {int(index): str(name) for index, name in pairs}
    except (TypeError, ValueError) as error:
        raise AnnotationError(f"{file}: `names` is no list, nor index to name.") from error


def _parse_yaml(file: Path, text: str) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise AnnotationError(f"{file} is no YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(data, dict):
        raise AnnotationError(f"{file} is no data.yaml: it holds no `names`.")
    return data


def _find_names(folder: Path) -> Path | None:
    near = [folder, *folder.resolve().parents[:ABOVE]]
    return next((p / name for p in near for name in NAMES if (p / name).is_file()), None)


def _find_labels_folder(file: Path) -> Path:
    """Finds the labels of the pictures that a data.yaml names: `images/val` -> `labels/val`."""
    data = _parse_yaml(file, read_file(file))
    root = file.parent / str(data.get("path") or "")
    splits = [str(data[split]) for split in SPLITS if isinstance(data.get(split), str)]
    for split in splits:
        parts = list((root / split).parts)
        if "images" in parts:
            last = len(parts) - 1 - parts[::-1].index("images")
            parts[last] = "labels"
        folder = Path(*parts)
        if folder.is_dir():
            return folder
    near = next((p for p in (file.parent / "labels", file.parent) if any(p.rglob("*.txt"))), None)
    if near is not None and not splits:
        return near
    asked = name_some(splits) if splits else "no val, test or train"
    raise AnnotationError(
        f"{file} names {asked}, and no folder of labels lies there: name the folder of .txt files."
    )


def _read_picture(
    file: Path, folder: Path, names: Mapping[int, str], faults: list[Fault | str]
) -> PictureAnnotations:
    instances = []
    try:
        lines = read_file(file).splitlines()
    except AnnotationError as error:
        faults.append(str(error))
        lines = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                instances.append(_parse_instance(line.split(), names))
            except ValueError as error:
                faults.append(Fault(f"{file}, line {number}", str(error)))
    name = file.relative_to(folder) if file.is_relative_to(folder) else Path(file.name)
    stem = name.with_suffix("").as_posix()
    return PictureAnnotations(stem, tuple(instances), unit="shares", where=str(file))


def _parse_instance(cells: Sequence[str], names: Mapping[int, str]) -> Instance:
    first, *values = parse_numbers(cells)
    if not first.is_integer() or first < 0:
        raise ValueError(f"{cells[0]!r} is no class, a whole number from 0")
    if names and int(first) not in names:
        raise ValueError(f"there is no class {int(first)}: the names are of {len(names)} classes")
    label = names.get(int(first), str(int(first)))
    if len(cells) in (BOX, SCORED_BOX):
        x, y, width, height = values[:4]
        return Instance(label, _make_centred_box(x, y, width, height))
    if len(cells) < SHORTEST_POLYGON or len(values) % 2:
        raise ValueError(f"it has {len(cells)} values, and is neither a box (5) nor a polygon")
    outline = Polygons((tuple(values),))
    return Instance(label, outline.box, outline)


def _make_centred_box(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def write_yolo(pictures: Sequence[PictureAnnotations], folder: Path) -> None:
    """Writes boxes as a `.txt` file a picture, and a `data.yaml` with the names beside them.

    `read_yolo` reads them back equal to a millionth of a pixel, without outlines.  Raises OSError,
    or ValueError for what has no size in pixels.
    """
    names = list_labels(pictures)
    folder.mkdir(parents=True, exist_ok=True)
    listed = yaml.safe_dump({"names": dict(enumerate(names))}, allow_unicode=True)
    (folder / "data.yaml").write_text(listed, encoding="utf-8")
    for picture in pictures:
        if picture.size is None or picture.unit != "pixels":
            raise ValueError(f"{picture.name} has no size in pixels")
        file = folder / PurePosixPath(picture.name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            _format_line(names.index(i.label), i.box, picture.size)
            for i in picture.instances
            if i.box is not None and i.label
        ]
        file.write_text("".join(lines), encoding="utf-8")


def _format_line(number: int, box: Box, size: tuple[int, int]) -> str:
    height, width = size
    x, y = (box.left + box.right) / 2 / width, (box.top + box.bottom) / 2 / height
    return f"{number} {x!r} {y!r} {box.width / width!r} {box.height / height!r}\n"
