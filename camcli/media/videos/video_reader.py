"""Reads the frames of video files as a player shows them: upright, of square pixels, in time.

FFmpeg decodes, by way of PyAV, which is imported where a video is met and not before.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from camcli.errors import ImageError
from camcli.media.pictures.read import find_file_size, too_large_error, unreadable_error
from camcli.media.sources.byte_stream import open_source
from camcli.media.videos.containers import Container, find_container, is_cut_off
from camcli.media.videos.frame_times import LONGEST_STEP, ShownFrame, Timeline
from camcli.media.videos.pyav_file import QuietFile
from camcli.records import Source
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

# in files that may be joined of several recordings, what stands longer than so many seconds is the
# last frame of one
LONGEST_STEP_IN_JOINED = Fraction(10)

FFMPEG_TICKS = 1_000_000  # of a second, in which FFmpeg gives a file's duration
HIGHEST_RATE = 1000  # frames a second; FFmpeg guesses more where it has seen too little

# numbers of ITU-T H.273, which all formats share: PQ and HLG have a high dynamic range, which is
# shown as a screen without one shows it
BT709, UNSPECIFIED, HDR_TRANSFERS = 1, 2, (16, 18)
SHOWN_COLOURS = BT709, BT709  # transfer and primaries
# without a word about colours, players take videos above these sizes for high definition
LARGEST_SD_WIDTH, LARGEST_SD_HEIGHT = 1279, 576


@dataclass
class Damage:
    """Which frame of a video is damaged first, in what way, and how many more are."""

    frame: int = 0
    why: str = ""
    others: int = 0

    def note(self, frame: int, why: str) -> None:
        """Takes note of a frame that is damaged, or that was to come in this place."""
        if self.why:
            self.others += 1
        else:
            self.frame, self.why = frame, why

    def __str__(self) -> str:
        others = f", and {self.others} behind it" if self.others else ""
        return self.why and f"frame {self.frame} is damaged ({self.why}){others}"


@dataclass
class VideoReader:
    """An open video file, of which frames of more than `max_pixels` are refused."""

    source: Source
    file: QuietFile
    kind: Container
    input: InputContainer
    stream: VideoStream
    max_pixels: int
    _reformatter: VideoReformatter = field(init=False)

    def __post_init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    @property
    def tick(self) -> Fraction:
        """The unit of the file's times, in seconds."""
        return self.stream.time_base or Fraction(1, 1000)

    @property
    def rate(self) -> Fraction | None:
        """Frames a second on average, None where the file does not say."""
        rate = self.stream.average_rate
        return rate if rate and rate <= HIGHEST_RATE else None

    def frames(self) -> Iterator[ShownFrame]:
        """Decodes all frames, one at a time.

        Raises ImageError behind the last frame where the file breaks off or was damaged: FFmpeg
        goes on behind damage as far as it can.
        """
        # before anything is decoded
        self._square_size(self.stream.height, self.stream.width)
        longest = LONGEST_STEP_IN_JOINED if self.kind.joins else LONGEST_STEP
        timeline = Timeline(self.tick, 1 / self.rate if self.rate else None, longest)
        damage, count, end = Damage(), 0, Fraction(0)
        previous: tuple[VideoFrame, Fraction] | None = None
        for item in self._decode():
            if isinstance(item, str):
                damage.note(count, item)
                continue
            if not count and self.kind.joins:
                damage = Damage()  # a recording may begin with what needs frames in front of it
            if item.is_corrupt:
                damage.note(count, "FFmpeg made up what is missing")
            start = timeline.start(self._time_of(item))
            if previous:
                yield self._make_frame(*previous, start)
            previous, count = (item, start), count + 1
        if previous:
            frame, start = previous
            end = start + ((frame.duration or 0) * self.tick or timeline.usual_step)
            yield self._make_frame(frame, start, end)
        self._check_end(count, end, str(damage))

    def _time_of(self, frame: VideoFrame) -> Fraction | None:
        shown, decoded = frame.pts, frame.dts
        time = decoded if shown is None or not self.kind.timed else shown
        return None if time is None else time * self.tick

    def _make_frame(self, frame: VideoFrame, start: Fraction, end: Fraction) -> ShownFrame:
        return ShownFrame(partial(self._pixels, frame), start, end)

    def _decode(self) -> Iterator[VideoFrame | str]:
        """Yields frames, and where some cannot be decoded, why."""
        from av.error import FFmpegError

        packets = self.input.demux(self.stream)
        while True:
            try:
                with stage("decode"):
                    frames = next(packets).decode()
            # PyAV stumbles in the end over streams that came up on the way, as in joined files
            except (StopIteration, IndexError):
                return
            except MemoryError as error:
                raise unreadable_error(str(self.source), error) from error
            except FFmpegError as error:
                yield str(error.strerror)  # and what cannot be read on has ended with this
                continue
            yield from frames

    def _check_end(self, count: int, end: Fraction, damage: str) -> None:
        if self.file.error:
            raise unreadable_error(str(self.source), self.file.error)
        announced, duration = self.stream.frames, self.input.duration
        # it may well hold fewer frames than it announces: a part cut out of it in front of a key
        # frame keeps, and counts, what is no longer shown
        if not (announced and count >= announced) and is_cut_off(self.file.file):
            damage = f"it breaks off at frame {count}"
            if announced:
                damage += f" of {announced}"
            elif duration:
                damage += f", {float(end):.2f} of {duration / FFMPEG_TICKS:.2f} seconds"
        elif not count:
            name = self.stream.codec_context.name
            damage = f"codec {name}: {damage}" if damage else "it has no frames"
        if damage:
            raise unreadable_error(str(self.source), ImageError(damage))

    @stage("decode")
    def _pixels(self, frame: VideoFrame) -> NDArray[np.uint8]:
        from av.error import FFmpegError

        height, width = self._square_size(frame.height, frame.width)
        transfer, primaries = SHOWN_COLOURS if frame.color_trc in HDR_TRANSFERS else (None, None)
        try:
            rgb = self._reformatter.reformat(
                frame,
                width,
                height,
                "rgb24",
                interpolation="BICUBIC",
                src_colorspace=_find_matrix(frame),
                dst_color_trc=transfer,
                dst_color_primaries=primaries,
                threads=1,
            ).to_ndarray()
        except MemoryError as error:
            raise unreadable_error(str(self.source), error) from error
        except FFmpegError as error:
            words = ImageError(f"its pixels ({frame.format.name}) are of a kind that is not known")
            raise unreadable_error(str(self.source), words) from error
        return _make_upright(np.asarray(rgb, np.uint8), frame)

    def _square_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width in square pixels, before turning; raises ImageError."""
        aspect = self.stream.sample_aspect_ratio or Fraction(1)
        if aspect > 1:
            width = round(width * aspect)
        elif aspect > 0:
            height = round(height / aspect)
        if height * width > self.max_pixels:
            error = too_large_error(f"frames of {width} x {height} pixels", self.max_pixels)
            raise unreadable_error(str(self.source), error)
        return height, width


@contextmanager
def open_video(source: Source, max_pixels: int) -> Iterator[VideoReader]:
    """Opens a video file, or what lies behind a URL; raises ImageError."""
    with _open_file(source) as (file, kind), _open_input(source, file, kind, max_pixels) as input_:
        yield VideoReader(
            source, file, kind, input_, _find_stream(source, file, input_), max_pixels
        )


@contextmanager
def _open_file(source: Source) -> Iterator[tuple[QuietFile, Container]]:
    try:
        file = _open_seekable(source)
    except Exception as error:  # behind a URL, a file system raises whatever its client does
        raise unreadable_error(str(source), error, "it cannot be read") from error
    with file:
        kind = find_container(file)
        if kind is None:
            words = "it is no video, or of a kind that camviz does not know"
            raise unreadable_error(str(source), ImageError(words))
        file.seek(0)
        yield QuietFile(file), kind


def _open_seekable(source: Source) -> BinaryIO:
    if not source.url:
        # before it is opened: a pipe would wait for whoever writes to it
        if find_file_size(source.path) == 0:
            raise ImageError("it is empty")
        return source.path.open("rb")
    with ExitStack() as stack:
        # which has no name, and goes with the process
        copy = stack.enter_context(tempfile.TemporaryFile())
        with open_source(source) as opened_source:
            shutil.copyfileobj(opened_source, copy)
        stack.pop_all()
    return copy


@contextmanager
def _open_input(
    source: Source, file: QuietFile, kind: Container, max_pixels: int
) -> Iterator[InputContainer]:
    import av
    from av.error import FFmpegError

    try:
        # an open file, and none by its name: FFmpeg takes some names for URLs
        container = av.open(
            file,
            "r",
            format=kind.name,
            metadata_errors="replace",
            options={"max_pixels": str(max_pixels)},
        )
    except MemoryError as error:
        raise unreadable_error(str(source), error) from error
    except FFmpegError as error:
        words = f"it is a video that is truncated or damaged ({error.strerror})"
        raise unreadable_error(str(source), file.error or ImageError(words)) from error
    with container:
        yield container


def _find_stream(source: Source, file: QuietFile, container: InputContainer) -> VideoStream:
    """Returns the video among streams of sound and cover pictures; raises ImageError."""
    from av.video.stream import VideoStream

    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise unreadable_error(str(source), ImageError("it holds no video, sound at most"))
    if stream.codec_context is None:
        words = "it is a video that is truncated or damaged"
        if not is_cut_off(file.file):
            words = "its codec is one that FFmpeg does not know, and so cannot be decoded here"
        raise unreadable_error(str(source), ImageError(words))
    # several frames side by side
    stream.thread_type = "AUTO"
    return stream


def _find_matrix(frame: VideoFrame) -> int | None:
    """Returns how a frame's colours were made of RGB, None where it says so itself."""
    is_high_definition = frame.width > LARGEST_SD_WIDTH or frame.height > LARGEST_SD_HEIGHT
    return BT709 if frame.colorspace == UNSPECIFIED and is_high_definition else None


def _make_upright(pixels: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    """Turns and mirrors as a frame's display matrix says, to the nearest quarter turn."""
    try:
        matrix = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]
    except KeyError:
        return pixels
    # x' = a x + c y, y' = b x + d y
    a, b, _, c, d = struct.unpack_from("5i", matrix)
    across, down = a, d
    if abs(b) > abs(a):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
