import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camcli.errors import UnknownName, UsageError
from camcli.render.colormap import COLORMAPS, apply_colormap, find_colormap


@pytest.mark.parametrize("name", COLORMAPS)
def test_colours_are_opencvs_in_rgb(name: str) -> None:
    heat = np.random.default_rng(0).random((50, 60), np.float32)
    heat[0, :2] = 0, 1
    drawn = cv2.applyColorMap(np.uint8(255 * heat), getattr(cv2, f"COLORMAP_{name.upper()}"))
    assert np.array_equal(apply_colormap(heat, name), drawn[..., ::-1])


def test_jet_runs_from_blue_to_red() -> None:
    red, green, blue = apply_colormap(np.array([[0.0, 1.0]], np.float32), "JET").transpose(2, 0, 1)[
        :, 0
    ]
    assert red[0] == green[0] == 0 and blue[0] == 128
    assert red[1] == 128 and green[1] == blue[1] == 0


def test_maps_that_tell_least_from_most() -> None:
    for name in COLORMAPS:
        table = find_colormap(name).astype(int)
        assert np.abs(table[0] - table[-1]).sum() > 100


def test_unknown_colour_map_offers_the_closest() -> None:
    with pytest.raises(UnknownName, match=r"'virdis'.*'viridis'.*All: jet"):
        apply_colormap(np.zeros((2, 2), np.float32), "virdis")


HEAT = np.linspace(0, 1, 256, dtype=np.float32)[None]


def test_a_table_is_a_colour_map() -> None:
    table = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    assert np.array_equal(apply_colormap(HEAT, table)[0, 1:], table[1:])
    # as floats, as a plain list, and with a full fourth number, it is the same one
    opaque = np.full((256, 1), 255, np.uint8)
    for same in (table / 255, table.tolist(), np.concatenate([table, opaque], 1)):
        assert np.array_equal(find_colormap(same), find_colormap(table))


def test_a_colour_map_of_matplotlib_is_one() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    colours = find_colormap(matplotlib.colormaps["viridis"])[:, 0]
    expected = np.rint(255 * np.array(matplotlib.colormaps["viridis"].colors))
    assert np.array_equal(colours, expected)


def test_a_function_of_one_level_or_of_all_is_one() -> None:
    def colour_all(levels: np.ndarray) -> np.ndarray:
        return np.stack([levels, 0 * levels, 1 - levels], 1)

    expected = np.stack([np.arange(256), np.zeros(256), np.arange(255, -1, -1)], 1)
    for function in (colour_all, lambda level: (level, 0 * level, 1 - level)):
        assert np.array_equal(find_colormap(function)[:, 0], expected)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros((255, 3)), r"\[256 3\].*gives float64 \[255, 3\]"),
        (np.full((256, 3), 2.0), "from 2 to 2"),
        (np.full((256, 3), np.nan), "from nan to nan"),
        (np.full((256, 3), -1), "from -1 to -1"),
        (np.zeros((256, 4)), "opaque"),
        (3, "A colour map is a name"),
        (lambda level: "red", "A colour map is a name"),  # noqa: ARG005
        ([[0, 1], [2]], "A colour map is a name"),
    ],
)
def test_what_is_none_is_refused(given: object, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        find_colormap(given)  # type: ignore[arg-type]


def find_lightness(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIELAB's L of sRGB colours [n 3], 0..100."""
    parts = colours / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    y = linear @ (0.2126729, 0.7151522, 0.0721750)
    return np.asarray(116 * np.where(y > 0.008856, np.cbrt(y), 7.787 * y + 16 / 116) - 16)


@pytest.mark.parametrize("name", COLORMAPS)
def test_lightness_rises_with_the_heat_but_in_those_that_the_handbook_names(name: str) -> None:
    lightness = find_lightness(find_colormap(name)[:, 0])
    falls = (np.maximum.accumulate(lightness) - lightness).max()
    assert (falls > 30) if name in ("jet", "turbo", "rainbow", "cool") else (falls < 1)
