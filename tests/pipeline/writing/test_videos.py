"""Videos, cameras and scales that pictures share, through the whole pipeline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.errors import OutputError, SourceError, TooManyFailures, UsageError
from camcli.media.sources.listing import camera_source, find_sources
from camcli.media.videos.frame_times import FrameTimes
from camcli.media.videos.frames import frames
from camcli.media.videos.video_writer import VideoFile, name_video
from camcli.methods.smoothing import FrameSmoother
from camcli.models.load import Classifier
from camcli.pipeline import (
    Explanation,
    StopRequest,
    carry_out_plan,
    make_plan,
    runner,
    stages,
)
from camcli.pipeline.stages import PreparedPicture
from camcli.pipeline.writing import spool
from camcli.records import Box, FileStamp, Outcome, Picture, Preprocessing, Record, Source
from camcli.render.overlay import overlay
from camcli.runs import read_manifest, verify_folder
from tests.checkout import ROOT
from tests.media.clips import COUNT, HEIGHT, WIDTH, frame, times_of, write_animation, write_video
from tests.media.videos.test_frames import FakeCamera
from tests.networks import Staged
from tests.outputs import outputs


@pytest.fixture(scope="module")
def small() -> Classifier:
    torch.manual_seed(0)
    size = (32, 48)
    preprocessing = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    module = Staged(4).eval()
    return Classifier(module, "small", "timm", preprocessing, None, "by hand", 4, in_chans=3)


@pytest.fixture
def input_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


Carry = Callable[..., Iterator[Outcome]]


@pytest.fixture
def carry(small: Classifier, input_folder: Path, tmp_path: Path) -> Carry:
    """Explains what is there into a folder `out`."""

    def carry_out(stop: StopRequest | None = None, **given: Any) -> Iterator[Outcome]:
        defaults = {"target_layers": "last", "batch_size": 4, "save_path": tmp_path / "out"}
        options = from_keywords(**{**defaults, **given})
        camera = options.camera
        sources = find_sources([input_folder]) if camera is None else (camera_source(camera),)
        return carry_out_plan(make_plan(small, options), sources, options, stop)

    return carry_out


def records_of(outcomes: Iterator[Outcome]) -> list[Record]:
    return [record for outcome in outcomes for record in outcome.records]


def show(path: Path) -> list[NDArray[np.uint8]]:
    return [picture.pixels for picture in frames(Source(path))]


def read(path: str | Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.array(picture)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def counts(out: Path) -> dict[str, int]:
    return dict(json.loads((out / "run.json").read_bytes())["counts"])


def lines(out: Path) -> list[tuple[str, int | None, bool]]:
    actual = read_manifest(out / "manifest.jsonl")
    return [(Path(line["source"]).name, line["frame"], line["last"]) for line in actual]


# frames


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_video_becomes_a_video(
    carry: Carry, input_folder: Path, tmp_path: Path, threads: int
) -> None:
    write_video(input_folder / "clip.mp4")
    outcomes = list(carry(workers=threads))
    assert [outcome.last for outcome in outcomes] == [False] * COUNT + [True]
    assert {str(outcome.source) for outcome in outcomes} == {str(input_folder / "clip.mp4")}
    records = records_of(iter(outcomes))
    assert [record.frame for record in records] == list(range(COUNT))
    assert {record.outputs for record in records} == {(str(tmp_path / "out/clip_gradcam.mp4"),)}
    (video,) = outputs(tmp_path / "out")
    assert times_of(video) == [Fraction(index, 10) for index in range(COUNT + 1)]
    assert {pixels.shape for pixels in show(video)} == {(HEIGHT, WIDTH, 3)}
    assert counts(tmp_path / "out") == {"pictures": 1, "heatmaps": 12, "failed": 0, "skipped": 0}
    assert lines(tmp_path / "out") == [("clip.mp4", n, n == COUNT - 1) for n in range(COUNT)]
    assert outcomes[-1].files == {str(video): FileStamp.of(video.read_bytes())}
    assert [file.state for file in verify_folder(tmp_path / "out")] == ["whole"]


@pytest.mark.parametrize("folder", [Path("x" * 300), Path(*["x" * 200] * 30)])
def test_a_video_whose_name_is_too_long_fails_and_the_others_are_written(
    carry: Carry, input_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(input_folder / name)
    sources = [replace(source, folder=folder) for source in find_sources([input_folder])[:1]]
    sources += find_sources([input_folder])[1:]
    monkeypatch.setattr("tests.pipeline.writing.test_videos.find_sources", lambda _: sources)
    outcomes = list(carry())
    failed = {outcome.source.path.name for outcome in outcomes if outcome.failed}
    assert failed == {"a.mp4"}
    assert all("File name too long" in record.error for record in outcomes[0].records)
    assert [path.name for path in outputs(tmp_path / "out")] == ["b_gradcam.mp4"]
    assert counts(tmp_path / "out") == {"pictures": 1, "heatmaps": 12, "failed": 1, "skipped": 0}


def test_a_frame_is_drawn_as_if_it_were_a_picture(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    original = show(write_video(input_folder / "clip.avi"))
    asked = {"batch_size": 1, "format": "png", "save_frames": True, "save_map": "npy"}
    records = records_of(carry(**asked))
    video = show(Path(records[0].outputs[0]))
    shutil.rmtree(input_folder)
    input_folder.mkdir()
    for index, pixels in enumerate(original):
        Image.fromarray(pixels).save(input_folder / f"{index:02}.png")
    alone = records_of(carry(**asked, save_path=tmp_path / "pictures"))
    assert len(records) == len(alone) == len(video) == COUNT
    for of_frame, of_picture, in_video in zip(records, alone, video, strict=True):
        _, drawn, map_ = of_frame.outputs
        stem = f"clip_{of_frame.frame:06}_gradcam_{of_frame.category}-class_{of_frame.category}"
        assert (Path(drawn).name, Path(map_).name) == (f"{stem}.png", f"{stem}.png.npy")
        np.testing.assert_array_equal(read(drawn), read(of_picture.outputs[0]))
        np.testing.assert_array_equal(np.load(map_), np.load(of_picture.outputs[1]))
        assert difference(in_video, read(drawn)) < 6
        at = {"frame": of_frame.frame, "time": of_frame.frame / 10}
        message = replace(of_picture, source=of_frame.source, **at)
        unlike = {"outputs": (), "files": {}, "seconds": None, "recipe": "", "beside": {}}
        assert replace(message, **unlike) == replace(of_frame, **unlike)
    # nor is it any frame
    assert difference(video[0], read(records[-1].outputs[1])) > 6


def test_every_nth_frame_of_a_span(carry: Carry, input_folder: Path, tmp_path: Path) -> None:
    write_video(input_folder / "clip.mp4")
    records = records_of(carry(every=3, frames="2:11"))
    assert [record.frame for record in records] == [2, 5, 8]
    # the last one until the span ends
    expected = [Fraction(time, 10) for time in (0, 3, 6, 9)]
    assert times_of(tmp_path / "out/clip_gradcam.mp4") == expected


UNEVEN = [0, 40, 240, 250, 300, 900, 1000, 1700]  # milliseconds, with the end


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, UNEVEN),
        ({"workers": 2}, UNEVEN),
        ({"scale": "run"}, UNEVEN),
        ({"smooth_frames": 3, "save_frames": True}, UNEVEN),
        ({"every": 2}, [0, 240, 300, 1000, 1700]),
        ({"frames": "2:5"}, [0, 10, 60, 660]),
        ({"every": 2, "frames": "1:4", "scale": "run"}, [0, 210, 260]),
    ],
)
def test_frames_keep_their_times(
    carry: Carry, input_folder: Path, tmp_path: Path, asked: dict[str, Any], expected: list[int]
) -> None:
    write_video(input_folder / "clip.mp4", times=UNEVEN)
    list(carry(method=["gradcam", "eigencam"], **asked))
    for method in ("gradcam", "eigencam"):
        actual = times_of(tmp_path / f"out/clip_{method}.mp4")
        assert [1000 * time for time in actual] == expected


def test_a_video_of_long_pixels_is_explained_and_drawn_as_it_is_shown(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    write_video(input_folder / "clip.mp4", 3, codec="libx264", aspect=Fraction(2))
    (record, *_) = records_of(carry())
    assert record.picture_size == (HEIGHT, 2 * WIDTH)
    (drawn, *_) = show(tmp_path / "out/clip_gradcam.mp4")
    assert drawn.shape == (HEIGHT, 2 * WIDTH, 3)


def test_a_frame_that_cannot_be_drawn_leaves_the_one_before_it_longer(
    carry: Carry, input_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(input_folder / "clip.mp4", 5)
    draw = Explanation.overlay

    def fail(self: Explanation, *how: Any) -> NDArray[np.uint8]:
        if self.picture.frame in (2, 4):
            raise MemoryError
        return draw(self, *how)

    monkeypatch.setattr(Explanation, "overlay", fail)
    records = records_of(carry())
    assert [bool(record.error) for record in records] == [False, False, True, False, True]
    expected = [Fraction(time, 10) for time in (0, 1, 3, 4)]
    assert times_of(tmp_path / "out/clip_gradcam.mp4") == expected


@pytest.mark.parametrize("threads", [0, 2])
def test_clips_and_pictures_share_batches_and_keep_their_order(
    carry: Carry, input_folder: Path, tmp_path: Path, batches: list[int], threads: int
) -> None:
    write_video(input_folder / "b.mp4", 5)
    write_video(input_folder / "d.avi", 3)
    (input_folder / "c.png").write_bytes(b"no picture")
    for name in ("a", "e"):
        Image.fromarray(frame(3)).save(input_folder / f"{name}.png")
    outcomes = list(carry(workers=threads))
    actual = [(r.source[-5], r.frame, bool(r.error)) for r in records_of(iter(outcomes))]
    clips = [("b", n, False) for n in range(5)], [("d", n, False) for n in range(3)]
    pictures = [[(name, None, name == "c")] for name in "ace"]
    assert actual == [*pictures[0], *clips[0], *pictures[1], *clips[1], *pictures[2]]
    assert batches == [4, 4, 2]
    assert counts(tmp_path / "out") == {"pictures": 4, "heatmaps": 10, "failed": 1, "skipped": 0}
    names = {path.name for path in outputs(tmp_path / "out")}
    assert {"b_gradcam.mp4", "d_gradcam.mp4"} < names and len(names) == 4


def test_an_animated_picture_moves_when_it_is_asked_to(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    write_animation(
        input_folder / "pets.gif", [frame(index) for index in range(4)], duration=[50, 100, 20, 500]
    )
    Image.fromarray(frame(1)).save(input_folder / "still.gif")
    assert [record.frame for record in records_of(carry())] == [None, None]
    records = records_of(carry(frames="1:"))
    assert [(Path(r.source).name, r.frame) for r in records] == [
        *(("pets.gif", index) for index in (1, 2, 3)),
        ("still.gif", None),
    ]
    expected = [Fraction(time, 1000) for time in (0, 100, 120, 620)]
    assert times_of(tmp_path / "out/pets_gradcam.mp4") == expected


def test_an_animated_picture_that_breaks_off(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    path = write_animation(input_folder / "a.png", [frame(i) for i in range(6)], duration=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    records = records_of(carry(every=1))
    assert [r.frame for r in records[:-1]] == list(range(len(records) - 1))
    assert "breaks off at frame" in records[-1].error and len(records) > 2
    assert len(show(tmp_path / "out/a_gradcam.mp4")) == len(records) - 1
    expected = [Fraction(index, 10) for index in range(len(records))]
    assert times_of(tmp_path / "out/a_gradcam.mp4") == expected


def test_each_heatmap_of_a_frame_has_a_video(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    write_video(input_folder / "clip.mp4", 3)

    def videos(**asked: Any) -> list[str]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        records = records_of(carry(**asked))
        assert len(show(Path(records[0].outputs[0]))) == 3
        return sorted(path.name for path in outputs(tmp_path / "out"))

    both = ["gradcam", "eigencam"]
    assert videos(method=both, top_k=2) == [
        "clip_eigencam.mp4", "clip_gradcam_rank1.mp4", "clip_gradcam_rank2.mp4",
    ]  # fmt: skip
    assert videos(method=both, target_category="2") == [
        "clip_eigencam.mp4", "clip_gradcam_2-class_2.mp4",
    ]  # fmt: skip
    layers = {"target_layers": ["middle", "last"], "layer_fusion": "none"}
    assert videos(**layers) == ["clip_gradcam_last.mp4", "clip_gradcam_middle.mp4"]
    assert videos(target="probability") == ["clip_gradcam_probability.mp4"]


def test_what_a_video_is_called() -> None:
    def name(path: str, **more: Any) -> str:
        return str(name_video(Source(Path(path), Path("sub")), "gradcam", None, "", **more))

    assert name("x/clip.MOV") == "sub/clip_gradcam.MOV"
    assert name("x/clip.mpg", rank=2) == "sub/clip_gradcam_rank2.mp4"
    # what cannot be written as it is keeps its suffix beside another clip
    twin = Source(Path("x/clip.mpg"), has_namesake=True)
    assert str(name_video(twin, "gradcam", None, "")) == "clip.mpg_gradcam.mp4"
    assert name("camera0", layer="a/b").startswith("sub/camera0_gradcam_a_b~")


def test_one_video_into_one_file(carry: Carry, input_folder: Path, tmp_path: Path) -> None:
    write_video(input_folder / "clip.mp4", 3)
    place = tmp_path / "one" / "result.webm"
    asked = {"save_path": place, "format": "png", "save_map": "npy", "target_category": "1"}
    records = records_of(carry(**asked))
    assert len(show(place)) == 3
    assert records[2].outputs == (
        str(place), str(place.parent / "result_000002_gradcam_1-class_1.png.npy"),
    )  # fmt: skip
    assert len(list(place.parent.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("clip.mp4", {"save_path": "x.jpg"}, r"--save-path x\.jpg is not a video"),
        ("clip.mp4", {"save_path": "x.mpg"}, r"can be written \(\.mp4"),
        ("a.png", {"save_path": "x.mp4"}, r"x\.mp4 is a video, and '.*a\.png' a picture"),
        ("clip.mp4", {"method": "all"}, r"no videos; '.*clip\.mp4' is a video"),
        ("a.png", {"method": "all", "every": 2}, "leave videos, --every"),
        ("a.png", {"camera": 0, "scale": "run"}, "a camera shows it only once"),
    ],
)
def test_what_does_not_go_together(
    carry: Carry, input_folder: Path, name: str, asked: dict[str, Any], message: str
) -> None:
    if name == "a.png":
        Image.fromarray(frame(0)).save(input_folder / name)
    else:
        write_video(input_folder / name, 2)
    with pytest.raises(UsageError, match=message):
        list(carry(**asked))


def test_videos_that_would_have_one_name(small: Classifier, tmp_path: Path) -> None:
    paths = [tmp_path / place / "clip.mp4" for place in ("one", "two")]
    sources = tuple(Source(path) for path in paths)
    options = from_keywords(save_path=tmp_path / "out", target_layers="last")
    with pytest.raises(UsageError, match="would write the same files"):
        list(carry_out_plan(make_plan(small, options), sources, options))


# what goes wrong


@pytest.mark.parametrize("threads", [0, 2])
def test_a_video_that_breaks_off_is_finished_there(
    carry: Carry, input_folder: Path, tmp_path: Path, threads: int
) -> None:
    whole = write_video(input_folder / "b.avi").read_bytes()
    (input_folder / "b.avi").write_bytes(whole[: len(whole) * 9 // 10])
    (input_folder / "a.mp4").write_bytes(b"no video")
    write_video(input_folder / "c.mp4", 2)
    outcomes = list(carry(workers=threads))
    failed = [outcome for outcome in outcomes if outcome.failed]
    assert [outcome.source.path.name for outcome in failed] == ["a.mp4", "b.avi"]
    made = [r.frame for r in records_of(iter(outcomes)) if "b.avi" in r.source and not r.error]
    assert made == list(range(len(made))) and 3 < len(made) < COUNT
    assert f"breaks off at frame {len(made)}" in failed[1].records[0].error
    assert len(show(tmp_path / "out/b_gradcam.mp4")) == len(made)
    expected = {"pictures": 1, "heatmaps": len(made) + 2, "failed": 2, "skipped": 0}
    assert counts(tmp_path / "out") == expected


def test_a_video_that_breaks_off_ends_a_run_that_fails_fast(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    whole = write_video(input_folder / "b.avi").read_bytes()
    (input_folder / "b.avi").write_bytes(whole[: len(whole) * 9 // 10])
    write_video(input_folder / "c.mp4", 40)
    with pytest.raises(TooManyFailures):
        list(carry(fail_fast=True))
    assert [path.name for path in outputs(tmp_path / "out")] == ["b_gradcam.mp4"]
    # what failed is done for --resume, and tried again by --skip-existing
    assert {Path(r.source).name for r in records_of(carry(resume=True))} == {"c.mp4"}
    write_video(input_folder / "b.avi")
    again = records_of(carry(skip_existing=True))
    assert [(Path(r.source).name, r.frame) for r in again] == [("b.avi", n) for n in range(COUNT)]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("how", [{}, {"scale": "run"}])
def test_a_run_that_was_stopped_in_a_video_does_the_video_again(
    carry: Carry, input_folder: Path, tmp_path: Path, threads: int, how: dict[str, Any]
) -> None:
    Image.fromarray(frame(2)).save(input_folder / "a.png")
    write_video(input_folder / "b.mp4", 40)
    write_video(input_folder / "c.mp4", 3)
    stop = StopRequest()
    seen = []
    with pytest.raises(KeyboardInterrupt):
        for outcome in carry(stop, workers=threads, **how):
            seen.append(outcome)
            if len(seen) == 4:
                stop.ask(KeyboardInterrupt())
    assert 4 <= len(seen) < 40
    assert [path.name for path in outputs(tmp_path / "out")] == ["a_gradcam_1-class_1.png"]
    records = records_of(carry(workers=threads, resume=True, **how))
    assert [r.frame for r in records] == [*range(40), 0, 1, 2]
    expected = [("a.png", None, True), *(("b.mp4", n, n == 39) for n in range(40))]
    assert lines(tmp_path / "out") == [*expected, *(("c.mp4", n, n == 2) for n in range(3))]
    assert len(show(tmp_path / "out/b_gradcam.mp4")) == 40
    assert {r.scale for r in records} == {seen[0].records[0].scale}
    assert records_of(carry(workers=threads, resume=True, **how)) == []


@pytest.mark.parametrize("threads", [0, 2])
def test_a_disk_that_is_full_in_a_video(
    carry: Carry, input_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    for name in "ab":
        write_video(input_folder / f"{name}.mp4", 6)
    write = VideoFile.write

    def fail(self: VideoFile, *frame: Any) -> None:
        if self.path.name.startswith("b") and self.frames == 3:
            raise OutputError("Cannot write: No space left on device.")
        write(self, *frame)

    monkeypatch.setattr(VideoFile, "write", fail)
    seen = []
    with pytest.raises(OutputError, match="No space left"):
        for outcome in carry(workers=threads):
            seen.append(outcome)
    assert [r.frame for r in records_of(iter(seen))] == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert [path.name for path in outputs(tmp_path / "out")] == ["a_gradcam.mp4"]
    monkeypatch.undo()
    assert [r.frame for r in records_of(carry(resume=True))] == list(range(6))
    assert len(lines(tmp_path / "out")) == 12


KILLED = """
import os, signal, sys
from camcli.cli.app import main
from camcli.media.videos.video_writer import VideoFile

