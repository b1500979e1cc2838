from __future__ import annotations

import errno
import io
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, features

from camcli.errors import ImageError, SourceError, UsageError
from camcli.media.pictures.color_profiles import convert_to_srgb
from camcli.media.videos import video_reader
from camcli.media.videos.camera import read_camera
from camcli.media.videos.containers import find_container, is_cut_off
from camcli.media.videos.frame_times import ShownFrame, Timeline, choose_frames
from camcli.media.videos.frames import EVERYTHING, frames, is_moving, open_frames
from camcli.media.videos.pyav_file import QuietFile
from camcli.records import Picture, Source, Span
from tests.media.clips import (
    BACKGROUND,
    BLOB,
    COUNT,
    HEIGHT,
    WIDTH,
    frame,
    index_shown,
    place_of_blob,
    write_animation,
    write_video,
)
from tests.media.pictures.profiles import display_p3

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
WHOLE_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def indices(pictures: Iterator[Picture]) -> list[int | None]:
    """The numbers of frames, which are those that they show."""
    results = []
    for picture in pictures:
        assert index_shown(picture.pixels) == picture.frame
        results.append(picture.frame)
    return results


def read_until_error(pictures: Iterator[Picture]) -> tuple[int, str]:
    count = 0
    with pytest.raises(ImageError) as caught:
        for _ in pictures:
            count += 1
    return count, str(caught.value)


def cut_off(path: Path) -> bool:
    with path.open("rb") as file:
        return is_cut_off(file)


def is_known(path: Path) -> bool:
    with path.open("rb") as file:
        return find_container(file) is not None


# Frames


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_come_with_their_colours_and_numbers(tmp_path: Path, suffix: str) -> None:
    source = Source(write_video(tmp_path / f"a{suffix}"))
    actual = list(frames(source))
    assert [picture.frame for picture in actual] == list(range(COUNT))
    for index, picture in enumerate(actual):
        assert picture.source is source
        assert picture.pixels.dtype == np.uint8 and picture.pixels.flags.c_contiguous
        assert np.abs(picture.pixels.astype(int) - frame(index)).mean() < 4
        assert np.abs(picture.pixels[40, 60].astype(int) - BACKGROUND).max() < 8
        assert np.abs(picture.pixels[16, 4 * index + 8].astype(int) - BLOB).max() < 25


# Times

# milliseconds: a pause, three quick frames, one that stands, and the end
UNEVEN = [0, 40, 240, 250, 260, 900, 1000, 1700]


def list_shown(pictures: Iterator[Picture]) -> list[Fraction]:
    """When frames are shown, in milliseconds, and when the last one ends; each until the next."""
    actual = [(p.time, p.duration) for p in pictures]
    times = [time for time, _ in actual] + [actual[-1][0] + actual[-1][1]]
    assert [after - before for before, after in pairwise(times)] == [lasts for _, lasts in actual]
    return [1000 * time for time in times]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".ts", ".m2ts"])
