"""Lists the work items of a run in order: picture files, and the frames of films."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from camcli.config import Options
from camcli.errors import ImageError
from camcli.media.sources.listing import is_video
from camcli.media.videos import (
    CAMERA_TIMES,
    EVERYTHING,
    FrameTimes,
    frames,
    is_moving,
    open_frames,
    read_camera,
)
from camcli.pipeline.shutdown import StopRequest
from camcli.records import Outcome, Picture, Source

if TYPE_CHECKING:
    from camcli.pipeline.explanation import Explanation

Result = TypeVar("Result")


@dataclass(frozen=True)
class Film:
    """A video whose frames are explained, and the unit of their times."""

    source: Source
    times: FrameTimes


@dataclass(frozen=True)
class WorkItem:
    """A picture file, a frame of a film, or a film's end; it has one place in a run's order.

    `outcome` is set if it is known already: for a film's end, and for failed items.  `explanations`
    are those of a stored picture that has to be drawn.
    """

    source: Source
    film: Film | None = None
    frame: Picture | None = None
    outcome: Outcome | None = None
    explanations: Sequence[Explanation] = ()

    @property
    def is_file(self) -> bool:
        """Whether the item is a picture file that still has to be read."""
        return self.frame is None and self.outcome is None

    @property
    def file_size(self) -> int:
        """The size of a picture file in bytes, as far as it is known before reading."""
        if not self.is_file or self.source.url:
            return 0
        try:
            return self.source.path.stat().st_size
        except (OSError, ValueError):  # reading it will say what is wrong
            return 0

    @property
    def ends_picture(self) -> bool:
        """Whether a picture, or a whole film, is finished with this item."""
        return self.frame is None

    def make_failed(self, why: str) -> WorkItem:
        """Returns the item with its failure as the outcome."""
        number = self.frame.frame if self.frame else None
        return replace(self, outcome=Outcome.failure(self.source, why, number))


class Opened(Protocol):
    """A picture file that was read and not decoded yet."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def content_size(self) -> int:
        """The file's size in bytes."""


@dataclass(frozen=True)
class Step(Generic[Result]):
    """An item, and what was made of it: nothing where its outcome is known already."""

    item: WorkItem
    result: Result | None = None


def may_have_films(sources: Sequence[Source], options: Options) -> bool:
    """Tells from options and file names whether there may be films; opens no file."""
    asked = options.every is not None or options.frames is not None
    return asked or options.camera is not None or any(map(is_video, sources))


def is_film(source: Source, options: Options) -> bool:
    """Tells whether a source is explained frame by frame; opens files that may be animated."""
    if options.camera is not None or is_video(source):
        return True
    return (options.every is not None or options.frames is not None) and is_moving(source)


def list_items(
    sources: Iterable[Source], options: Options, stop: StopRequest
) -> Iterator[WorkItem]:
    """Yields items until the run is asked to end, which also ends a camera's film.

    A film that breaks off yields its frames, and an outcome that says so.  Raises SourceError for a
    missing camera.
    """
    for source in stop.until(sources):
        if options.camera is not None:
            yield from _camera_items(source, options, stop)
        elif is_film(source, options):
            yield from _film_items(source, options)
        else:
            yield WorkItem(source)


def read_frames(source: Source, options: Options) -> Iterator[Picture]:
    """Reads the requested frames of a film; raises ImageError."""
    return frames(source, options.every or 1, options.frames or EVERYTHING, options.max_pixels)


def _film_items(source: Source, options: Options) -> Iterator[WorkItem]:
    # nothing is written for a film that cannot be opened
    opened: Film | None = None
    outcome = Outcome(source, ())
    try:
        every, span = options.every or 1, options.frames or EVERYTHING
        with open_frames(source, every, span, options.max_pixels) as (times, pictures):
            opened = Film(source, times)
            for picture in pictures:
                yield WorkItem(source, opened, picture)
    except ImageError as error:
        outcome = Outcome.failure(source, str(error))
    yield WorkItem(source, opened, outcome=outcome)


def _camera_items(source: Source, options: Options, stop: StopRequest) -> Iterator[WorkItem]:
    assert options.camera is not None
    pictures = read_camera(options.camera, options.every or 1, options.frames or EVERYTHING)
    opened, outcome = Film(source, CAMERA_TIMES), Outcome(source, ())
    try:
        for picture in stop.until(pictures):
            yield WorkItem(source, opened, picture)
    except ImageError as error:
        outcome = Outcome.failure(source, str(error))
    yield WorkItem(source, opened, outcome=outcome)
