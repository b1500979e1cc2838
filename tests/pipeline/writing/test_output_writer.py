"""What the network did not see, and captions, as the command writes them into files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import camcli
from camcli.cli.app import main
from camcli.render.overlay import OUTSIDE

HEIGHT, WIDTH = 96, 192
# of the embedded model's view: the centre, seven eighths of the shorter edge
EDGE = round(0.875 * HEIGHT)
TOP, LEFT = (HEIGHT - EDGE) // 2, (WIDTH - EDGE) // 2
VIEW = np.s_[TOP : TOP + EDGE, LEFT : LEFT + EDGE]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.png"
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def draw(picture: Path, tmp_path: Path, *typed: str) -> NDArray[np.uint8]:
    drawn = tmp_path / "drawn.png"
    assert main([str(picture), "--save-path", str(drawn), "--device", "cpu", "-q", *typed]) == 0
    return read(drawn)


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_outside_of_the_view(picture: Path, tmp_path: Path) -> None:
    original = read(picture)
    dimmed = draw(picture, tmp_path)
    kept = draw(picture, tmp_path, "--outside", "keep")
    cropped = draw(picture, tmp_path, "--outside", "crop")
    np.testing.assert_array_equal(cropped, dimmed[VIEW])
    np.testing.assert_array_equal(kept[VIEW], dimmed[VIEW])
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[VIEW] = False
    np.testing.assert_array_equal(kept[outside], original[outside])
    np.testing.assert_allclose(dimmed[outside], OUTSIDE * original[outside], atol=1)


def test_a_caption_stands_below_what_is_cropped(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = draw(picture, tmp_path, "--outside", "crop", "--boxes")
    captioned = draw(picture, tmp_path, "--outside", "crop", "--boxes", "--caption")
    np.testing.assert_array_equal(captioned[:EDGE], plain)
    strip = captioned[EDGE:]
    assert len(strip) >= 14 and strip.shape[1] == EDGE
    # white paper and dark letters
    assert np.median(strip) == 255 and strip.min() < 100
    assert capsys.readouterr().err == ""


def test_python_draws_the_same_pixels(picture: Path, tmp_path: Path) -> None:
    typed = ["--outside", "crop", "--boxes", "--caption"]
    (explanation,) = camcli.explain(camcli.load_model(device="cpu"), picture)
    drawn = explanation.overlay(outside="crop", boxes="largest", caption=True)
    np.testing.assert_array_equal(drawn, draw(picture, tmp_path, *typed))


def test_a_sheet_is_cropped_too(picture: Path, tmp_path: Path) -> None:
    methods = ["--method", "gradcam,layercam", "--sheet"]
    sizes = []
    for outside in ("dim", "crop"):
        sheet = tmp_path / f"{outside}.png"
        out = str(tmp_path / outside)
        typed = [str(picture), *methods, str(sheet), "--outside", outside, "--save-path", out]
        assert main([*typed, "--device", "cpu", "-q"]) == 0
        sizes.append(read(sheet).shape)
    # the cells are as wide, and of a square view higher
    assert sizes[0][1] == sizes[1][1] and sizes[0][0] < sizes[1][0]
