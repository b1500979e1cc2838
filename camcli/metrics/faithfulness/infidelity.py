"""Infidelity: how far the heat in hidden squares is from the loss of score."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from camcli.metrics.perturbation import BATCH_SIZE, PassPlan, Score
from camcli.metrics.validation import check_at_least, check_image, check_maps, image_size
from camcli.registry import metric

# the authors' squares are 1 to 10 pixels wide, in pictures of 28
WIDEST = 10 / 28


def plan_infidelity(maps: Tensor, image: Tensor, *, samples: int = 200, seed: int = 0) -> PassPlan:
    """Plans the passes of `infidelity`, so that it can share batches."""
    check_at_least(1, samples=samples)
    image = check_image(image)
    maps = check_maps(maps, image_size(image))
    down, across = _draw_squares(image_size(image), samples, seed)
    down, across = down.to(maps.device), across.to(maps.device)

    def build(rows: slice) -> Tensor:
        hidden = down[rows, :, None] & across[rows, None, :]
        return torch.where(hidden[:, None], 0, image)

    def conclude(whole: Tensor, scores: Tensor) -> Tensor:
        lost = (whole - scores).double()
        sums = torch.einsum("nh,bhw,nw->bn", down.double(), maps.double(), across.double())
        power = sums.square().mean(1)
        scale = (sums * lost).mean(1) / torch.where(power > 0, power, 1)
        return (lost - scale[:, None] * sums).square().mean(1).float()

    return PassPlan(samples, build, conclude)


@metric(
    "infidelity",
    family="faithfulness",
    direction="lower",
    range=(0, float("inf")),
    paper="arXiv:1901.09392",
    passes=lambda samples: samples + 1,
    plan=plan_infidelity,
)
def infidelity(
    maps: Tensor,
    image: Tensor,
    score: Score,
    *,
    samples: int = 200,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The mean squared difference of the score that a hidden square costs and the heat in it.

    arXiv:1901.09392, square removal: `samples` squares (default 200) at random places, with sides
    up to 10/28 of the picture's, become zero.  As in the authors' code the map is scaled by the
    factor that fits best, since the scale of a heatmap means nothing; a negated map fits as well.
    All maps are measured with the same squares.

    maps [b H W], image [c H W], score [n c H W] -> [n]; returns [b], in squared units of the score.
    """
    plan = plan_infidelity(maps, image, samples=samples, seed=seed)
    return plan.carry_out(image, score, batch_size)


def _draw_squares(size: tuple[int, int], samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws squares inside a picture, as the rows [n H] and columns [n W] that each one covers."""
    draw = torch.Generator().manual_seed(seed)
    widest = max(1, ceil(WIDEST * min(size)))
    width = torch.randint(1, widest + 1, (samples,), generator=draw)
    sides = []
    for length in size:
        free = length - width + 1
        first = (torch.rand(samples, generator=draw) * free).long()[:, None]
        pixels = torch.arange(length)
        sides.append((first <= pixels) & (pixels < first + width[:, None]))
    return sides[0], sides[1]
