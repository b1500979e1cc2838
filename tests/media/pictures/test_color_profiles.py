import io
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from camcli.media.pictures.color_profiles import convert_to_srgb
from camcli.media.pictures.read import make_picture, read_picture
from camcli.media.pictures.write import write_picture
from camcli.records import Source
from tests.media.pictures import profiles

P3 = profiles.display_p3()


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    blocks = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    return blocks.repeat(16, 0).repeat(16, 1)


def convert_as_shown(path: Path) -> NDArray[np.int64]:
    """What a viewer that knows profiles shows of a file, in sRGB."""
    with Image.open(path) as image:
        profile, rgb = image.info.get("icc_profile"), image.convert("RGB")
    if profile is None:
        return np.asarray(rgb).astype(int)
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    shown: Any = ImageCms.profileToProfile(rgb, own, ImageCms.createProfile("sRGB"))
    return np.asarray(shown).astype(int)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("written", ["png", "jpg", "tif", "webp", "bmp"])
def test_what_is_written_looks_as_the_original_does(
    tmp_path: Path, pixels: NDArray[np.uint8], suffix: str, written: str
) -> None:
    path, out = tmp_path / f"a.{suffix}", tmp_path / f"out.{written}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(path, icc_profile=P3, quality=100, **lossless)
    picture = read_picture(Source(path))
    assert picture.profile == P3 and picture.shown is None
    write_picture(picture.canvas, out, picture.profile)
    # P3's colours taken for sRGB's would differ by 14 of 255
    assert np.abs(convert_as_shown(out) - convert_as_shown(path))[4:12, 4:12].mean() < 3
    with Image.open(out) as image:
        assert ("icc_profile" in image.info) == (written != "bmp")


def test_the_network_sees_the_values_as_they_are(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=P3)
    assert np.array_equal(read_picture(Source(tmp_path / "a.png")).pixels, pixels)
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = P3
    assert make_picture(image).profile == P3


def test_a_profile_of_grey_is_applied_to_what_is_shown_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (4, 4), 128).save(path, icc_profile=profiles.grey(1.0))
    picture = read_picture(Source(path))
    # half of the light is 188 of sRGB
    assert (picture.pixels == 128).all() and np.abs(picture.canvas.astype(int) - 188).max() <= 1
    assert picture.profile is None


def test_a_profile_of_inks_is_applied_to_what_is_shown_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("CMYK", (4, 2), (255, 0, 0, 0))
    image.save(path, icc_profile=profiles.inks(), exif=exif)
    picture = read_picture(Source(path))
    assert picture.pixels.shape == picture.canvas.shape == (4, 2, 3)
    assert picture.pixels[0, 0].tolist() == [0, 255, 255]
    # a lightness of 75 of 100 is 185 of sRGB
    assert np.abs(picture.canvas.astype(int) - 185).max() <= 2 and picture.profile is None


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"no profile at all"),
        ("RGB", profiles.grey(2.2)),
        ("RGB", profiles.inks()),
        ("L", P3[:130]),
        ("RGB", b""),
    ],
)
def test_a_profile_that_cannot_be_the_pictures_own_is_left_out(mode: str, profile: bytes) -> None:
    image = Image.new(mode, (4, 4), (10, 20, 30) if mode == "RGB" else 9)
    image.info["icc_profile"] = profile
    picture = make_picture(image)
    assert picture.shown is None and (picture.profile is None or mode == "L")
    assert np.array_equal(convert_to_srgb(picture.pixels, profile), picture.pixels)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_deep_tiffs_keep_their_profile_whoever_reads_them(
    tmp_path: Path, kind: str, planes: str
) -> None:
    shares = np.random.default_rng(0).random((3, 8, 8))
    values = (shares * (65_535 if kind == "uint16" else 1)).astype(kind)
    stored = values if planes == "separate" else values.transpose(1, 2, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planes, iccprofile=P3)
    assert read_picture(Source(path)).profile == P3


def test_avif_and_heic_keep_their_profile(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.avif", icc_profile=P3)
    pillow_heif.from_pillow(image).save(tmp_path / "a.heic", icc_profile=P3)
    for name in ("a.avif", "a.heic"):
        assert read_picture(Source(tmp_path / name)).profile == P3
