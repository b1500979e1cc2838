"""Computes when the frames of a video are shown, from their times in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from camcli.errors import ImageError
from camcli.media.pictures.read import unreadable_error
from camcli.records import Picture, Source, Span

USUAL_STEP = Fraction(1, 25)  # seconds, where nothing tells how long a frame is shown

# what stands longer than so many seconds has a damaged time
LONGEST_STEP = Fraction(3600)
# how many steps back a time may lie and still be a slip and no new beginning
LARGEST_SLIP = 2


@dataclass(frozen=True)
class FrameTimes:
    """The unit of a video's times, in seconds, and its frames a second on average.

    The `rate` is None where nothing says it.
    """

    tick: Fraction
    rate: Fraction | None = None


@dataclass(frozen=True)
class ShownFrame:
    """A frame, and from when to when it is shown, in seconds from the first one.

    Its pixels, RGB [h w 3], are to be asked for before the next frame; `shown` gives them in sRGB
    where they are of other colours.
    """

    pixels: Callable[[], NDArray[np.uint8]]
    start: Fraction
    end: Fraction
    shown: Callable[[], NDArray[np.uint8] | None] = lambda: None


@dataclass
class Timeline:
    """Turns the times in a file into those at which frames are shown: from 0 on, never back.

    In seconds: `tick` is the unit of the times, `step` how long a frame is shown that does not
    tell, None for as long as the one before it; what stands longer than `longest` begins anew.
    """

    tick: Fraction
    step: Fraction | None = None
    longest: Fraction = LONGEST_STEP
    _begin: Fraction | None = None
    _last: Fraction | None = None
    _last_step: Fraction = USUAL_STEP

    @property
    def usual_step(self) -> Fraction:
        """How long a frame is shown that does not tell."""
        return self.step or self._last_step

    def start(self, time: Fraction | None) -> Fraction:
        """Returns when a frame is shown that has this time in the file, None for none at all."""
        if self._begin is None and time is not None:
            self._begin = time - (0 if self._last is None else self._last + self.usual_step)
        self._last = Fraction(0) if self._last is None else self._next(time, self._last)
        return self._last

    def _next(self, time: Fraction | None, last: Fraction) -> Fraction:
        if time is None or self._begin is None:
            return last + self.usual_step
        step = time - self._begin - last
        if 0 < step <= self.longest:
            self._last_step = step
            return last + step
        if -LARGEST_SLIP * self.usual_step < step <= 0:
            return last + self.tick
        self._begin = time - last - self.usual_step
        return last + self.usual_step


def choose_frames(
    shown: Iterator[ShownFrame], source: Source, every: int, span: Span
) -> Iterator[Picture]:
    """Yields every n-th frame of a span, each shown until the next one that is chosen.

    Raises ImageError where the span begins behind the last frame, and what `shown` raises, behind
    the frames before it.
    """
    waiting: Picture | None = None
    count, end = 0, Fraction(0)
    try:
        for index, frame in enumerate(shown):
            if span.has(index, every):
                picture = Picture(frame.pixels(), source, index, frame.start, shown=frame.shown())
                if waiting:
                    yield _set_duration(waiting, frame.start)
                waiting = picture
            count, end = index + 1, frame.end
            if count == span.stop:
                break
    except ImageError:
        if waiting:
            yield _set_duration(waiting, end)
        raise
    if waiting is None:
        words = f"it has {count} frames, counted from 0, and none from {span.start} on"
        raise unreadable_error(str(source), ImageError(words))
    yield _set_duration(waiting, end)


def _set_duration(picture: Picture, end: Fraction) -> Picture:
    assert picture.time is not None
    return replace(picture, duration=end - picture.time)
