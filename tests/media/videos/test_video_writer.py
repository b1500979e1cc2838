from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from camcli.errors import ImageError, OutputError
from camcli.media import atomic_files
from camcli.media.videos import video_writer
from camcli.media.videos.frame_times import FrameTimes
from camcli.media.videos.frames import frames
from camcli.media.videos.video_writer import BT709, FORMATS, Codec, VideoFile
from camcli.records import Source
from tests.checkout import ROOT
from tests.media.clips import BLOB, COUNT, HEIGHT, WIDTH, frame, index_shown, times_of

TIMES = FrameTimes(Fraction(1, 1000))
STEP = Fraction(1, 10)


def write(path: Path, count: int = COUNT, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    with VideoFile(path, TIMES) as film:
        for index in range(count):
            film.write(frame(index, size), index * STEP, STEP)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [*FORMATS, ".MP4"])
def test_videos_come_back_as_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / "folder" / f"a{suffix}"
    write(path)
    assert names_in(path.parent) == [path.name]
    assert times_of(path) == [index * STEP for index in range(COUNT + 1)]
    for index, picture in enumerate(frames(Source(path))):
        assert picture.pixels.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(picture.pixels.astype(int) - frame(index)).mean() < 4
    assert index == COUNT - 1


CODECS = {codec.name: codec for _, codecs in FORMATS.values() for codec in codecs}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_holds_the_colours_in_every_format(
    tmp_path: Path, suffix: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (suffix, codec) in ((".webm", "libx264"), (".mov", "libvpx-vp9")):
        return  # which do not belong together
    format_ = FORMATS[suffix][0]
    missing = Codec("missing_codec", {}, takes_odd=True)
    monkeypatch.setattr(video_writer, "FORMATS", {suffix: (format_, (missing, CODECS[codec]))})
    path = tmp_path / f"a{suffix}"
    write(path, 3)
    with av.open(str(path)) as actual:
        context = actual.streams.video[0].codec_context
        assert context.name == {"libx264": "h264", "libvpx-vp9": "vp9"}[codec]
        assert (context.pix_fmt, context.colorspace) == ("yuv420p", BT709)
    shown = [picture.pixels for picture in frames(Source(path))]
    assert np.abs(np.array(shown, int) - [frame(0), frame(1), frame(2)]).mean() < 2
    assert np.abs(shown[2][16, 16].astype(int) - BLOB).max() < 20


def test_the_index_of_an_mp4_stands_in_front(tmp_path: Path) -> None:
    for suffix in (".mp4", ".m4v", ".mov"):
        write(tmp_path / f"a{suffix}")
        content = (tmp_path / f"a{suffix}").read_bytes()
        assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "tick", [Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 600), Fraction(1, 10**9)]
)
def test_each_frame_keeps_its_time(tmp_path: Path, suffix: str, tick: Fraction) -> None:
    times = [Fraction(time, 50) for time in (0, 1, 2, 20, 21, 180_000, 180_007)]
    with VideoFile(tmp_path / f"a{suffix}", FrameTimes(tick)) as film:
        for index, (time, after) in enumerate(pairwise(times)):
            film.write(frame(index), time, after - time)
    assert times_of(tmp_path / f"a{suffix}") == times


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_times_of_television_are_kept_exactly(tmp_path: Path, suffix: str) -> None:
    tick = Fraction(1001, 30_000)
    with VideoFile(tmp_path / f"a{suffix}", FrameTimes(tick, 1 / tick)) as film:
        for index in range(5):
            film.write(frame(index), index * tick, tick)
    with av.open(str(tmp_path / f"a{suffix}")) as actual:
        assert actual.streams.video[0].average_rate == 1 / tick
    assert times_of(tmp_path / f"a{suffix}")[:5] == [index * tick for index in range(5)]


