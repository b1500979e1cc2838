"""Videos, animated pictures and cameras -> their frames, one after the other."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Image as PillowImage

from camcli.errors import ImageError, SourceError, UsageError, reason
from camcli.media.containers import container, is_cut_off
from camcli.media.open import opened
from camcli.media.opencv import captured, spelled
from camcli.media.read import (
    PILLOW,
    check_size,
    content_of,
    ordinary_size,
    too_large,
    unreadable,
    upright_pixels,
)
from camcli.media.sources import camera_source, is_video
from camcli.records import CAMERAS, MAX_PIXELS, Picture, Source, Span
from camcli.stages import stage

# Pillow's formats in which several frames make one moving picture, and not previews or stereo pairs
ANIMATED = frozenset({"GIF", "WEBP", "PNG", "TIFF"})

UNKNOWN_FPS = 25.0  # where a file does not tell, as a pile of TIFF pages

EVERYTHING = Span()


@dataclass(frozen=True)
class VideoInfo:
    """Frames a second, how many frames (None: unknown), and their upright (height, width)."""

    fps: float
    frames: int | None
    size: tuple[int, int]


def is_moving(source: Source) -> bool:
    """Tells whether a source is a video, by its name, or an animated picture, by its content."""
    return is_video(source) or _is_animated(source)


def info(source: Source, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Finds a video's or an animated picture's speed, length and size; raises ImageError."""
    if not is_video(source):
        return _animation_info(source, max_pixels)
    with _opened_video(source) as (_, capture):
        return _video_info(capture)


def frames(
    source: Source, every: int = 1, span: Span | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Picture]:
    """Reads every n-th frame of a span of a video or an animated picture, one at a time.

    Frames are counted from 0 in the file; the first of the span is the first one read.  Raises
    ImageError, behind the frames before it where a video breaks off.
    """
    _check_step(every)
    if not is_video(source):
        return animation_frames(source, every, span or EVERYTHING, max_pixels)
    return _read_frames(source, every, span, max_pixels)


def _read_frames(
    source: Source, every: int, span: Span | None, max_pixels: int
) -> Iterator[Picture]:
    with film(source, every, span, max_pixels) as (_, pictures):
        yield from pictures


@contextmanager
def film(
    source: Source, every: int = 1, span: Span | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[VideoInfo, Iterator[Picture]]]:
    """Opens a video or an animated picture for what `info` and `frames` give; raises ImageError."""
    _check_step(every)
    span = span or EVERYTHING
    if not is_video(source):
        about = _animation_info(source, max_pixels)
        yield about, animation_frames(source, every, span, max_pixels)
        return
    with _opened_video(source) as (path, capture):
        about = _video_info(capture)
        height, width = about.size
        if height * width > max_pixels:
            error = too_large(f"frames of {width} x {height} pixels", max_pixels)
            raise unreadable(str(source), error)
        yield about, _video_frames(capture, path, about, source, every, span)


def camera(index: int, every: int = 1, span: Span | None = None) -> Iterator[Picture]:
    """Reads a camera's pictures, without end where the span has none.

    Raises SourceError where there is no camera, and ImageError when it gives no more pictures.
    """
    _check_step(every)
    if not 0 <= index < CAMERAS:
        raise UsageError(f"A camera is a number from 0 to {CAMERAS - 1}, not {index}.")
    return _camera_frames(index, every, span or EVERYTHING)


def _check_step(every: int) -> None:
    if every < 1:
        raise UsageError(f"Every n-th frame is read, n from 1, not {every}.")


def _camera_frames(index: int, every: int, span: Span) -> Iterator[Picture]:
    with captured(index) as capture:
        if not capture.isOpened():
            raise SourceError(
                f"Camera {index} is not there, or another program uses it; the first one is 0."
            )
        ended = yield from _grabbed(capture, camera_source(index), every, span)
        if ended is not None:
            raise ImageError(f"Camera {index} gives no picture {ended}: was it unplugged?")


def _video_frames(
    capture: cv2.VideoCapture, path: Path, about: VideoInfo, source: Source, every: int, span: Span
) -> Iterator[Picture]:
    ended = yield from _grabbed(capture, source, every, span)
    if ended is not None:
        _check_end(source, ended, span, about, path)


def _check_end(source: Source, ended: int, span: Span, about: VideoInfo, path: Path) -> None:
    """Raises ImageError where a video ends too early: FFmpeg gives an error and an end alike.

    It may well hold fewer frames than it announces: a part cut out of it in front of a key frame
    keeps, and counts, what is no longer shown.
    """
    announced = about.frames
    if (announced is None or ended < announced) and is_cut_off(path):
        of = f" of {announced}" if announced else ""
        raise unreadable(str(source), ImageError(f"it breaks off at frame {ended}{of}"))
    _check_reached(source, ended, span)


def _check_reached(source: Source, ended: int, span: Span) -> None:
    if ended == 0:
        raise unreadable(str(source), ImageError("it has no frames"))
    if ended <= span.start:
        words = f"it has {ended} frames, counted from 0, and none from {span.start} on"
        raise unreadable(str(source), ImageError(words))


