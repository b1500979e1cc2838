import io
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from camcli.errors import ImageError
from camcli.media.pictures.heif import is_heif
from camcli.media.pictures.read import read_picture
from camcli.records import Source


def heic(turned: bool = False) -> bytes:
    """Red above, blue below, 64 pixels high and 96 wide."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :, 0], pixels[32:, :, 2] = 255, 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if turned:
        image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, exif=exif.tobytes(), quality=95)
    return file.getvalue()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
def test_heic_is_read_upright_whatever_it_is_called(
    tmp_path: Path, name: str, turned: bool
) -> None:
    (tmp_path / name).write_bytes(heic(turned))
    pixels = read_picture(Source(tmp_path / name)).pixels.astype(int)
    assert pixels.shape == (64, 96, 3)
    assert np.abs(pixels[8, 48] - [255, 0, 0]).max() < 12
    assert np.abs(pixels[56, 48] - [0, 0, 255]).max() < 12


def test_pillow_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(heic())
    read_picture(Source(tmp_path / "a.heic"))
    assert "HEIF" not in Image.OPEN


def test_without_pillow_heif_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.heic").write_bytes(heic())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"it is HEIC: pip install 'camviz\[heif\]'"):
        read_picture(Source(tmp_path / "a.heic"))


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    whole = heic()
    for share in (0.01, 0.1, 0.5, 0.95):
        (tmp_path / "cut.heic").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageError, match=r"Cannot read '.*cut\.heic'"):
            read_picture(Source(tmp_path / "cut.heic"))


def test_avif_of_a_shared_brand_is_left_to_pillow() -> None:
    assert is_heif(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic")
    assert not is_heif(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif")
    assert not is_heif(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif")
    assert not is_heif(b"\xff\xd8\xff\xe0")
