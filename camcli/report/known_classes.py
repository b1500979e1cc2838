"""Finds what pictures are known to show, so that a prediction is right or wrong."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.errors import AnnotationError
from camcli.media.annotations import (
    Annotations,
    Instance,
    PictureAnnotations,
    match_pictures,
    read_annotations,
)
from camcli.records import Record
from camcli.report.stored_heatmaps import StoredHeatmap
from camcli.utils.text_files import read_text

FOLDERS = "folders"  # in place of a file: pictures lie in folders named after their classes
LABEL_COLUMNS = ("label", "class", "category", "class_name", "name")
# of tables that annotations are read from
BOX_COLUMNS = frozenset({"xmin", "x0", "x1", "x", "left"})
PICTURE_COLUMNS = ("path", "file", "filename", "file_name", "image", "picture", "image_id")


@dataclass(frozen=True)
class KnownClasses:
    """The names of the classes that each source is known to show, and what had no partner."""

    by_source: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def of(self, record: Record) -> tuple[str, ...]:
        """Returns the names that are known of a record's source, none where nothing is."""
        return self.by_source.get(record.source, ())


NOTHING_KNOWN = KnownClasses({})


def read_known_classes(labels: str | None, heatmaps: Iterable[StoredHeatmap]) -> KnownClasses:
    """Reads what the sources show from a CSV of path,label, annotations, or their folders' names.

    Raises AnnotationError for what cannot be read, or is of other pictures.
    """
    if labels is None:
        return NOTHING_KNOWN
    sources = list(dict.fromkeys(stored.record.source for stored in heatmaps))
    if labels == FOLDERS:
        parents = {source: Path(source).parent.name for source in sources}
        return KnownClasses({source: (name,) for source, name in parents.items() if name})
    path = Path(labels)
    annotations = _read_table(path) if path.suffix.lower() == ".csv" else None
    matches = match_pictures([*map(Path, sources)], annotations or read_annotations(path))
    by_source = {
        source: tuple(dict.fromkeys(i.label for i in found.instances if i.label))
        for source in sources
        if (found := matches.by_picture.get(Path(source)))
    }
    return KnownClasses(by_source, matches.notes)


def _read_table(path: Path) -> Annotations | None:
    """Reads a CSV of path,label, with a line of names or without; None where it has boxes."""
    try:
        lines = read_text(path, encoding="utf-8-sig").splitlines()
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise AnnotationError(f"{path} cannot be read as CSV: {error}.") from error
    if not rows:
        raise AnnotationError(f"{path} is empty.")
    header = [cell.lower() for cell in rows[0]]
    picture, label = _find(header, PICTURE_COLUMNS), _find(header, LABEL_COLUMNS)
    if picture is not None and label is not None and BOX_COLUMNS.isdisjoint(header):
        return _group_labels(rows[1:], picture, label, path)
    return _group_labels(rows, 0, 1, path) if len(header) == 2 else None


def _find(header: Sequence[str], names: Iterable[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _group_labels(
    rows: Iterable[Sequence[str]], picture: int, label: int, path: Path
) -> Annotations:
    labels: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if len(row) <= max(picture, label):
            raise AnnotationError(
                f"{path} needs a path and a label in each line, and one is {','.join(row)!r}."
            )
        labels[row[picture]].append(row[label])
    return Annotations(
        tuple(
            PictureAnnotations(name, tuple(map(Instance, names)), where=str(path))
            for name, names in labels.items()
        )
    )


def judge(heatmaps: Iterable[StoredHeatmap], known: KnownClasses) -> list[bool | None]:
    """Tells of each heatmap whether its picture was recognised; None where that is not known.

    A prediction is right where one of its class's names, or its number, is among the known ones.
    """
    listed = list(heatmaps)
    predicted = {
        (stored.record.model, *stored.picture): stored.record
        for stored in listed
        if stored.record.rank == 1
    }
    return [
        _judge_one(stored.record, predicted.get((stored.record.model, *stored.picture)), known)
        for stored in listed
    ]


def _judge_one(record: Record, predicted: Record | None, known: KnownClasses) -> bool | None:
    names = {_fold(name) for name in known.of(record)}
    if not names:
        return None
    if predicted is not None:
        return not names.isdisjoint(_list_names(predicted))
    # the prediction has no record of its own, but its number and first name are in this one
    if record.top_categories:
        top = {str(record.top_categories[0]), _fold(record.top_labels[0])}
        if not names.isdisjoint(top):
            return True
    # the picture shows the explained class, and that is not the predicted one
    is_explained = not names.isdisjoint(_list_names(record))
    return False if is_explained and record.rank is not None else None


def _list_names(record: Record) -> Iterator[str]:
    if record.label:
        yield _fold(record.label)
        yield from map(_fold, record.label.split(","))
    if record.category is not None:
        yield str(record.category)


def _fold(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
