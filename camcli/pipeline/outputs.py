"""Explanations to files and records, and where the files stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.config import Options
from camcli.errors import CamvizError, ImageError, UsageError
from camcli.media.write import (
    PICTURE_SUFFIXES,
    check_writable,
    output_name,
    picture_format,
    write_map,
    write_picture,
)
from camcli.pipeline.explanation import Explanation, why_empty
from camcli.pipeline.keeping import Kept, is_file
from camcli.pipeline.plan import Plan
from camcli.records import Picture, Record, Source
from camcli.registry import ALL
from camcli.render.sheet import contact_sheet
from camcli.stages import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# what stands beside an overlay has its name, and behind it
PIXELS, MAP = ".pixels.png", ".npy"


def check_outputs(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    """Raises UsageError or OutputError where outputs would collide or cannot be written."""
    if is_file(options.save_path):
        _check_single_file(sources, todo, options)
        check_writable(options.save_path.parent)
    else:
        _check_distinct_files(sources, todo, options)
        check_writable(options.save_path)


def _check_single_file(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    count = len(sources) * todo.overlays_per_picture
    kind = picture_format(options.save_path)
    if options.format and PICTURE_SUFFIXES[f".{options.format}"] != kind:
        raise UsageError(
            f"--save-path {options.save_path} and --format {options.format} name two formats: "
            "give one of them."
        )
    if count > 1:
        raise UsageError(
            f"--save-path {options.save_path} is one file, but {count} pictures are to be "
            "written: name a folder."
        )
    if any(_is_same_file(options.save_path, source.path) for source in sources):
        raise UsageError(
            f"--save-path {options.save_path} is the picture itself, which would be lost: "
            "name another file, or a folder."
        )


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _check_distinct_files(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    written = [
        (_output(s, Record(str(s), method="m"), (), todo, options), s.category) for s in sources
    ]
    names = Counter(written)
    if len(names) < len(written):
        same = [str(s) for s, name in zip(sources, written, strict=True) if names[name] > 1]
        raise UsageError(
            f"{' and '.join(same[:2])} would write the same files: name the folder that holds "
            "them, or use a --save-path for each."
        )


def _output(
    source: Source, record: Record, layers: Sequence[str], todo: Plan, options: Options
) -> Path:
    layer = layers[0] if len(layers) == 1 and options.layer_fusion == "none" else None
    name = output_name(
        source,
        record.method,
        record.category,
        record.label,
        format=options.format,
        layer=layer,
        target=todo.request.target.mark if record.target else "",
    )
    return options.save_path / name


def source_of(picture: Picture) -> Source:
    """Returns where a picture comes from; one that Python made has a name only."""
    return picture.source or Source(Path("picture"))


@dataclass(frozen=True)
class Writer:
    """Writes what was found in pictures, each output where it overwrites nobody else's."""

    todo: Plan
    options: Options
    kept: Kept

    def written(self, explanations: Sequence[Explanation]) -> Iterator[Record]:
        """Writes what was found in one picture: a record for each heatmap; raises OutputError.

        A heatmap that cannot be drawn, or held by its format, has the reason in its record.
        """
        if self.todo.on_sheets:
            yield from self._on_sheets(explanations)
            return
        for explanation in explanations:
            yield self._written(explanation)

    def _written(self, explanation: Explanation) -> Record:
        path = self._place(explanation, explanation.record)
        try:
            write_picture(explanation.overlay(self.options.alpha, self.options.colormap), path)
            outputs = (str(path), *self._besides(explanation, path))
        except (ImageError, MemoryError) as error:
            return replace(explanation.record, error=why(error, path))
        return replace(explanation.record, outputs=outputs)

    def _place(self, explanation: Explanation, record: Record) -> Path:
        if is_file(self.options.save_path):
            return self.options.save_path
        source = source_of(explanation.picture)
        layers = record.layers if len(self.todo.request.layers) > 1 else ()
        path = _output(source, record, layers, self.todo, self.options)
        return self.kept.place(path, source, *self._endings(explanation))

    def _endings(self, explanation: Explanation) -> Iterator[str]:
        """Yields the endings of what stands beside an overlay."""
        if "pixels" in explanation.details:
            yield PIXELS
        if self.options.save_map:
            yield MAP

    def _besides(self, explanation: Explanation, path: Path) -> Iterator[str]:
        """Writes what stands beside an overlay."""
        for ending in self._endings(explanation):
            beside = path.with_name(path.name + ending)
            if ending == PIXELS:
                # without loss: single pixels count here
                write_picture(explanation.pixels(), beside)
            else:
                write_map(explanation.sized_map(self.options.map_size), beside)
            yield str(beside)

    def _on_sheets(self, explanations: Sequence[Explanation]) -> Iterator[Record]:
        """Draws a class's heatmaps on one sheet; those that ask no class stand on every sheet."""
        classes = dict.fromkeys(e.category for e in explanations if e.record.target)
        recorded: set[tuple[str, ...]] = set()
        for category in classes or [explanations[0].category]:
            shown = [e for e in explanations if e.category == category or not e.record.target]
            shown.sort(key=lambda e: self.todo.request.methods.index(e.method))
            about = next((e for e in shown if e.record.target), shown[0])
            path = self._place(about, replace(about.record, method=ALL, layers=()))
            try:
                write_picture(_sheet(about, shown, self.options), path)
            except (ImageError, MemoryError) as error:
                yield replace(about.record, method=ALL, error=why(error, path))
                continue
            for explanation in shown:
                key = (explanation.method, *explanation.map.layers)
                if explanation.record.target or key not in recorded:
                    recorded.add(key)
                    own = self._place_beside(explanation, path)
                    outputs = tuple(self._besides(explanation, own))
                    yield replace(explanation.record, sheet=str(path), outputs=outputs)

    def _place_beside(self, explanation: Explanation, sheet: Path) -> Path:
        """Names what stands beside a sheet for one of its heatmaps."""
        if not is_file(self.options.save_path):
            return self._place(explanation, explanation.record)
        layer = ".".join(explanation.map.layers) if self.options.layer_fusion == "none" else None
        return sheet.parent / output_name(
            Source(Path(sheet.name)), explanation.method, None, "", layer=layer
        )


def why(error: CamvizError | MemoryError, path: Path) -> str:
    """Says why a picture is missing."""
    if isinstance(error, MemoryError):
        return f"{str(path)!r} does not fit into memory."
    return str(error)


@stage("draw")
def _sheet(about: Explanation, shown: Sequence[Explanation], options: Options) -> NDArray[np.uint8]:
    percent = "" if about.probability is None else f" {about.probability:.1%}"
    tiles = [(f"{about.label}{percent}", about.picture.pixels)]
    for e in shown:
        layer = f" {e.map.layers[0]}" if options.layer_fusion == "none" and e.map.layers else ""
        empty = " (empty)" if any(why_empty(e.heatmap)) else ""
        # pixels say more than the map that is made of them
        drawn = e.pixels() if "pixels" in e.details else e.overlay(options.alpha, options.colormap)
        tiles.append((f"{e.method}{layer}{empty}", drawn))
    return contact_sheet(tiles)