write = VideoFile.write

def write_and_die(film, *frame):
    write(film, *frame)
    # what is to vanish has to be on the disk
    if os.fstat(film._file.fileno()).st_size > 30_000:
        os.kill(os.getpid(), signal.SIGKILL)

VideoFile.write = write_and_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow  # starts Python twice; tests/media/videos has a process killed that only writes
@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="no files without a name")
@pytest.mark.parametrize("scale", ["image", "run"])
def test_a_run_that_is_killed_in_a_video_leaves_nothing_of_it_and_goes_on(
    input_folder: Path, tmp_path: Path, scale: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    with VideoFile(input_folder / "a.mp4", FrameTimes(Fraction(1, 25))) as film:
        for index in range(40):
            film.write(noise, Fraction(index, 25))
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    typed = [str(input_folder), "--save-path", str(out), "--scale", scale, "-b", "8", "-q"]
    typed += ["--img-size", "64", "--device", "cpu"]
    environ = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *typed], cwd=ROOT, env=environ, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert {path.name for path in out.iterdir()} <= {".camviz", "manifest.jsonl"}
    # torch 2.7 makes an empty folder there
    left = [path for folder in (out, temporary) for path in folder.rglob("*") if path.is_file()]
    # torch 2.7 leaves a file of its own where it is imported
    left = [path for path in left if path.name != "_remote_module_non_scriptable.py"]
    assert not [path for path in left if path.suffix == ".part" or path.is_relative_to(temporary)]
    assert main([*typed, "--resume"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "a_gradcam.mp4", "manifest.jsonl", "run.json"
    }  # fmt: skip
    assert len(show(out / "a_gradcam.mp4")) == 40
    assert [(file.path, file.state) for file in verify_folder(out)] == [("a_gradcam.mp4", "whole")]


def test_a_manifest_that_loses_a_frame_does_not_end_the_video(
    carry: Carry, input_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(input_folder / "a.mp4", 6)
    from camcli.runs import Manifest

    append, calls = Manifest.append, iter(range(100))

    def fail(self: Manifest, source: Source, records: Any, **more: Any) -> None:
        if next(calls) == 2:
            raise OutputError("Cannot write: No space left on device.")
        append(self, source, records, **more)

    monkeypatch.setattr(Manifest, "append", fail)
    with pytest.raises(OutputError, match="No space left"):
        list(carry())
    monkeypatch.undo()
    assert [r.frame for r in records_of(carry(resume=True))] == list(range(6))
    assert lines(tmp_path / "out") == [("a.mp4", n, n == 5) for n in range(6)]


def test_frames_of_several_sizes_are_no_video(carry: Carry, input_folder: Path) -> None:
    pages = [frame(0), frame(1), frame(0, (30, 64))]
    write_animation(input_folder / "pages.tif", pages)
    records = records_of(carry(every=1))
    assert [bool(record.error) for record in records] == [False, False, True]
    assert "--save-frames" in records[2].error


# cameras


class Endless(FakeCamera):
    def grab(self) -> bool:
        self.shown = (self.shown + 1) % 8
        return True


@pytest.mark.parametrize("threads", [0, 2])
def test_a_camera_is_filmed_until_it_is_stopped(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Endless)
    stop, seen = StopRequest(), []
    for outcome in carry(stop, camera=1, workers=threads):
        seen.append(outcome)
        if len(seen) == 6:
            stop.ask(KeyboardInterrupt())
    records = records_of(iter(seen))
    assert [record.frame for record in records] == list(range(len(records)))
    assert 6 <= len(records) < 40 and seen[-1].last and not seen[-1].failed
    assert {record.source for record in records} == {"camera1"}
    assert len(show(tmp_path / "out/camera1_gradcam.mp4")) == len(records)
    assert counts(tmp_path / "out")["pictures"] == 1


def test_a_camera_that_is_not_there_ends_the_run(
    carry: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    with pytest.raises(SourceError, match="Camera 7 is not there"):
        list(carry(camera=7))


# scales and smoothing


def _half_as_hot(present: Path) -> None:
    Image.fromarray(frame(0)).save(present / "a.png")
    Image.fromarray((frame(0) // 2).astype(np.uint8)).save(present / "b.png")
    Image.fromarray(frame(5)).save(present / "c.png")


def _draw(record: Record, present: Path, scale: tuple[float, float] | None) -> NDArray[np.uint8]:
    assert isinstance(record.view, Box)
    picture = Picture(read(present / Path(record.source).name))
    return overlay(picture, np.load(record.outputs[1]), box=record.view, scale=scale)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("scale", ["image", "run", "0.001,0.004"])
def test_pictures_on_one_scale(carry: Carry, input_folder: Path, scale: str, threads: int) -> None:
    _half_as_hot(input_folder)
    (input_folder / "bad.png").write_bytes(b"no picture")
    methods = ["gradcam", "gradcam++"]
    asked = {"scale": scale, "save_map": "npy", "method": methods, "target_category": "1"}
    records = [r for r in records_of(carry(workers=threads, **asked)) if not r.error]
    assert [Path(r.source).name for r in records] == ["a.png"] * 2 + ["b.png"] * 2 + ["c.png"] * 2
    for method in methods:
        of_method = [r for r in records if r.method == method]
        most = max(np.load(r.outputs[1]).max() for r in of_method)
        expected = {"image": None, "run": (0.0, float(most)), "0.001,0.004": (0.001, 0.004)}[scale]
        assert most > 0
        for record in of_method:
            assert record.scale == expected
            drawn = _draw(record, input_folder, expected)
            np.testing.assert_array_equal(read(record.outputs[0]), drawn)


def test_equal_raw_values_have_one_colour_on_a_scale_of_the_run(
    carry: Carry, input_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, grey in (("a", 0), ("b", 0), ("c", 0)):
        Image.fromarray(np.full((40, 60, 3), grey, np.uint8)).save(input_folder / f"{name}.png")
    maps = {"a": [1.0, 2.0], "b": [1.0, 4.0], "c": [0.0, 1.0]}
    explain = stages.explain_batch

    def make_up(batch: list[PreparedPicture], plan: Any) -> Iterator[list[Explanation]]:
        for (actual,) in explain(batch, plan):
            values = np.array([maps[actual.picture.source.path.stem]], np.float32)
            message = replace(actual.record, maximum=float(values.max()))
            yield [replace(actual, map=replace(actual.map, values=values), record=message)]

    monkeypatch.setattr(stages, "explain_batch", make_up)
    records = records_of(carry(scale="run"))
    assert {record.scale for record in records} == {(0.0, 4.0)}
    a, b, c = (read(record.outputs[0])[20] for record in records)
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[0], c[-1])
    assert (a[-1] != b[-1]).any() and (a[0] != c[0]).any()


def test_what_is_added_to_a_run_takes_its_scale(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    _half_as_hot(input_folder)
    heat = {r.maximum: Path(r.source).name for r in records_of(carry(save_path=tmp_path / "x"))}
    coldest, *others = [heat[most] for most in sorted(heat)]
    for name in others:
        (input_folder / name).rename(tmp_path / name)
    (cold,) = records_of(carry(scale="run"))
    # another batch has other roundings
    assert Path(cold.source).name == coldest
    assert cold.scale == pytest.approx((0.0, min(heat)), rel=1e-5)
    for name in others:
        (tmp_path / name).rename(input_folder / name)
    added = records_of(carry(scale="run", skip_existing=True))
    assert sorted(Path(r.source).name for r in added) == sorted(others)
    assert {r.scale for r in added} == {cold.scale}
    (scale,) = {r.scale for r in records_of(carry(scale="run"))}
    assert scale == pytest.approx((0.0, max(heat)), rel=1e-5)


def test_a_picture_that_changes_between_the_two_looks(
    carry: Carry, input_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _half_as_hot(input_folder)
    write_video(input_folder / "d.mp4", 6)
    again = spool.read_again

    def change(entries: Any, options: Any) -> Any:
        Image.fromarray(frame(0)[:-4]).save(input_folder / "b.png")
        write_video(input_folder / "d.mp4", 4)
        return again(entries, options)

    monkeypatch.setattr(runner, "read_again", change)
    outcomes = list(carry(scale="run"))
    failed = [r for r in records_of(iter(outcomes)) if r.error]
    assert [Path(r.source).name for r in failed] == ["b.png", "d.mp4"]
    assert all("changed while the run went on" in r.error for r in failed)
    assert len(show(tmp_path / "out/d_gradcam.mp4")) == 4
    assert counts(tmp_path / "out")["failed"] == 2


def test_what_is_laid_aside_has_no_pixels(
    carry: Carry, input_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(input_folder / "clip.mp4")
    sizes = []
    close = spool.Spool.__exit__

    def note_size(self: spool.Spool, *error: Any) -> None:
        sizes.append(self._file.tell())
        close(self, *error)

    monkeypatch.setattr(spool.Spool, "__exit__", note_size)
    assert len(records_of(carry(scale="run"))) == COUNT
    assert COUNT * 200 < sizes[0] < COUNT * HEIGHT * WIDTH


@pytest.mark.parametrize("asked", [{"fail_fast": True}, {"max_failures": 0}])
def test_a_failure_ends_a_run_on_one_scale_before_it_is_drawn(
    carry: Carry, input_folder: Path, tmp_path: Path, asked: dict[str, Any]
) -> None:
    _half_as_hot(input_folder)
    (input_folder / "bad.png").write_bytes(b"no picture")
    seen = []
    with pytest.raises(TooManyFailures):
        for outcome in carry(scale="run", **asked):
            seen.append(outcome)
    assert [outcome.source.path.name for outcome in seen] == ["bad.png"]
    assert outputs(tmp_path / "out") == []


def test_concepts_have_no_scale(carry: Carry, input_folder: Path) -> None:
    _half_as_hot(input_folder)
    records = records_of(carry(method=["dff", "gradcam"], scale="run"))
    assert {(r.method, r.scale is None) for r in records} == {("dff", True), ("gradcam", False)}


def test_maps_follow_each_other_from_frame_to_frame(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    write_video(input_folder / "clip.mp4")
    write_video(input_folder / "other.mp4", 3)
    Image.fromarray(frame(4)).save(input_folder / "still.png")
    asked = {"save_map": "npy", "target_category": "1"}
    plain = records_of(carry(**asked))
    smooth = records_of(carry(**asked, smooth_frames=4, save_path=tmp_path / "smooth"))

    def maps(records: list[Record], name: str) -> list[NDArray[np.float32]]:
        return [np.load(r.outputs[-1]) for r in records if Path(r.source).stem == name]

    for name in ("clip", "other"):
        smoother = FrameSmoother(4)
        before, after = maps(plain, name), maps(smooth, name)
        for raw, averaged in zip(before, after, strict=True):
            expected = smoother.smooth("", torch.from_numpy(raw)).numpy()
            np.testing.assert_allclose(averaged, expected, rtol=1e-5, atol=1e-9)
    clip = [np.abs(np.diff(maps(actual, "clip"), axis=0)).mean() for actual in (plain, smooth)]
    assert 0 < clip[1] < clip[0] / 2
    for record in smooth:
        moves = record.frame is not None
        assert dict(record.smoothing) == ({"smooth_frames": 4} if moves else {})
        values = np.load(record.outputs[-1])
        assert (record.minimum, record.maximum) == (values.min(), values.max())
    np.testing.assert_array_equal(maps(plain, "still")[0], maps(smooth, "still")[0])


def test_frames_on_one_scale_are_smoothed_once(
    carry: Carry, input_folder: Path, tmp_path: Path
) -> None:
    write_video(input_folder / "clip.mp4")
    asked = {"save_map": "npy", "target_category": "1", "smooth_frames": 4}
    own = records_of(carry(**asked))
    shared = records_of(carry(**asked, scale="run", save_path=tmp_path / "shared"))
    assert len(own) == len(shared) > 4
    for one, other in zip(own, shared, strict=True):
        np.testing.assert_array_equal(np.load(one.outputs[-1]), np.load(other.outputs[-1]))
        assert (one.minimum, one.maximum) == (other.minimum, other.maximum)


# the command


def test_a_clip_from_the_command_line(
    input_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(input_folder / "clip.mp4", 4)
    out = tmp_path / "out"
    typed = [str(input_folder), "--save-path", str(out), "--scale", "run", "--smooth-frames", "2"]
    assert main([*typed, "--frames", ":3", "--device", "cpu"]) == 0
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed.startswith(f"{out}/clip_gradcam.mp4  ") and printed.endswith(", 3 frames")
    assert main([*typed, "--frames", ":3", "--device", "cpu", "-q"]) == 0
    assert capsys.readouterr().out == f"{out}/clip_gradcam.mp4\n"
    assert main([*typed, "--save-frames", "--format", "png", "--every", "2", "-q"]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert [name[:19] for name in names[:2]] == ["clip_000000_gradcam", "clip_000002_gradcam"]
    assert names[2].startswith("clip_gradcam~") and len(names) == 3
    captioned = ["--caption", "--outside", "crop", "--save-path", str(tmp_path / "captioned.mp4")]
    assert main([str(input_folder / "clip.mp4"), *captioned, "--frames", ":2", "-q"]) == 0
    with av.open(str(tmp_path / "captioned.mp4")) as video:
        size = video.streams.video[0].height, video.streams.video[0].width
    # a square view of the frame, and a line below it
    assert size[0] > size[1]
    capsys.readouterr()
    assert main(["--camera", "0", str(input_folder)]) == 2
    assert "--camera 0 takes the place of pictures" in capsys.readouterr().err
