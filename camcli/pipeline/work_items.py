"""Sources -> what a run reads, one after the other: picture files, and the frames of films."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from camcli.config import Options
from camcli.errors import ImageError
from camcli.media.camera import CAMERA_TIMES, camera
from camcli.media.frame_times import FrameTimes
from camcli.media.sources import is_video
from camcli.media.video import EVERYTHING, film, frames, is_moving
from camcli.pipeline.shutdown import Stop
from camcli.records import Outcome, Picture, Source

if TYPE_CHECKING:
    from camcli.pipeline.explanation import Explanation
    from camcli.pipeline.worker_pool import Threads

T = TypeVar("T")


@dataclass(frozen=True)
class Film:
    """Stands before the frames of a video, and says in what unit their times are whole."""

    source: Source
    times: FrameTimes


# what was found in a picture, or in a frame of a film
Work: TypeAlias = "list[Explanation] | Film | Outcome"
# a source is a picture file that is still to be read, a picture is a frame, an outcome ends a film
Item: TypeAlias = "Source | Film | Picture | Outcome"


def may_move(sources: Sequence[Source], options: Options) -> bool:
    """Tells by options and names whether there may be films; opens nothing."""
    asked = options.every is not None or options.frames is not None
    return asked or options.camera is not None or any(map(is_video, sources))


def is_film(source: Source, options: Options) -> bool:
    """Tells whether a source is explained frame by frame; opens pictures that may be animated."""
    if options.camera is not None or is_video(source):
        return True
    return (options.every is not None or options.frames is not None) and is_moving(source)


def items(sources: Iterable[Source], options: Options, stop: Stop) -> Iterator[Item]:
    """Yields what is to be read until the run is to end, which ends a camera's film as well.

    A film that breaks off has its frames, and an outcome that says so.  Raises SourceError for a
    camera that is not there.
    """
    for source in stop.until(sources):
        if options.camera is not None:
            yield from _camera(source, options, stop)
        elif is_film(source, options):
            yield from _film(source, options)
        else:
            yield source


def frames_of(source: Source, options: Options) -> Iterator[Picture]:
    """Reads the frames of a film that are asked for; raises ImageError."""
    return frames(source, options.every or 1, options.frames or EVERYTHING, options.max_pixels)


def _film(source: Source, options: Options) -> Iterator[Item]:
    ended = Outcome(source, ())
    try:
        every, span = options.every or 1, options.frames or EVERYTHING
        with film(source, every, span, options.max_pixels) as (times, pictures):
            yield Film(source, times)
            yield from pictures
    except ImageError as error:
        ended = Outcome.failure(source, str(error))
    yield ended


def _camera(source: Source, options: Options, stop: Stop) -> Iterator[Item]:
    assert options.camera is not None
    pictures = camera(options.camera, options.every or 1, options.frames or EVERYTHING)
    ended = Outcome(source, ())
    try:
        yield Film(source, CAMERA_TIMES)
        yield from stop.until(pictures)
    except ImageError as error:
        ended = Outcome.failure(source, str(error))
    yield ended


def ahead(found: Iterator[T], pool: Threads | None) -> Generator[T, None, None]:
    """Yields items, of which the next one is decoded in a thread meanwhile."""
    if pool is None:
        yield from found
        return
    coming = pool.submit(next, found, None)
    try:
        while (item := coming.result()) is not None:
            coming = pool.submit(next, found, None)
            yield item
    finally:
        # nobody may look into a generator that a thread is running
        if not coming.cancel():
            coming.exception()
        if isinstance(found, Generator):
            found.close()
