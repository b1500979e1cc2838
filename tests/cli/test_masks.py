"""Masks and maps in files, as they are typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import camcli
from tests.cli.conftest import Run
from tests.networks import Staged

CROP = ("--fit", "crop", "--target-layers", "last", "--target-category", "3")


def one(folder: Path, pattern: str) -> Path:
    (path,) = (folder / "camviz-out").glob(pattern)
    return path


def read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


@pytest.fixture
def heat(camviz: Run, folder: Path) -> np.ndarray:
    """The map at the picture's size, NaN outside the view."""
    camviz("flower.jpg", *CROP, "--save-map", "npy", "--map-size", "image")
    return np.load(one(folder, "*.npy"))


def test_a_mask_is_what_is_above_a_share_of_the_maximum(
    camviz: Run, folder: Path, heat: np.ndarray
) -> None:
    camviz("flower.jpg", *CROP, "--save-mask", "0.5")
    mask = read(one(folder, "*.jpg.mask-0.5.png"))
    assert mask.size == read(folder / "flower.jpg").size == (48, 40)
    expected = np.nan_to_num(heat) > 0.5 * np.nanmax(heat)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(np.asarray(mask), 255 * expected)


def test_a_mask_is_what_is_above_a_percentile_of_the_view(
    camviz: Run, folder: Path, heat: np.ndarray
) -> None:
    camviz("flower.jpg", *CROP, "--mask-percentile", "90")
    mask = np.asarray(read(one(folder, "*.jpg.mask-p90.png"))) > 0
    seen = np.isfinite(heat)
    assert not seen.all() and not mask[~seen].any()
    assert mask.sum() == pytest.approx(0.1 * seen.sum(), abs=1.5)
    assert heat[mask].min() > np.nanpercentile(heat, 90) >= heat[seen & ~mask].max()


def test_what_the_network_did_not_see_is_nan_or_zero(
    camviz: Run, folder: Path, heat: np.ndarray
) -> None:
    asked = ("--save-map", "npy", "--map-size", "image", "--map-outside", "zero")
    camviz("flower.jpg", *CROP, *asked, "--save-path", "zero")
    (path,) = (folder / "zero").glob("*.npy")
    np.testing.assert_array_equal(np.load(path), np.nan_to_num(heat))


@pytest.mark.parametrize(
    ("kind", "ending"), [("npz", ".npz"), ("png16", ".map.png"), ("tif", ".map.tif")]
)
def test_maps_in_other_formats(
    camviz: Run, folder: Path, heat: np.ndarray, kind: str, ending: str
) -> None:
    asked = ("--save-map", kind, "--map-size", "image", "--save-path", kind)
    camviz("flower.jpg", *CROP, *asked)
    (path,) = (folder / kind).glob(f"*{ending}")
    if kind == "npz":
        values = np.load(path)["map"]
    else:
        picture = read(path)
        values = np.asarray(picture)
    if kind == "png16":
        low, high = float(picture.text["low"]), float(picture.text["high"])
        values = (low + values / 65535 * (high - low)).astype(np.float32)
        np.testing.assert_allclose(values, np.nan_to_num(heat), rtol=0, atol=(high - low) / 1e5)
    else:
        np.testing.assert_array_equal(values, heat)
    # what was written is no input of the next run
    assert "1 of 1 were done before" in camviz("flower.jpg", *CROP, *asked, "--resume").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--save-mask", "1"), "--save-mask 1: takes a share of the map's maximum"),
        (("--save-mask", "half"), "takes a share of the map's maximum"),
        (("--mask-percentile", "100"), "takes a percentile, from 0 to below 100"),
        (("--save-mask", "0.5", "--mask-percentile", "90"), "give one of them"),
        (("--map-outside", "zero"), "give --save-map and --map-size image, too"),
        (("--save-map", "png"), "takes npy, npz, png16 or tif"),
        (
            ("--save-map", "png16", "--map-size", "image", "--map-outside", "nan"),
            "which has no NaN",
        ),
    ],
)
def test_mistakes_are_told(camviz: Run, words: tuple[str, ...], message: str) -> None:
    assert message in camviz("flower.jpg", *words, code=2).err


def test_the_same_in_python() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    module, view = Staged(), {"mean": 0.5, "std": 0.5, "fit": "crop"}
    (e,) = camcli.explain(module, picture, preprocessing=view, img_size=32, target_layers="last")
    heat, zero = e.sized_map("image"), e.sized_map("image", "zero")
    np.testing.assert_array_equal(np.nan_to_num(heat), zero)
    np.testing.assert_array_equal(e.mask(), zero > 0.5 * zero.max())
    assert e.mask(percentile=90).sum() == pytest.approx(0.1 * np.isfinite(heat).sum(), abs=1.5)
    for wrong in ({"share": 1}, {"percentile": 100}):
        with pytest.raises(camcli.CamvizError):
            e.mask(**wrong)  # type: ignore[arg-type]
    for words in (("original",), ("image", "white")):
        with pytest.raises(camcli.CamvizError, match=repr(words[-1])):
            e.sized_map(*words)  # type: ignore[arg-type]


def test_masks_of_several_shares_stand_beside_one_picture(camviz: Run, folder: Path) -> None:
    for words in (("--save-mask", "0.5"), ("--save-mask", "0.25"), ("--mask-percentile", "90")):
        camviz("flower.jpg", *CROP, *words)
    picture = one(folder, "*.jpg").name
    ends = {path.name.removeprefix(picture) for path in (folder / "camviz-out").glob("*.png")}
    assert ends == {".mask-0.5.png", ".mask-0.25.png", ".mask-p90.png"}
