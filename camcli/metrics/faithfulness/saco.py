"""SaCo: whether groups of pixels with more heat cost more score when they are hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.perturbation import BATCH_SIZE, PassPlan, Score, make_baseline, rank_pixels
from camcli.metrics.validation import check_at_least, check_image, check_maps, image_size
from camcli.registry import metric


def plan_saco(maps: Tensor, image: Tensor, *, groups: int = 10) -> PassPlan:
    """Plans the passes of `saco`, so that it can share batches."""
    check_at_least(2, groups=groups)
    image = check_image(image)
    maps = check_maps(maps, image_size(image))
    pixels = maps[0].numel()
    if groups > pixels:
        raise UsageError(
            f"{pixels} pixels cannot be split into {groups} groups: take fewer groups."
        )
    group = rank_pixels(maps).long() * groups // pixels
    filling = make_baseline(image, "mean")

    def build(rows: slice) -> Tensor:
        row = torch.arange(rows.start, rows.stop, device=maps.device)
        hidden = group[row // groups] == (row % groups)[:, None, None]
        return torch.where(hidden[:, None], filling, image)

    def conclude(whole: Tensor, scores: Tensor) -> Tensor:
        lost = whole - scores.view(len(maps), groups)
        return _compute_coefficient(_average_groups(maps, group, groups), lost)

    return PassPlan(len(maps) * groups, build, conclude)


@metric(
    "saco",
    family="faithfulness",
    direction="higher",
    range=(-1, 1),
    paper="arXiv:2404.01415",
    passes=lambda groups: groups + 1,
    plan=plan_saco,
)
def saco(
    maps: Tensor,
    image: Tensor,
    score: Score,
    *,
    groups: int = 10,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """How consistently groups of pixels with more heat cost more of the score, from -1 to 1.

    arXiv:2404.01415: the pixels are split by rank into `groups` equal groups (default 10), and each
    group alone is replaced by the picture's mean colour.  Each pair of groups adds its difference
    in heat, or subtracts it if the hotter group costs less; the sum is divided by the sum of all
    differences.  A constant map has 0; the authors' code raises an error for it.

    maps [b H W], image [c H W], score [n c H W] -> [n], a probability; returns [b].
    """
    return plan_saco(maps, image, groups=groups).carry_out(image, score, batch_size)


def _average_groups(maps: Tensor, group: Tensor, groups: int) -> Tensor:
    """Returns each group's mean above the map's minimum, the hottest first.  [b groups]

    The authors sum instead; the number of pixels is the same in each group and cancels out.
    """
    heat = maps.flatten(1).double()
    heat = heat - heat.amin(1, keepdim=True)
    places = group.flatten(1)
    sums = heat.new_zeros(len(maps), groups).scatter_add_(1, places, heat)
    return sums / torch.zeros_like(sums).scatter_add_(1, places, torch.ones_like(heat))


def _compute_coefficient(heat: Tensor, lost: Tensor) -> Tensor:
    """Returns (agreeing - contradicting) / all differences in heat.  [b k] x 2 -> [b]"""
    hotter, cooler = torch.triu_indices(heat.shape[1], heat.shape[1], 1, device=heat.device)
    weights = heat[:, hotter] - heat[:, cooler]
    signed = torch.where(lost[:, hotter] >= lost[:, cooler], weights, -weights)
    total = weights.abs().sum(1)
    return (signed.sum(1) / torch.where(total > 0, total, 1)).float()
