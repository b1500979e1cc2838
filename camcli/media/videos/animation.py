"""Reads the frames of animated pictures and of files with several pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Image as PillowImage

from camcli.errors import ImageError, first_line
from camcli.media.pictures.color_profiles import convert_to_srgb
from camcli.media.pictures.read import (
    PILLOW,
    check_size,
    load_upright_frame,
    read_content,
    unreadable_error,
)
from camcli.media.videos.frame_times import USUAL_STEP, FrameTimes, ShownFrame
from camcli.records import MAX_PIXELS, Picture, Source, Span
from camcli.utils.profiling import stage

# Pillow's formats in which several frames make one moving picture, and not previews or stereo pairs
ANIMATED = frozenset({"GIF", "WEBP", "PNG", "TIFF", "AVIF"})

ANIMATION_TIMES = FrameTimes(Fraction(1, 1000))  # as Pillow gives them
# browsers take what is to be shown no longer than this for a mistake, and show it for this time
SHORTEST, INSTEAD = Fraction(1, 100), Fraction(1, 10)


def is_animated(source: Source) -> bool:
    """Tells by its content whether a picture has several frames."""
    try:
        with _open_animation(source, MAX_PIXELS) as (_, count):
            return count > 1
    except ImageError:  # whoever reads the picture says what is wrong with it
        return False


def read_animation_frames(source: Source, span: Span, max_pixels: int) -> Iterator[ShownFrame]:
    """Reads the frames of an animated picture, or the pages of a TIFF; raises ImageError.

    All of them come up to the end of the span, since each stands behind those before it.  A picture
    that stands still is one frame.
    """
    with _open_animation(source, max_pixels) as (image, count):
        # what an animated PNG shows where animation is not known is no part of it
        first = int(getattr(image, "default_image", False))
        start = Fraction(0)
        for index in range(count - first if span.stop is None else min(count - first, span.stop)):
            frame = _read_frame(image, source, first + index, max_pixels)
            end = start + _read_duration(image)
            # a video holds no profile
            yield ShownFrame(
                partial(np.asarray, frame.pixels), start, end, partial(_convert_to_srgb, frame)
            )
            start = end


def _read_duration(image: PillowImage) -> Fraction:
    if image.format == "TIFF":
        return USUAL_STEP
    duration = Fraction(image.info.get("duration", 0)).limit_denominator(1000) / 1000
    return duration if duration > SHORTEST else INSTEAD


def _convert_to_srgb(frame: Picture) -> NDArray[np.uint8] | None:
    return convert_to_srgb(frame.pixels, frame.profile) if frame.profile else frame.shown


def _read_frame(image: PillowImage, source: Source, index: int, max_pixels: int) -> Picture:
    try:
        with stage("decode"), PILLOW.allow_pixels(max_pixels):
            image.seek(index)
            check_size(image, max_pixels)  # of each, since the pages of a TIFF differ
            frame = load_upright_frame(image)
            # a copy, since a GIF's frames are drawn on one another
            return replace(frame, pixels=np.array(frame.pixels))
    except Exception as error:  # on damaged files Pillow raises whatever its parsers stumble over
        words = ImageError(f"it breaks off at frame {index} ({first_line(error)})")
        raise unreadable_error(str(source), words) from error


@contextmanager
def _open_animation(source: Source, max_pixels: int) -> Iterator[tuple[PillowImage, int]]:
    """Opens a picture, and counts its frames."""
    try:
        content = read_content(source, max_pixels)
        with PILLOW.allow_pixels(max_pixels):
            image = Image.open(io.BytesIO(content))
            check_size(image, max_pixels)
            count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
    except Exception as error:  # as in `_read_frame`
        raise unreadable_error(str(source), error) from error
    with image:
        yield image, count
