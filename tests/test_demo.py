"""The promise of the README: the cat lights up for the cat, and the coffee for the coffee."""

import numpy as np
import pytest

import camcli
from camcli.models.load import Classifier
from tests.checkout import ROOT

PHOTO = ROOT / "demo_images" / "cat_and_coffee.jpg"
CAT, COFFEE = ("tabby", "left"), ("espresso", "right")
SIDES = {"left": slice(0, 300), "right": slice(300, 600)}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    # the centre alone, as the model has it by itself, cuts both in half
    return camcli.load_model(device="cpu", fit="squash")


@pytest.mark.parametrize(("method", "share"), [("gradcam", 0.7), ("best", 0.9)])
@pytest.mark.parametrize(("category", "side"), [CAT, COFFEE])
def test_the_heat_lies_on_the_half_that_was_asked_for(
    classifier: Classifier, category: str, side: str, method: str, share: float
) -> None:
    (explanation,) = camcli.explain(classifier, PHOTO, method=method, target_category=category)
    heat = np.maximum(explanation.sized_map("image"), 0)
    assert heat.shape == (400, 600)
    assert heat[:, SIDES[side]].sum() >= share * heat.sum()


@pytest.mark.parametrize(("category", "side"), [CAT, COFFEE])
def test_the_overlay_is_red_on_the_half_that_was_asked_for(
    classifier: Classifier, category: str, side: str
) -> None:
    (explanation,) = camcli.explain(classifier, PHOTO, target_category=category)
    drawn = explanation.overlay(alpha=1.0).astype(int)
    red = (drawn[..., 0] > 120) & (drawn[..., 2] < 60)  # the upper end of jet
    rows, columns = np.nonzero(red)
    assert len(rows) > 1000
    assert SIDES[side].start <= np.median(columns) < SIDES[side].stop


def test_both_are_seen(classifier: Classifier) -> None:
    best = [explanation.label for explanation in camcli.explain(classifier, PHOTO, top_k=5)]
    assert {"tabby, tabby cat", "espresso"} <= set(best)
