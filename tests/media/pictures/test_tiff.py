import builtins
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ImageError
from camcli.media.pictures.read import make_picture, read_picture
from camcli.records import Picture, Source

TOP = {
    "uint8": 255, "int8": 127, "uint16": 65_535, "int16": 32_767, "uint32": 2**32 - 1,
    "int32": 2**31 - 1, "float16": 1, "float32": 1, "float64": 1,
}  # fmt: skip

LAYOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"tile": (16, 16)},
    {"compression": "zlib"},
    {"compression": "zlib", "byteorder": ">"},
    {"byteorder": ">"},
    {"tile": (16, 16), "compression": "zlib", "byteorder": ">"},
)


@pytest.fixture(scope="module")
def shares() -> NDArray[np.float64]:
    """Shares of white [32 48 5], black and white among them."""
    values = np.random.default_rng(0).random((32, 48, 5))
    values[0, 0], values[0, 1] = 1, 0
    return values


def read(path: Path) -> Picture:
    return read_picture(Source(path))


def samples(shares: NDArray[np.float64], kind: str) -> NDArray[Any]:
    """Shares of white in all of a type's range."""
    top = TOP[kind]
    spread = shares * (2 * top + 1) - top - 1 if kind.startswith("int") else shares * top
    return spread.astype(kind)


@pytest.mark.parametrize("kind", TOP)
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_every_type_and_layout_is_read_as_what_it_means(
    tmp_path: Path, shares: NDArray[np.float64], kind: str, bands: int, planes: str
) -> None:
    values = samples(shares, kind)[..., :bands]
    stored = values.transpose(2, 0, 1) if planes == "separate" else values
    for layout in LAYOUTS:
        order = layout.get("byteorder", "<")
        tifffile.imwrite(
            tmp_path / "a.tif",
            (stored.squeeze() if bands == 1 else stored).astype(np.dtype(kind).newbyteorder(order)),
            photometric="minisblack",
            planarconfig=planes if bands > 1 else None,
            **layout,
        )
        picture = read(tmp_path / "a.tif")
        shown = shares[..., :1] if bands < 3 else shares[..., :3]
        assert np.abs(picture.pixels / 255 - shown).max() < 0.01, layout
        said = " ".join(picture.notes)
        assert (f"it has {bands} bands" in said) == (bands > 1)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "float32"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_are_read_in_every_layout(
    tmp_path: Path, shares: NDArray[np.float64], kind: str, planes: str, alpha: bool
) -> None:
    shares = shares[..., : 4 if alpha else 3].copy()
    shares[..., 3:] = 1
    shares[0, 2] = 0, 0, 0, *[0] * alpha
    values = samples(shares, kind)
    for layout in LAYOUTS:
        stored = values.transpose(2, 0, 1) if planes == "separate" else values
        tifffile.imwrite(
            tmp_path / "a.tif",
            stored.astype(np.dtype(kind).newbyteorder(layout.get("byteorder", "<"))),
            photometric="rgb",
            planarconfig=planes,
            extrasamples=["unassalpha"] if alpha else None,
            **layout,
        )
        picture = read(tmp_path / "a.tif")
        assert picture.notes == ()
        expected = shares[..., :3].copy()
        expected[0, 2] = alpha  # what is clear lies over white
        assert np.abs(picture.pixels / 255 - expected).max() < 0.01, layout


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "float32"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("premultiplied", [False, True])
def test_half_transparent_colours_lie_over_white(
    tmp_path: Path,
    shares: NDArray[np.float64],
    kind: str,
    planes: str,
    bands: int,
    premultiplied: bool,
) -> None:
    alpha, colours = shares[..., 3:4].copy(), shares[..., :bands]
    alpha[0, :2], alpha[1, 0] = 1, 0
    weighted = colours * alpha
    values = samples(np.concatenate([weighted if premultiplied else colours, alpha], 2), kind)
    for layout in LAYOUTS:
        stored = values.transpose(2, 0, 1) if planes == "separate" else values
        tifffile.imwrite(
            tmp_path / "a.tif",
            stored.astype(np.dtype(kind).newbyteorder(layout.get("byteorder", "<"))),
            photometric="rgb" if bands == 3 else "minisblack",
            planarconfig=planes,
            extrasamples=["assocalpha" if premultiplied else "unassalpha"],
            **layout,
        )
        picture = read(tmp_path / "a.tif")
        assert picture.notes == ()
        assert np.abs(picture.pixels / 255 - (weighted + 1 - alpha)).max() < 0.02, layout


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_where_zero_is_white_it_is(tmp_path: Path, kind: str) -> None:
    values = samples(np.array([[0, 0.2, 1]]), kind)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    assert np.abs(read(tmp_path / "a.tif").pixels[0, :, 0] - np.array([255, 204, 0])).max() <= 1


