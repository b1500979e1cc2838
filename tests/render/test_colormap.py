import cv2
import numpy as np
import pytest

from camcli.errors import UnknownName
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
