"""Colours that files tell by codes and numbers, and no profile: they look as the file says."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from camcli.media.pictures.color_codes import NCLX, PRIMARIES, SRGB
from camcli.media.pictures.read import make_picture
from camcli.media.pictures.write import write_picture
from camcli.records import Source
from tests.media.pictures.profiles import display_p3

P3, LINEAR = PRIMARIES[12], 8
# red, green, blue, a grey and a skin
VALUES = np.array([[[200, 20, 20], [20, 200, 20], [20, 20, 200], [90, 90, 90], [224, 172, 140]]])


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(*chunks: tuple[bytes, bytes], profile: bytes | None = None) -> bytes:
    file = io.BytesIO()
    message = {"icc_profile": profile} if profile else {}
    Image.fromarray(VALUES.astype(np.uint8)).save(file, "PNG", **message)
    content = file.getvalue()
    return content[:33] + b"".join(_chunk(*chunk) for chunk in chunks) + content[33:]


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 1e5))


def chromaticities(places: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", b"".join(struct.pack(">I", round(v * 1e5)) for v in (*places[6:], *places[:6]))


def codes(primaries: int, curve: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes((primaries, curve, 0, 1))


def _read(tmp_path: Path, content: bytes) -> tuple[bytes | None, tuple[str, ...]]:
    file = tmp_path / "a.png"
    file.write_bytes(content)
    picture = make_picture(Source(file))
    np.testing.assert_array_equal(picture.pixels[..., :3], VALUES)
    return picture.profile, picture.notes


def _in_srgb(profile: bytes) -> NDArray[np.int64]:
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    image = Image.fromarray(VALUES.astype(np.uint8))
    shown = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    assert shown is not None
    return np.asarray(shown).astype(int)


@pytest.mark.parametrize("exponent", [1.0, 1 / 1.8, 1 / 3])
def test_a_gamma_is_kept(tmp_path: Path, exponent: float) -> None:
    profile, notes = _read(tmp_path, _png(gamma(exponent)))
    assert profile and not notes
    linear = (VALUES / 255) ** (1 / exponent)
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(_in_srgb(profile), 255 * expected, atol=2)


@pytest.mark.parametrize(
    "chunks",
    [(gamma(1 / 2.2), chromaticities(P3)), (codes(12, 4),), (codes(12, 4), gamma(1.0))],
    ids=["numbers", "codes", "codes before numbers"],
)
def test_wide_colours_are_kept(tmp_path: Path, chunks: tuple[tuple[bytes, bytes], ...]) -> None:
    profile, notes = _read(tmp_path, _png(*chunks))
    assert profile and not notes
    # made in another way, with a power of 2.2, which the sRGB curve is not in the dark
    np.testing.assert_allclose(_in_srgb(profile), _in_srgb(display_p3()), atol=9)
    assert np.abs(_in_srgb(profile) - VALUES).max() > 15


def test_codes_stand_above_a_profile(tmp_path: Path) -> None:
    assert _read(tmp_path, _png(codes(1, 13), profile=display_p3())) == (None, ())
    assert _read(tmp_path, _png(codes(2, 2), profile=display_p3())) == (display_p3(), ())


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (gamma(0.45455),),
        (gamma(0.45455), chromaticities(SRGB)),
        ((b"sRGB", b"\0"), gamma(1.0)),
        (codes(1, 13),),
        (codes(1, 1),),
        (gamma(0.0),),
        (chromaticities((0.0,) * 8),),
        (chromaticities((0.3, 0.3) * 4),),
        ((b"cICP", b"\x0c"),),
    ],
)
def test_srgb_and_what_says_nothing_have_no_profile(
    tmp_path: Path, chunks: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert _read(tmp_path, _png(*chunks)) == (None, ())


@pytest.mark.parametrize(
    ("curve", "said"), [(16, "high dynamic range (PQ)"), (18, "(HLG)"), (17, "codes 9 and 17")]
)
def test_what_cannot_be_shown_is_said(tmp_path: Path, curve: int, said: str) -> None:
    profile, notes = _read(tmp_path, _png(codes(9, curve)))
    assert profile is None
    assert said in notes[0]


def _write_jpeg(path: Path, space: int, index: str = "", mode: str = "RGB") -> Path:
    image, exif = Image.fromarray(VALUES.astype(np.uint8).repeat(16, 0).repeat(16, 1)), Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = space
    if index:
        interop = {ExifTags.Interop.InteropIndex: index}
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = interop
    image.convert(mode).save(path, exif=exif, quality=100)
    return path


@pytest.mark.parametrize(("space", "index"), [(65535, "R03"), (2, "")])
def test_adobe_rgb_by_exif_alone_is_kept(tmp_path: Path, space: int, index: str) -> None:
    picture = make_picture(_write_jpeg(tmp_path / "a.jpg", space, index))
    assert picture.profile and not picture.notes
    # the standard's own matrix to XYZ of D65, and sRGB's from there (Adobe RGB (1998), 4.3.5.3)
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    from_xyz = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
    linear = (VALUES / 255) ** (563 / 256) @ np.transpose(to_xyz) @ np.transpose(from_xyz)
    linear = linear.clip(0, 1)
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(_in_srgb(picture.profile), 255 * expected, atol=2)
    assert np.abs(_in_srgb(picture.profile) - VALUES).max() > 15


def test_exif_that_says_srgb_or_nothing_known(tmp_path: Path) -> None:
    picture = make_picture(_write_jpeg(tmp_path / "a.jpg", 1, "R98"))
    assert (picture.profile, picture.notes) == (None, ())
    for index in ("R98", ""):
        picture = make_picture(_write_jpeg(tmp_path / "b.jpg", 65535, index))
        assert picture.profile is None
        assert picture.notes == (
            "its EXIF says that its colours are not sRGB, and not which: they are taken for sRGB",
        )
    picture = make_picture(_write_jpeg(tmp_path / "c.jpg", 65535, "R03", "CMYK"))
    assert (picture.profile, picture.notes) == (None, ())


def test_codes_of_an_avif(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(VALUES.astype(np.uint8)).save(file, "AVIF", quality=100, subsampling="4:4:4")
    content, at = file.getvalue(), file.getvalue().find(NCLX) + len(NCLX)
    assert at >= len(NCLX)
    (tmp_path / "a.avif").write_bytes(content)
    assert make_picture(tmp_path / "a.avif").profile is None
    (tmp_path / "b.avif").write_bytes(content[:at] + struct.pack(">HH", 12, 13) + content[at + 4 :])
    profile = make_picture(tmp_path / "b.avif").profile
    assert profile
    np.testing.assert_allclose(_in_srgb(profile), _in_srgb(display_p3()), atol=9)


def test_what_is_written_looks_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(codes(12, LINEAR)))
    picture = make_picture(tmp_path / "a.png")
    assert picture.profile
    for name in ("b.png", "b.tif"):
        write_picture(picture.pixels, tmp_path / name, picture.profile)
        with Image.open(tmp_path / name) as written:
            assert written.info["icc_profile"] == picture.profile
    write_picture(picture.pixels, tmp_path / "b.bmp", picture.profile)
    with Image.open(tmp_path / "b.bmp") as written:
        np.testing.assert_array_equal(written, _in_srgb(picture.profile))