def test_each_frame_is_shown_at_its_time(tmp_path: Path, suffix: str) -> None:
    codec = "libx264" if suffix == ".ts" else ""
    path = write_video(tmp_path / f"a{suffix}", times=UNEVEN, codec=codec)
    pictures = list(frames(Source(path)))
    assert [index_shown(picture.pixels) for picture in pictures] == list(range(7))
    # neither of the last two says how long its last frame is shown: as long as most
    known = UNEVEN if suffix not in (".ts", ".m2ts") else UNEVEN[:-1]
    assert list_shown(iter(pictures))[: len(known)] == known


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_of_equal_length(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", fps=12.5)
    with open_frames(Source(path)) as (times, pictures):
        assert times.rate == 12.5
        assert list_shown(pictures) == [80 * n for n in range(COUNT + 1)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_frames_that_are_coded_out_of_their_order(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", codec="libx264", times=UNEVEN, options={"bf": "3"})
    pictures = list(frames(Source(path)))
    assert [index_shown(picture.pixels) for picture in pictures] == list(range(7))
    assert list_shown(iter(pictures))[:7] == UNEVEN[:7]


@pytest.mark.parametrize(
    ("every", "span", "expected"),
    [
        (2, ":", [0, 240, 260, 1000, 1700]),
        (3, ":", [0, 250, 1000, 1700]),
        (1, "2:5", [240, 250, 260, 900]),
        (2, "1:4", [40, 250, 260]),
        (9, ":", [0, 1700]),
        (1, "6:", [1000, 1700]),
    ],
)
def test_a_frame_is_shown_until_the_next_one_that_is_chosen(
    tmp_path: Path, every: int, span: str, expected: list[int]
) -> None:
    clip = write_video(tmp_path / "a.mp4", times=UNEVEN)
    lasting = [after - before for before, after in pairwise(UNEVEN)]
    moving = write_animation(tmp_path / "a.webp", [frame(n) for n in range(7)], duration=lasting)
    chosen = Span.parse(span)
    assert list_shown(frames(Source(clip), every, chosen)) == expected
    # browsers take 10 ms for a mistake, and show such frames for 100
    stretched = {time: time + 90 * (time > 240) + 90 * (time > 250) for time in UNEVEN}
    assert list_shown(frames(Source(moving), every, chosen)) == [
        stretched[time] for time in expected
    ]


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([5, 6, 8], [0, 1, 3]),
        # none at all, and none until the third frame
        ([None, None, None], [0, 1, 2]),
        ([None, None, 7, 9], [0, 1, 2, 4]),
        # twice the same time, and a little back
        ([0, 1, 1, 2], [0, 1, 1.25, 2]),
        ([0, 1, 0.5, 2], [0, 1, 1.25, 2]),
        # another recording begins; the first frame of it comes as soon as most
        ([10, 11, 2, 3.5], [0, 1, 2, 3.5]),
        ([0, 1, 5000, 5001], [0, 1, 2, 3]),
        ([0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([0, 1, None, 3], [0, 1, 2, 3]),
    ],
)
def test_times_never_run_back(times: list[float | None], shown: list[float]) -> None:
    timeline = Timeline(Fraction(1, 4), step=Fraction(1), longest=Fraction(100))
    assert [timeline.start(None if t is None else Fraction(t)) for t in times] == shown


def test_what_does_not_tell_its_time_takes_as_long_as_the_one_before() -> None:
    timeline = Timeline(Fraction(1, 4))
    times = [Fraction(2), Fraction(5), None, Fraction(9), None]
    assert [timeline.start(time) for time in times] == [0, 3, 6, 7, 8]
    assert Timeline(Fraction(1, 4)).usual_step == Fraction(1, 25)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_of_an_avi_that_are_coded_out_of_their_order(tmp_path: Path, codec: str) -> None:
    """An AVI tells no times: FFmpeg makes some up, which run to and fro."""
    path = write_video(tmp_path / "a.avi", codec=codec, options={"bf": "2", "qmax": "4"})
    pictures = list(frames(Source(path)))
    assert [index_shown(picture.pixels) for picture in pictures] == list(range(COUNT))
    assert list_shown(iter(pictures)) == [100 * n for n in range(COUNT + 1)]


def test_a_frame_without_pixels_ends_what_is_chosen() -> None:
    source, pixels = Source(Path("a.mp4")), frame(0)

    def refuse() -> NDArray[np.uint8]:
        raise ImageError("too large")

    shown = [ShownFrame(lambda: pixels, Fraction(n), Fraction(n + 1)) for n in range(3)]
    chosen = choose_frames(iter([*shown, replace(shown[2], pixels=refuse)]), source, 1, Span())
    actual = [next(chosen) for _ in range(3)]
    assert [(p.frame, p.time, p.duration) for p in actual] == [(n, n, 1) for n in range(3)]
    with pytest.raises(ImageError, match="too large"):
        next(chosen)


# Pixels


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(2), (48, 128)),
        (Fraction(1, 2), (96, 64)),
        (Fraction(16, 15), (48, 68)),
        (Fraction(64, 45), (48, 91)),
        (Fraction(1), (48, 64)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_pixels_are_square(
    tmp_path: Path, suffix: str, aspect: Fraction, size: tuple[int, int]
) -> None:
    path = write_video(tmp_path / f"a{suffix}", 3, codec="libx264", aspect=aspect)
    actual = list(frames(Source(path)))[2].pixels
    assert actual.shape == (*size, 3)
    row, column = place_of_blob(actual)
    assert (row + 0.5) / size[0] == pytest.approx(16 / 48, abs=0.01)
    assert (column + 0.5) / size[1] == pytest.approx(16 / 64, abs=0.01)


def test_pixels_that_are_no_longer_few_when_they_are_square_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3, codec="libx264", aspect=Fraction(20))
    count, message = read_until_error(frames(Source(path), max_pixels=50_000))
    assert count == 0 and "1280 x 48 pixels are too many for --max-pixels 50000" in message


@pytest.mark.parametrize(("size", "marked"), [((480, 640), 6), ((720, 1280), 1)])
def test_colours_of_small_and_large_videos_that_do_not_tell(
    tmp_path: Path, size: tuple[int, int], marked: int
) -> None:
    """Players take what is large, and says nothing, for high definition."""
    colour = np.full((*size, 3), (30, 160, 60), np.uint8)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", options={"qp": "0"})
        stream.height, stream.width = size
        image = VideoFrame.from_ndarray(colour).reformat(format="yuv420p", dst_colorspace=marked)
        image.colorspace = 2
        out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    (actual,) = frames(Source(path))
    assert np.abs(actual.pixels.astype(int) - colour).max() <= 3


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p", "yuv422p"])
def test_other_kinds_of_pixels(tmp_path: Path, pixel_format: str) -> None:
    path = write_video(tmp_path / "a.mp4", 3, codec="libx264", pixel_format=pixel_format)
    actual = list(frames(Source(path)))[2].pixels
    assert np.abs(actual.astype(int) - frame(2)).mean() < 4


@pytest.mark.parametrize("codec", ["libsvtav1", "libx265", "libvpx-vp9", "mjpeg", "prores_ks"])
def test_codecs(tmp_path: Path, codec: str) -> None:
    suffix, pixels = (".mov", "yuv422p10le") if codec == "prores_ks" else (".mp4", "")
    path = write_video(tmp_path / f"a{suffix}", 3, codec=codec, pixel_format=pixels)
    assert indices(frames(Source(path))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("every", "span", "expected"),
    [
        (1, None, range(12)),
        (5, None, [0, 5, 10]),
        (20, None, [0]),
        (1, "3:6", [3, 4, 5]),
        (1, "9:", [9, 10, 11]),
        (1, ":2", [0, 1]),
        (1, "10:50", [10, 11]),
        (3, "2:9", [2, 5, 8]),
        (2, ":", [0, 2, 4, 6, 8, 10]),
    ],
)
def test_every_nth_frame_of_a_span(
    tmp_path: Path, every: int, span: str | None, expected: list[int]
) -> None:
    chosen = Span.parse(span) if span else EVERYTHING
    for path in (
        write_video(tmp_path / "a.mp4"),
        write_animation(tmp_path / "a.gif", [frame(i) for i in range(COUNT)]),
    ):
        assert indices(frames(Source(path), every, chosen)) == list(expected)


def test_frames_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, converted = write_video(tmp_path / "a.mp4"), []
    upright = video_reader._make_upright

    def count(pixels: NDArray[np.uint8], shown: VideoFrame) -> NDArray[np.uint8]:
        converted.append(index_shown(pixels))
        return upright(pixels, shown)

    monkeypatch.setattr(video_reader, "_make_upright", count)
    pictures = frames(Source(path), 2, Span(1))
    assert converted == []
    next(pictures)
    # how long it is shown is known with the next one that is read
    assert converted == [1, 3]
    next(pictures)
    assert converted == [1, 3, 5]


def test_a_step_below_one_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="from 1, not 0"):
        frames(Source(tmp_path / "a.mp4"), 0)


def test_a_span_behind_the_end_is_reported(tmp_path: Path) -> None:
    for path in (
        write_video(tmp_path / "a.mp4"),
        write_animation(tmp_path / "a.gif", [frame(i) for i in range(COUNT)]),
    ):
        count, message = read_until_error(frames(Source(path), 1, Span(12)))
        assert count == 0
        assert (
            message
            == f"Cannot read '{path}': it has 12 frames, counted from 0, and none from 12 on."
        )


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [("10:50", 10, 50), (":50", 0, 50), ("10:", 10, None), (":", 0, None), (" 1 : 2 ", 1, 2)],
)
def test_spans_are_read(text: str, start: int, stop: int | None) -> None:
    span = Span.parse(text)
    assert (span.start, span.stop) == (start, stop)
    assert Span.parse(str(span)) == span


