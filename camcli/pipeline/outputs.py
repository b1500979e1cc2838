"""Explanations to files and records, and where the files stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.config import Options
from camcli.errors import ImageError, UsageError
from camcli.media.sources import IMAGE_SUFFIXES
from camcli.media.write import (
    PICTURE_SUFFIXES,
    check_writable,
    output_name,
    picture_format,
    write_map,
    write_picture,
)
from camcli.pipeline.explanation import Explanation, why_empty
from camcli.pipeline.plan import Plan
from camcli.records import Picture, Record, Source
from camcli.registry import ALL
from camcli.render.sheet import contact_sheet
from camcli.stages import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def check_outputs(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    """Raises UsageError or OutputError where outputs would collide or cannot be written."""
    if _is_file(options.save_path):
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
    written = [_output(s, Record(str(s), method="m"), (), todo, options) for s in sources]
    names = Counter(written)
    if len(names) < len(written):
        same = [str(s) for s, name in zip(sources, written, strict=True) if names[name] > 1]
        raise UsageError(
            f"{' and '.join(same[:2])} would write the same files: name the folder that holds "
            "them, or use a --save-path for each."
        )


def _is_file(save_path: Path) -> bool:
    return save_path.suffix.lower() in IMAGE_SUFFIXES


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


def _place(explanation: Explanation, record: Record, todo: Plan, options: Options) -> Path:
    if _is_file(options.save_path):
        return options.save_path
    source = source_of(explanation.picture)
    layers = record.layers if len(todo.request.layers) > 1 else ()
    return _output(source, record, layers, todo, options)


def written(explanations: Sequence[Explanation], todo: Plan, options: Options) -> Iterator[Record]:
    """Writes what was found in one picture: a record for each heatmap; raises OutputError.

    A heatmap that cannot be drawn, or held by its format, has the reason in its record.
    """
    if todo.on_sheets:
        yield from _on_sheets(explanations, todo, options)
        return
    for explanation in explanations:
        yield _written(explanation, todo, options)


def _written(explanation: Explanation, todo: Plan, options: Options) -> Record:
    path = _place(explanation, explanation.record, todo, options)
    try:
        write_picture(explanation.overlay(options.alpha, options.colormap), path)
        outputs = (str(path), *_besides(explanation, path, options))
    except (ImageError, MemoryError) as error:
        return replace(explanation.record, error=why(error, path))
    return replace(explanation.record, outputs=outputs)


def why(error: ImageError | MemoryError, path: Path) -> str:
    """Says why a picture is missing."""
    if isinstance(error, MemoryError):
        return f"{str(path)!r} does not fit into memory."
    return str(error)


def _besides(explanation: Explanation, path: Path, options: Options) -> Iterator[str]:
    """Writes what stands beside an overlay."""
    if "pixels" in explanation.details:
        # without loss: single pixels count here
        pixels_path = path.with_name(path.name + ".pixels.png")
        write_picture(explanation.pixels(), pixels_path)
        yield str(pixels_path)
    if options.save_map:
        map_path = path.with_name(path.name + ".npy")
        write_map(explanation.sized_map(options.map_size), map_path)
        yield str(map_path)


def _on_sheets(
    explanations: Sequence[Explanation], todo: Plan, options: Options
) -> Iterator[Record]:
    """Draws a class's heatmaps on one sheet; those that ask no class stand on every sheet."""
    classes = dict.fromkeys(e.category for e in explanations if e.record.target)
    recorded: set[tuple[str, ...]] = set()
    for category in classes or [explanations[0].category]:
        shown = [e for e in explanations if e.category == category or not e.record.target]
        shown.sort(key=lambda e: todo.request.methods.index(e.method))
        about = next((e for e in shown if e.record.target), shown[0])
        path = _place(about, replace(about.record, method=ALL, layers=()), todo, options)
        try:
            write_picture(_sheet(about, shown, options), path)
        except (ImageError, MemoryError) as error:
            yield replace(about.record, method=ALL, error=why(error, path))
            continue
        for explanation in shown:
            key = (explanation.method, *explanation.map.layers)
            if explanation.record.target or key not in recorded:
                recorded.add(key)
                own = _place_beside(explanation, path, todo, options)
                outputs = tuple(_besides(explanation, own, options))
                yield replace(explanation.record, sheet=str(path), outputs=outputs)


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


def _place_beside(explanation: Explanation, sheet: Path, todo: Plan, options: Options) -> Path:
    """Names what stands beside a sheet for one of its heatmaps."""
    if not _is_file(options.save_path):
        return _place(explanation, explanation.record, todo, options)
    layer = ".".join(explanation.map.layers) if options.layer_fusion == "none" else None
    return sheet.parent / output_name(
        Source(Path(sheet.name)), explanation.method, None, "", layer=layer
    )
