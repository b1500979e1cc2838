"""What annotations say of pictures: objects with a class, a box and an outline.

A box is in pixels from the picture's upper left corner, `left` and `top` inside and `right` and
`bottom` outside (half-open): a picture of w pixels has edges from 0 to w.  Some formats give shares
of the picture instead, and become pixels when the picture's size is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import isfinite
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from camcli.errors import UsageError
from camcli.media.annotations.outlines import Bitmap, Outline, Polygons, RunLengths
from camcli.records import Box

Size: TypeAlias = tuple[int, int]  # height, width
Mask: TypeAlias = NDArray[np.bool_]  # [h w]
Unit = Literal["pixels", "shares"]

MOST_BEYOND = 1.0  # pixels: a box that reaches further out of its picture is warned of
DIGITS = 6  # of a pixel, that shares are rounded to: what was written as a whole number is one


@dataclass(frozen=True)
class Instance:
    """An object in a picture: its class's name, its box, and its outline where the file has one.

    A label of a whole picture has neither.  `is_crowd` marks a box around many (COCO's `iscrowd`,
    Open Images' `IsGroupOf`).  An empty label is an object of no known class.
    """

    label: str
    box: Box | None = None
    outline: Outline | None = None
    is_crowd: bool = False


@dataclass(frozen=True)
class PictureAnnotations:
    """What a file says of one picture: its name there, its objects, and its size where it is told.

    `where` is the place that a fault is told by: a file, or a file and a line.
    """

    name: str
    instances: tuple[Instance, ...]
    size: Size | None = None
    unit: Unit = "pixels"
    where: str = ""

    def in_pixels(self, size: Size) -> tuple[PictureAnnotations, tuple[str, ...]]:
        """Returns the objects in pixels of the picture of this size, and what was left out or cut.

        A box is cut at the picture's edges, with a note where it reaches more than a pixel beyond;
        one that is empty or wholly outside is left out.  Raises UsageError where the annotations
        are of another size.

        >>> from camcli.records import Box
        >>> cat = Instance("cat", Box(0.25, 0, 0.5, 1))
        >>> shares = PictureAnnotations("a.jpg", (cat,), unit="shares")
        >>> shares.in_pixels((10, 40))[0].instances[0].box
        Box(left=10.0, top=0, right=20.0, bottom=10)
        """
        if self.size is not None and self.size != size:
            raise UsageError(_explain_size(self, size))
        kept, notes = [], []
        for instance in self.instances:
            placed, note = _place_instance(instance, self.unit, size)
            if placed is not None:
                kept.append(placed)
            if note:
                notes.append(f"{self.where or self.name}: {note}")
        return replace(self, instances=tuple(kept), size=size, unit="pixels"), tuple(notes)

    def masks(self, labels: Iterable[str] | None = None) -> tuple[Mask, Mask]:
        """Draws the objects of some classes (all, where left out), and those that are crowds.

        -> bool [h w] each.  An object without an outline is its box: the pixels whose centres lie
        in it.  Raises UsageError where the size is not known yet: ask `in_pixels` first.
        """
        if self.size is None or self.unit != "pixels":
            raise UsageError(f"The annotations of {self.name!r} have no size in pixels yet.")
        names = None if labels is None else set(labels)
        objects, crowds = np.zeros(self.size, bool), np.zeros(self.size, bool)
        for instance in self.instances:
            if names is None or instance.label in names:
                mask = crowds if instance.is_crowd else objects
                mask |= draw_instance(instance, self.size)
        return objects, crowds

    def boxes(self, labels: Iterable[str] | None = None) -> NDArray[np.float64]:
        """Lists the boxes of some classes' objects that are no crowds, of all where left out.

        -> [n 4]: left, top, right, bottom
        """
        names = None if labels is None else set(labels)
        rows = [
            (i.box.left, i.box.top, i.box.right, i.box.bottom)
            for i in self.instances
            if i.box is not None and not i.is_crowd and (names is None or i.label in names)
        ]
        return np.array(rows, np.float64).reshape(-1, 4)


@dataclass(frozen=True)
class Annotations:
    """What files say of many pictures, the classes' names in their order, and what was left out."""

    pictures: tuple[PictureAnnotations, ...]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __iter__(self) -> Iterator[PictureAnnotations]:
        return iter(self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def digest(self) -> str:
        """Twelve hex digits that stand for all objects, in whatever files they are written."""
        whole = sha256()
        for picture in self.pictures:
            whole.update(repr((picture.name, picture.size, picture.unit)).encode())
            for instance in picture.instances:
                whole.update(repr((instance.label, instance.box, instance.is_crowd)).encode())
                if isinstance(instance.outline, Bitmap):
                    whole.update(np.packbits(instance.outline.values).tobytes())
                else:
                    whole.update(repr(instance.outline).encode())
        return whole.hexdigest()[:12]


def list_labels(pictures: Iterable[PictureAnnotations]) -> tuple[str, ...]:
    """Lists the names of the classes that occur, each once, in the order of the alphabet."""
    return tuple(sorted({i.label for p in pictures for i in p.instances if i.label}))


def draw_instance(instance: Instance, size: Size) -> Mask:
    """Draws the pixels whose centres lie in an object's outline, or in its box.  -> bool [h w]"""
    if instance.outline is not None:
        return instance.outline.draw(size)
    return np.zeros(size, bool) if instance.box is None else draw_box(instance.box, size)


def draw_box(box: Box, size: Size) -> Mask:
    """Draws the pixels whose centres lie in a box.  -> bool [h w]

    >>> from camcli.records import Box
    >>> draw_box(Box(1, 0, 3, 1), (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    y, x = (np.arange(edge) + 0.5 for edge in size)
    rows, columns = (y >= box.top) & (y < box.bottom), (x >= box.left) & (x < box.right)
    return np.asarray(rows[:, None] & columns)


def _explain_size(annotations: PictureAnnotations, size: Size) -> str:
    annotated, actual = (f"{s[1]} x {s[0]}" for s in (annotations.size or (0, 0), size))
    turned = annotations.size == size[::-1]
    hint = (
        "it is turned by its EXIF orientation; annotate the upright picture"
        if turned
        else "annotate this picture, or give the one that was annotated"
    )
    return (
        f"{annotations.where or annotations.name} is of a picture of {annotated} pixels, and "
        f"this one has {actual}: {hint}."
    )


def _place_instance(instance: Instance, unit: Unit, size: Size) -> tuple[Instance | None, str]:
    """Returns an object in pixels, inside the picture, and what is to be said of it."""
    box, outline = instance.box, instance.outline
    if unit == "shares":
        box = _scale_box(box, size) if box is not None else None
        outline = outline.scale_to(size) if isinstance(outline, Polygons) else outline
    if isinstance(outline, RunLengths | Bitmap) and outline.size != size:
        note = (
            f"the mask of {_name_instance(instance)} has {outline.size[1]} x {outline.size[0]}"
            f" pixels, and the picture {size[1]} x {size[0]}; it is left out"
        )
        return None, note
    if box is None:
        return replace(instance, outline=outline), ""
    cut = _crop_box(box, size)
    if cut is None:
        name, fault = _name_instance(instance), _explain_box(box)
        return None, f"the box of {name}, {_format_box(box)}, {fault}; it is left out"
    over = max(cut.left - box.left, cut.top - box.top, box.right - cut.right)
    over = max(over, box.bottom - cut.bottom)
    note = (
        f"the box of {_name_instance(instance)}, {_format_box(box)}, reaches {over:g} pixels out of"
        f" its picture of {size[1]} x {size[0]}; it is cut at the edge"
    )
    return replace(instance, box=cut, outline=outline), note if over > MOST_BEYOND else ""


def _explain_box(box: Box) -> str:
    if not all(map(isfinite, (box.left, box.top, box.right, box.bottom))):
        return "has an edge that is no number"
    is_empty = box.width <= 0 or box.height <= 0
    return "holds nothing" if is_empty else "lies outside its picture"


def _name_instance(instance: Instance) -> str:
    return repr(instance.label) if instance.label else "an object"


def _format_box(box: Box) -> str:
    edges: Sequence[float] = (box.left, box.top, box.right, box.bottom)
    return ", ".join(f"{edge:g}" for edge in edges)


def _scale_box(box: Box, size: Size) -> Box:
    height, width = size
    return Box(
        round(box.left * width, DIGITS),
        round(box.top * height, DIGITS),
        round(box.right * width, DIGITS),
        round(box.bottom * height, DIGITS),
    )


def _crop_box(box: Box, size: Size) -> Box | None:
    """Returns the part of a box that lies in the picture, if there is one."""
    height, width = size
    if not all(map(isfinite, (box.left, box.top, box.right, box.bottom))):
        return None
    cut = Box(max(box.left, 0), max(box.top, 0), min(box.right, width), min(box.bottom, height))
    return cut if cut.width > 0 and cut.height > 0 else None
