"""Small videos for tests: a red blob moves over grey-blue, by one step a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH, COUNT, FPS = 48, 64, 12, 10.0
BACKGROUND, BLOB = (40, 60, 80), (200, 30, 30)
CODEC = {
    ".mp4": "mpeg4", ".mov": "mpeg4", ".avi": "mjpeg", ".mkv": "mpeg4", ".webm": "libvpx",
    ".ts": "mpeg2video", ".m2ts": "libx264", ".mpg": "mpeg2video", ".dv": "dvvideo",
    ".ogv": "libtheora", ".flv": "flv", ".wmv": "wmv2", ".mxf": "mpeg2video", ".3gp": "mpeg4",
}  # fmt: skip
FORMAT = {".m2ts": "mpegts", ".mkv": "matroska"}
MUXING = {".m2ts": {"mpegts_m2ts_mode": "1"}}
QUALITY = {
    **{name: {"qmax": "4"} for name in ("mpeg4", "mpeg2video", "mjpeg")}, "libvpx": {"b": "2M"},
}  # fmt: skip


def frame(index: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """The blob stands `4 * index` pixels from the left, in the upper half."""
    pixels = np.full((*size, 3), BACKGROUND, np.uint8)
    pixels[8:24, 4 * index : 4 * index + 16] = BLOB
    return pixels


def write_video(
    path: Path,
    count: int = COUNT,
    fps: float = FPS,
    *,
    times: Sequence[int] | None = None,
    codec: str = "",
    options: Mapping[str, str] | None = None,
    frames: Iterable[NDArray[np.uint8]] | None = None,
    aspect: Fraction = Fraction(1),
    turn: int = 0,
    pixel_format: str = "",
) -> Path:
    """Writes a clip; `times` are those of the frames and of their end, in milliseconds."""
    suffix = path.suffix.lower()
    codec = codec or CODEC[suffix]
    tick = Fraction(1, 1000) if times else 1 / Fraction(fps).limit_denominator(1001)
    shown = list(frames) if frames is not None else [frame(index) for index in range(count)]
    if times:
        shown = [frame(index) for index in range(len(times) - 1)]
    pts = times or range(len(shown) + 1)
    lasting = dict(zip(pts, (after - before for before, after in pairwise(pts)), strict=False))
    with av.open(
        str(path), "w", format=FORMAT.get(suffix), options=dict(MUXING.get(suffix, {}))
    ) as out:
        stream = out.add_stream(codec, rate=1 / tick)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.height, context.width = shown[0].shape[:2] if shown else (HEIGHT, WIDTH)
        context.pix_fmt = pixel_format or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        context.time_base, context.sample_aspect_ratio = tick, aspect
        context.options = dict(options or QUALITY.get(codec, {}))
        if not shown:
            out.start_encoding()
        if turn:
            stream.set_display_rotation(turn)
        for time, pixels in zip(pts, shown, strict=False):
            image = VideoFrame.from_ndarray(np.ascontiguousarray(pixels))
            image.pts, image.time_base = time, tick
            for packet in stream.encode(image):
                packet.duration = lasting[packet.pts]
                out.mux(packet)
        for packet in stream.encode(None):
            packet.duration = lasting[packet.pts]
            out.mux(packet)
    return path


def times_of(path: Path) -> list[Fraction]:
    """When a file shows its frames, in seconds, and when the last one ends, by its header."""
    with av.open(str(path)) as actual:
        stream = actual.streams.video[0]
        times = [one.pts * one.time_base for one in actual.decode(stream)]
        assert actual.duration is not None
        return [*times, Fraction(actual.duration, 1_000_000)]


def place_of_blob(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """The blob's middle, (row, column)."""
    rows, columns = np.where(pixels[..., 0] > 120)
    return float(rows.mean()), float(columns.mean())


def index_shown(pixels: NDArray[np.uint8]) -> int:
    return round((place_of_blob(pixels)[1] - 7.5) / 4)


def write_animation(path: Path, frames: Sequence[NDArray[np.uint8]], **options: object) -> Path:
    first, *others = (Image.fromarray(pixels) for pixels in frames)
    first.save(path, save_all=True, append_images=others, **options)
    return path