def test_numbers_without_a_sign_do_not_wrap(tmp_path: Path) -> None:
    values = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert read(tmp_path / "a.tif").pixels[0, :, 0].tolist() == [0, 128, 255]
    with Image.open(tmp_path / "a.tif") as image:
        assert make_picture(image).pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("bands", [1, 3])
def test_twelve_bits_in_sixteen_are_stretched(tmp_path: Path, bands: int) -> None:
    values = np.array([[0, 2048, 3900]], np.uint16).reshape(1, 3, 1).repeat(bands, 2)
    for planes in ("contig", "separate") if bands > 1 else (None,):
        for compression in (None, "zlib"):
            stored = values.transpose(2, 0, 1) if planes == "separate" else values
            tifffile.imwrite(
                tmp_path / "a.tif",
                stored if bands > 1 else stored[..., 0],
                photometric="rgb" if bands > 1 else "minisblack",
                planarconfig=planes,
                compression=compression,
            )
            picture = read(tmp_path / "a.tif")
            assert picture.pixels[0, :, 0].tolist() == [0, 128, 243]
            assert "taken for 12 bits" in picture.notes[0]


@pytest.mark.parametrize("bands", [1, 3])
def test_what_a_file_says_of_black_and_white_counts(tmp_path: Path, bands: int) -> None:
    values = np.array([[100, 600, 1100, 9000]], np.uint16)[..., None].repeat(bands, 2)
    said = [(340, "H", bands, [100] * bands, False), (341, "H", bands, [1100] * bands, False)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        values if bands > 1 else values[..., 0],
        photometric="rgb" if bands > 1 else "minisblack",
        extratags=said,
    )
    picture = read(tmp_path / "a.tif")
    assert picture.pixels[0, :, 0].tolist() == [0, 128, 255, 255]
    assert picture.notes[0].endswith(
        "black is 100, white is 1100, as the file's SMaxSampleValue says"
    )


def test_packed_twelve_bits_are_read_from_0_to_4095(tmp_path: Path) -> None:
    # three bytes for two numbers: 0, 1024, 2048, 200
    packed = bytes((0, 0x04, 0x00, 0x80, 0x00, 0xC8))
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(packed))
    content = head + packed + struct.pack("<H", len(tags)) + directory + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    picture = read(tmp_path / "a.tif")
    assert picture.pixels[0, :, 0].tolist() == [0, 64, 128, 12] and picture.notes == ()


def test_no_data_is_black_and_does_not_stretch_the_rest(tmp_path: Path) -> None:
    values = np.array([[-9999, 0, 0.5, 1]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", False)])
    assert read(tmp_path / "a.tif").pixels[0, :, 0].tolist() == [0, 0, 128, 255]


def test_turned_pictures_are_upright_whoever_reads_them(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 6), np.uint16)
    values[:, 0, 0] = 65_535
    for planes in ("separate", "contig"):
        stored = values if planes == "separate" else values.transpose(1, 2, 0)
        tifffile.imwrite(
            tmp_path / "a.tif",
            stored,
            photometric="rgb",
            planarconfig=planes,
            extratags=[(274, "H", 1, 6, False)],
        )
        pixels = read(tmp_path / "a.tif").pixels
        assert pixels.shape == (6, 4, 3) and pixels[0, 3].tolist() == [255, 255, 255]


def test_without_tifffile_what_others_misread_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tifffile":
            raise ImportError(name)
        return present(name, *rest, **more)

    path = tmp_path / "a.tif"
    values = np.full((3, 8, 8), 60_000, np.uint16)
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="separate")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImageError,
        match=r"a TIFF of 3 bands of 16 bits in separate planes, .*pip install 'camviz\[tiff\]'",
    ):
        read(path)


def test_what_pillow_misreads_is_refused_where_only_pillow_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    values = np.full((3, 8, 8), 60_000, np.uint16)
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="separate")
    with Image.open(path) as image, pytest.raises(ImageError, match="give the file's path"):
        make_picture(image)


@pytest.mark.parametrize("kind", ["uint16", "float32"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_a_truncated_file_is_an_error(tmp_path: Path, kind: str, planes: str) -> None:
    noise = np.random.default_rng(0).random((3, 48, 48)) * TOP[kind]
    stored = (noise if planes == "separate" else noise.transpose(1, 2, 0)).astype(kind)
    for compression in (None, "zlib"):
        whole = io.BytesIO()
        tifffile.imwrite(
            whole, stored, photometric="rgb", planarconfig=planes, compression=compression
        )
        for share in (0.02, 0.1, 0.5, 0.95):
            path = tmp_path / "cut.tif"
            path.write_bytes(whole.getvalue()[: int(share * whole.tell())])
            with pytest.raises(ImageError, match=r"Cannot read '.*cut\.tif'"):
                read(path)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    bands = np.zeros((64, 64, 5), np.float64)
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match="64 x 64 pixels are too many"):
        read_picture(Source(path), 4095)
