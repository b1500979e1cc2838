"""Metrics of localisation beside Quantus's, on maps and masks where both are sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camcli.metrics.localization.heat_inside import heat_inside
from camcli.metrics.localization.pointing_game import pointing_game

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peers' own, and those of what they import
]

PICTURES, EDGE = 12, 16


class ChannelMeans(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def maps_and_masks() -> tuple[np.ndarray, np.ndarray]:
    """Maps without negative heat and without ties, and squares; every other peak is inside."""
    random = np.random.default_rng(0)
    maps = random.random((PICTURES, 1, EDGE, EDGE)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    for index in range(PICTURES):
        y, x = random.integers(0, 10, 2)
        masks[index, 0, y : y + 6, x : x + 6] = True
        if index % 2:
            maps[index, 0, y + 1, x + 1] = 2
    return maps, masks


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("PointingGame", pointing_game),
        ("AttributionLocalisation", heat_inside),
        ("RelevanceMassAccuracy", heat_inside),
    ],
)
def test_values_are_those_of_quantus(name: str, measure: Callable[..., Tensor]) -> None:
    quantus = pytest.importorskip("quantus", reason="quantus is in the extra `peers`")

    maps, masks = maps_and_masks()
    quiet: dict[str, Any] = {"disable_warnings": True, "display_progressbar": False}
    metric = getattr(quantus, name)(abs=False, normalise=False, **quiet)
    theirs = metric(
        model=ChannelMeans(),
        x_batch=maps,
        y_batch=np.zeros(PICTURES, int),
        a_batch=maps,
        s_batch=masks,
        device="cpu",
    )
    pairs = zip(torch.from_numpy(maps), torch.from_numpy(masks[:, 0]), strict=True)
    ours = [measure(heat, mask).item() for heat, mask in pairs]
    assert ours == pytest.approx([float(value) for value in theirs], abs=1e-6)
    assert len(set(ours)) > 1
