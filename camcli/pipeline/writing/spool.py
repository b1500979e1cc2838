"""Stores a run's explanations on disk until the pictures' common scale is known."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from types import TracebackType
from typing import Self

import numpy as np

from camcli.config import Options
from camcli.errors import ImageError, OutputError
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.work_items import Film, WorkItem, is_film, read_frames
from camcli.pipeline.writing.color_scale import Key, scale_key
from camcli.records import Outcome, Picture, Record
from camcli.render.overlay import Scale

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


class Spool:
    """Explanations without pixels, in a file that has no name and vanishes with the process.

    `largest` has the largest raw value for each method and its layers.
    """

    def __init__(self) -> None:
        self.largest: dict[Key, float] = {}
        self._count = 0

    def __enter__(self) -> Self:
        with _convert_errors():
            self._file = tempfile.TemporaryFile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, item: WorkItem, explanations: Sequence[Explanation]) -> None:
        """Stores a picture's explanations, or its outcome if it has none."""
        for explanation in explanations:
            self._note(explanation.record)
        frame = drop_pixels(item.frame) if item.frame else None
        light = [replace(e, picture=drop_pixels(e.picture)) for e in explanations]
        with _convert_errors():
            pickle.dump(
                replace(item, frame=frame, explanations=light), self._file, pickle.HIGHEST_PROTOCOL
            )
        self._count += 1

    @property
    def scales(self) -> Mapping[Key, Scale]:
        """The scales, from zero to the largest raw value; none if no value is above zero."""
        return {key: (0.0, most) for key, most in self.largest.items() if most > 0}

    def failures(self, options: Options) -> Iterator[Outcome]:
        """Yields the outcomes of failed pictures; a failed film also has frames to draw."""
        ended = (item.outcome for item in self if item.outcome and item.outcome.last)
        yield from (e for e in ended if e.failed and not is_film(e.source, options))

    def __iter__(self) -> Iterator[WorkItem]:
        self._file.seek(0)
        film: Film | None = None
        for _ in range(self._count):
            item: WorkItem = pickle.load(self._file)
            # the frames of a film share one Film again
            film = film if item.film == film else item.film
            yield replace(item, film=film)

    def _note(self, record: Record) -> None:
        most = record.maximum
        if record.value is not None and record.minimum is not None and most is not None:
            most = max(most, -record.minimum)
        if most is not None and isfinite(most):
            key = scale_key(record)
            self.largest[key] = max(most, self.largest.get(key, most))


def drop_pixels(picture: Picture) -> Picture:
    """Returns a picture without its pixels, which can be read again."""
    return replace(picture, pixels=NO_PIXELS, shown=None)


def read_again(items: Iterator[WorkItem], options: Options) -> Iterator[WorkItem]:
    """Yields the stored items, frames with their pixels; a film that has changed ends there."""
    film: Film | None = None
    frames: Iterator[Picture] = iter(())
    changed: Outcome | None = None
    for item in items:
        if item.film is not film:
            film, changed = item.film, None
            frames = read_frames(film.source, options) if film else iter(())
        if item.frame is None:
            ends_film = film is not None and changed is not None
            yield replace(item, outcome=changed) if ends_film else item
        elif item.outcome:
            yield item
        elif changed is None:
            try:
                yield replace(item, frame=_find_frame(item.frame, frames))
            except ImageError as error:
                changed = Outcome.failure(item.source, str(error))


def _find_frame(stored: Picture, frames: Iterator[Picture]) -> Picture:
    for picture in frames:
        if picture.frame == stored.frame:
            return picture
    raise ImageError(f"frame {stored.frame} is missing: the file changed while the run went on")


def restore_pixels(item: WorkItem, picture: Picture) -> list[Explanation]:
    """Gives an item's explanations their picture again; raises ImageError if it has changed."""
    if picture.size != item.explanations[0].record.picture_size:
        raise ImageError(
            f"Cannot read {str(item.source)!r}: the file changed while the run went on."
        )
    return [replace(explanation, picture=picture) for explanation in item.explanations]


@contextmanager
def _convert_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise OutputError(
            f"Cannot keep raw maps in {folder!r} for --scale run: {error.strerror or error}. Make "
            "room there, name another folder in TMPDIR, or give --scale MIN,MAX."
        ) from error