def test_what_a_frame_does_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoFile(path, TIMES) as film:
        # a camera does not know how long its last picture is shown
        for index, time in enumerate((0, Fraction(1, 10), Fraction(3, 10))):
            film.write(frame(index), Fraction(time))
    assert times_of(path) == [0, Fraction(1, 10), Fraction(3, 10), Fraction(1, 2)]
    with VideoFile(path, TIMES) as film:
        # two within a tick
        for index, time in enumerate((0, Fraction(1, 10_000), Fraction(1, 9_999), Fraction(1))):
            film.write(frame(index), Fraction(time), Fraction(1, 100_000))
    assert times_of(path) == [Fraction(time, 1000) for time in (0, 1, 2, 1000, 1001)]


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_odd_sizes_gain_a_row_or_column_where_the_codec_has_none(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    write(tmp_path / f"a{suffix}", 3, size)
    last = list(frames(Source(tmp_path / f"a{suffix}")))[-1].pixels
    assert last.shape == ((*size, 3) if suffix == ".webm" else (48, 64, 3))
    assert np.abs(last[: size[0], : size[1]].astype(int) - frame(2, size)).mean() < 4
    assert np.abs(last[-1].astype(int) - last[-2]).max() < 12


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (20, 9000), (4, 17_000), (2, 70_000)])
def test_odd_shapes_are_written_and_read_or_refused(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    path, colour = tmp_path / f"a{suffix}", np.full((*size, 3), (40, 160, 90), np.uint8)
    with VideoFile(path, TIMES) as film:
        if size[1] == 70_000:
            with pytest.raises(ImageError, match="no video of 70000 x 2 pixels can be written"):
                film.write(colour, Fraction(0), STEP)
        else:
            film.write(colour, Fraction(0), STEP)
    if size[1] == 70_000:
        assert names_in(tmp_path) == []
        return
    (picture,) = frames(Source(path))
    assert np.abs(picture.pixels[: size[0], : size[1]].astype(int) - colour).mean() < 6


def test_a_video_that_fails_leaves_what_was_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"an older video")
    for error in (ValueError, OSError, KeyboardInterrupt):
        with pytest.raises(error), VideoFile(path, TIMES) as film:
            film.write(frame(0), Fraction(0))
            film.write(frame(1), STEP)
            raise error
        assert names_in(tmp_path) == ["a.mp4"]
        assert path.read_bytes() == b"an older video"
        gc.collect()
        assert capfd.readouterr() == ("", "")
    write(path)
    assert names_in(tmp_path) == ["a.mp4"]
    assert len(times_of(path)) == COUNT + 1


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 0)
    assert names_in(tmp_path) == []


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageError, match=r"frame 2 has 62 x 48 pixels, .* 64 x 48\."),
        VideoFile(tmp_path / "a.mp4", TIMES) as film,
    ):
        film.write(frame(0), Fraction(0))
        film.write(frame(1), STEP)
        film.write(frame(2, (48, 62)), 2 * STEP)
    assert names_in(tmp_path) == []


def test_the_callers_frames_stay_as_they_are(tmp_path: Path) -> None:
    pixels = frame(0)
    with VideoFile(tmp_path / "a.mp4", TIMES) as film:
        film.write(pixels, Fraction(0))
    assert np.array_equal(pixels, frame(0))


def test_an_unknown_suffix_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"suffix is one of \.mp4 .*\.webm"):
        VideoFile(tmp_path / "a.xyz", TIMES)


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="Choose another place"):
        write(tmp_path / "file" / "a.mp4", 1)
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(ImageError, match="Choose another place"):
        write(tmp_path / "taken.mp4", 1)
    assert names_in(tmp_path) == ["file", "taken.mp4"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_is_reported(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 256, (12, 240, 320, 3), np.uint8)
    actual = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / f"a{suffix}"
    with pytest.raises(OutputError, match=r"Cannot write '.*': File too large"):
        try:
            with VideoFile(path, TIMES) as film:
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, actual[1]))
                for index, pixels in enumerate(noise):
                    film.write(pixels, index * STEP, STEP)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, actual)
    assert names_in(tmp_path) == []
    gc.collect()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="names in bytes")
@pytest.mark.parametrize("name", [b"n\xff", b"%02d", b"file:a", "猫 \n-".encode()])
def test_odd_names(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    path = folder / os.fsdecode(name + b".mp4")
    write(path)
    assert [index_shown(picture.pixels) for picture in frames(Source(path))] == list(range(COUNT))
    assert names_in(folder) == [path.name]


KILLED = """
import os, signal, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from camcli.media import atomic_files
from camcli.media.videos.frame_times import FrameTimes
from camcli.media.videos.video_writer import VideoFile

if sys.argv[2:]:
    atomic_files.OPENED = Path(sys.argv[2])
noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
with VideoFile(Path(sys.argv[1]), FrameTimes(Fraction(1, 25))) as film:
    index = 0
    # what is to vanish has to be on the disk
    while film._file is None or os.fstat(film._file.fileno()).st_size < 100_000:
        film.write(noise, Fraction(index, 25))
        index += 1
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path, *opened: str) -> list[Path]:
    """Has a process die in the middle of a video; returns what it leaves, temporary files too."""
    temporary = path.parent / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), *opened],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    left = list(temporary.iterdir())
    temporary.rmdir()
    return [*left, *path.parent.iterdir()]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="no files without a name")
def test_a_killed_process_leaves_no_half_written_video(tmp_path: Path) -> None:
    assert kill_while_writing(tmp_path / "a.mp4") == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_where_files_need_names_the_next_video_takes_away_what_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = kill_while_writing(tmp_path / "a.mp4", "nowhere")
    assert part.stat().st_size >= 100_000
    monkeypatch.setattr(atomic_files, "OPENED", Path("nowhere"))
    write(tmp_path / "b.mp4", 3)
    assert names_in(tmp_path) == ["b.mp4"]