def _grabbed(
    capture: cv2.VideoCapture, source: Source, every: int, span: Span
) -> Generator[Picture, None, int | None]:
    """Yields the frames that are asked for; returns how many there were, None before their end.

    What is passed over is grabbed as well: a jump lands exactly in some formats only.
    """
    index = 0
    while span.stop is None or index < span.stop:
        with stage("decode"):
            if not capture.grab():
                return index
            wanted = span.has(index, every)
            picture = _retrieved(capture, source, index) if wanted else None
        if picture:
            yield picture
        index += 1
    return None


def _retrieved(capture: cv2.VideoCapture, source: Source, index: int) -> Picture:
    try:
        there, pixels = capture.retrieve()
        if not there:
            raise ImageError(f"it breaks off at frame {index}")
        rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    except cv2.error as error:
        words = f"frame {index} cannot be decoded ({reason(error)})"
        raise unreadable(str(source), ImageError(words)) from error
    except (ImageError, MemoryError) as error:
        raise unreadable(str(source), error) from error
    return Picture(rgb, source, index)


@contextmanager
def _local_video(source: Source) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="camviz-", ignore_cleanup_errors=True) as folder:
        try:
            path = _local(source, Path(folder))
            if container(path) is None:
                raise ImageError("it is no video, or of a kind that camviz does not know")
        except Exception as error:  # behind a URL, a file system raises whatever its client does
            raise unreadable(str(source), error, "it cannot be read") from error
        yield path


def _local(source: Source, folder: Path) -> Path:
    copy = folder / f"video{source.path.suffix if source.url else ''}"
    if source.url:
        with opened(source) as file, copy.open("wb") as there:
            shutil.copyfileobj(file, there)
        return copy
    if ordinary_size(source.path) == 0:
        raise ImageError("it is empty")
    return spelled(source.path, folder)


@contextmanager
def _opened_video(source: Source) -> Iterator[tuple[Path, cv2.VideoCapture]]:
    with _local_video(source) as path, captured(str(path)) as capture:
        if not capture.isOpened():
            words = (
                "it is a video that is truncated or damaged, or of a kind that OpenCV cannot read"
            )
            raise unreadable(str(source), ImageError(words))
        yield path, capture


def _video_info(capture: cv2.VideoCapture) -> VideoInfo:
    fps, announced, height, width = (
        capture.get(asked)
        for asked in (
            cv2.CAP_PROP_FPS,
            cv2.CAP_PROP_FRAME_COUNT,
            cv2.CAP_PROP_FRAME_HEIGHT,
            cv2.CAP_PROP_FRAME_WIDTH,
        )
    )
    return VideoInfo(
        fps if 0 < fps < float("inf") else UNKNOWN_FPS,
        int(announced) if announced > 0 else None,
        (int(height), int(width)),
    )


def animation_frames(
    source: Source, every: int, span: Span, max_pixels: int = MAX_PIXELS
) -> Iterator[Picture]:
    """Reads the frames of an animated GIF, WebP or PNG, or the pages of a TIFF; raises ImageError.

    A picture that stands still is one frame.
    """
    with _animation(source, max_pixels) as (image, count):
        for index in range(count if span.stop is None else min(count, span.stop)):
            if span.has(index, every):
                yield Picture(_frame(image, source, index, max_pixels), source, index)
        _check_reached(source, count, span)


def _frame(image: PillowImage, source: Source, index: int, max_pixels: int) -> NDArray[np.uint8]:
    try:
        with stage("decode"), PILLOW.reading(max_pixels):
            image.seek(index)
            check_size(image, max_pixels)  # of each, since the pages of a TIFF differ
            # a copy, since a GIF's frames are drawn on one another
            return np.array(upright_pixels(image))
    except Exception as error:  # on damaged files Pillow raises whatever its parsers stumble over
        words = ImageError(f"it breaks off at frame {index} ({reason(error)})")
        raise unreadable(str(source), words) from error


@contextmanager
def _animation(source: Source, max_pixels: int) -> Iterator[tuple[PillowImage, int]]:
    """Opens a picture, and counts its frames."""
    try:
        content = content_of(source, max_pixels)
        with PILLOW.reading(max_pixels):
            image = Image.open(io.BytesIO(content))
            check_size(image, max_pixels)
            count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
    except Exception as error:  # as in `_frame`
        raise unreadable(str(source), error) from error
    with image:
        yield image, count


def _is_animated(source: Source) -> bool:
    try:
        with _animation(source, MAX_PIXELS) as (_, count):
            return count > 1
    except ImageError:  # whoever reads the picture says what is wrong with it
        return False


def _animation_info(source: Source, max_pixels: int) -> VideoInfo:
    with _animation(source, max_pixels) as (image, count):
        height, width = _frame(image, source, 0, max_pixels).shape[:2]
        milliseconds, timed = 0.0, 0
        with suppress(ImageError):  # whoever reads the frames is told where they break off
            for timed in range(1, count + 1 if image.format != "TIFF" else 1):
                _frame(image, source, timed - 1, max_pixels)  # WebP tells when one is decoded
                milliseconds += image.info.get("duration", 0)
    fps = 1000 * timed / milliseconds if milliseconds > 0 else UNKNOWN_FPS
    return VideoInfo(fps, count, (height, width))
