"""Boxes in CSV files: Open Images', and tables with one box a line.

Open Images has `XMin,XMax,YMin,YMax` in shares of the picture.  Other tables have edges in pixels,
`xmin,ymin,xmax,ymax` (the last ones outside), or `x,y,width,height`; their upper left corner is 0.
Without a first line of names, a line is `path,left,top,right,bottom`, as the localisation lists of
arXiv:2007.04178 have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from camcli.errors import AnnotationError, find_closest
from camcli.media.annotations.files import (
    Fault,
    group_by_name,
    list_texts,
    name_some,
    parse_numbers,
    read_rows,
)
from camcli.media.annotations.values import (
    Annotations,
    Instance,
    PictureAnnotations,
    Unit,
    list_labels,
)
from camcli.records import Box

SHARES = ("XMin", "YMin", "XMax", "YMax")
# spellings of the columns, in lower case
EDGES = (("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"))
EDGE_WORDS = ("left", "top", "right", "bottom")
CORNER_AND_SIZE = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
PICTURES = ("imageid", "image_id", "path", "filename", "file_name", "file", "image", "picture")
LABELS = ("labelname", "label", "class", "class_name", "category", "name")
CROWD = "IsGroupOf"
DESCRIPTIONS = ("class-descriptions*.csv", "oidv*-class-descriptions*.csv")


def read_table(path: Path, names: Path | None = None) -> Annotations:
    """Reads boxes out of a CSV file; a line that holds none is left out, with a note.

    `names` says what Open Images' labels (`/m/01yrx`) mean, a `label,name` a line; left out, a
    `class-descriptions*.csv` in the same folder is taken.  Raises AnnotationError.
    """
    header, rows = read_rows(path)
    columns = _find_columns(header, path)
    if columns is None:
        columns, rows = _Columns.without_header(), [(1, header), *rows]
    meanings, faults = _read_meanings(path, names) if columns.is_open_images else ({}, [])
    instances: dict[int, Instance] = {}
    cells_of = dict(rows)
    for number, cells in rows:
        try:
            instances[number] = columns.instance(cells, meanings)
        except ValueError as error:
            faults.append(Fault(f"{path}, line {number}", str(error)))
    named = ((cells_of[number][columns.picture], number) for number in instances)
    pictures = tuple(
        PictureAnnotations(
            name,
            tuple(instances[line] for line in lines),
            unit=columns.unit,
            where=f"{path}, line {lines[0]}",
        )
        for name, lines in group_by_name(named)
    )
    return Annotations(pictures, list_labels(pictures), list_texts(faults))


class _Columns:
    """Where a table has its pictures, labels and edges, and what these are."""

    def __init__(
        self,
        picture: int,
        label: int | None,
        edges: Sequence[int],
        box: Callable[[Sequence[float]], Box],
        crowd: int | None = None,
        *,
        unit: Unit = "pixels",
    ) -> None:
        self.picture, self.label, self.edges, self.box = picture, label, tuple(edges), box
        self.crowd, self.unit = crowd, unit

    @classmethod
    def without_header(cls) -> _Columns:
        """Returns those of a list of `path,left,top,right,bottom`."""
        return cls(0, None, (1, 2, 3, 4), _make_box_of_edges)

    @property
    def is_open_images(self) -> bool:
        """Whether its labels are codes with a file of names."""
        return self.unit == "shares"

    def instance(self, cells: Sequence[str], meanings: Mapping[str, str]) -> Instance:
        """Reads a line; raises ValueError."""
        last = max(self.picture, self.label or 0, *self.edges)
        if len(cells) <= last:
            raise ValueError(f"it has {len(cells)} values, and {last + 1} are needed")
        if not cells[self.picture]:
            raise ValueError("it names no picture")
        label = "" if self.label is None else cells[self.label]
        if meanings and label not in meanings:
            raise ValueError(f"no name is known of the label {label!r}")
        box = self.box(parse_numbers([cells[edge] for edge in self.edges]))
        is_crowd = self.crowd is not None and cells[self.crowd : self.crowd + 1] == ["1"]
        return Instance(meanings.get(label, label), box, is_crowd=is_crowd)


def _make_box_of_edges(values: Sequence[float]) -> Box:
    left, top, right, bottom = values
    return Box(left, top, right, bottom)


def _make_box_of_corner(values: Sequence[float]) -> Box:
    left, top, width, height = values
    return Box(left, top, left + width, top + height)


def _find_columns(header: Sequence[str], path: Path) -> _Columns | None:
    """Finds the columns by their names; None for a first line that is a box itself."""
    lower = [cell.lower() for cell in header]
    picture = next((lower.index(name) for name in PICTURES if name in lower), None)
    label = next((lower.index(name) for name in LABELS if name in lower), None)
    if picture is None and _is_box(header):
        return None
    if picture is None:
        near = next((cell for cell in header if find_closest(cell, PICTURES)), None)
        also = f" Closest: {near!r}." if near else ""
        raise AnnotationError(
            f"{path} has no column of pictures, such as {name_some(PICTURES)}: its first line is "
            f"{','.join(header)!r}.{also}"
        )
    if set(SHARES) <= set(header):
        crowd = header.index(CROWD) if CROWD in header else None
        edges = [header.index(name) for name in SHARES]
        return _Columns(picture, label, edges, _make_box_of_edges, crowd, unit="shares")
    for names in (*EDGES, EDGE_WORDS):
        if set(names) <= set(lower):
            return _Columns(picture, label, [lower.index(n) for n in names], _make_box_of_edges)
    for names in CORNER_AND_SIZE:
        if set(names) <= set(lower):
            return _Columns(picture, label, [lower.index(n) for n in names], _make_box_of_corner)
    raise AnnotationError(
        f"{path} has no columns of a box: its first line is {','.join(header)!r}. Name them "
        "xmin,ymin,xmax,ymax or x,y,width,height."
    )


def _is_box(cells: Sequence[str]) -> bool:
    try:
        return len(parse_numbers(cells[1:5])) == 4
    except ValueError:
        return False


def _read_meanings(path: Path, names: Path | None) -> tuple[dict[str, str], list[Fault | str]]:
    near = (file for pattern in DESCRIPTIONS for file in sorted(path.parent.glob(pattern)))
    file = names or next(near, None)
    if file is None:
        return {}, [
            f"{path.parent} has no class-descriptions*.csv that names the labels: they are called "
            "by their codes"
        ]
    first, rows = read_rows(file)
    return {cells[0]: cells[1] for _, cells in [(1, first), *rows] if len(cells) > 1}, []
