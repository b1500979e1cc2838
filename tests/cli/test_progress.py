"""How far a run is, on a terminal and elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from camcli.cli import printer
from camcli.cli.app import main
from camcli.cli.printer import Printer
from camcli.cli.progress import LINE_EVERY, Tally, show_progress
from camcli.pipeline.run_state import RunState
from camcli.records import Outcome, Record, Source
from tests.cli.conftest import Asked, Run
from tests.cli.test_app import RECORD


def outcome(*errors: str) -> Outcome:
    return Outcome(Source(Path("a.jpg")), tuple(Record("a.jpg", error=e) for e in errors))


@pytest.mark.usefixtures("asked")
def test_who_shares_a_run_is_named_and_what_is_left_to_it_counted(
    run: Run, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out_plan(*given: Any) -> Iterator[Outcome]:
        _, sources, _, _, watch, _ = given
        watch.begins(RunState(sources, other_processes=["process 7 on 'there', begun today"]))
        yield outcome("")
        for more in (2, -1):
            watch.left_out(more)

    monkeypatch.setattr(sys.modules["camcli.pipeline"], "carry_out_plan", carry_out_plan)
    err = run(image).err
    assert "shared with another run of the same options: process 7 on 'there', begun today" in err
    assert "left to another run of the same options: 1; should it die, --resume does them" in err


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_is_counted(clock: list[float]) -> None:
    tally = Tally(500)
    assert (tally.done, tally.so_far) == (0, "0 of 500 pictures")
    for one in (outcome("", ""), outcome("bad"), outcome("", "too large")):
        tally.add(one)
    assert tally.summary == "1 picture, 3 heatmaps, 2 failed"
    clock[0] += 1.0
    assert tally.so_far == "3 of 500 pictures, 2 failed, 2.00 a second, 0:04:08 left"
    for _ in range(497):
        tally.add(outcome(""))
    clock[0] += 9
    assert tally.so_far == "500 of 500 pictures, 2 failed, 50 a second, 0:00:00 left"
    assert tally.summary == "498 pictures, 500 heatmaps, 2 failed"


def test_what_is_looked_at_first_is_counted_and_its_time_is_not_the_drawings(
    clock: list[float],
) -> None:
    tally = Tally(40)
    for looked_at in (1, 2):
        clock[0] += 60.0
        tally.look(looked_at)
    assert tally.so_far == "2 of 40 pictures looked at, for the scale they share"
    clock[0] += 0.5
    tally.add(outcome(""))
    assert tally.so_far == "1 of 40 pictures, 2.00 a second, 0:00:20 left"


def test_a_video_is_counted_once() -> None:
    tally = Tally(3)
    frames = [replace(outcome(error), last=False) for error in ("", "bad", "bad", "")]
    for one in (*frames, outcome(), outcome("")):
        tally.add(one)
    assert (tally.done, tally.summary) == (2, "1 picture, 3 heatmaps, 1 failed")
    for one in (*frames[:1], outcome("it breaks off")):
        tally.add(one)
    assert (tally.done, tally.summary) == (3, "1 picture, 4 heatmaps, 2 failed")


def test_the_first_estimate_counts_from_the_end_of_loading(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(100)
    with show_progress(tally, Printer()) as (_, show):
        clock[0] += 60  # until the model is loaded
        tally.begin()
        clock[0] += 0.5
        tally.add(outcome(""))
        show()
        assert capsys.readouterr().err == ""
        assert tally.so_far == "1 of 100 pictures"
        clock[0] += LINE_EVERY
        tally.add(outcome(""))
        show()
    assert capsys.readouterr().err.startswith("camviz: 2 of 100 pictures, 0.10 a second")


def test_the_first_batch_is_no_measure_of_the_others(clock: list[float]) -> None:
    tally = Tally(80)
    tally.begin(8)
    clock[0] += 60  # weights are packed, a model is compiled
    said = []
    for seconds in (0.0, 4.0, 4.0):
        clock[0] += seconds
        for _ in range(8):
            tally.add(outcome(""))
            said.append(tally.so_far)
    # nothing is announced until a second batch has been timed, from its beginning to its end
    assert said[7] == "8 of 80 pictures" and said[14] == "15 of 80 pictures"
    assert said[15] == "16 of 80 pictures, 2.00 a second, 0:00:32 left"
    assert said[23] == "24 of 80 pictures, 2.00 a second, 0:00:28 left"


def test_frames_are_counted_in_batches_and_videos_in_what_is_left(clock: list[float]) -> None:
    tally = Tally(4)
    tally.begin(2)
    clock[0] += 60
    frame = replace(outcome(""), last=False)
    for one in (frame, frame, frame, outcome("")):
        tally.add(one)
        clock[0] += 2
    # the first video was begun in the batch that took long
    assert tally.so_far == "1 of 4 pictures, 0.17 a second, 0:00:18 left"


@pytest.mark.usefixtures("asked")
def test_a_run_begins_when_the_model_is_loaded(
    run: Run, image: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out_plan(*given: Any) -> Iterator[Outcome]:
        clock[0] += 600
        given[4].begins(RunState(given[1]))
        clock[0] += 60
        yield outcome("")
        for _ in range(2):
            clock[0] += LINE_EVERY
            yield outcome("")

    monkeypatch.setattr(sys.modules["camcli.pipeline"], "carry_out_plan", carry_out_plan)
    others = [Path(image).with_name(f"{name}.jpg") for name in ("dog", "eel")]
    for other in others:
        other.touch()
    said = run(image, *map(str, others)).err
    assert "camviz: 1 of 3 pictures\n" in said
    assert "camviz: 2 of 3 pictures, 0.10 a second, 0:00:10 left\n" in said


def test_a_lone_video_says_how_many_frames_it_has_done(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(1)
    with show_progress(tally, Printer()) as (_, show):
        for _ in range(4):
            clock[0] += LINE_EVERY / 2
            tally.add(replace(outcome(""), last=False))
            show()
    assert capsys.readouterr().err == (
        "camviz: 2 frames, 0.20 a second\ncamviz: 4 frames, 0.20 a second\n"
    )


def test_a_long_run_says_now_and_then_how_far_it_is(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    tally, said = Tally(100), []
    with show_progress(tally, Printer()) as (printer, show):
        for seconds in (1.0, LINE_EVERY - 2, 1.0, 1.0, LINE_EVERY):
            clock[0] += seconds
            tally.add(outcome(""))
            show()
            said.append(capsys.readouterr().err)
    assert printer.above is None
    assert [bool(line) for line in said] == [False, False, True, False, True]
    assert said[2] == "camviz: 3 of 100 pictures, 0.22 a second, 0:07:16 left\n"


@pytest.mark.parametrize(("style", "total"), [("paths", 100), ("text", 1)])
def test_quiet_runs_and_single_pictures_show_none(
    clock: list[float], capsys: pytest.CaptureFixture[str], style: printer.Style, total: int
) -> None:
    tally = Tally(total)
    with show_progress(tally, Printer(style)) as (_, show):
        clock[0] += 1000
        show()
    assert capsys.readouterr().err == ""


def test_a_summary_of_several_pictures(asked: Asked, run: Run, tmp_path: Path) -> None:
    images = []
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
        images.append(str(tmp_path / name))
    asked.records = [RECORD, Record("b.jpg", error="it is empty")]
    assert run(*images).err.splitlines()[-1] == "camviz: 1 picture, 1 heatmap, 1 failed"
    assert "heatmap," not in run(*images, "-q").err
    assert "1 picture" not in run(images[0]).err
    asked.records = [RECORD, replace(RECORD, source="b.jpg")]
    assert run(*images).err.splitlines()[-1] == "camviz: 2 pictures, 2 heatmaps"
    asked.problem = KeyboardInterrupt()
    said = run(*images)
    assert said.code == 130
    assert said.err.splitlines()[-3:] == [
        "camviz: stopped after 2 of 2 pictures: the same command with --resume goes on there",
        "camviz: 2 pictures, 2 heatmaps",
        "camviz: interrupted",
    ]


def test_heatmaps_beyond_their_scale_are_counted(asked: Asked, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    facts = {"scale": (0.0, 0.5), "layers": ()}
    asked.records = [replace(RECORD, maximum=most, **facts) for most in (0.5, 0.51, 9.0, None)]
    beyond = "camviz: 2 of the heatmaps reach beyond the scale, and are cut off there"
    said = run(str(tmp_path / "a.jpg"))
    assert said.err.splitlines()[-1] == beyond
    assert "beyond" not in run(str(tmp_path / "a.jpg"), "-q").err
    asked.records = [replace(RECORD, maximum=9.0)]
    assert "beyond" not in run(str(tmp_path / "a.jpg")).err


def _on_a_terminal(arguments: list[str], stdout: Path | None = None) -> tuple[int, str]:
    """Runs the command where its streams are a terminal, but for a standard output to a file."""
    import pty

    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reader = Thread(target=_read_all, args=(ours, shown))
    reader.start()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        terminal = stack.enter_context(open(theirs, "w", buffering=1))  # noqa: PTH123
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(sys, "stdout", stack.enter_context(stdout.open("w")) if stdout else terminal)
        for name, value in (("TERM", "xterm"), ("COLUMNS", "100")):
            patch.setenv(name, value)
        code = main(arguments)
    reader.join()
    os.close(ours)
    return code, b"".join(shown).decode()


def _read_all(number: int, shown: list[bytes]) -> None:
    # an OSError is Linux' word for a terminal that nobody writes to any more
    with suppress(OSError):
        while part := os.read(number, 65536):
            shown.append(part)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such terminals")
@pytest.mark.usefixtures("small_embedded")
def test_the_bar_stands_below_the_results(tmp_path: Path) -> None:
    for n in range(6):
        Image.new("RGB", (40, 30), (40 * n, 9, 200)).save(tmp_path / f"{n}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    command = [str(tmp_path), "--save-path", str(tmp_path / "out")]
    code, shown = _on_a_terminal([*command, "-b", "2"])
    assert code == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"━ 6 of 6 pictures, 1 failed, \S+ a second, 0:00:00 left", text)
    lines = [line.split("\r")[-1] for line in re.split(r"\r?\n", text)]
    results = [line for line in lines if "gradcam at features" in line and ".png" in line]
    # whole lines, of nothing else
    assert len(results) == 5
    assert all(re.match(r"/.+/out/\d_gradcam_\S+\.png  ", line) for line in results)
    assert "5 pictures, 5 heatmaps, 1 failed" in lines[-2]
    code, shown = _on_a_terminal([*command, "--json"], stdout=tmp_path / "list.txt")
    assert "of 6 pictures" in shown and "minimum" not in shown
    assert len((tmp_path / "list.txt").read_text().splitlines()) == 6
