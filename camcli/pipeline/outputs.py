"""Explanations to files and records; a picture that cannot be read or written becomes a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from camcli.config import Options
from camcli.errors import ImageError, UsageError
from camcli.media.read import read_picture
from camcli.media.sources import IMAGE_SUFFIXES
from camcli.media.write import (
    PICTURE_SUFFIXES,
    check_writable,
    output_name,
    picture_format,
    write_map,
    write_picture,
)
from camcli.models.load import Classifier
from camcli.pipeline.explanation import Explanation, batched, explain_batch
from camcli.pipeline.plan import Plan, plan
from camcli.records import Picture, Record, Source
from camcli.render.colour import lookup_table


def run(classifier: Classifier, sources: Sequence[Source], options: Options) -> Iterator[Record]:
    """Explains sources and writes the files; one record a heatmap, or a picture that failed.

    Raises UsageError before anything is written where names, outputs or options do not fit.
    """
    lookup_table(options.colormap)
    todo = plan(classifier, options)
    check_outputs(sources, todo, options)
    for group in batched(sources, options.batch_size):
        read = [_read(source) for source in group]
        explained = iter(explain_batch([p for p in read if isinstance(p, Picture)], todo))
        for picture in read:
            if isinstance(picture, Record):
                yield picture
                continue
            for explanation in next(explained):
                yield _written(explanation, todo, options)


def _read(source: Source) -> Picture | Record:
    try:
        return read_picture(source)
    except ImageError as error:
        return Record(source=str(source), error=str(error))


def check_outputs(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    """Raises UsageError or OutputError where outputs would collide or cannot be written."""
    if _is_file(options.save_path):
        _check_single_file(sources, todo, options)
        check_writable(options.save_path.parent)
    else:
        _check_distinct_files(sources, todo, options)
        check_writable(options.save_path)


def _check_single_file(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    count = len(sources) * todo.maps_per_picture
    kind = picture_format(options.save_path)
    if options.format and PICTURE_SUFFIXES[f".{options.format}"] != kind:
        raise UsageError(
            f"--save-path {options.save_path} and --format {options.format} name two formats: "
            "give one of them."
        )
    if count > 1:
        raise UsageError(
            f"--save-path {options.save_path} is one file, but {count} heatmaps are to be "
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


def _written(explanation: Explanation, todo: Plan, options: Options) -> Record:
    record, picture = explanation.record, explanation.picture
    if _is_file(options.save_path):
        path = options.save_path
    else:
        source = picture.source or Source(Path("picture"))
        several = len(todo.request.layers) > 1
        layers = record.layers if several else ()
        path = _output(source, record, layers, todo, options)
    try:
        write_picture(explanation.overlay(options.alpha, options.colormap), path)
    except ImageError as error:
        return replace(record, error=str(error))
    outputs = [str(path)]
    if options.save_map:
        map_path = path.with_name(path.name + ".npy")
        write_map(explanation.sized_map(options.map_size), map_path)
        outputs.append(str(map_path))
    return replace(record, outputs=tuple(outputs))
