"""Our metrics beside grad-cam's, on the same maps, wherever theirs are sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camcli.metrics.faithfulness.arcc import arcc
from camcli.metrics.faithfulness.coherency import coherency
from camcli.metrics.faithfulness.complexity import complexity
from camcli.metrics.faithfulness.confidence import average_drop, increase_in_confidence
from camcli.metrics.faithfulness.road import road, road_least, road_most
from camcli.metrics.perturbation.curve import rank_pixels
from camcli.metrics.perturbation.imputation import impute

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peers' own, and those of what they import
]

SIDE, CATEGORY = 32, 3
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Returns a small network whose probabilities differ from picture to picture."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    ).eval()


@pytest.fixture(autouse=True)
def _no_noise() -> Iterator[None]:
    """Takes the noise off grad-cam's imputation: it comes from torch's global generator."""
    with patch("pytorch_grad_cam.metrics.road.torch.randn_like", torch.zeros_like):
        yield


def _images() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return 2 * torch.randn(3, 3, SIDE, SIDE, generator=draw)


def _maps() -> Tensor:
    """Returns maps without ties, from 0 to 1."""
    draw = torch.Generator().manual_seed(2)
    order = torch.rand(3, SIDE * SIDE, generator=draw).argsort(1)
    return (order / (SIDE * SIDE - 1)).view(3, SIDE, SIDE)


def _score(model: nn.Module) -> Any:
    return lambda images: 5 * model(images)[:, CATEGORY]


def _targets() -> list[Any]:
    return [lambda logits: 5 * logits[CATEGORY]] * 3


def _ours(metric: Any, model: nn.Module, maps: Tensor, **options: Any) -> np.ndarray:
    values = [
        metric(m[None], x, _score(model), **options) for m, x in zip(maps, _images(), strict=True)
    ]
    return torch.cat(values).numpy()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.8])
def test_imputation(share: float) -> None:
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    for image, map_ in zip(_images(), _maps(), strict=True):
        keep = map_ < torch.quantile(map_, 1 - share)
        theirs = NoisyLinearImputer(noise=0)(image, keep.float())
        torch.testing.assert_close(impute(image, keep[None], 1e-6)[0], theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (road_most, "ROADMostRelevantFirstAverage"),
        (road_least, "ROADLeastRelevantFirstAverage"),
        (road, "ROADCombined"),
    ],
)
def test_road(model: nn.Module, ours: Any, theirs: str) -> None:
    from pytorch_grad_cam.metrics import road as peer

    actual = getattr(peer, theirs)()(_images(), _maps().numpy(), _targets(), model)
    np.testing.assert_allclose(_ours(ours, model, _maps(), noise=0.0), actual, atol=TOLERANCE)
    assert np.abs(actual).max() > 100 * TOLERANCE


def test_with_ties_grad_cam_removes_more_than_was_asked() -> None:
    """Of a map with 48 % zeros its most relevant 10 % by `1 - map` are all the zeros."""
    from pytorch_grad_cam.metrics.perturbation_confidence import RemoveLeastRelevantFirst

    map_ = _maps()[0]
    tied = torch.where(map_ < 0.48, 0, map_)
    removed = []
    RemoveLeastRelevantFirst(90, lambda _, keep: removed.append(1 - keep.mean()))(None, tied)
    assert removed[0] == pytest.approx(0.48, abs=0.01)
    ranks = SIDE * SIDE - 1 - rank_pixels(tied[None])
    assert (ranks < 0.1 * SIDE * SIDE).float().mean() == pytest.approx(0.1, abs=0.001)


def test_drop_and_increase(model: nn.Module) -> None:
    """Theirs is the absolute drop, the papers' a share of the picture's score."""
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    targets = [ClassifierOutputSoftmaxTarget(CATEGORY)] * 3
    drop = DropInConfidence()(_images(), _maps().numpy(), targets, model)
    increase = IncreaseInConfidence()(_images(), _maps().numpy(), targets, model)

    def score(images: Tensor) -> Tensor:
        return model(images).softmax(1)[:, CATEGORY]

    with torch.no_grad():
        whole = score(_images()).numpy()
    pairs = list(zip(_maps(), _images(), strict=True))
    dropped = torch.cat([average_drop(m[None], x, score) for m, x in pairs]).numpy()
    increased = torch.cat([increase_in_confidence(m[None], x, score) for m, x in pairs]).numpy()
    np.testing.assert_allclose(dropped * whole, drop, atol=TOLERANCE)
    np.testing.assert_array_equal(increased, increase)
    assert drop.max() > 0 or increase.max() > 0


class _Base:
    """Stands for a method of grad-cam: a map that depends on the picture."""

    def __call__(self, input_tensor: Tensor, **_: Any) -> np.ndarray:
        return _explain(input_tensor).numpy()


def _explain(images: Tensor) -> Tensor:
    strength = images.abs().mean(1)
    low = strength.amin((1, 2), keepdim=True)
    return (strength - low) / (strength.amax((1, 2), keepdim=True) - low)


def test_arcc_and_its_parts(model: nn.Module) -> None:
    from pytorch_grad_cam.metrics.arcc import ARCC, Coherency, Complexity

    maps, images = _explain(_images()), _images()
    together = ARCC(_Base())(images, maps.numpy(), _targets(), model)
    parts = Coherency()(images, maps.numpy(), _targets(), model, _Base())
    np.testing.assert_allclose(complexity(maps), Complexity()(maps.numpy()), atol=TOLERANCE)
    for row, (image, map_) in enumerate(zip(images, maps, strict=True)):
        part = coherency(map_[None], image, lambda x, _: _explain(x))
        assert part.item() == pytest.approx(parts[row], abs=TOLERANCE)
        whole = arcc(map_[None], image, _score(model), lambda x, _: _explain(x), noise=0.0)
        assert whole.item() == pytest.approx(together[row], abs=TOLERANCE)
    assert together.max() > 0.01
