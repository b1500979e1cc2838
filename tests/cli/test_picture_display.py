"""`--show`: overlays in the terminal, between the lines that name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.cli import picture_display
from camcli.cli.app import main
from camcli.cli.picture_display import choose_display
from camcli.cli.printer import Printer
from camcli.records import Record


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_display, "_is_terminal", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "KONSOLE_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "20")


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    path = tmp_path / "overlay.png"
    Image.fromarray(np.full((40, 60, 3), (10, 200, 30), np.uint8)).save(path)
    return str(path)


@pytest.mark.usefixtures("at_terminal")
def test_a_picture_stands_below_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    model = ["-m", "test_vit", "--no-pretrained", "--method", "eigencam,fem"]
    assert main([str(photo), *model, "--save-path", str(tmp_path / "o"), "--show"]) == 0
    out = capsys.readouterr().out
    first, second = out.index("eigencam_"), out.index("fem_")
    assert first < out.index("\x1b[38;2;") < second < out.rindex("\x1b[38;2;")
    # 20 letters wide, in the picture's shape
    assert sum("▀" in line for line in out.splitlines()) == 2 * 7


@pytest.mark.usefixtures("at_terminal")
def test_a_sheet_is_drawn_once_and_what_failed_or_is_a_video_never(
    overlay: str, capsys: pytest.CaptureFixture[str]
) -> None:
    display = choose_display(Printer())
    assert display
    for record in (
        Record("a.jpg", method="gradcam", sheet=overlay, outputs=("map.npy",)),
        Record("a.jpg", method="layercam", sheet=overlay),
        Record("b.jpg", error="no picture", outputs=(overlay,)),
        Record("c.mp4", frame=3, outputs=(overlay,)),
    ):
        display(record)
    assert capsys.readouterr().out.count("\x1b[38;2;10;200;30;48;2;10;200;30m") == 7


@pytest.mark.usefixtures("at_terminal")
def test_a_file_that_is_gone_is_told(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(overlay).unlink()
    display = choose_display(Printer())
    assert display
    display(Record("a.jpg", method="gradcam", outputs=(overlay,)))
    printed = capsys.readouterr()
    assert printed.out == "" and "--show: " in printed.err and "overlay.png" in printed.err


def test_where_there_is_no_terminal_nothing_is_drawn_and_it_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert choose_display(Printer()) is None
    assert "standard output is no terminal, and nothing is drawn there" in capsys.readouterr().err


@pytest.mark.usefixtures("at_terminal")
def test_a_dumb_terminal_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_display(Printer(), {"TERM": "dumb"}) is None
    assert "a terminal of the kind 'dumb' draws nothing" in capsys.readouterr().err


@pytest.mark.parametrize("style", ["--json", "-q"])
def test_where_programs_read_it_is_refused(
    style: str, overlay: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([overlay, "--show", style]) == 2
    assert "--show draws between the lines that people read" in capsys.readouterr().err


def test_a_terminal_that_does_not_say_its_pixels_is_no_error() -> None:
    width, height = picture_display._find_pixels()
    assert width >= 0 and height >= 0
