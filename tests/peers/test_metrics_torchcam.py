"""Our metrics beside torch-cam's 0.5, on the same maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camcli.metrics.faithfulness.confidence import average_drop, increase_in_confidence
from camcli.metrics.faithfulness.deletion import deletion
from camcli.metrics.faithfulness.insertion import insertion
from tests.peers.test_metrics_grad_cam import CATEGORY, SIDE, _images, _maps, model

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # the peers' own, and those of what they import
]
__all__ = ["model"]


class _Extractor:
    """Gives torch-cam's metrics the maps that ours are given."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield


def _pairs() -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(_maps()[:, None], _images(), strict=True)


def _score(model: nn.Module) -> Any:
    return lambda images: (3 * model(images)).softmax(1)[:, CATEGORY]


def _softmax(logits: Tensor) -> Tensor:
    return (3 * logits).softmax(1)


def test_drop_and_increase(model: nn.Module) -> None:
    from torchcam.metrics import ClassificationMetric

    metric = ClassificationMetric(_Extractor(model, _maps()), _softmax)
    metric.update(_images(), CATEGORY)
    theirs = metric.summary()
    drop = torch.cat([average_drop(m, x, _score(model)) for m, x in _pairs()]).mean()
    increase = torch.cat([increase_in_confidence(m, x, _score(model)) for m, x in _pairs()]).mean()
    assert drop.item() == pytest.approx(theirs["avg_drop"], abs=1e-4)
    assert increase.item() == pytest.approx(theirs["conf_increase"], abs=1e-4)


@pytest.mark.parametrize("steps", [8, 16, 1024])
@pytest.mark.parametrize("ties", [False, True])
def test_insertion_and_deletion(model: nn.Module, steps: int, ties: bool) -> None:
    from torchcam.metrics import DeletionInsertionMetric

    maps = (_maps() * 4).round() / 4 if ties else _maps()
    metric = DeletionInsertionMetric(_Extractor(model, maps), _softmax, steps=steps)
    metric.update(_images(), CATEGORY)
    theirs = metric.summary()
    pairs = list(zip(maps[:, None], _images(), strict=True))
    inserted = [insertion(m, x, _score(model), steps=steps, baseline="zero") for m, x in pairs]
    deleted = [deletion(m, x, _score(model), steps=steps) for m, x in pairs]
    assert torch.cat(inserted).mean().item() == pytest.approx(theirs["insertion_auc"], abs=1e-4)
    assert torch.cat(deleted).mean().item() == pytest.approx(theirs["deletion_auc"], abs=1e-4)
    assert abs(theirs["insertion_auc"] - theirs["deletion_auc"]) > 1e-3


def test_where_steps_do_not_divide_the_picture_torch_cam_weighs_the_last_by_its_length(
    model: nn.Module,
) -> None:
    """The authors weigh all steps alike: 1024 pixels in steps of 103 leave 97 for the last."""
    from torchcam.metrics import DeletionInsertionMetric

    metric = DeletionInsertionMetric(_Extractor(model, _maps()), _softmax, steps=10)
    metric.update(_images(), CATEGORY)
    deleted = torch.cat([deletion(m, x, _score(model), steps=10) for m, x in _pairs()]).mean()
    assert deleted.item() == pytest.approx(metric.summary()["deletion_auc"], abs=5e-3)
    assert SIDE * SIDE % 10
