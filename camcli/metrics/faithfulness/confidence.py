"""Confidence: how the score changes when a picture is multiplied by its map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.perturbation import BATCH_SIZE, PassPlan, Score
from camcli.metrics.validation import check_image, check_unit_maps, image_size
from camcli.registry import metric


def plan_average_drop(unit_maps: Tensor, image: Tensor) -> PassPlan:
    """Plans the passes of `average_drop`, so that it can share batches."""
    return _plan_masked(unit_maps, image, _compute_drop)


def plan_increase(unit_maps: Tensor, image: Tensor) -> PassPlan:
    """Plans the passes of `increase_in_confidence`, so that it can share batches."""
    return _plan_masked(unit_maps, image, lambda whole, masked: (masked > whole).to(masked.dtype))


def plan_average_gain(unit_maps: Tensor, image: Tensor) -> PassPlan:
    """Plans the passes of `average_gain`, so that it can share batches."""
    return _plan_masked(unit_maps, image, _compute_gain)


@metric(
    "average_drop",
    family="faithfulness",
    direction="lower",
    range=(0, 1),
    paper="arXiv:1710.11063",
    passes=2,
    plan=plan_average_drop,
)
def average_drop(
    unit_maps: Tensor, image: Tensor, score: Score, *, batch_size: int = BATCH_SIZE
) -> Tensor:
    """The share of the score that is lost when the picture is multiplied by its map.

    max(0, Y - O) / Y, Grad-CAM++, arXiv:1710.11063, from 0 to 1 and not in per cent.  The authors'
    score is the class's probability.  The mean over pictures is the paper's Average Drop.

    unit_maps [b H W], image [c H W] after normalisation, score [n c H W] -> [n]; returns [b].
    Raises UsageError for a picture whose score is not above 0, and for map values below 0 or above
    1.
    """
    return plan_average_drop(unit_maps, image).carry_out(image, score, batch_size)


@metric(
    "increase_in_confidence",
    family="faithfulness",
    direction="higher",
    range=(0, 1),
    paper="arXiv:1710.11063",
    passes=2,
    plan=plan_increase,
)
def increase_in_confidence(
    unit_maps: Tensor, image: Tensor, score: Score, *, batch_size: int = BATCH_SIZE
) -> Tensor:
    """Whether the score grows when the picture is multiplied by its map: 1 or 0.

    Grad-CAM++, arXiv:1710.11063.  The mean over pictures is the paper's Increase in Confidence, as
    a share.

    unit_maps [b H W], image [c H W] after normalisation, score [n c H W] -> [n]; returns [b].
    """
    return plan_increase(unit_maps, image).carry_out(image, score, batch_size)


@metric(
    "average_gain",
    family="faithfulness",
    direction="higher",
    range=(0, 1),
    paper="arXiv:2301.07002",
    passes=2,
    plan=plan_average_gain,
)
def average_gain(
    unit_maps: Tensor, image: Tensor, score: Score, *, batch_size: int = BATCH_SIZE
) -> Tensor:
    """How far the probability rises towards 1 when the picture is multiplied by its map.

    max(0, O - Y) / (1 - Y), Opti-CAM, arXiv:2301.07002, the counterpart of average drop.

    unit_maps [b H W], image [c H W] after normalisation, score [n c H W] -> [n]; returns [b].
    Raises UsageError for scores that are not probabilities.
    """
    return plan_average_gain(unit_maps, image).carry_out(image, score, batch_size)


def _plan_masked(
    unit_maps: Tensor, image: Tensor, conclude: Callable[[Tensor, Tensor], Tensor]
) -> PassPlan:
    image = check_image(image)
    maps = check_unit_maps(unit_maps, image_size(image))

    def build(rows: slice) -> Tensor:
        return (maps[rows, None] * image).to(image.dtype)

    return PassPlan(len(maps), build, conclude)


def _compute_drop(whole: Tensor, masked: Tensor) -> Tensor:
    if not whole > 0:
        raise UsageError(
            "Average drop is a share of the picture's score, which must be above 0 and is "
            f"{float(whole):.4g}: explain the probability (target probability)."
        )
    return (whole - masked).clamp(min=0) / whole


def _compute_gain(whole: Tensor, masked: Tensor) -> Tensor:
    low, high = torch.minimum(whole, masked.amin()), torch.maximum(whole, masked.amax())
    # softmax may round to slightly below 0 or above 1
    if low < -1e-5 or high > 1 + 1e-5:
        raise UsageError(
            f"Average gain needs probabilities, and these scores lie between {float(low):.4g} and "
            f"{float(high):.4g}: explain the probability (target probability)."
        )
    lacking = (1 - whole).clamp(min=torch.finfo(whole.dtype).eps)
    return ((masked - whole).clamp(min=0) / lacking).clamp(max=1)
