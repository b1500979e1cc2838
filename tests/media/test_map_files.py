"""Raw maps and masks in files: what is read back by others is what was written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from camcli.media.map_files import ENCODERS, MAP_ENDINGS, name_mask, write_map, write_mask
from camcli.media.output_names import LONGEST_NAME


def read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


VALUES = np.array([[-1.5, 0, np.nan], [2, 0.25, 3]], np.float32)


def test_floats_come_back_as_they_were(tmp_path: Path) -> None:
    write_map(VALUES, tmp_path / "a.npy", "npy")
    write_map(VALUES, tmp_path / "a.npz", "npz")
    write_map(VALUES, tmp_path / "a.tif", "tif")
    actual = [
        np.load(tmp_path / "a.npy"),
        np.load(tmp_path / "a.npz")["map"],
        np.asarray(read(tmp_path / "a.tif")),
        cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED),
    ]
    for values in actual:
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, VALUES)


@pytest.mark.parametrize("values", [VALUES, VALUES + 5, -np.abs(VALUES), VALUES * 0, VALUES * 1e38])
def test_sixteen_bits_are_values_by_low_and_high(tmp_path: Path, values: np.ndarray) -> None:
    write_map(values, tmp_path / "a.png", "png16")
    picture = read(tmp_path / "a.png")
    levels = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert levels.dtype == np.uint16 and levels.shape == values.shape
    np.testing.assert_array_equal(np.asarray(picture), levels)
    low, high = float(picture.text["low"]), float(picture.text["high"])
    assert low == min(np.nanmin(values), 0) and high == max(np.nanmax(values), 0)
    plain = np.nan_to_num(values.astype(np.float64))
    actual = low + levels / 65535 * (high - low)
    np.testing.assert_allclose(actual, plain, rtol=0, atol=(high - low) / 131_000)


def test_a_mask_is_black_and_white(tmp_path: Path) -> None:
    write_mask(np.array([[True, False, True]]), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.mode, picture.format) == ("L", "PNG")
        assert np.asarray(picture).tolist() == [[255, 0, 255]]


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_same_map_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    one, other = (write_map(VALUES, tmp_path / name, kind) for name in ("a", "b"))
    assert one == other


def test_what_stands_beside_a_picture_has_room_for_its_name() -> None:
    assert set(MAP_ENDINGS) == set(ENCODERS)
    masks = [name_mask(share, None) for share in (0, 0.5, 0.123456789, 1.23456e-300)]
    masks += [name_mask(None, percentile) for percentile in (90, 99.987654)]
    assert masks[1] == ".mask-0.5.png" and masks[-2] == ".mask-p90.png"
    longest = max(len(ending) for ending in (*MAP_ENDINGS.values(), *masks, ".pixels.png"))
    assert LONGEST_NAME + longest <= 255
