"""Deletion: how fast the score falls when the highest pixels are hidden first."""

from __future__ import annotations

from torch import Tensor

from camcli.metrics.perturbation import BATCH_SIZE, PassPlan, Score, make_baseline, plan_curve
from camcli.metrics.validation import check_at_least, check_image, check_maps, image_size
from camcli.registry import metric


def plan_deletion(
    maps: Tensor, image: Tensor, *, steps: int = 28, baseline: str = "zero"
) -> PassPlan:
    """Plans the passes of `deletion`, so that it can share batches."""
    check_at_least(1, steps=steps)
    image = check_image(image)
    maps = check_maps(maps, image_size(image))
    return plan_curve(maps, image, make_baseline(image, baseline), image, steps)


@metric(
    "deletion",
    family="faithfulness",
    direction="lower",
    range=(0, 1),
    paper="arXiv:1806.07421",
    passes=lambda steps: steps + 1,
    plan=plan_deletion,
)
def deletion(
    maps: Tensor,
    image: Tensor,
    score: Score,
    *,
    steps: int = 28,
    baseline: str = "zero",
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The area under the score while the highest pixels are hidden first, arXiv:1806.07421.

    Like `insertion`, but from the whole picture to the baseline, by default zero (the mean colour
    after normalisation), in `steps` equal steps, by default 28.

    maps [b H W], image [c H W], score [n c H W] -> [n]; returns [b].  Raises UsageError for maps of
    another size, or with NaN or infinity.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 2, 2).index_fill(2, torch.tensor([0]), 1.0)
        >>> deletion(image, image, lambda x: x.mean((1, 2, 3)), steps=2)
        tensor([0.1250])
    """
    plan = plan_deletion(maps, image, steps=steps, baseline=baseline)
    return plan.carry_out(image, score, batch_size)
