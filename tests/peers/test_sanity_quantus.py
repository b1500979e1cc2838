"""The cascade of fresh weights beside Quantus's model parameter randomisation test (MPRT)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import camcli
from camcli.engine.sanity import Order, _normalise_to_size, randomize_step_by_step
from camcli.models.state.randomization import WeightedLayer
from tests.networks import Staged, noise

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peers' own, and those of what they import
]

METHOD, CATEGORIES = "layercam", [0, 1]


def _explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
    images = torch.as_tensor(np.asarray(inputs))
    maps = camcli.heatmaps(model, images, METHOD, target_category=[int(t) for t in targets])
    size = (images.shape[-2], images.shape[-1])
    return _normalise_to_size(maps, size)[:, None].numpy()


def _redraw_as_quantus_does(layer: WeightedLayer, _: int) -> None:
    """Draws every layer by one number, its seed of 42 and one."""
    torch.manual_seed(43)
    reset: Any = layer.module.reset_parameters
    reset()


@pytest.mark.parametrize(
    ("order", "theirs"), [("cascading", "top_down"), ("independent", "independent")]
)
def test_each_step_is_as_like_the_trained_maps(
    order: Order, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same layers with the same fresh weights correlate alike, in a cascade in one order."""
    quantus = pytest.importorskip("quantus", reason="quantus is in the extra `peers`")
    model, inputs = Staged().eval(), noise()
    monkeypatch.setattr(WeightedLayer, "redraw", _redraw_as_quantus_does)
    metric = quantus.MPRT(
        layer_order=theirs,
        abs=False,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    scores = metric(
        model=model,
        x_batch=inputs.numpy(),
        y_batch=np.array(CATEGORIES),
        a_batch=None,
        explain_func=_explain,
        device="cpu",
        channel_first=True,
    )
    assert scores.pop("original") == pytest.approx([1, 1])
    steps = list(randomize_step_by_step(model, inputs, [METHOD], CATEGORIES, order=order))
    # single layers are tried from the input on there
    assert [step.layer for step in steps] == list(scores)[:: 1 if order == "cascading" else -1]
    for step in steps:
        ours = step.similarities[METHOD]["rank"].tolist()
        assert ours == pytest.approx(scores[step.layer], abs=1e-4, nan_ok=True)
    # NaN of constant maps alone would say nothing
    known = [value for values in scores.values() for value in values if np.isfinite(value)]
    assert len(known) > 10 and min(known) < 0.5
