from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ImageError, SourceError, UsageError
from camcli.media import video
from camcli.media.containers import container, is_cut_off
from camcli.media.video import VideoInfo, camera, frames, info, is_moving
from camcli.records import Picture, Source, Span

from .videos import (
    BACKGROUND,
    BLOB,
    COUNT,
    FPS,
    HEIGHT,
    WIDTH,
    animated,
    frame,
    index_shown,
    place_of_blob,
    written,
)

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
WHOLE_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def indices(pictures: Iterator[Picture]) -> list[int | None]:
    """The numbers of frames, which are those that they show."""
    found = []
    for picture in pictures:
        assert index_shown(picture.pixels) == picture.frame
        found.append(picture.frame)
    return found


def read_until_error(pictures: Iterator[Picture]) -> tuple[int, str]:
    count = 0
    with pytest.raises(ImageError) as caught:
        for _ in pictures:
            count += 1
    return count, str(caught.value)


class Delegating:
    """An OpenCV capture that can be altered; classes derived from OpenCV's own damage the heap."""

    def __init__(self, *asked: object, real: type = cv2.VideoCapture) -> None:
        self._real = real(*asked)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


# Frames


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_come_with_their_colours_and_numbers(tmp_path: Path, suffix: str) -> None:
    source = Source(written(tmp_path / f"a{suffix}"))
    found = list(frames(source))
    assert [picture.frame for picture in found] == list(range(COUNT))
    for index, picture in enumerate(found):
        assert picture.source is source
        assert picture.pixels.dtype == np.uint8 and picture.pixels.flags.c_contiguous
        assert np.abs(picture.pixels.astype(int) - frame(index)).mean() < 4
        assert np.abs(picture.pixels[40, 60].astype(int) - BACKGROUND).max() < 8
        assert np.abs(picture.pixels[16, 4 * index + 8].astype(int) - BLOB).max() < 25


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_speed_length_and_size(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", fps=12.5)
    assert info(Source(path)) == VideoInfo(12.5, COUNT, (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("every", "span", "wanted"),
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
    tmp_path: Path, every: int, span: str | None, wanted: list[int]
) -> None:
    chosen = Span.parse(span) if span else None
    for path in (
        written(tmp_path / "a.mp4"),
        animated(tmp_path / "a.gif", [frame(i) for i in range(COUNT)]),
    ):
        assert indices(frames(Source(path), every, chosen)) == list(wanted)


def test_frames_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = written(tmp_path / "a.mp4"), []

    class Counting(Delegating):
        def __getattr__(self, name: str) -> object:
            if name in ("grab", "retrieve", "release"):
                calls.append(name)
            return super().__getattr__(name)

    monkeypatch.setattr(cv2, "VideoCapture", Counting)
    pictures = frames(Source(path), 2, Span(1))
    assert calls == []
    next(pictures)
    assert calls == ["grab", "grab", "retrieve"]
    next(pictures)
    assert calls[3:] == ["grab", "grab", "retrieve"]
    pictures.close()
    assert calls[6:] == ["release"]


def test_a_step_below_one_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="from 1, not 0"):
        frames(Source(tmp_path / "a.mp4"), 0)


def test_a_span_behind_the_end_is_told(tmp_path: Path) -> None:
    for path in (
        written(tmp_path / "a.mp4"),
        animated(tmp_path / "a.gif", [frame(i) for i in range(COUNT)]),
    ):
        count, told = read_until_error(frames(Source(path), 1, Span(12)))
        assert count == 0
        assert (
            told == f"Cannot read '{path}': it has 12 frames, counted from 0, and none from 12 on."
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
    path = written(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    a, b, c, d = (n << 16 for n in WHOLE_TURNS[angle])
    at = content.find(b"tkhd") + 44
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    wanted = np.rot90(frame(3), -angle // 90)
    found = list(frames(Source(path)))[3].pixels
    assert found.shape == wanted.shape
    assert info(Source(path)).size == wanted.shape[:2]
    assert place_of_blob(found) == pytest.approx(place_of_blob(wanted), abs=0.6)


# Files that are no videos, or broken ones


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_video_that_is_cut_off_gives_what_is_there(tmp_path: Path, suffix: str) -> None:
    whole = written(tmp_path / f"whole{suffix}").read_bytes()
    if suffix in (".mp4", ".mov"):
        whole = with_index_first(whole)
    path = tmp_path / f"a{suffix}"
    counts = set()
    for share in (0.05, 0.3, 0.6, 0.8, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        count, told = read_until_error(frames(Source(path)))
        assert told.startswith(f"Cannot read '{path}': it ")
        assert count == 0 or f"it breaks off at frame {count} of {COUNT}." in told
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
    path = written(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    scale = struct.unpack_from(">I", content, content.find(b"mdhd") + 16)[0]
    # what `ffmpeg -ss 0.5 -c copy` does: the first half second is there, and not shown
    struct.pack_into(">i", content, content.find(b"elst") + 16, round(0.5 * scale))
    path.write_bytes(content)
    assert info(Source(path)).frames == COUNT
    found = [index_shown(picture.pixels) for picture in frames(Source(path))]
    assert found == list(range(5, 12))


def test_a_span_in_front_of_the_break_is_no_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.webm")
    path.write_bytes(path.read_bytes()[:-150])
    assert is_cut_off(path)
    assert indices(frames(Source(path), 1, Span(1, 3))) == [1, 2]


def test_a_frame_that_cannot_be_decoded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Delegating):
        def retrieve(self) -> tuple[bool, None]:
            return False, None

    monkeypatch.setattr(cv2, "VideoCapture", Failing)
    path = written(tmp_path / "a.mp4")
    assert read_until_error(frames(Source(path), 1, Span(2))) == (
        0, f"Cannot read '{path}': it breaks off at frame 2."
    )  # fmt: skip


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.mp4", "PNG")
    animated(tmp_path / "gif.mp4", [frame(0), frame(1)], format="GIF")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{written(tmp_path / 'a.avi')}\n")
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
        for read in (lambda source: list(frames(source)), info):
            with pytest.raises(ImageError) as caught:
                read(Source(path))
            assert str(caught.value).startswith(f"Cannot read '{path}': {words}")


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = written(tmp_path / "a.avi", count=0)
    count, told = read_until_error(frames(Source(path)))
    assert count == 0 and told.startswith(f"Cannot read '{path}': it ")


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4")
    assert len(list(frames(Source(path), max_pixels=HEIGHT * WIDTH))) == COUNT
    count, told = read_until_error(frames(Source(path), max_pixels=HEIGHT * WIDTH - 1))
    assert count == 0
    assert "64 x 48 pixels are too many for --max-pixels 3071" in told


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for suffix in SUFFIXES:
        whole = np.frombuffer(written(tmp_path / f"whole{suffix}").read_bytes(), np.uint8)
        for _ in range(12):
            content = whole.copy()
            content[draw.integers(0, len(content), 20)] = draw.integers(0, 256, 20)
            path = tmp_path / f"a{suffix}"
            path.write_bytes(content.tobytes())
            try:
                assert len(list(frames(Source(path), max_pixels=10**7))) <= 100 * COUNT
            except ImageError as error:
                assert str(path) in str(error)


def test_nothing_is_printed_of_what_is_wrong(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:500])
    code = (
        "import sys; from pathlib import Path; from camcli.media.video import *\n"
        "from camcli.errors import ImageError\n"
        "try: list(frames(Source(Path(sys.argv[1]))))\n"
        "except ImageError: print('told')\n"
    )
    found = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("told\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="names in bytes")
@pytest.mark.parametrize("name", [b"n\xff.mp4", b"%02d.mp4", b"file:a.mp4", "猫 \n-.mp4".encode()])
def test_odd_names(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    written(tmp_path / "a.mp4").rename(path)
    assert indices(frames(Source(path))) == list(range(COUNT))


def test_a_video_behind_a_url(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/clips/a.webm", written(tmp_path / "a.webm").read_bytes())
    source = Source(Path("clips/a.webm"), url="memory://clips/a.webm")
    assert indices(frames(source, 4)) == [0, 4, 8]
    assert info(source).fps == FPS
    missing = Source(Path("clips/b.webm"), url="memory://clips/b.webm")
    with pytest.raises(ImageError, match=r"Cannot read 'memory://clips/b\.webm'"):
        next(frames(missing))


# What is known of containers


def test_an_avi_whose_length_nobody_wrote_is_not_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "a.avi")
    content = bytearray(path.read_bytes())
    assert not is_cut_off(path)
    struct.pack_into("<I", content, 4, len(content))
    path.write_bytes(content)
    assert is_cut_off(path)
    struct.pack_into("<I", content, 4, 0)
    path.write_bytes(content)
    assert not is_cut_off(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_videos_are_whole_and_shorter_ones_are_not(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}")
    assert container(path) is not None and not is_cut_off(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert is_cut_off(path)


def test_lengths_of_eight_bytes_and_open_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    large = struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100)
    for content, cut_off in (
        (large, False),
        (large[:-1], True),
        (struct.pack(">I4s", 0, b"mdat") + bytes(9), False),
        (struct.pack(">I4s", 7, b"mdat"), False),
    ):
        path.write_bytes(content)
        assert is_cut_off(path) == cut_off
    path.write_bytes(b"\x1aE\xdf\xa3\x80\x18S\x80g\x01" + b"\xff" * 7)  # live: length unknown
    assert container(path) is not None and not is_cut_off(path)


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
    source = Source(animated(tmp_path / f"a{suffix}", [frame(i) for i in range(5)], **options))
    for index, picture in enumerate(frames(source)):
        assert (picture.frame, picture.source) == (index, source)
        assert np.array_equal(picture.pixels, frame(index))
    fps = 12.5 if options else video.UNKNOWN_FPS
    assert info(source) == VideoInfo(fps, 5, (HEIGHT, WIDTH))
    assert is_moving(source)


def test_what_stands_still_is_not_moving(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(frame(0)).save(path)
    assert not is_moving(Source(path))
    assert not is_moving(Source(tmp_path / "missing.gif"))
    (tmp_path / "text.gif").write_text("no picture")
    assert not is_moving(Source(tmp_path / "text.gif"))
    assert is_moving(Source(tmp_path / "a.MP4"))
    assert [picture.frame for picture in frames(Source(path))] == [0]
    stereo = animated(tmp_path / "a.mpo", [frame(0), frame(1)])
    assert not is_moving(Source(stereo))


def test_frames_that_were_given_stay_as_they_were(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.gif", [frame(i) for i in range(3)])
    found = list(frames(Source(path)))
    assert [index_shown(picture.pixels) for picture in found] == [0, 1, 2]


def test_an_animated_picture_that_breaks_off(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.png", [frame(i) for i in range(6)])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])
    count, told = read_until_error(frames(Source(path)))
    assert 0 < count < 6
    assert told.startswith(f"Cannot read '{path}': it breaks off at frame {count} (")


def test_damaged_animations_never_raise_anything_else(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for suffix in (".gif", ".webp", ".png", ".tiff"):
        whole = animated(tmp_path / f"whole{suffix}", [frame(i) for i in range(4)]).read_bytes()
        for _ in range(25):
            content = np.frombuffer(whole, np.uint8).copy()
            content[draw.integers(0, len(content), 8)] = draw.integers(0, 256, 8)
            path = tmp_path / f"a{suffix}"
            path.write_bytes(content.tobytes()[: draw.integers(len(content) // 2, len(content))])
            for read in (lambda source: list(frames(source, max_pixels=10**6)), info):
                try:
                    read(Source(path))
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
    pictures = camera(2)
    for index in range(3):
        picture = next(pictures)
        assert (picture.frame, str(picture.source)) == (index, "camera2")
        assert np.array_equal(picture.pixels, frame(index))
    assert FakeCamera.asked[0] == 2
    with pytest.raises(ImageError, match="Camera 2 gives no picture 3"):
        next(pictures)
    assert FakeCamera.released == 1
    assert [p.frame for p in camera(0, 2, Span(0, 3))] == [0, 2]
    assert FakeCamera.released == 2


def test_a_camera_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    with pytest.raises(SourceError, match="Camera 7 is not there"):
        next(camera(7))
    for index in (-1, 100):
        with pytest.raises(UsageError, match=f"from 0 to 99, not {index}"):
            camera(index)
