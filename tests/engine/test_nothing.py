"""Where there is nothing to see no method makes up a number, and the record says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from PIL import Image

import camcli
from camcli.methods.postprocessing import normalise
from camcli.models.load import Classifier
from camcli.records import Preprocessing
from camcli.registry import METHODS
from tests.networks import Staged, network_for

SIZE = (48, 64)
PREPROCESSING = Preprocessing(SIZE, SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")


def _half_dead(model: Staged) -> None:
    for part in (model.last[1].weight, model.last[1].bias):
        part[::2] = 0


def _dead(model: Staged) -> None:
    for part in (model.last[1].weight, model.last[1].bias):
        part.zero_()


def _constant(model: Staged) -> None:
    model.last[1].weight.zero_()
    model.last[1].bias.copy_(torch.linspace(0.5, 2, 16))


def _without_gradient(model: Staged) -> None:
    model.fc.weight.zero_()


def _as_it_is(_: Staged) -> None:
    pass


CASES: Mapping[str, Callable[[Staged], None]] = {
    "half of the channels are dead": _half_dead,
    "all channels are dead": _dead,
    "the maps are constant": _constant,
    "the gradients are zero": _without_gradient,
    "the picture is of one colour": _as_it_is,
}


# methods that see something all the same: they ask no class, or compare masked pictures by softmax
SHOWN: Mapping[str, tuple[str, ...]] = {
    "all channels are dead": (),
    "the maps are constant": (),
    "the gradients are zero": (
        *("eigencam", "kpcacam", "fem", "randomcam", "rollout", "dff"),
        *("scorecam", "sscam", "iscam"),
    ),
}


def _picture(case: str) -> Image.Image:
    if "picture" in case:
        return Image.new("RGB", SIZE[::-1], (90, 120, 200))
    draw = np.random.default_rng(0)
    return Image.fromarray(draw.integers(0, 255, (*SIZE, 3), dtype=np.uint8))


def _classifier(name: str, case: str) -> Classifier:
    model = network_for(name)
    with torch.no_grad():
        CASES[case](model)
    return Classifier(model.eval(), "handmade", "timm", PREPROCESSING, None, "by hand", 5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_made_up_where_there_is_nothing(name: str, case: str) -> None:
    classifier, picture = _classifier(name, case), _picture(case)
    for explanation in camcli.explain(classifier, picture, name, target_layers="last", top_k=5):
        assert np.isfinite(explanation.heatmap).all()
        shown = bool(normalise(torch.from_numpy(explanation.heatmap)).any())
        # concepts are drawn one by one, and not as the sum that the map is
        if not explanation.concepts:
            assert np.array_equal(explanation.overlay(), np.asarray(picture)) is not shown
        message = [warning for warning in explanation.warnings if warning.startswith("the map is ")]
        assert len(message) == (0 if shown else 1), explanation.warnings
        assert not (shown and name not in SHOWN.get(case, METHODS)), explanation.heatmap
