"""What was found in the pictures of a run, laid aside until all of it is known."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np

from camcli.config import Options
from camcli.errors import ImageError, OutputError
from camcli.media.read import read_picture
from camcli.pipeline.color_scale import Key, key_of
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.work_items import Film, Work, frames_of, is_film
from camcli.records import Outcome, Picture, Record, Source
from camcli.render.overlay import Scale
from camcli.stages import stage

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


class Spool:
    """Explanations without their pixels, in a file that has no name and goes with the process.

    `largest` are the largest raw values, for each method and its layers.
    """

    def __init__(self) -> None:
        self.largest: dict[Key, float] = {}
        self._count = 0

    def __enter__(self) -> Self:
        with _telling():
            self._file = tempfile.TemporaryFile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, entry: Work) -> None:
        """Lays aside what was found in one picture, or how a film begins or ends."""
        if isinstance(entry, list):
            for explanation in entry:
                self._note(explanation.record)
            entry = [without_pixels(explanation) for explanation in entry]
        with _telling():
            pickle.dump(entry, self._file, pickle.HIGHEST_PROTOCOL)
        self._count += 1

    @property
    def scales(self) -> Mapping[Key, Scale]:
        """From zero to the largest raw value; none where nothing is above zero."""
        return {key: (0.0, most) for key, most in self.largest.items() if most > 0}

    def failures(self, options: Options) -> Iterator[Outcome]:
        """Yields the pictures that failed; a film that did has frames to be drawn, too."""
        ended = (work for work in self if isinstance(work, Outcome) and work.last)
        yield from (e for e in ended if e.failed and not is_film(e.source, options))

    def __iter__(self) -> Iterator[Work]:
        self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)

    def _note(self, record: Record) -> None:
        most = record.maximum
        if record.value is not None and record.minimum is not None and most is not None:
            most = max(most, -record.minimum)
        if most is not None and isfinite(most):
            key = key_of(record)
            self.largest[key] = max(most, self.largest.get(key, most))


def without_pixels(explanation: Explanation) -> Explanation:
    """Leaves the picture's pixels out, which can be read again."""
    return replace(explanation, picture=replace(explanation.picture, pixels=NO_PIXELS, shown=None))


# what was found, and the frame, if it is one, that is read again already
Again: TypeAlias = "tuple[Sequence[Explanation], Picture | None] | Film | Outcome"


def read_again(entries: Iterator[Work], options: Options) -> Iterator[Again]:
    """Yields what was laid aside, each frame with its pixels; a film that changed ends there."""
    frames: Iterator[Picture] = iter(())
    changed: Outcome | None = None
    for entry in entries:
        if isinstance(entry, Film):
            frames, changed = frames_of(entry.source, options), None
            yield entry
        elif isinstance(entry, Outcome):
            is_end = changed is not None and entry.last and entry.source == changed.source
            yield changed if changed is not None and is_end else entry
            changed = None if is_end else changed
        elif entry[0].picture.frame is None:
            yield entry, None
        elif changed is None:
            try:
                yield entry, _found(entry[0].picture, frames)
            except ImageError as error:
                changed = _failure(entry[0].picture.source, error)


def _found(wanted: Picture, frames: Iterator[Picture]) -> Picture:
    for picture in frames:
        if picture.frame == wanted.frame:
            return picture
    raise ImageError(f"frame {wanted.frame} is no more there: it changed while the run went on")


def _failure(source: Source | None, error: ImageError) -> Outcome:
    assert source is not None
    return Outcome.failure(source, str(error))


@stage("decode")
def with_pixels(again: Again, options: Options) -> Work:
    """Gives explanations their picture back, which is read again where it is no frame."""
    if isinstance(again, Film | Outcome):
        return again
    explanations, picture = again
    about = explanations[0]
    source = about.picture.source
    try:
        if picture is None:
            assert source is not None
            picture = read_picture(source, options.max_pixels)
        if picture.size != about.record.picture_size:
            raise ImageError(f"Cannot read {str(source)!r}: it changed while the run went on.")
    except ImageError as error:
        failed = _failure(source, error)
        return replace(failed, last=about.picture.frame is None)
    return [replace(explanation, picture=picture) for explanation in explanations]


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise OutputError(
            f"Cannot keep raw maps in {folder!r} for --scale run: {error.strerror or error}. Make "
            "room there, name another folder in TMPDIR, or give --scale MIN,MAX."
        ) from error
