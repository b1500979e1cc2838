"""Deletion beside the pixel flipping of Quantus 0.6, on the same maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camcli.metrics.faithfulness.deletion import deletion

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peers' own, and those of what they import
]

SIDE, STEPS, CATEGORY = 16, 8, 2


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * SIDE * SIDE, 4)
    ).eval()


def _images() -> Tensor:
    return 2 * torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _maps() -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.rand(3, SIDE * SIDE, generator=draw).argsort(1).view(3, SIDE, SIDE).float()


def _curves(**options: object) -> np.ndarray:
    quantus = pytest.importorskip("quantus", reason="quantus is in the extra `peers`")
    metric = quantus.PixelFlipping(
        features_in_step=SIDE * SIDE // STEPS,
        perturb_baseline=0.0,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
        **options,
    )
    return np.array(
        metric(
            model=_model(),
            x_batch=_images().numpy(),
            y_batch=np.full(3, CATEGORY),
            a_batch=_maps().numpy()[:, None],
            device="cpu",
            channel_first=True,
        )
    )


def test_pixel_flipping_is_deletion_without_the_whole_picture() -> None:
    """It begins after the first step, and its area is neither begun at the picture nor divided."""
    after = _curves()
    assert after.shape == (3, STEPS)
    model = _model()

    def score(images: Tensor) -> Tensor:
        return model(images).softmax(1)[:, CATEGORY]

    for image, map_, curve in zip(_images(), _maps(), after, strict=True):
        ours = deletion(map_[None], image, score, steps=STEPS).item()
        with torch.no_grad():
            whole = score(image[None]).item()
        theirs = np.concatenate(([whole], curve))
        assert ours == pytest.approx(
            torch.trapezoid(torch.tensor(theirs), dx=1 / STEPS).item(), abs=1e-4
        )
        assert abs(ours - torch.trapezoid(torch.tensor(curve)).item()) > 0.1


@pytest.mark.skipif(hasattr(np, "trapz"), reason="numpy before 2.4 still has trapz")
def test_its_area_fails_with_the_numpy_of_today() -> None:
    with pytest.raises(AttributeError, match="trapz"):
        _curves(return_auc_per_sample=True)
