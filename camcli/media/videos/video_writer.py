"""Writes frames, each at its time, into a video file that is whole or not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from camcli.errors import ImageError, OutputError
from camcli.media.atomic_files import unwritable_error, write_atomically
from camcli.media.output_names import choose_head, join_name, list_name_parts, make_part
from camcli.media.videos.frame_times import USUAL_STEP, FrameTimes
from camcli.media.videos.pyav_file import QuietFile
from camcli.records import Source
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class Codec:
    """An encoder of FFmpeg, how it is set, and whether it takes odd widths and heights."""

    name: str
    options: Mapping[str, str]
    takes_odd: bool


# Frames come out in the order in which they go in (no B-frames, no lag), so that each keeps its
# time without an edit list.  OpenCV's MPEG-4 and VP8 are no choice: no browser and few players show
# them in full
H264 = Codec("libx264", {"preset": "superfast", "crf": "18", "bf": "0", "g": "60"}, False)
VP9 = Codec(
    "libvpx-vp9",
    {
        "deadline": "realtime", "cpu-used": "8", "crf": "18", "b": "0", "g": "60",
        "lag-in-frames": "0", "row-mt": "1",
    },
    True,
)  # fmt: skip

# by suffix: FFmpeg's name for the format, and the codecs of which the first that works is taken;
# some builds of FFmpeg have no H.264
FORMATS: Mapping[str, tuple[str, tuple[Codec, ...]]] = {
    ".mp4": ("mp4", (H264, VP9)),
    ".m4v": ("mp4", (H264, VP9)),
    ".mov": ("mov", (H264,)),
    ".mkv": ("matroska", (H264, VP9)),
    ".webm": ("webm", (VP9,)),
}
DEFAULT_SUFFIX = ".mp4"

# what MP4 can tell exactly of a frame that stands for an hour
SHORTEST_TICK = Fraction(1, 90_000)  # seconds

BT709, LIMITED_RANGE = 1, 1  # numbers of ITU-T H.273

Size = tuple[int, int]


def name_video(
    source: Source,
    method: str,
    category: int | None,
    label: str,
    *,
    layer: str | None = None,
    target: str = "",
    rank: int | None = None,
    front: Sequence[str] = (),
    behind: Sequence[str] = (),
) -> Path:
    """Names a video as `name_output` names a picture; a rank stands for classes that change."""
    own = source.path.suffix
    keeps_own = own.lower() in FORMATS
    head, suffix = choose_head(source, keeps_own=keeps_own), own if keeps_own else DEFAULT_SUFFIX
    parts = list_name_parts(method, category, label, layer, target, front)
    parts += [] if rank is None else [f"rank{rank}"]
    return join_name(source, head, [*parts, *map(make_part, behind)], suffix)


class _Discard(Exception):
    """Takes back what was written so far."""


class VideoFile:
    """A video in the making, of frames of one size: whole when the block ends, gone when it raises.

    Without a frame there is no file.  The sound of a source is not carried over.  Raises
    OutputError for what cannot be written, ImageError for a frame that no codec holds, or of
    another size.
    """

    def __init__(self, path: Path, times: FrameTimes) -> None:
        self.path = path
        self.frames = 0
        self.size: Size | None = None
        self._times = times
        self._file: BinaryIO | None = None
        self._encoder: Encoder | None = None
        self._closing = ExitStack()
        if path.suffix.lower() not in FORMATS:
            raise OutputError(
                f"Cannot write {str(path)!r}: a video's suffix is one of {' '.join(FORMATS)}."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error or self._encoder is None:
            # a file that could not be written on cannot be closed in peace
            with suppress(_Discard, OutputError), self._closing:
                raise _Discard
            return
        with self._closing, self._convert_errors():
            self._encoder.finish()

    @stage("write")
    def write(
        self, pixels: NDArray[np.uint8], time: Fraction, duration: Fraction | None = None
    ) -> None:
        """Appends a frame, RGB [h w 3], that is shown from a time on until the next one.

        Both in seconds; the last one's duration counts, or where it is not known, the last step.
        Raises ImageError for a frame of another size than the first.
        """
        size = pixels.shape[0], pixels.shape[1]
        if self._encoder is None or self.size is None:
            self._encoder, self.size = self._start_encoder(size), size
        if size != self.size:
            raise ImageError(
                f"Cannot write {str(self.path)!r}: frame {self.frames} has {size[1]} x {size[0]} "
                f"pixels, and those before it {self.size[1]} x {self.size[0]}. Write the frames as "
                "pictures (--save-frames)."
            )
        with self._convert_errors():
            self._encoder.encode(pixels, time, duration)
        self.frames += 1

    def _start_encoder(self, size: Size) -> Encoder:
        if self._file is None:
            self._file = self._closing.enter_context(write_atomically(self.path))
        format_, codecs = FORMATS[self.path.suffix.lower()]
        for codec in codecs:
            with suppress(*_encoder_errors()):
                return Encoder(self._file, format_, codec, size, self._times)
        raise ImageError(
            f"Cannot write {str(self.path)!r}: no video of {size[1]} x {size[0]} pixels can be "
            f"written with {' or '.join(codec.name for codec in codecs)}. Choose another suffix "
            f"({' '.join(FORMATS)}), or write the frames as pictures (--save-frames)."
        )

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        from av.error import FFmpegError

        try:
            yield
        except FFmpegError as error:
            raise unwritable_error(self.path, OSError(error.errno, error.strerror)) from error
        except OSError as error:
            raise unwritable_error(self.path, error) from error


class Encoder:
    """Puts frames of one size into a file, each with its time; raises FFmpegError or OSError."""

    def __init__(
        self, file: BinaryIO, format_: str, codec: Codec, size: Size, times: FrameTimes
    ) -> None:
        import av
        from av.video.reformatter import VideoReformatter
        from av.video.stream import VideoStream

        self._tick = max(times.tick, SHORTEST_TICK)
        self._codec, self._file = codec, QuietFile(file)
        self._output = av.open(
            self._file,
            "w",
            format=format_,
            # the index stands in front, so that browsers play what is still coming
            options={"movflags": "+faststart"} if format_ in ("mp4", "mov") else {},
            io_open=lambda *_: _SecondReader(file),
        )
        stream = self._output.add_stream(codec.name, options=dict(codec.options))
        assert isinstance(stream, VideoStream)
        self._stream, context = stream, stream.codec_context
        context.height, context.width = map(self._pad, size)
        context.pix_fmt, context.sample_aspect_ratio = "yuv420p", Fraction(1)
        context.time_base, context.framerate = self._tick, times.rate or Fraction(0)
        context.color_range = LIMITED_RANGE
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.open()
        self._reformatter = VideoReformatter()
        self._waiting: Packet[VideoStream] | None = None
        self._pts, self._end = -1, Fraction(0)

    def _pad(self, length: int) -> int:
        return length if self._codec.takes_odd else length + length % 2

    def encode(self, pixels: NDArray[np.uint8], time: Fraction, duration: Fraction | None) -> None:
        """Appends a frame, RGB [h w 3]; time and duration in seconds."""
        from av.video.frame import VideoFrame

        pts = max(round(time / self._tick), self._pts + 1)
        step = (pts - self._pts) * self._tick if self._pts >= 0 else USUAL_STEP
        self._pts, self._end = pts, time + (duration or step)
        height, width = pixels.shape[:2]
        rows, columns = self._pad(height) - height, self._pad(width) - width
        if rows or columns:
            pixels = np.pad(pixels, ((0, rows), (0, columns), (0, 0)), "edge")
        frame = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(pixels)),
            format="yuv420p",
            dst_colorspace=BT709,
            dst_color_range="MPEG",
            threads=1,
        )
        frame.pts, frame.time_base = pts, self._tick
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what is still to come, and the index."""
        self._mux(self._stream.encode(None))
        if self._waiting:
            # how long the last frame is shown, which nothing behind it tells
            self._waiting.duration = max(round(self._end / self._tick) - self._pts, 1)
            self._output.mux(self._waiting)
        self._output.close()
        self._file.raise_error()

    def _mux(self, packets: Sequence[Packet[VideoStream]]) -> None:
        for packet in packets:
            if self._waiting:
                assert packet.pts is not None and self._waiting.pts is not None
                self._waiting.duration = packet.pts - self._waiting.pts
                self._output.mux(self._waiting)
            self._waiting = packet
        self._file.raise_error()


class _SecondReader:
    """Reads a file that FFmpeg is writing, when it moves all of it to put the index in front."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0

    def read(self, size: int) -> bytes:
        writing_at = self._file.tell()
        self._file.seek(self._at)
        content = self._file.read(size)
        self._file.seek(writing_at)
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        """Leaves the file to who writes it."""


def _encoder_errors() -> tuple[type[Exception], ...]:
    """Returns what is raised where FFmpeg has not a codec, or a codec does not take a size."""
    from av.codec.codec import UnknownCodecError
    from av.error import FFmpegError

    return UnknownCodecError, FFmpegError
