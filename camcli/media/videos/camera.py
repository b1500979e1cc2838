"""Reads the pictures of a camera, each with its time, through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import cv2
import numpy as np

from camcli.errors import ImageError, SourceError, UsageError, first_line
from camcli.media.pictures.opencv_messages import silence_opencv
from camcli.media.pictures.read import unreadable_error
from camcli.media.sources.listing import camera_source
from camcli.media.videos.frame_times import FrameTimes
from camcli.records import CAMERAS, Picture, Source, Span
from camcli.utils.profiling import stage

CAMERA_TIMES = FrameTimes(Fraction(1, 1000))


def read_camera(index: int, every: int, span: Span) -> Iterator[Picture]:
    """Reads every n-th picture of a camera, without end where the span has none.

    Raises SourceError where there is no camera, and ImageError when it gives no more pictures.
    """
    if not 0 <= index < CAMERAS:
        raise UsageError(f"A camera is a number from 0 to {CAMERAS - 1}, not {index}.")
    return _read_pictures(index, every, span)


def _read_pictures(number: int, every: int, span: Span) -> Iterator[Picture]:
    source, index, begin = camera_source(number), 0, time.monotonic()
    with _open_camera(number) as capture:
        while span.stop is None or index < span.stop:
            with stage("decode"):
                if not capture.grab():
                    words = f"Camera {number} gives no picture {index}: was it unplugged?"
                    raise ImageError(words)
                came = _round_time(time.monotonic() - begin)
                is_in_span = span.has(index, every)
                picture = _retrieve_picture(capture, source, index, came) if is_in_span else None
            if picture:
                yield picture
            index += 1


def _round_time(seconds: float) -> Fraction:
    tick = CAMERA_TIMES.tick
    return round(seconds / tick) * tick


def _retrieve_picture(
    capture: cv2.VideoCapture, source: Source, index: int, came: Fraction
) -> Picture:
    try:
        is_read, pixels = capture.retrieve()
        if not is_read:
            raise ImageError(f"it breaks off at frame {index}")
        rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    except cv2.error as error:
        words = f"frame {index} cannot be decoded ({first_line(error)})"
        raise unreadable_error(str(source), ImageError(words)) from error
    except (ImageError, MemoryError) as error:
        raise unreadable_error(str(source), error) from error
    return Picture(rgb, source, index, came)


@contextmanager
def _open_camera(number: int) -> Iterator[cv2.VideoCapture]:
    with silence_opencv():
        capture = cv2.VideoCapture(number, cv2.CAP_ANY)
    try:
        if not capture.isOpened():
            raise SourceError(
                f"Camera {number} is not there, or another program uses it; the first one is 0."
            )
        yield capture
    finally:
        capture.release()
