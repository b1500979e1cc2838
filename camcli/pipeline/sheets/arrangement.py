"""Decides which heatmap stands in which row and column of a sheet, and below which words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from camcli.errors import CamvizError
from camcli.pipeline.sheets.items import SheetItem
from camcli.records import Record
from camcli.render.colour_bar import ColourBar
from camcli.render.sheet_layout import Cell, Grid, Line, plan_grid

# what may tell two maps of a picture apart; the first one that does makes the columns
AXES: Mapping[str, Callable[[Record], object]] = {
    "model": lambda record: record.model,
    "layer": lambda record: record.layers,
    "method": lambda record: record.method,
    "class": lambda record: (record.category, record.label) if record.target else None,
}


@dataclass(frozen=True)
class Arrangement:
    """Rows of heatmaps, None for a place without one, and what makes the columns, if anything."""

    rows: tuple[tuple[SheetItem | None, ...], ...]
    axis: str
    # of the axes those that differ from row to row of one picture
    row_axes: tuple[str, ...]
    bar: ColourBar | None
    notes: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """How many cells stand side by side, with the original."""
        return plan_grid(1 + max((len(row) for row in self.rows), default=0))

    def list_rows(
        self, leave_out: Callable[[str], None] | None = None
    ) -> Iterator[list[Cell | None]]:
        """Draws the rows, one after the other: the original first, then its maps.

        A row of which a picture cannot be read is left out where `leave_out` takes the reason.
        """
        for row in self.rows:
            try:
                yield self._draw_row(row)
            except (CamvizError, MemoryError) as error:
                if leave_out is None:
                    raise
                leave_out(str(error))

    def _draw_row(self, row: Sequence[SheetItem | None]) -> list[Cell | None]:
        grid = self.grid
        first = next(item for item in row if item)
        lines = [part for line in self._describe_row(first.record) for part in grid.split(line)]
        return [
            Cell(grid.fit(first.draw_picture()), tuple(lines)),
            *(self._draw(item, grid) if item else None for item in row),
        ]

    def _draw(self, item: SheetItem, grid: Grid) -> Cell:
        first, *others = self._describe_column(item.record)
        if item.is_empty:
            first = replace(first, tail=f"{first.tail} (empty)".strip())
        lines = tuple(part for line in (first, *others) for part in grid.split(line))
        bar = None if self.bar else item.bar
        return Cell(grid.fit(item.draw()), lines, bar, tuple(_list_concepts(item.record)))

    def _describe_row(self, record: Record) -> tuple[Line, ...]:
        lines = [Line(PurePath(record.source).name or "picture")]
        if self.axis != "class" and (record.label or record.category is not None):
            lines.append(describe_class(record))
        lines += [Line(_name(axis, record)) for axis in self.row_axes if axis != "class"]
        return tuple(lines)

    def _describe_column(self, record: Record) -> tuple[Line, ...]:
        if record.compared_with:
            return (Line("difference"),)
        if self.axis == "class" and record.target:
            return (describe_class(record),)
        name = Line(_name(self.axis or "method", record))
        if self.axis == "model" and (tail := describe_class(record).tail):
            # each model is as sure of the class as it is
            return name, Line("", tail)
        return (name,)


def arrange(items: Sequence[SheetItem]) -> Arrangement:
    """Puts each picture in a row of its own, or several, and what differs in its columns."""
    pictures: dict[object, list[SheetItem]] = {}
    for item in items:
        pictures.setdefault(item.picture, []).append(item)
    varying = [axis for axis in AXES if any(_varies(axis, group) for group in pictures.values())]
    axis = varying[0] if varying else ""
    # classes differ from picture to picture, and their columns mean a rank
    columns = [] if axis in ("", "class") else list(dict.fromkeys(_get(axis, i) for i in items))
    rows = [
        row
        for group in pictures.values()
        for keyed in _list_rows(group, axis, has_layers="layer" in varying)
        for row in [_fill(keyed, axis, columns)]
    ]
    bar = _find_common_bar(items)
    return Arrangement(tuple(rows), axis, tuple(varying[1:]), bar, _list_notes(items, varying))


def _get(axis: str, item: SheetItem) -> object:
    return AXES[axis](item.record)


def _varies(axis: str, group: Sequence[SheetItem]) -> bool:
    """Tells whether maps of a picture differ in this; layers, whether those of one method do."""
    if axis != "layer":
        return len({_get(axis, item) for item in group} - {None}) > 1
    layers: dict[object, set[object]] = {}
    for item in group:
        key = item.record.model, item.record.method, _get("class", item)
        layers.setdefault(key, set()).add(_get(axis, item))
    return any(len(some) > 1 for some in layers.values())


def _list_rows(
    group: Sequence[SheetItem], axis: str, *, has_layers: bool
) -> Iterator[list[SheetItem]]:
    """Yields the maps of a picture that stand in one row."""
    # each method, or model, may have a layer of its own, which makes no row
    row_axes = [other for other in AXES if other != axis and (other != "layer" or has_layers)]
    rows: dict[tuple[object, ...], list[SheetItem]] = {}
    of_all_classes = []
    for item in group:
        if axis != "class" and _get("class", item) is None:
            of_all_classes.append(item)
            continue
        rows.setdefault(tuple(_get(other, item) for other in row_axes), []).append(item)
    for item in of_all_classes:
        # a method that asks no class has one map, which stands in the row of each
        own = [_get(other, item) for other in row_axes if other != "class"]
        place = row_axes.index("class")
        alike = [row for key, row in rows.items() if [*key[:place], *key[place + 1 :]] == own]
        if alike:
            for row in alike:
                row.append(item)
        else:
            rows.setdefault((*own, None), []).append(item)
    yield from rows.values()


def _fill(
    items: Sequence[SheetItem], axis: str, columns: Sequence[object]
) -> tuple[SheetItem | None, ...]:
    if not columns:
        return tuple(items)
    by_column: dict[object, SheetItem] = {}
    for item in items:
        by_column.setdefault(_get(axis, item), item)
    return tuple(by_column.get(column) for column in columns)


def _find_common_bar(items: Sequence[SheetItem]) -> ColourBar | None:
    """Returns the bar of all maps where several have the same one."""
    bars = [item.bar for item in items if item.shows_values]
    if len(bars) < 2 or not bars[0]:
        return None
    first = bars[0]
    ends = (first.low, first.high)
    if any(bar is None or (bar.low, bar.high) != ends for bar in bars):
        return None
    return first


def _list_notes(items: Sequence[SheetItem], varying: Sequence[str]) -> tuple[str, ...]:
    """Says at the foot what holds for all maps."""
    said = {}
    for axis in ("model", "method", "layer"):
        names = {_name(axis, item.record) for item in items}
        said[axis] = names.pop() if axis not in varying and len(names) == 1 else ""
    where = f"at {said['layer']}" if said["layer"] else ""
    how = " ".join(part for part in (said["method"], where) if part)
    note = ", ".join(part for part in (said["model"], how) if part)
    return (note,) if note else ()


def _name(axis: str, record: Record) -> str:
    if axis == "layer":
        return "+".join(record.layers)
    return record.model if axis == "model" else record.method


def _list_concepts(record: Record) -> Iterator[tuple[str, Line]]:
    """Yields the colour of each concept, and the class that it speaks for most."""
    for number, concept in enumerate(record.concepts, start=1):
        if concept.labels:
            words = concept.labels[0].split(",")[0]
            yield concept.colour, Line(words, f"{concept.probabilities[0]:.0%}")
        else:
            yield concept.colour, Line(f"concept {number}")


def describe_class(record: Record) -> Line:
    """Names a class by its first synonym, and behind it the probability, or the value."""
    label = record.label.split(",")[0]
    words = label or ("" if record.category is None else f"class {record.category}")
    if record.value is not None:
        return Line(words, f"{record.value:.4g}")
    return Line(words, "" if record.probability is None else f"{record.probability:.1%}")
