"""Exports the boxes in a run's manifest to files that annotation tools read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.errors import UsageError
from camcli.media.annotations import FORMATS, Instance, PictureAnnotations
from camcli.records import Box, Source
from camcli.runs import WHOLE, identify_source, read_manifest, unwritable_error

# formats with a file for each picture, and its suffix: pictures of one stem would share a file
SUFFIXES = {"voc": ".xml", "yolo": ".txt"}
RUN_DIGITS = 6


def check_export(sources: Sequence[Source], format: str) -> None:  # noqa: A002
    """Raises UsageError if the files of two pictures would have the same name."""
    if format not in SUFFIXES:
        return
    # a list may name a picture once for each class
    pictures = dict.fromkeys((source.folder, source.path.name) for source in sources)
    stems = Counter((folder / name).with_suffix("") for folder, name in pictures)
    double = next((stem for stem, count in stems.items() if count > 1), None)
    if double is not None:
        raise UsageError(
            f"--export {format} writes a file for each picture, and two pictures would write "
            f"{double.with_suffix(SUFFIXES[format])}: give --export coco, or rename one picture."
        )


def export_boxes(
    folder: Path,
    run: str,
    sources: Sequence[Source],
    format: str,  # noqa: A002
    *,
    per_layer: bool = False,
) -> tuple[Path, ...]:
    """Writes the recorded boxes of a run, a file or folder for each method.

    With `per_layer` each method and layer has its own.  A picture without a hot region is written
    without boxes; failed pictures and frames of videos are left out.  Returns what was written;
    raises OutputError.
    """
    place = folder / f"boxes-{run[:RUN_DIGITS]}"
    written = []
    for name, pictures in _collect(folder, run, sources, per_layer).items():
        target = place / name
        if format not in SUFFIXES:
            target = target.with_name(f"{name}.json")
        try:
            _write(list(pictures.values()), target, format)
        except OSError as error:
            raise unwritable_error(target, error) from error
        written.append(target)
    return tuple(written)


def _write(pictures: Sequence[PictureAnnotations], target: Path, format: str) -> None:  # noqa: A002
    write = FORMATS[format].write
    assert write is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    if format in SUFFIXES:
        write(pictures, target)
        return
    # written in one step, so that readers see the whole file or none
    part = target.with_name(f"{target.name}.part")
    write(pictures, part)
    part.replace(target)


def _collect(
    folder: Path, run: str, sources: Sequence[Source], per_layer: bool
) -> Mapping[str, Mapping[str, PictureAnnotations]]:
    """Returns the hot regions by method and layer, and by picture."""
    names = {identify_source(source): (source.folder / source.path.name) for source in sources}
    annotations_by_kind: dict[str, dict[str, PictureAnnotations]] = defaultdict(dict)
    for record in read_manifest(folder / WHOLE):
        is_picture = not record.get("error") and record.get("frame") is None
        if record["run"] != run or record["id"] not in names or not is_picture:
            continue
        if record.get("box_threshold") is None:
            continue
        pictures, name = (
            annotations_by_kind[_name_kind(record, per_layer)],
            names[record["id"]].as_posix(),
        )
        known = pictures[name].instances if name in pictures else ()
        height, width = record["picture_size"]
        instances = (*known, *_instances(record))
        pictures[name] = PictureAnnotations(name, instances, (height, width))
    return annotations_by_kind


def _name_kind(record: Mapping[str, Any], per_layer: bool) -> str:
    layers = record.get("layers", ()) if per_layer else ()
    return "_".join([record["method"], *layers])


def _instances(record: Mapping[str, Any]) -> Iterator[Instance]:
    category = record.get("category")
    label = record.get("label") or ("object" if category is None else f"class {category}")
    for hot in record.get("boxes", ()):
        yield Instance(label, Box(**hot["box"]))
