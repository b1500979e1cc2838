"""Heat lies on what is asked for; the whole measurement is `python -m tests.tools.semantics`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import camcli
import camcli.methods  # fills the registry
from camcli.method_info import METHOD_INFO
from camcli.methods.postprocessing import normalise
from camcli.models.load import Classifier
from camcli.registry import METHODS, depends_on_category
from tests.slow import mark_slow
from tests.test_demo import CAT, COFFEE, PHOTO, SIDES
from tests.tools.semantics import (
    BASELINE,
    COCO,
    GAUSSIAN,
    PhotoCase,
    Scores,
    draw_boxes,
    find_cases,
    interval,
    map_by,
    measure,
    row,
    score_map,
)

ASKING = [
    name
    for name in METHODS
    if depends_on_category(name) and "transformers" not in METHOD_INFO[name].where
]
# SS-CAM's noise, of deviation 2, swamps masks of 0 to 1: all channels score nearly alike
BLIND = {"sscam"}
# a few masks and samples, for a quick look
QUICK = {"masks": 60, "samples": 2, "max_channels": 16, "window": 56, "stride": 56}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return camcli.load_model(device="cpu", fit="squash")


@pytest.mark.parametrize("name", mark_slow(ASKING, ("iscam", "occlusion", "rise", "sscam")))
def test_each_class_is_found_on_its_half(classifier: Classifier, name: str) -> None:
    """Whatever does not depend on the class has half of its heat there on the average."""
    shares = []
    options = {o.name: QUICK[o.name] for o in METHODS[name].options if o.name in QUICK}
    categories, sides = zip(CAT, COFFEE, strict=True)
    # altered pictures pass once for both
    explanations = camcli.explain(
        classifier, PHOTO, name, target_category=list(categories), set=options
    )
    for explanation, side in zip(explanations, sides, strict=True):
        heat = normalise(torch.from_numpy(explanation.sized_map("image"))).numpy()
        shares.append(heat[:, SIDES[side]].sum() / heat.sum())
    assert bool(np.mean(shares) > 0.55) == (name not in BLIND)


# the measurement itself, on a folder like those that it is for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo photo, with a box on the cat, one on the cup, and one on nothing that is there."""
    for name in ("photos", "boxes"):
        (tmp_path / name).mkdir()
    Image.open(PHOTO).save(tmp_path / "photos" / "a.jpg")
    cat, cup, pizza = (COCO.index(name) for name in ("cat", "cup", "pizza"))
    (tmp_path / "boxes" / "a.txt").write_text(
        f"{cat} 0.25 0.5 0.48 1\n{cup} 0.7 0.25 0.2 0.5\n{cup} 0.9 0.25 0.2 0.5\n"
        f"{pizza} 0.5 0.5 0.2 0.2\n{COCO.index('person')} 0.5 0.5 0.1 0.1\n"
    )
    (tmp_path / "imagenet.csv").write_text(
        "coco_class,imagenet_indices\ncat,281-285\ncup,967 968\npizza,963\n"
    )
    return tmp_path


def test_cases_are_the_classes_that_the_model_sees(classifier: Classifier, folder: Path) -> None:
    cat, cup = find_cases(classifier, folder)
    assert (281 <= cat.category <= 285, cup.category) == (True, 967)
    assert cat.mask.shape == cup.mask.shape == (400, 600)
    np.testing.assert_array_equal(np.flatnonzero(cat.mask.any(0)), np.arange(6, 294))
    # two boxes that touch are one area
    assert cup.mask.sum() == 200 * 240


def test_what_covers_half_of_the_photo_is_no_case(classifier: Classifier, folder: Path) -> None:
    (folder / "boxes" / "a.txt").write_text(f"{COCO.index('cat')} 0.25 0.5 0.52 1\n")
    assert list(find_cases(classifier, folder)) == []


def test_boxes_hold_the_pixels_whose_centres_lie_in_them() -> None:
    mask = draw_boxes([(0.5, 0.5, 0.5, 0.25)], (8, 4))
    np.testing.assert_array_equal(np.argwhere(mask), [[3, 1], [3, 2], [4, 1], [4, 2]])


def test_negative_heat_counts_as_none() -> None:
    mask = np.array([[True, False, False]])
    assert score_map(np.array([[1.0, 3.0, -5.0]]), mask) == (0.0, 0.25)
    assert score_map(np.array([[3.0, 1.0, -5.0]]), mask) == (1.0, 0.75)


def test_maps_are_scored(classifier: Classifier, folder: Path) -> None:
    cases = list(find_cases(classifier, folder))
    actual = {n: measure(map_by(classifier, n), cases) for n in ("gradcam", BASELINE, GAUSSIAN)}
    assert actual["gradcam"].photos == ("a.jpg", "a.jpg")
    for baseline in (BASELINE, GAUSSIAN):
        assert sum(actual["gradcam"].heat) > sum(actual[baseline].heat) + 0.3
    # worked out: its peak is the middle, in neither box
    assert actual[GAUSSIAN].peaks == (0.0, 0.0)


def test_intervals_draw_photos_and_not_cases() -> None:
    photos = [str(number) for number in range(25)]
    low, high = interval(photos, [1.0, 0.0, 0.0, 0.0, 0.0] * 5)
    # the binomial's own: 0.2 +- 1.96 * sqrt(0.2 * 0.8 / 25) = 0.04 to 0.36
    assert (low, high) == (pytest.approx(0.04, abs=0.02), pytest.approx(0.36, abs=0.02))
    # the same photo four times over is no better known
    assert interval(photos * 4, [1.0, 0.0, 0.0, 0.0, 0.0] * 20) == (low, high)


def test_a_row_names_its_settings() -> None:
    scores = Scores(("a", "b"), (1.0, 1.0), (0.25, 0.25))
    assert row("gradcam", scores) == "| gradcam | 100 % (100 to 100) | 25 % (25 to 25) | 2 |"
    assert row("rise", scores).startswith("| rise (masks=500) |")


def test_the_cases_of_a_gaussian_need_no_model(tmp_path: Path) -> None:
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    case = PhotoCase(tmp_path / "no.jpg", 0, mask)
    scores = measure(map_by(None, GAUSSIAN), [case])  # type: ignore[arg-type]
    # exp(-1/9 / (2 * 1/16)) = 0.411 beside the middle, its square at the corners
    share = 1 / (1 + 4 * np.exp(-8 / 9) + 4 * np.exp(-16 / 9))
    assert (scores.peaks, scores.heat) == ((1.0,), (pytest.approx(share),))
