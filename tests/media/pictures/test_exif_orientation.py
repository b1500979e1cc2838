"""Pictures stand upright, however the camera was held."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.media.pictures.read import make_picture
from tests.media.pictures.scenes import pixels_of, save, scene


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    # what a camera held in each way stores, so that turning it makes the scene upright again
    upright = Image.fromarray(scene())
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.rotate(180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.rotate(90, expand=True),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.rotate(-90, expand=True),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(stored, tmp_path / f"a.{suffix}", exif=exif)
    pixels = pixels_of(path).astype(int)
    assert pixels.shape == (40, 64, 3)
    for y, x in ((8, 8), (8, 56), (32, 8), (32, 56)):
        assert np.abs(pixels[y, x] - scene()[y, x]).max() <= 12
    with Image.open(path) as opened:
        assert np.array_equal(make_picture(opened).pixels, pixels)


def test_damaged_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    path = save(Image.fromarray(scene()), tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    assert pixels_of(path).shape == (40, 64, 3)
