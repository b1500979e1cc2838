"""Matches annotations to pictures by relative path, file name or stem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from camcli.errors import AnnotationError
from camcli.media.annotations.files import name_some
from camcli.media.annotations.values import Annotations, PictureAnnotations

Key = Callable[[PurePosixPath], PurePosixPath]


@dataclass(frozen=True)
class Matches:
    """The annotations of each picture that has some, and lines on what has no partner."""

    by_picture: Mapping[Path, PictureAnnotations]
    notes: tuple[str, ...] = ()


def match_pictures(pictures: Sequence[Path], annotations: Annotations) -> Matches:
    """Finds the annotations of pictures.

    A name in the annotations is a picture's if the picture's path ends in it, suffix included;
    else if it does but for the suffixes; else if the file's name alone, or its stem, is the same.
    What fits several is left out, and said.  Raises AnnotationError where nothing fits: the
    annotations are of other pictures.
    """
    paths = {path: PurePosixPath(path.as_posix()) for path in pictures}
    waiting = list(annotations)
    by_picture: dict[Path, PictureAnnotations] = {}
    ambiguous: list[str] = []
    for compare in (_keep_path, _drop_suffix, _take_name, _take_stem):
        if not waiting:
            break
        index = _Index(paths, compare)
        pairs = {id(item): index.find(item.name) for item in waiting}
        ambiguous += _take(waiting, pairs, by_picture)
        waiting = [item for item in waiting if not pairs[id(item)]]
    if annotations.pictures and pictures and not by_picture:
        raise AnnotationError(
            f"None of the {len(pictures):,} pictures is annotated: they are called "
            f"{name_some(path.name for path in pictures)}, and the annotations name "
            f"{name_some(item.name for item in annotations)}."
        )
    bare = [path.name for path in pictures if path not in by_picture]
    notes = [*ambiguous]
    if bare:
        notes.append(f"{_format_count(bare, 'picture')} without annotations: {name_some(bare)}")
    if waiting:
        names = [item.name for item in waiting]
        notes.append(f"{_format_count(names, 'annotated picture')} not given: {name_some(names)}")
    return Matches(by_picture, tuple(notes))


def _take(
    waiting: Iterable[PictureAnnotations],
    pairs: Mapping[int, Sequence[Path]],
    by_picture: dict[Path, PictureAnnotations],
) -> list[str]:
    """Gives each picture its annotations, and returns lines on what fits several."""
    left = [item for item in waiting if pairs[id(item)]]
    taken: dict[Path, list[PictureAnnotations]] = defaultdict(list)
    # `a/1.jpg` takes its picture, and `1.jpg` is the other one then
    while True:
        free = [(item, _list_unmatched(pairs[id(item)], by_picture, taken)) for item in left]
        claims = [(item, paths[0]) for item, paths in free if len(paths) == 1]
        if not claims:
            break
        for item, path in claims:
            taken[path].append(item)
        left = [item for item, paths in free if len(paths) != 1]
    notes = []
    for path, items in taken.items():
        if len(items) > 1:
            owners = name_some(item.where or item.name for item in items)
            notes.append(f"{path.as_posix()} is annotated by {owners}: they are left out")
        else:
            by_picture[path] = items[0]
    for item in left:
        candidates = name_some(path.as_posix() for path in pairs[id(item)])
        notes.append(f"{item.name!r} could be {candidates}: it is left out; give relative paths")
    return notes


def _list_unmatched(paths: Iterable[Path], *taken: Mapping[Path, object]) -> list[Path]:
    """Lists the pictures that have no annotations yet."""
    return [path for path in paths if not any(path in of for of in taken)]


class _Index:
    """Pictures by the last part of their paths, as one way of comparing sees it."""

    def __init__(self, paths: Mapping[Path, PurePosixPath], compare: Key) -> None:
        self.compare = compare
        self.by_last: dict[str, list[tuple[Path, tuple[str, ...]]]] = defaultdict(list)
        for path, plain in paths.items():
            parts = compare(plain).parts
            self.by_last[parts[-1] if parts else ""].append((path, parts))

    def find(self, name: str) -> list[Path]:
        """Lists the pictures whose paths end in a name."""
        parts = self.compare(PurePosixPath(name.replace("\\", "/"))).parts
        parts = tuple(part for part in parts if part not in ("/", "."))
        if not parts:
            return []
        near = self.by_last.get(parts[-1], ())
        return [path for path, own in near if own[-len(parts) :] == parts]


def _keep_path(path: PurePosixPath) -> PurePosixPath:
    return path


def _drop_suffix(path: PurePosixPath) -> PurePosixPath:
    return path.with_name(_strip_suffix(path)) if path.name else path


def _take_name(path: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(path.name)


def _take_stem(path: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(_strip_suffix(path))


def _strip_suffix(path: PurePosixPath) -> str:
    """Returns a name without a picture's suffix; `v1.2` is whole."""
    suffix = path.suffix[1:]
    return (
        path.stem if suffix.isalnum() and not suffix.isdecimal() and len(suffix) <= 4 else path.name
    )


def _format_count(items: Sequence[object], what: str) -> str:
    return f"{len(items):,} {what}{'' if len(items) == 1 else 's'}"
