"""Every mode and depth becomes the RGB that it means."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camcli.media.pictures.read import make_picture
from tests.media.pictures.scenes import pixels_of, save, scene


def test_alpha_lies_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, [0, 51, 255]
    path = save(Image.fromarray(rgba), tmp_path / "a.png")
    expected = [[255, 255, 255], [244, 204, 204], [200, 0, 0]]
    assert np.abs(pixels_of(path)[0].astype(int) - expected).max() <= 1
    grey = Image.fromarray(rgba[..., 0])
    grey.putalpha(Image.fromarray(rgba[..., 3]))
    assert grey.mode == "LA"
    path = save(grey, tmp_path / "la.png")
    assert np.abs(pixels_of(path)[1].astype(int).T - [255, 244, 200]).max() <= 1


def test_transparency_of_palette_grey_and_rgb_pngs(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    one = save(palette, tmp_path / "index.png", transparency=1)
    assert pixels_of(one).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    shades = save(palette, tmp_path / "bytes.png", transparency=b"\xff\x00")
    assert pixels_of(shades).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    trns = save(rgb, tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert pixels_of(trns).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    trns = save(grey, tmp_path / "grey.png", transparency=7)
    assert pixels_of(trns).tolist() == [[[255] * 3, [9] * 3]]


def test_palette_grey_and_one_bit(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert pixels_of(save(grey, tmp_path / "l.png"))[0, :, 1].tolist() == [0, 100, 255]
    bits = grey.point(lambda v: 255 * (v > 50), "1")
    assert pixels_of(save(bits, tmp_path / "1.png")).tolist() == [[[0] * 3, [255] * 3, [255] * 3]]
    palette = Image.fromarray(scene()).quantize(4)
    assert np.abs(pixels_of(save(palette, tmp_path / "p.png")).astype(int) - scene()).max() <= 4


def test_cmyk_as_adobe_writes_it(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    for path in (tmp_path / "a.jpg", tmp_path / "a.tif"):
        red, green, blue = pixels_of(save(cmyk, path))[8, 8].astype(int)
        assert red > 245 and green < 10 and blue < 10


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_by_its_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257 * 3, 257 * 128, 65535]], np.uint16)
    path = save(Image.fromarray(values), tmp_path / f"a.{suffix}")
    assert pixels_of(path)[0, :, 0].tolist() == [0, 3, 128, 255]


def test_big_endian_sixteen_bit(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (2, 1), np.array([0, 257 * 200], ">u2").tobytes())
    assert pixels_of(save(image, tmp_path / "a.tif"))[0, :, 2].tolist() == [0, 200]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 257 * 9, 65535]], np.int32), [0, 9, 255]),
        (np.array([[-10, 0, 10]], np.int32), [0, 128, 255]),
        (np.array([[7, 7, 7]], np.int32), [7, 7, 7]),
        (np.array([[-7, -7, -7]], np.int32), [0, 0, 0]),
        (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),
        (np.array([[0, 20.4, 200]], np.float32), [0, 20, 200]),
        (np.array([[0, np.nan, 1]], np.float32), [0, 0, 255]),
        (np.array([[-2, 0, 2]], np.float32), [0, 128, 255]),
    ],
)
def test_integer_and_float_pictures(
    tmp_path: Path, values: NDArray[np.float32], expected: list[int]
) -> None:
    pixels = pixels_of(save(Image.fromarray(values), tmp_path / "a.tif"))
    assert pixels[0, :, 0].tolist() == expected


def of_lab(lightness: int, a: int, b: int) -> Image.Image:
    return Image.new("LAB", (4, 3), (round(lightness * 2.55), 128 + a, 128 + b))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        # CIE's own numbers for sRGB's grey and red
        (of_lab(50, 0, 0), [119, 119, 119]),
        (of_lab(100, 0, 0), [255, 255, 255]),
        (of_lab(54, 81, 70), [251, 5, 4]),  # 255, 0, 0 but for whole numbers
        (Image.new("CMYK", (4, 3), (0, 255, 255, 0)), [255, 0, 0]),
        (Image.new("CMYK", (4, 3), (0, 0, 0, 128)), [127, 127, 127]),
        # JFIF's red
        (Image.new("YCbCr", (4, 3), (76, 85, 255)), [254, 0, 0]),
        (Image.new("HSV", (4, 3), (170, 255, 255)), [0, 0, 255]),
        (Image.new("RGBX", (4, 3), (1, 2, 3, 4)), [1, 2, 3]),
        # half of black over white; premultiplied, half of white is 128
        (Image.new("LA", (4, 3), (0, 128)), [127, 127, 127]),
        (Image.new("La", (4, 3), (128, 128)), [255, 255, 255]),
        (Image.new("RGBa", (4, 3), (128, 0, 0, 128)), [255, 127, 127]),
        (Image.new("1", (4, 3), 1), [255, 255, 255]),
        *((Image.new(mode, (4, 3), 257 * 200), [200] * 3) for mode in ("I;16", "I;16L", "I;16B")),
        (Image.new("I", (4, 3), 65535), [255] * 3),
        (Image.new("F", (4, 3), float("nan")), [0, 0, 0]),
        (Image.new("F", (4, 3), float("inf")), [0, 0, 0]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_every_mode_is_read_as_the_colours_that_it_means(
    image: Image.Image, expected: list[int]
) -> None:
    pixels = make_picture(image).pixels
    assert pixels.shape == (3, 4, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_a_lab_file_is_read_as_its_colours(tmp_path: Path) -> None:
    pixels = pixels_of(save(of_lab(50, 0, 0), tmp_path / "a.tif"))
    assert np.ptp(pixels) == 0 and abs(int(pixels[0, 0, 0]) - 119) <= 1


def test_a_palette_with_alpha_lies_over_white() -> None:
    image = Image.new("PA", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((0, 0), (0, 255))
    image.putpixel((1, 0), (1, 0))
    assert make_picture(image).pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]
