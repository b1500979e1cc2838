"""Frames -> a video file that is whole or not there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from camcli.errors import ImageError, OutputError
from camcli.media.containers import is_cut_off
from camcli.media.opencv import captured, quiet, spelled
from camcli.media.write import name_parts, named, temporary_name, unwritable
from camcli.records import Source
from camcli.stages import stage

# by suffix, the first that works is taken: OpenCV's own wheels have no H.264 (avc1), which alone
# plays everywhere; VP9 takes 160 ms for a frame of 640 x 480 where VP8 takes 28, at equal quality
# (two cores, 2026-11)
CODECS: Mapping[str, tuple[str, ...]] = {
    ".mp4": ("avc1", "mp4v"),
    ".m4v": ("avc1", "mp4v"),
    ".mov": ("avc1", "mp4v"),
    ".mkv": ("avc1", "mp4v"),
    ".webm": ("VP80", "VP90"),
    ".avi": ("XVID", "MJPG"),
}
DEFAULT_SUFFIX = ".mp4"

SLOWEST, FASTEST = 0.1, 1000.0  # frames a second; beyond, formats fail or round them

# of the frames written, how many a whole file announces at least: some formats only estimate them
SMALLEST_SHARE = 0.99

Size = tuple[int, int]


def video_name(
    source: Source,
    method: str,
    category: int | None,
    label: str,
    *,
    layer: str | None = None,
    target: str = "",
    rank: int | None = None,
) -> Path:
    """Names a video as `output_name` names a picture; a rank stands for classes that change."""
    own = source.path.suffix
    keeps_own = own.lower() in CODECS
    head, suffix = (source.path.stem, own) if keeps_own else (source.path.name, DEFAULT_SUFFIX)
    parts = name_parts(method, category, label, layer, target)
    return named(source, head, parts + ([] if rank is None else [f"rank{rank}"]), suffix)


class VideoFile:
    """A video in the making, of frames of one size: whole when the block ends, gone when it raises.

    Without a frame there is no file.  The sound of a source is not carried over.  Raises
    OutputError for what cannot be written, ImageError for a frame of another size.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = min(max(fps, SLOWEST), FASTEST) if isfinite(fps) else FASTEST
        self.frames = 0
        self.size: Size | None = None
        if path.suffix.lower() not in CODECS:
            raise OutputError(
                f"Cannot write {str(path)!r}: a video's suffix is one of {' '.join(CODECS)}."
            )

    def __enter__(self) -> Self:
        with ExitStack() as stack, self._telling():
            links = stack.enter_context(tempfile.TemporaryDirectory(prefix="camviz-"))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # FFmpeg knows the format by the suffix
            name = temporary_name() + self.path.suffix.lower()
            self._temporary = spelled(self.path.parent, Path(links)) / name
            self._closing = stack.pop_all()
        self._closing.callback(self._remove)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._closing:
            if self.size:
                with quiet():
                    self._writer.release()
                if kind is None:
                    self._put_in_place()

    @stage("write")
    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Appends a frame, RGB [h w 3]."""
        size = pixels.shape[0], pixels.shape[1]
        if self.size is None:
            self._writer = self._started(size)
            self.size = size
        if size != self.size:
            raise ImageError(
                f"Cannot write {str(self.path)!r}: frame {self.frames} has {size[1]} x {size[0]} "
                f"pixels, and those before it {self.size[1]} x {self.size[0]}. Write the frames as "
                "pictures (--save-frames)."
            )
        self._writer.write(_for_opencv(pixels))
        self.frames += 1

    def _started(self, size: Size) -> cv2.VideoWriter:
        codecs = CODECS[self.path.suffix.lower()]
        blank = _for_opencv(np.zeros((*size, 3), np.uint8))
        for codec in codecs:
            # what is opened is not always written, nor is what is written always read
            self._writer = self._opened(codec, blank.shape)
            self._writer.write(blank)
            self._writer.release()
            if _announced(self._temporary):
                return self._opened(codec, blank.shape)
        raise OutputError(
            f"Cannot write {str(self.path)!r}: this OpenCV writes no video of "
            f"{size[1]} x {size[0]} pixels with {' or '.join(codecs)}. "
            f"Choose another suffix: {' '.join(CODECS)}."
        )

    def _opened(self, codec: str, shape: tuple[int, ...]) -> cv2.VideoWriter:
        four = cv2.VideoWriter.fourcc(*codec)
        with quiet():
            return cv2.VideoWriter(
                str(self._temporary), cv2.CAP_FFMPEG, four, self.fps, (shape[1], shape[0])
            )

    def _put_in_place(self) -> None:
        # a full disk is no error to OpenCV
        if _announced(self._temporary) < SMALLEST_SHARE * self.frames:
            raise OutputError(
                f"Cannot write {str(self.path)!r}: the video was not written whole. Is the disk "
                "full?"
            )
        with self._telling():
            self._temporary.replace(self.path)

    def _remove(self) -> None:
        with suppress(OSError):
            self._temporary.unlink()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise unwritable(self.path, error) from error


def _announced(path: Path) -> float:
    """Returns how many frames a video holds by its own word, zero where it is not whole."""
    if not path.is_file() or is_cut_off(path):
        return 0
    with captured(str(path)) as capture:
        return capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.grab() else 0


def _for_opencv(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turns RGB into BGR, with the last row and column repeated where their number is odd.

    Videos hold colour for two by two pixels, and OpenCV would cut an odd row off.
    """
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    return np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2BGR), np.uint8)
