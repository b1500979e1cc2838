from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from camcli.errors import ImageError, OutputError
from camcli.media import video_file
from camcli.media.video import frames, info
from camcli.media.video_file import CODECS, VideoFile
from camcli.records import Source

from .videos import COUNT, FPS, HEIGHT, WIDTH, frame, index_shown


def write(path: Path, count: int = COUNT, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    with VideoFile(path, FPS) as film:
        for index in range(count):
            film.write(frame(index, size))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [*CODECS, ".MP4"])
def test_videos_come_back_as_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / "folder" / f"a{suffix}"
    write(path)
    assert names_in(path.parent) == [path.name]
    about = info(Source(path))
    assert (about.fps, about.frames, about.size) == (FPS, COUNT, (HEIGHT, WIDTH))
    for index, picture in enumerate(frames(Source(path))):
        assert np.abs(picture.pixels.astype(int) - frame(index)).mean() < 4
    assert index == COUNT - 1


@pytest.mark.parametrize("codec", sorted({c for several in CODECS.values() for c in several}))
def test_every_codec_that_is_there_holds_the_colours(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix = next(s for s, several in CODECS.items() if codec in several)
    monkeypatch.setattr(video_file, "CODECS", {suffix: (codec,)})
    path = tmp_path / f"a{suffix}"
    try:
        write(path, 2)
    except OutputError:
        assert codec == "avc1"  # which OpenCV's own wheels lack
        return
    shown = [picture.pixels for picture in frames(Source(path))]
    assert np.abs(np.array(shown, int) - [frame(0), frame(1)]).mean() < 4


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_odd_sizes_gain_a_row_or_column_and_lose_none(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    write(tmp_path / f"a{suffix}", 3, size)
    last = list(frames(Source(tmp_path / f"a{suffix}")))[-1].pixels
    assert last.shape == (48, 64, 3)
    assert np.abs(last[: size[0], : size[1]].astype(int) - frame(2, size)).mean() < 4
    assert np.abs(last[-1].astype(int) - last[-2]).max() < 12


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (20, 9000)])
def test_odd_shapes_are_written_and_read_or_refused(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    path, colour = tmp_path / f"a{suffix}", np.full((*size, 3), (40, 160, 90), np.uint8)
    try:
        with VideoFile(path, FPS) as film:
            film.write(colour)
    except OutputError as error:
        assert f"no video of {size[1]} x {size[0]} pixels" in str(error)
        assert names_in(tmp_path) == []
    else:
        (picture,) = frames(Source(path))
        assert np.abs(picture.pixels[: size[0], : size[1]].astype(int) - colour).mean() < 6


@pytest.mark.parametrize(
    ("fps", "kept"), [(29.97, 29.97), (12.5, 12.5), (1 / 3, 1 / 3), (9e9, 1000), (0, 0.1)]
)
def test_speeds(tmp_path: Path, fps: float, kept: float) -> None:
    for suffix in (".mp4", ".webm", ".avi"):
        with VideoFile(tmp_path / f"a{suffix}", fps) as film:
            for index in range(3):
                film.write(frame(index))
        assert info(Source(tmp_path / f"a{suffix}")).fps == pytest.approx(kept, rel=2e-3)


def test_a_video_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"an older video")
    for error in (ValueError, OSError, KeyboardInterrupt):
        with pytest.raises(error), VideoFile(path, FPS) as film:
            film.write(frame(0))
            assert len(names_in(tmp_path)) == 2
            raise error
        assert names_in(tmp_path) == ["a.mp4"]
        assert path.read_bytes() == b"an older video"
    write(path)
    assert names_in(tmp_path) == ["a.mp4"]
    assert info(Source(path)).frames == COUNT


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 0)
    assert names_in(tmp_path) == []


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageError, match=r"frame 2 has 62 x 48 pixels, .* 64 x 48\."),
        VideoFile(tmp_path / "a.mp4", FPS) as film,
    ):
        film.write(frame(0))
        film.write(frame(1))
        film.write(frame(2, (48, 62)))
    assert names_in(tmp_path) == []


def test_the_callers_frames_stay_as_they_are(tmp_path: Path) -> None:
    pixels = frame(0)
    with VideoFile(tmp_path / "a.mp4", FPS) as film:
        film.write(pixels)
    assert np.array_equal(pixels, frame(0))


def test_an_unknown_suffix_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"suffix is one of \.mp4 .*\.avi"):
        VideoFile(tmp_path / "a.xyz", FPS)


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="Choose another place"),
        VideoFile(tmp_path / "file" / "a.mp4", FPS),
    ):
        pass
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(OutputError, match="Choose another place"):
        write(tmp_path / "taken.mp4", 1)
    assert names_in(tmp_path) == ["file", "taken.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_a_full_disk_is_told(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 256, (20, 480, 640, 3), np.uint8)
    found = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        pytest.raises(OutputError, match=r"not written whole\. Is the disk full"),
        VideoFile(tmp_path / f"a{suffix}", FPS) as film,
    ):
        film.write(noise[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, found[1]))
        try:
            for pixels in noise[1:]:
                film.write(pixels)
            film._writer.release()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, found)
    assert names_in(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names in bytes")
@pytest.mark.parametrize("name", [b"n\xff", b"%02d", b"file:a", "猫 \n-".encode()])
def test_odd_names(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    path = folder / os.fsdecode(name + b".mp4")
    write(path)
    assert [index_shown(picture.pixels) for picture in frames(Source(path))] == list(range(COUNT))
    assert names_in(folder) == [path.name]
