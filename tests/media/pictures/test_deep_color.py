import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ImageError
from camcli.media.pictures.read import read_picture
from camcli.records import Picture, Source

TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # a PNG's number for grey, grey and alpha, RGB, RGBA


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: NDArray[np.uint16], *chunks: bytes) -> bytes:
    """A PNG of 16 bits of samples [h w c]."""
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), *chunks, data, chunk(b"IEND", b""))
    )


def pnm(values: NDArray[np.uint16], white: int) -> bytes:
    height, width, channels = values.shape
    kind = 6 if channels == 3 else 5
    return (
        b"P%d # a comment\n%d %d %d\n" % (kind, width, height, white)
        + values.astype(">u2").tobytes()
    )


def jp2(values: NDArray[np.uint16]) -> bytes:
    order = values[..., ::-1] if values.shape[2] == 3 else values
    done, content = cv2.imencode(".jp2", order, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    assert done
    return content.tobytes()


def read(folder: Path, content: bytes) -> Picture:
    (folder / "a").write_bytes(content)
    return read_picture(Source(folder / "a"))


def ramp(white: int, channels: int) -> NDArray[np.uint16]:
    """Values from 0 to white [64 64 c], other ones in each channel."""
    steps = np.arange(64 * 64 * channels).reshape(64, 64, channels) * (
        white / (4096 * channels - 1)
    )
    return np.rint(steps).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["png", "pnm", "jp2"])
@pytest.mark.parametrize(
    ("white", "said"), [(1023, "10 bits"), (4095, "12 bits"), (10_000, "ten-th"), (65_535, "")]
)
def test_fewer_bits_in_sixteen_are_stretched_in_every_format(
    tmp_path: Path, form: str, channels: int, white: int, said: str
) -> None:
    values = ramp(white, channels)
    content = {"png": png, "pnm": lambda v: pnm(v, 65_535), "jp2": jp2}[form](values)
    picture = read(tmp_path, content)
    assert np.abs(picture.pixels.astype(float) - values * (255 / white)).max() <= 1.5
    assert len(picture.notes) == bool(said) and all(said in note for note in picture.notes)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_format_that_says_what_white_is_needs_no_guess(tmp_path: Path, channels: int) -> None:
    dark = ramp(300, channels)
    picture = read(tmp_path, pnm(dark, 4095))
    assert np.abs(picture.pixels.astype(float) - dark * (255 / 4095)).max() <= 1
    assert picture.notes == ()


@pytest.mark.parametrize("channels", [1, 3])
def test_significant_bits_of_a_png_say_how_it_was_written(tmp_path: Path, channels: int) -> None:
    says = chunk(b"sBIT", bytes([12] * channels))
    raw = ramp(1000, channels)
    # left as they were, though a picture of 10 bits would fill them
    picture = read(tmp_path, png(raw, says))
    assert np.abs(picture.pixels.astype(float) - raw * (255 / 4095)).max() <= 1
    assert picture.notes[0].endswith("white is 4095, as the file's sBIT says")
    # scaled to 16 bits as the standard asks, by zeros or by repetition: the picture is dark
    for scaled in (raw << 4, raw << 4 | raw >> 8):
        picture = read(tmp_path, png(scaled, says))
        assert np.abs(picture.pixels.astype(float) - scaled * (255 / 65_535)).max() <= 1
        assert picture.notes == ()


def test_alpha_of_sixteen_bits_lies_over_white(tmp_path: Path) -> None:
    values = np.zeros((1, 3, 4), np.uint16)
    values[0, :, 0], values[0, :, 3] = 4000, [0, 32_768, 65_535]
    picture = read(tmp_path, png(values))
    expected = [[255, 255, 255], [252, 127, 127], [249, 0, 0]]
    assert np.abs(picture.pixels[0].astype(int) - expected).max() <= 1
    # what is clear may be of any colour
    values[0, 0, :3] = 65_535
    assert np.array_equal(read(tmp_path, png(values)).pixels, picture.pixels)
    grey = values[..., [0, 3]]
    assert (
        np.abs(read(tmp_path, png(grey)).pixels[0, :, 1].astype(int) - [255, 252, 249]).max() <= 1
    )


def test_a_dark_file_that_is_cut_off_is_an_error_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = png(np.random.default_rng(0).integers(0, 4096, (48, 48, 3)).astype(np.uint16))
    for share in (0.1, 0.5, 0.95):
        with pytest.raises(ImageError, match="Cannot read"):
            read(tmp_path, whole[: int(share * len(whole))])
    assert capfd.readouterr() == ("", "")


def fits(values: NDArray[np.int16]) -> bytes:
    height, width = values.shape
    cards = {"SIMPLE": "T", "BITPIX": 16, "NAXIS": 2, "NAXIS1": width, "NAXIS2": height}
    head = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    return head.ljust(2880).encode() + values.astype(">i2").tobytes().ljust(2880, b"\0")


def test_signed_fits_that_pillow_takes_for_unsigned_is_refused(tmp_path: Path) -> None:
    content = fits(np.array([[-5, 5]], np.int16))
    with Image.open(io.BytesIO(content)) as image:
        assert np.asarray(image).max() > 60_000
    with pytest.raises(ImageError, match="FITS"):
        read(tmp_path, content)


def test_white_is_white_in_deep_jpeg_2000(tmp_path: Path) -> None:
    # Pillow 13.0 makes black of it
    white = np.full((64, 64, 3), 65_535, np.uint16)
    assert (read(tmp_path, jp2(white)).pixels == 255).all()


@pytest.mark.parametrize(("scale", "said"), [(1, 0), (4095, 1)])
def test_a_float_map_is_read_as_float(tmp_path: Path, scale: float, said: int) -> None:
    values = np.array([[0.25, 0.5], [0.75, 1.0]], "<f4") * scale
    # the last row comes first, and a scale below 0 stands for little endian
    content = b"Pf\n2 2\n-1.0\n" + np.flipud(values).astype("<f4").tobytes()
    picture = read(tmp_path, content)
    assert picture.pixels[..., 0].tolist() == [[64, 128], [191, 255]]
    assert len(picture.notes) == said
