"""Reads the chosen frames of videos and animated pictures, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from camcli.errors import UsageError
from camcli.media.sources.listing import is_video
from camcli.media.videos import animation
from camcli.media.videos.frame_times import FrameTimes, choose_frames
from camcli.media.videos.video_reader import open_video
from camcli.records import MAX_PIXELS, Picture, Source, Span

EVERYTHING = Span()


def is_moving(source: Source) -> bool:
    """Tells whether a source is a video, by its name, or an animated picture, by its content."""
    return is_video(source) or animation.is_animated(source)


def frames(
    source: Source, every: int = 1, span: Span = EVERYTHING, max_pixels: int = MAX_PIXELS
) -> Iterator[Picture]:
    """Reads every n-th frame of a span of a video or an animated picture, one at a time.

    Frames are counted from 0 in the file; the first of the span is the first one read.  Each has
    its time, and is shown until the next one that is read.  Raises ImageError, behind the frames
    before it where a video breaks off.
    """
    _check_step(every)
    return _read_frames(source, every, span, max_pixels)


def _read_frames(source: Source, every: int, span: Span, max_pixels: int) -> Iterator[Picture]:
    with open_frames(source, every, span, max_pixels) as (_, pictures):
        yield from pictures


@contextmanager
def open_frames(
    source: Source, every: int = 1, span: Span = EVERYTHING, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[FrameTimes, Iterator[Picture]]]:
    """Opens a video or an animated picture for what `frames` gives; raises ImageError."""
    _check_step(every)
    if not is_video(source):
        shown = animation.read_animation_frames(source, span, max_pixels)
        yield animation.ANIMATION_TIMES, choose_frames(shown, source, every, span)
        return
    with open_video(source, max_pixels) as reader:
        rate = reader.rate / every if reader.rate else None
        yield FrameTimes(reader.tick, rate), choose_frames(reader.frames(), source, every, span)


def _check_step(every: int) -> None:
    if every < 1:
        raise UsageError(f"Every n-th frame is read, n from 1, not {every}.")
