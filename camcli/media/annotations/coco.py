"""COCO's JSON: `images`, `annotations` and `categories` in one file.

A box is x, y, width, height in pixels from the upper left corner, counted from 0 (half-open), as
cocodataset.org's data format says.  An outline is polygons, or run lengths (counts as numbers or
compressed).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camcli.errors import AnnotationError
from camcli.media.annotations.files import Fault, list_texts, read_file
from camcli.media.annotations.outlines import Bitmap, Outline, Polygons, RunLengths, compress
from camcli.media.annotations.values import Annotations, Instance, PictureAnnotations, list_labels
from camcli.records import Box


def read_coco(path: Path) -> Annotations:
    """Reads COCO's JSON; raises AnnotationError where the file as a whole is none.

    An annotation of an unknown picture or category, without a box, or with a wrong outline is left
    out, with a note.
    """
    data = _parse_json(path)
    reading = _Reading(path, _index_by_id(data["categories"], "name"))
    images = {image.get("id"): image for image in data["images"]}
    by_image: dict[Any, list[Instance]] = defaultdict(list)
    for item in data["annotations"]:
        where = f"{path}, annotation {item.get('id')}"
        if item.get("image_id") not in images:
            what = f"no image has the id {item.get('image_id')!r}"
            reading.faults.append(Fault(where, what))
            continue
        try:
            by_image[item["image_id"]].append(reading.instance(item, images[item["image_id"]]))
        except (ValueError, TypeError) as error:
            reading.faults.append(Fault(where, str(error)))
    pictures = tuple(
        PictureAnnotations(
            str(image.get("file_name", key)),
            tuple(by_image[key]),
            _find_size(image),
            where=f"{path}, image {key}",
        )
        for key, image in images.items()
    )
    return Annotations(pictures, tuple(reading.names.values()), list_texts(reading.faults))


@dataclass
class _Reading:
    """A file while it is read: its categories by id, and what was left out."""

    path: Path
    names: Mapping[Any, str]
    faults: list[Fault] = field(default_factory=list)

    def instance(self, item: Mapping[str, Any], image: Mapping[str, Any]) -> Instance:
        """Reads an annotation; raises ValueError or TypeError for what is none."""
        category = item.get("category_id")
        if category not in self.names:
            raise ValueError(f"no category has the id {category!r}")
        outline = _parse_outline(item.get("segmentation"), _find_size(image))
        is_crowd = bool(item.get("iscrowd", 0))
        return Instance(self.names[category], _parse_box(item, outline), outline, is_crowd)


def _parse_json(path: Path) -> Mapping[str, list[Mapping[str, Any]]]:
    try:
        data = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is no JSON: {error}.") from error
    keys = ("images", "annotations", "categories")
    known = data if isinstance(data, dict) else {}
    missing = [key for key in keys if not _is_list_of_objects(known.get(key))]
    if missing:
        raise AnnotationError(
            f"{path} is no COCO file: it has no list {missing[0]!r} of objects. COCO's JSON holds "
            f"{', '.join(keys)}."
        )
    return known


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _index_by_id(items: Sequence[Mapping[str, Any]], key: str) -> dict[Any, str]:
    return {item.get("id"): str(item.get(key, item.get("id"))) for item in items}


def _find_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _parse_box(item: Mapping[str, Any], outline: Outline | None) -> Box | None:
    given = item.get("bbox")
    if not given:
        if outline is None:
            raise ValueError("it has neither a bbox nor a segmentation")
        return outline.box
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"its bbox is {given!r}, and not x, y, width, height")
    x, y, width, height = (v if isinstance(v, int) else float(v) for v in given)
    return Box(x, y, x + width, y + height)


def _parse_outline(given: Any, size: tuple[int, int] | None) -> Outline | None:
    if not given:
        return None
    if isinstance(given, list):
        parts = tuple(tuple(map(float, part)) for part in given if isinstance(part, list))
        if len(parts) != len(given) or any(len(part) < 6 or len(part) % 2 for part in parts):
            raise ValueError("its segmentation is no list of polygons x y x y x y ...")
        return Polygons(parts)
    if not isinstance(given, dict) or not {"counts", "size"} <= given.keys():
        raise ValueError("its segmentation is neither polygons nor run lengths with a size")
    height, width = map(int, given["size"])
    if size is not None and size != (height, width):
        raise ValueError(f"its mask has {width} x {height} pixels, its image {size[1]} x {size[0]}")
    return RunLengths.parse(given["counts"], (height, width))


def write_coco(pictures: Sequence[PictureAnnotations], path: Path) -> None:
    """Writes objects in pixels as COCO's JSON, which `read_coco` reads back equal.

    Outlines are polygons or compressed run lengths; a bitmap is written as run lengths.  Raises
    OSError, or ValueError for what has no size in pixels.
    """
    names = list_labels(pictures)
    numbers = {name: number for number, name in enumerate(names, 1)}
    data = {
        "images": [_describe_image(number, picture) for number, picture in enumerate(pictures, 1)],
        "annotations": list(_list_annotations(pictures, numbers)),
        "categories": [{"id": numbers[name], "name": name} for name in names],
    }
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _describe_image(number: int, picture: PictureAnnotations) -> Mapping[str, Any]:
    if picture.size is None or picture.unit != "pixels":
        raise ValueError(f"{picture.name} has no size in pixels")
    height, width = picture.size
    return {"id": number, "file_name": picture.name, "width": width, "height": height}


def _list_annotations(
    pictures: Sequence[PictureAnnotations], numbers: Mapping[str, int]
) -> Iterator[Mapping[str, Any]]:
    boxed = (
        (image, instance, instance.box)
        for image, picture in enumerate(pictures, 1)
        for instance in picture.instances
        if instance.box is not None and instance.label
    )
    for number, (image, instance, box) in enumerate(boxed, 1):
        item: dict[str, Any] = {
            "id": number,
            "image_id": image,
            "category_id": numbers[instance.label],
            "bbox": [box.left, box.top, box.width, box.height],
            "area": box.width * box.height,
            "iscrowd": int(instance.is_crowd),
        }
        yield item | (
            {"segmentation": _encode_outline(instance.outline)} if instance.outline else {}
        )


def _encode_outline(outline: Outline) -> Any:
    if isinstance(outline, Polygons):
        return [list(part) for part in outline.parts]
    runs = RunLengths.from_mask(outline.values) if isinstance(outline, Bitmap) else outline
    return {"size": list(runs.size), "counts": compress(runs.counts)}
