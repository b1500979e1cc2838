"""Insertion: how fast the score rises when the highest pixels are shown first."""

from __future__ import annotations

from torch import Tensor

from camcli.metrics.perturbation import BATCH_SIZE, PassPlan, Score, make_baseline, plan_curve
from camcli.metrics.validation import check_at_least, check_image, check_maps, image_size
from camcli.registry import metric


def plan_insertion(
    maps: Tensor, image: Tensor, *, steps: int = 28, baseline: str = "blur"
) -> PassPlan:
    """Plans the passes of `insertion`, so that it can share batches."""
    check_at_least(1, steps=steps)
    image = check_image(image)
    maps = check_maps(maps, image_size(image))
    return plan_curve(maps, make_baseline(image, baseline), image, image, steps)


@metric(
    "insertion",
    family="faithfulness",
    direction="higher",
    range=(0, 1),
    paper="arXiv:1806.07421",
    passes=lambda steps: steps + 1,
    plan=plan_insertion,
)
def insertion(
    maps: Tensor,
    image: Tensor,
    score: Score,
    *,
    steps: int = 28,
    baseline: str = "blur",
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The area under the score while the highest pixels are shown first, arXiv:1806.07421.

    The picture begins as the baseline and becomes the whole picture in `steps` equal steps.  The
    value is the sum of all scores, the first and the last by half, over the number of steps.  The
    authors' score is the probability of the predicted class, their baseline the blurred picture,
    and 28 their number of steps for a picture of 224x224.

    maps [b H W], image [c H W], score [n c H W] -> [n]; returns [b].  Raises UsageError for maps of
    another size, or with NaN or infinity.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 2, 2).index_fill(2, torch.tensor([0]), 1.0)
        >>> insertion(image, image, lambda x: x.mean((1, 2, 3)), steps=2, baseline="zero")
        tensor([0.3750])
    """
    plan = plan_insertion(maps, image, steps=steps, baseline=baseline)
    return plan.carry_out(image, score, batch_size)