@pytest.mark.parametrize(
    "text", ["", "5", "5:5", "5:3", "-1:3", ":-1", "a:b", "1:2:3", "1.5:2", "0:0", "1,2", "²:3"]
)
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="frames"):
        Span.parse(text)


@pytest.mark.parametrize("angle", WHOLE_TURNS)
def test_frames_are_upright(tmp_path: Path, angle: int) -> None:
    path = write_video(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    a, b, c, d = (n << 16 for n in WHOLE_TURNS[angle])
    at = content.find(b"tkhd") + 44
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    expected = np.rot90(frame(3), -angle // 90)
    actual = list(frames(Source(path)))[3].pixels
    assert actual.shape == expected.shape
    assert place_of_blob(actual) == pytest.approx(place_of_blob(expected), abs=0.6)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
        ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
        ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1)),
        # to the nearest quarter turn
        ((0.1, 0.99, -0.99, 0.1), lambda pixels: np.rot90(pixels, -1)),
    ],
)
def test_frames_are_mirrored(
    tmp_path: Path,
    matrix: tuple[float, ...],
    expected: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> None:
    path = write_video(tmp_path / "a.mov", 4)
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(n * 65536) for n in matrix)
    struct.pack_into(">9i", content, content.find(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    actual, upright = list(frames(Source(path)))[3].pixels, expected(frame(3))
    assert actual.shape == upright.shape
    assert place_of_blob(actual) == pytest.approx(place_of_blob(upright), abs=0.6)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_long_pixels_are_made_square_before_the_picture_is_turned(
    tmp_path: Path, suffix: str
) -> None:
    path = write_video(tmp_path / f"a{suffix}", 4, codec="libx264", aspect=Fraction(2), turn=90)
    actual = list(frames(Source(path)))[3].pixels
    assert actual.shape == (128, 48, 3)
    upright = np.rot90(np.repeat(frame(3), 2, 1))
    assert place_of_blob(actual) == pytest.approx(place_of_blob(upright), abs=1)


def test_a_high_dynamic_range_is_shown_as_on_other_screens(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"qp": "0"})
        assert isinstance(stream, VideoStream)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = 18, 9
        stream.codec_context.colorspace, stream.codec_context.color_range = 9, 1
        image = VideoFrame(64, 64, "yuv420p10le")
        image.pts, image.time_base = 0, Fraction(1, 10)
        # three quarters of the signal are white, in hybrid log-gamma
        for plane, value in zip(image.planes, (64 + 657, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
        out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    (actual,) = frames(Source(path))
    assert actual.pixels.min() > 250


# Files that are no videos, or broken ones


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_video_that_is_cut_off_gives_what_is_there(tmp_path: Path, suffix: str) -> None:
    whole = write_video(tmp_path / f"whole{suffix}").read_bytes()
    if suffix in (".mp4", ".mov"):
        whole = with_index_first(whole)
    path = tmp_path / f"a{suffix}"
    counts = set()
    for share in (0.05, 0.3, 0.6, 0.8, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        count, message = read_until_error(frames(Source(path)))
        assert message.startswith(f"Cannot read '{path}': it ")
        announced = (
            " of 12."
            if suffix in (".mp4", ".mov", ".avi")
            else f", {count / 10:.2f} of 1.20 seconds"
        )
        assert count == 0 or f"it breaks off at frame {count}{announced}" in message
        counts.add(count)
    assert len(counts) > 2


def with_index_first(content: bytes) -> bytes:
    """Puts an MP4's index in front of its frames, as it is for the web."""
    parts, start = {}, 0
    while start < len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        parts[kind] = content[start : start + length]
        start += length
    moov = bytearray(parts[b"moov"])
    at = moov.find(b"stco") + 8
    count = struct.unpack_from(">I", moov, at)[0]
    offsets = struct.unpack_from(f">{count}I", moov, at + 4)
    struct.pack_into(f">{count}I", moov, at + 4, *(offset + len(moov) for offset in offsets))
    others = [part for kind, part in parts.items() if kind not in (b"ftyp", b"moov")]
    return b"".join([parts[b"ftyp"], moov, *others])


def test_what_is_cut_out_in_front_of_a_key_frame_is_not_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    scale = struct.unpack_from(">I", content, content.find(b"mdhd") + 16)[0]
    # what `ffmpeg -ss 0.5 -c copy` does: the first half second is there, and not shown
    struct.pack_into(">i", content, content.find(b"elst") + 16, round(0.5 * scale))
    path.write_bytes(content)
    actual = [index_shown(picture.pixels) for picture in frames(Source(path))]
    assert actual == list(range(5, 12))


def test_a_span_in_front_of_the_break_is_no_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm")
    path.write_bytes(path.read_bytes()[:-150])
    assert cut_off(path)
    assert indices(frames(Source(path), 1, Span(1, 3))) == [1, 2]


def test_damage_inside_is_passed_over_and_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi")
    content = path.read_bytes()
    places = [actual.start() + 8 for actual in re.finditer(b"00dc", content)][1:]
    for at in (places[5], places[7]):
        content = content[:at] + bytes(600) + content[at + 600 :]
    path.write_bytes(content)
    shown = []
    # what stands in front of a frame that is lost is shown for longer
    with pytest.raises(ImageError, match=r"frame 5 is damaged \(Invalid .*\), and 1 behind"):
        for picture in frames(Source(path)):
            shown.append(index_shown(picture.pixels))
            assert picture.time == Fraction(shown[-1], 10)
    assert shown == [n for n in range(COUNT) if n not in (5, 7)]


def test_what_is_made_up_of_a_damaged_frame_is_reported(tmp_path: Path) -> None:
    shown = [
        np.random.default_rng(n).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for n in (1, 2)
    ]
    path = write_video(tmp_path / "a.mkv", codec="libx264", options={"bf": "0"}, frames=shown * 6)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(content)
    count, message = read_until_error(frames(Source(path)))
    assert count == COUNT
    assert re.search(r": frame [1-9]\d? is damaged \(FFmpeg made up what is missing\)", message)


def test_a_codec_that_is_not_known(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_MADE_UP/OF_US"))
    count, message = read_until_error(frames(Source(path)))
    assert count == 0
    assert message.endswith(
        "its codec is one that FFmpeg does not know, and so cannot be decoded here."
    )


def test_a_codec_whose_frames_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_PRORES\0\0\0\0\0\0\0"))
    count, message = read_until_error(frames(Source(path)))
    assert count == 0
    assert "codec prores: frame 0 is damaged (Not yet implemented" in message


def test_streams_that_come_up_on_the_way(tmp_path: Path) -> None:
    """A recording goes on under another number, as when a broadcast changes its programme."""
    parts = []
    for number in (256, 300):
        path = tmp_path / "part.ts"
        with av.open(str(path), "w", options={"mpegts_start_pid": str(number)}) as out:
            stream = out.add_stream("mpeg2video", rate=25, options={"bf": "2"})
            assert isinstance(stream, VideoStream)
            stream.height, stream.width = HEIGHT, WIDTH
            for index in range(COUNT):
                out.mux(stream.encode(VideoFrame.from_ndarray(frame(index))))
            out.mux(stream.encode(None))
        parts.append(path.read_bytes())
    path.write_bytes(parts[0] * 40 + parts[1])
    actual = [index_shown(picture.pixels) for picture in frames(Source(path))]
    assert actual == list(range(COUNT)) * 40


def test_a_file_that_cannot_be_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.mkv", 40)
    reading, left = QuietFile.read, [3]

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(min(size or 0, 2000))

    def fail(self: QuietFile, size: int) -> bytes:
        if not isinstance(self.file, Failing):
            place = self.file.tell()
            self.file.seek(0)
            self.file = Failing(self.file.read())
            self.file.seek(place)
        return reading(self, size)

    monkeypatch.setattr(QuietFile, "read", fail)
    _, message = read_until_error(frames(Source(path)))
    assert message.endswith("it is truncated or damaged ([Errno 5] Input/output error).")
    assert capfd.readouterr() == ("", "")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        assert isinstance(stream, AudioStream)
        sound = AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    count, message = read_until_error(frames(Source(path)))
    assert count == 0 and "it holds no video, sound at most" in message


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.mp4", "PNG")
    write_animation(tmp_path / "gif.mp4", [frame(0), frame(1)], format="GIF")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{write_video(tmp_path / 'a.avi')}\n")
    (tmp_path / "text.mp4").write_text("ffconcat version 1.0\nfile a.avi\n")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "head.mp4").write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" * 3)
    for name, words in {
        "picture": "it is no video, or of a kind that camviz does not know",
        "gif": "it is no video",
        "list": "it is no video",
        "text": "it is no video",
        "noise": "it is no video",
        "empty": "it is empty",
        "folder": "it is a folder",
        "missing": "there is no such file",
        "head": "it is a video that is truncated or damaged",
    }.items():
        path = tmp_path / f"{name}.mp4"
        count, message = read_until_error(frames(Source(path)))
        assert count == 0 and message.startswith(f"Cannot read '{path}': {words}")


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", count=0)
    count, message = read_until_error(frames(Source(path)))
    assert count == 0 and message.startswith(f"Cannot read '{path}': it ")


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert len(list(frames(Source(path), max_pixels=HEIGHT * WIDTH))) == COUNT
    count, message = read_until_error(frames(Source(path), max_pixels=HEIGHT * WIDTH - 1))
    assert count == 0
    assert "64 x 48 pixels are too many for --max-pixels 3071" in message


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for suffix in SUFFIXES:
        whole = np.frombuffer(write_video(tmp_path / f"whole{suffix}").read_bytes(), np.uint8)
        for _ in range(12):
            content = whole.copy()
            content[draw.integers(0, len(content), 20)] = draw.integers(0, 256, 20)
            path = tmp_path / f"a{suffix}"
            path.write_bytes(content.tobytes())
            try:
                assert len(list(frames(Source(path), max_pixels=10**7))) <= 100 * COUNT
            except ImageError as error:
                assert str(path) in str(error)


def test_nothing_is_printed_of_what_is_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ImageError):
        list(frames(Source(path)))
    # FFmpeg's own code prints to the streams that the process began with
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="names in bytes")
@pytest.mark.parametrize("name", [b"n\xff.mp4", b"%02d.mp4", b"file:a.mp4", "猫 \n-.mp4".encode()])
def test_odd_names(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    write_video(tmp_path / "a.mp4").rename(path)
    assert indices(frames(Source(path))) == list(range(COUNT))


def test_a_video_behind_a_url(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/clips/a.webm", write_video(tmp_path / "a.webm").read_bytes())
    source = Source(Path("clips/a.webm"), url="memory://clips/a.webm")
    assert indices(frames(source, 4)) == [0, 4, 8]
    missing = Source(Path("clips/b.webm"), url="memory://clips/b.webm")
    with pytest.raises(ImageError, match=r"Cannot read 'memory://clips/b\.webm'"):
        next(frames(missing))


# What is known of containers


def test_an_avi_whose_length_nobody_wrote_is_not_cut_off(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi")
    content = bytearray(path.read_bytes())
    assert not cut_off(path)
    struct.pack_into("<I", content, 4, len(content))
    path.write_bytes(content)
    assert cut_off(path)
    struct.pack_into("<I", content, 4, 0)
    path.write_bytes(content)
    assert not cut_off(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_videos_are_whole_and_shorter_ones_are_not(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}")
    assert is_known(path) and not cut_off(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert cut_off(path)


def test_lengths_of_eight_bytes_and_open_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    large = struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100)
    for content, is_shorter in (
        (large, False),
        (large[:-1], True),
        (struct.pack(">I4s", 0, b"mdat") + bytes(9), False),
        (struct.pack(">I4s", 7, b"mdat"), False),
    ):
        path.write_bytes(content)
        assert cut_off(path) == is_shorter
    path.write_bytes(b"\x1aE\xdf\xa3\x80\x18S\x80g\x01" + b"\xff" * 7)  # live: length unknown
    assert is_known(path) and not cut_off(path)


# Animated pictures


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".gif", {"duration": 80}),
        (".webp", {"duration": 80, "lossless": True}),
        (".png", {"duration": 80}),
        (".tiff", {}),
    ],
)
def test_animated_pictures(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    source = Source(
        write_animation(tmp_path / f"a{suffix}", [frame(i) for i in range(5)], **options)
    )
    lasts = 80 if options else 40
    for index, picture in enumerate(frames(source)):
        assert (picture.frame, picture.source) == (index, source)
        assert np.array_equal(picture.pixels, frame(index))
        assert (picture.time, picture.duration) == (
            Fraction(lasts * index, 1000), Fraction(lasts, 1000),
        )  # fmt: skip
    assert index == 4
    assert is_moving(source)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_frames_of_other_colours_are_shown_in_srgb(tmp_path: Path, suffix: str) -> None:
    pixels = [np.full((16, 16, 3), (200, 20 * n, 20), np.uint8) for n in range(3)]
    plain = write_animation(tmp_path / f"a{suffix}", pixels, lossless=True)
    assert all(picture.shown is None for picture in frames(Source(plain)))
    profile = display_p3()
    path = write_animation(tmp_path / f"b{suffix}", pixels, icc_profile=profile, lossless=True)
    for picture, values in zip(frames(Source(path)), pixels, strict=True):
        np.testing.assert_array_equal(picture.pixels, values)
        # in sRGB, as a video is shown
        np.testing.assert_array_equal(picture.canvas, convert_to_srgb(values, profile))
        assert picture.profile is None and (picture.canvas[..., 0] > 210).all()


def test_each_frame_of_an_animated_picture_has_its_own_time(tmp_path: Path) -> None:
    lasting = [40, 200, 20, 11, 30, 700]
    shown = [frame(n) for n in range(6)]
    for suffix in (".gif", ".webp", ".png"):
        path = write_animation(tmp_path / f"a{suffix}", shown, duration=lasting)
        # a GIF counts hundredths of a second, and browsers show what lasts one for ten
        message = [40, 200, 20, 100 if suffix == ".gif" else 11, 30, 700]
        assert list_shown(frames(Source(path))) == [sum(message[:n]) for n in range(7)]


def test_the_picture_that_stands_in_for_an_animation_is_none_of_its_frames(tmp_path: Path) -> None:
    still, *moving = [frame(n) for n in (9, 0, 1, 2)]
    path = write_animation(tmp_path / "a.png", [still, *moving], duration=80, default_image=True)
    assert indices(frames(Source(path))) == [0, 1, 2]
    assert indices(frames(Source(path), 1, Span(1, 2))) == [1]
    assert indices(frames(Source(path), 1, Span(2, 9))) == [2]


def test_an_animated_avif(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = write_animation(
        tmp_path / "a.avif", [frame(n) for n in range(4)], duration=[50, 90, 20, 400]
    )
    assert is_moving(Source(path))
    assert indices(frames(Source(path))) == [0, 1, 2, 3]
    assert list_shown(frames(Source(path))) == [0, 50, 140, 160, 560]


def test_what_stands_still_is_not_moving(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(frame(0)).save(path)
    assert not is_moving(Source(path))
    assert not is_moving(Source(tmp_path / "missing.gif"))
    (tmp_path / "text.gif").write_text("no picture")
    assert not is_moving(Source(tmp_path / "text.gif"))
    assert is_moving(Source(tmp_path / "a.MP4"))
    assert [picture.frame for picture in frames(Source(path))] == [0]
    stereo = write_animation(tmp_path / "a.mpo", [frame(0), frame(1)])
    assert not is_moving(Source(stereo))


def test_frames_that_were_given_stay_as_they_were(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.gif", [frame(i) for i in range(3)])
    actual = list(frames(Source(path)))
    assert [index_shown(picture.pixels) for picture in actual] == [0, 1, 2]


def test_an_animated_picture_that_breaks_off(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.png", [frame(i) for i in range(6)])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])
    count, message = read_until_error(frames(Source(path)))
    assert 0 < count < 6
    assert message.startswith(f"Cannot read '{path}': it breaks off at frame {count} (")


def test_damaged_animations_never_raise_anything_else(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for suffix in (".gif", ".webp", ".png", ".tiff"):
        whole = write_animation(
            tmp_path / f"whole{suffix}", [frame(i) for i in range(4)]
        ).read_bytes()
        for _ in range(25):
            content = np.frombuffer(whole, np.uint8).copy()
            content[draw.integers(0, len(content), 8)] = draw.integers(0, 256, 8)
            path = tmp_path / f"a{suffix}"
            path.write_bytes(content.tobytes()[: draw.integers(len(content) // 2, len(content))])
            try:
                list(frames(Source(path), max_pixels=10**6))
            except ImageError as error:
                assert str(path) in str(error)


# Cameras


class FakeCamera:
    """A camera that shows three pictures and is unplugged."""

    asked: tuple[object, ...] = ()
    released = 0

    def __init__(self, *asked: object) -> None:
        FakeCamera.asked, self.shown = asked, -1

    def isOpened(self) -> bool:  # noqa: N802
        return FakeCamera.asked[0] != 7

    def grab(self) -> bool:
        self.shown += 1
        return self.shown < 3

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        return True, np.ascontiguousarray(frame(self.shown)[..., ::-1])

    def release(self) -> None:
        FakeCamera.released += 1


def test_a_camera_gives_pictures_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    monkeypatch.setattr(FakeCamera, "released", 0)
    pictures = read_camera(2, 1, EVERYTHING)
    for index in range(3):
        picture = next(pictures)
        assert (picture.frame, str(picture.source)) == (index, "camera2")
        assert np.array_equal(picture.pixels, frame(index))
    assert FakeCamera.asked[0] == 2
    with pytest.raises(ImageError, match="Camera 2 gives no picture 3"):
        next(pictures)
    assert FakeCamera.released == 1
    assert [p.frame for p in read_camera(0, 2, Span(0, 3))] == [0, 2]
    assert FakeCamera.released == 2


def test_a_camera_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    with pytest.raises(SourceError, match="Camera 7 is not there"):
        next(read_camera(7, 1, EVERYTHING))
    for index in (-1, 100):
        with pytest.raises(UsageError, match=f"from 0 to 99, not {index}"):
            read_camera(index, 1, EVERYTHING)
