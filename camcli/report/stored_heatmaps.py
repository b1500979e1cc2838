"""Reads the heatmaps of a finished run back from its output folder, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camcli.errors import UsageError
from camcli.records import Box, Record
from camcli.runs import (
    WHOLE,
    average_cells,
    list_world_sizes,
    parse_record,
    read_manifest,
    unpack_map,
)

MAP_SUFFIX = ".npy"
LARGEST_MAP = 2**28  # bytes of a file of raw values: 8192 x 8192


@dataclass(frozen=True)
class StoredHeatmap:
    """A line of a manifest with its raw map [h w], None where it has none, on the model's view.

    `id` says which source it is of, wherever that was named from.
    """

    id: str
    record: Record
    values: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def picture(self) -> tuple[str, int | None]:
        """The source and the frame that it is of."""
        return self.id, self.record.frame

    @property
    def is_signed(self) -> bool:
        """Whether the map has two signs, both of which are drawn."""
        return self.record.is_signed

    @property
    def heat(self) -> NDArray[np.float32] | None:
        """What is drawn of the map [h w], from 0 on: of a signed one both signs; None without."""
        if self.values is None:
            return None
        return np.abs(self.values) if self.is_signed else np.maximum(self.values, 0)


def read_heatmaps(folder: Path) -> list[StoredHeatmap]:
    """Reads all heatmaps and failures of an output folder, in the order of its manifest.

    A picture that several runs name stands once, as the last of them wrote it.  Raises UsageError
    where there is no manifest, it holds nothing, or its shards are not joined.
    """
    manifest = folder / WHOLE
    if not manifest.is_file():
        raise UsageError(_explain_missing(folder))
    found = list(_read_lines(manifest, folder))
    if not found:
        raise UsageError(
            f"{str(manifest)!r} names no heatmap yet: run camviz with --save-path {folder} first."
        )
    return _keep_last(found)


def _keep_last(found: Sequence[StoredHeatmap]) -> list[StoredHeatmap]:
    """Leaves out the lines of a picture that a later run wrote again, since it is the same one."""
    keys = [
        (stored.id, stored.record.recipe) if stored.record.recipe else n
        for n, stored in enumerate(found)
    ]
    last = {key: n for n, key in enumerate(keys)}
    return [stored for n, stored in enumerate(found) if last[keys[n]] == n]


def _explain_missing(folder: Path) -> str:
    if not folder.is_dir():
        return f"There is no folder {str(folder)!r}: name one that camviz wrote heatmaps into."
    if list_world_sizes(folder):
        return f"{str(folder)!r} holds shards of a run: join them first (camviz merge {folder})."
    return (
        f"{str(folder)!r} holds no {WHOLE}: name the output folder of a run (camviz IMAGE... "
        "--save-path FOLDER)."
    )


def _read_lines(manifest: Path, folder: Path) -> Iterator[StoredHeatmap]:
    for line in read_manifest(manifest):
        record = parse_record(line, folder)
        # the last line of a video only says how it ended
        if record.error or record.method:
            yield StoredHeatmap(str(line["id"]), record, _read_values(record))


def _read_values(record: Record) -> NDArray[np.float32] | None:
    """Returns a record's map, else that of a file beside its overlay (--save-map)."""
    if record.map is not None:
        with suppress(ValueError, TypeError):
            return unpack_map(record.map)
    for output in record.outputs:
        if output.endswith(MAP_SUFFIX):
            return _read_file(Path(output), record)
    return None


def _read_file(path: Path, record: Record) -> NDArray[np.float32] | None:
    """Reads a file of raw values, averaged to a thumbnail's size; None where that cannot be."""
    try:
        # a device or a pipe would be read for ever
        if not path.is_file() or path.stat().st_size > LARGEST_MAP:
            return None
        values = np.load(path, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError, EOFError, TypeError):
        return None
    if values.ndim == 2 and record.view and values.shape == record.picture_size:
        values = _cut_view(values, record.view)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        return None
    return average_cells(values).astype(np.float32)


def _cut_view(values: NDArray[np.float64], view: Box) -> NDArray[np.float64]:
    """Cuts out what the network saw of a map at the picture's size, which is NaN outside."""
    height, width = values.shape
    rows = slice(max(round(view.top), 0), min(round(view.bottom), height))
    columns = slice(max(round(view.left), 0), min(round(view.right), width))
    inside = values[rows, columns]
    # the outermost pixels may be counted in or out by half of their width
    seen = np.isfinite(inside)
    return inside[seen.any(1)][:, seen.any(0)] if seen.any() else inside
