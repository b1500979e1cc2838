import numpy as np
import pytest
from numpy.typing import NDArray

from camcli.media.pictures.bit_depth import Range, scale_alpha, scale_to_eight_bits

SCENE = np.array([[0.0, 0.1], [0.5, 0.95]])


def scale(values: NDArray[np.float64], kind: str) -> tuple[list[int], tuple[str, ...]]:
    pixels, notes = scale_to_eight_bits(values.astype(kind))
    return pixels.ravel().tolist(), notes


@pytest.mark.parametrize(
    ("white", "kind", "said"),
    [
        (255, "uint16", "8 bits"),
        (1023, "uint16", "10 bits"),
        (4095, "uint16", "12 bits"),
        (10_000, "uint16", "ten-thousandths"),
        (16_383, "uint16", "14 bits"),
        (65_535, "uint16", ""),
        (4095, ">u2", "12 bits"),
        (4095, "int16", "12 bits"),
        (4095, "int32", "12 bits"),
        (4095, "float32", "12 bits"),
        (10_000, "float64", "ten-thousandths"),
        (65_535, "int32", "16 bits"),
        (2**32 - 1, "uint32", ""),
        (1, "float32", ""),
    ],
)
def test_the_same_scene_comes_out_alike_in_every_type_that_holds_it(
    white: int, kind: str, said: str
) -> None:
    values = SCENE * white if kind.startswith("float") else np.rint(SCENE * white)
    pixels, notes = scale(values, kind)
    assert np.abs(np.array(pixels) - SCENE.ravel() * 255).max() <= 1
    assert len(notes) == bool(said) and all(said in note for note in notes)


def test_a_scan_in_hounsfield_units_is_as_bright_as_1024_higher_without_a_sign() -> None:
    units = np.array([-1024, -1000, 40, 1500, 3071])
    signed, notes = scale(units, "int16")
    assert signed == scale(units + 1024, "uint16")[0] == [0, 1, 66, 157, 255]
    assert notes == (
        "its values reach from -1024 to 3071 and are taken for Hounsfield units of 12 bits: black "
        "is -1024, white is 3071",
    )


@pytest.mark.parametrize(
    ("values", "kind", "expected", "said"),
    [
        # not the range of 32 bits, of which it would fill nothing
        ([0, 50_000, 100_000], "uint32", [0, 128, 255], "no usual range"),
        ([-10, 0, 10], "int16", [0, 128, 255], "no usual range"),
        ([-2.0, 0.0, 2.0], "float32", [0, 128, 255], "no usual range"),
        # a little above 1, as after interpolation, is no picture of 8 bits
        ([0.0, 0.5, 1.02], "float32", [0, 125, 255], "no usual range"),
        # 12 bits of 16, divided by 65535
        ([0.0, 0.03, 0.06], "float32", [0, 128, 255], "no usual range"),
        ([0.0, 20.4, 200.0], "float32", [0, 20, 200], "8 bits"),
        ([-128, 0, 127], "int8", [0, 128, 255], ""),
        ([-32_768, 0, 32_767], "int16", [0, 128, 255], ""),
        ([7, 7, 7], "uint16", [7, 7, 7], "8 bits"),
        ([-7, -7, -7], "int16", [0, 0, 0], "no usual range"),
        ([np.nan, 0.5, 1.0], "float32", [0, 128, 255], ""),
        ([np.inf, -np.inf, 1.0], "float32", [0, 0, 255], ""),
    ],
)
def test_what_fills_no_usual_range_goes_from_its_least_to_its_greatest_value(
    values: list[float], kind: str, expected: list[int], said: str
) -> None:
    pixels, notes = scale(np.array(values), kind)
    assert pixels == expected
    assert len(notes) == bool(said) and all(said in note for note in notes)


def test_what_the_file_says_counts_and_what_lies_beyond_is_cut_off() -> None:
    pixels, notes = scale_to_eight_bits(
        np.array([10, 60, 110, 200], np.uint16), Range(10, 110, "SMax")
    )
    assert pixels.tolist() == [0, 128, 255, 255]
    assert notes == (
        "its values reach from 10 to 200; black is 10, white is 110, as the file's SMax says",
    )


@pytest.mark.parametrize(("kind", "outlier"), [("uint16", 65_535), ("float32", 1e5)])
def test_a_single_hot_pixel_that_leaves_the_others_dark_is_said(kind: str, outlier: float) -> None:
    scan = np.linspace(0, 3000, 10_000).astype(kind)
    assert len(scale_to_eight_bits(scan)[1]) == 1
    scan[77] = outlier
    pixels, notes = scale_to_eight_bits(scan)
    assert np.median(pixels) <= 6
    assert "nearly all lie between" in notes[-1] and "look alike" in notes[-1]
    # nothing is said where the others are seen, or where there is nothing else
    assert scale_to_eight_bits(np.linspace(0, 65_535, 10_000).astype(np.uint16))[1] == ()
    assert scale_to_eight_bits(np.full(10_000, 40_000, np.uint16))[1] == ()


def test_alpha_is_opaque_at_the_white_of_its_own_range() -> None:
    for opaque, kind in ((255, "u1"), (4095, "u2"), (65_535, "u2"), (32_767, "i2"), (1, "f4")):
        alpha = np.array([0, opaque], kind)
        assert scale_alpha(alpha).tolist() == [0, 255]
    assert scale_alpha(np.array([0, 0.2], np.float32)).tolist() == [0, 51]
