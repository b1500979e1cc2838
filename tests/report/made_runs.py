"""Output folders as runs leave them, written without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.records import Box, Record, Source
from camcli.report.stored_heatmaps import StoredHeatmap
from camcli.runs import Counts, Manifest, RunInfo, describe_map, pack_map

SIZE = (48, 64)  # height and width of the pictures
VIEW = Box(8, 0, 56, 48)


@dataclass(frozen=True)
class Made:
    """A heatmap to be written: what its record says, and its map, None for a failure."""

    name: str
    values: NDArray[np.float32] | None
    fields: dict[str, Any]


def spot(row: int, column: int, size: int = 7) -> NDArray[np.float32]:
    """A map that is hot in one cell, and a little beside it."""
    rows, columns = np.mgrid[:size, :size]
    far = np.hypot(rows - row, columns - column)
    return np.exp(-(far**2) / 1.5).astype(np.float32)


def made(name: str, values: NDArray[np.float32] | None, **fields: Any) -> Made:
    defaults: dict[str, Any] = {
        "method": "gradcam", "layers": ("layer4",), "category": 1, "label": "tabby, tabby cat",
        "probability": 0.75, "rank": 1, "target": "logit", "model": "resnet18",
    }  # fmt: skip
    return Made(name, values, defaults | fields)


def failed(name: str, why: str = "it is no image") -> Made:
    return Made(name, None, {"error": why})


def record_of(one: Made, source: Source, outputs: Sequence[Path] = ()) -> Record:
    fields: dict[str, Any] = {"source": str(source), **one.fields}
    if one.values is not None:
        fields = {
            "picture_size": SIZE,
            "view": VIEW,
            "map": pack_map(one.values),
            "statistics": describe_map(one.values, VIEW, SIZE),
            **fields,
        }
    return Record(outputs=tuple(map(str, outputs)), **fields)


def stored(one: Made) -> StoredHeatmap:
    """A heatmap as it is read back."""
    return StoredHeatmap(one.name, record_of(one, Source(Path(one.name))), one.values)


def write_picture(path: Path, colour: tuple[int, int, int] = (90, 120, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], colour).save(path)


def write_run(
    folder: Path, items: Sequence[Made], *, overlays: bool = False, **configuration: Any
) -> Path:
    """Writes a run of pictures in the folder `in` beside the output folder; returns the latter."""
    place = folder / "in"
    by_name: dict[str, list[Made]] = {}
    for one in items:
        by_name.setdefault(one.name, []).append(one)
    out = folder / "out"
    run = RunInfo({"colormap": "jet", "alpha": 0.5, **configuration})
    with Manifest.open(out, run, "new") as manifest:
        for name, own in by_name.items():
            source = Source(place / name)
            if own[0].values is not None:
                write_picture(source.path)
            outputs = []
            if overlays:
                for number, _ in enumerate(own):
                    overlay = manifest.place(out / f"{Path(name).stem}_{number}.png", source)
                    write_picture(overlay, (200, 0, 0))
                    outputs.append([overlay])
            files = outputs or [[] for _ in own]
            records = [record_of(one, source, f) for one, f in zip(own, files, strict=True)]
            manifest.append(source, records)
        manifest.finish(Counts(len(by_name), len(items)))
    return out
