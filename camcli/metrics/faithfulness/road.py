"""ROAD: how the score changes when pixels are removed and imputed, so that no mask can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.perturbation import BATCH_SIZE, Curve, PassPlan, Score, impute, rank_pixels
from camcli.metrics.validation import check_at_least, check_image, check_maps, image_size
from camcli.registry import metric

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NOISE = 0.01
# keyed by whether the least relevant pixels are removed first
ORDERS = {False: "most", True: "least"}


def plan_road(
    maps: Tensor,
    image: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
) -> PassPlan:
    """Plans the passes of `road`, so that it can share batches."""

    def conclude(whole: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG001 - it cancels out
        most, least = scores.view(2, len(maps), -1).mean(2)
        return torch.sub(least, most) / 2

    return _plan_imputed(maps, image, (False, True), conclude, shares, noise, seed)


def plan_road_most(
    maps: Tensor,
    image: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
) -> PassPlan:
    """Plans the passes of `road_most`, so that it can share batches."""
    return _plan_imputed(maps, image, (False,), _change(len(maps)), shares, noise, seed)


def plan_road_least(
    maps: Tensor,
    image: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
) -> PassPlan:
    """Plans the passes of `road_least`, so that it can share batches."""
    return _plan_imputed(maps, image, (True,), _change(len(maps)), shares, noise, seed)


@metric(
    "road",
    family="faithfulness",
    direction="higher",
    range=(-0.5, 0.5),
    paper="arXiv:2202.00449",
    passes=lambda shares: 2 * len(shares) + 1,
    plan=plan_road,
)
def road(
    maps: Tensor,
    image: Tensor,
    score: Score,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """Half the difference of the score without the least and without the most relevant pixels.

    (`road_least` - `road_most`) / 2; each is a mean over the `shares` of pixels that are removed.
    Removed pixels are imputed from their neighbours with a little noise, which hides where they
    were, arXiv:2202.00449.  Exactly these shares are removed, also where values are equal.

    maps [b H W], image [c H W], score [n c H W] -> [n]; `noise` is a standard deviation in the
    picture's units; returns [b].  Raises UsageError for shares below 0 or above 1.
    """
    plan = plan_road(maps, image, shares=shares, noise=noise, seed=seed)
    return plan.carry_out(image, score, batch_size)


@metric(
    "road_most",
    family="faithfulness",
    direction="lower",
    range=(-1, 1),
    paper="arXiv:2202.00449",
    passes=lambda shares: len(shares) + 1,
    plan=plan_road_most,
)
def road_most(
    maps: Tensor,
    image: Tensor,
    score: Score,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The mean change of the score when the most relevant pixels are removed and imputed.

    See `road`, arXiv:2202.00449.  maps [b H W], image [c H W], score [n c H W] -> [n]; returns [b].
    """
    plan = plan_road_most(maps, image, shares=shares, noise=noise, seed=seed)
    return plan.carry_out(image, score, batch_size)


@metric(
    "road_least",
    family="faithfulness",
    direction="higher",
    range=(-1, 1),
    paper="arXiv:2202.00449",
    passes=lambda shares: len(shares) + 1,
    plan=plan_road_least,
)
def road_least(
    maps: Tensor,
    image: Tensor,
    score: Score,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The mean change of the score when the least relevant pixels are removed and imputed.

    As `road`, arXiv:2202.00449.  maps [b H W], image [c H W], score [n c H W] -> [n]; returns [b].
    """
    plan = plan_road_least(maps, image, shares=shares, noise=noise, seed=seed)
    return plan.carry_out(image, score, batch_size)


def _change(count: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda whole, scores: scores.view(count, -1).mean(1) - whole


def _plan_imputed(
    maps: Tensor,
    image: Tensor,
    reversals: Sequence[bool],
    conclude: Callable[[Tensor, Tensor], Tensor],
    shares: Sequence[float],
    noise: float,
    seed: int,
) -> PassPlan:
    """Plans the imputed pictures: order by order, map by map, share by share."""
    image = check_image(image)
    maps = check_maps(maps, image_size(image))
    check_at_least(0, noise=noise)
    removed = _count_removed(shares, maps[0].numel()).to(maps.device)
    ranks = rank_pixels(maps)
    last = maps[0].numel() - 1
    draw = torch.Generator().manual_seed(seed)
    # the same noise for all, so that a map's value does not depend on the maps beside it
    added = noise * torch.randn(image.shape, generator=draw).to(image)

    def build(rows: slice) -> Tensor:
        row = torch.arange(rows.start, rows.stop, device=maps.device)
        order = ranks[row // len(removed) % len(maps)]
        is_reversed = torch.tensor(reversals, device=maps.device)[
            row // (len(removed) * len(maps)), None, None
        ]
        place = torch.where(is_reversed, last - order, order)
        keep = place >= removed[row % len(removed), None, None]
        filled = impute(image, keep)
        return torch.where(keep[:, None], filled, filled + added)

    def trace(whole: Tensor, scores: Tensor) -> dict[str, Curve]:
        """Returns a curve for each order of removal; both begin at the whole picture."""
        orders = scores.view(len(reversals), len(maps), -1)
        start = whole.expand(len(maps), 1)
        names = [""] if len(reversals) == 1 else [ORDERS[is_least] for is_least in reversals]
        return {
            name: Curve((0.0, *shares), torch.cat([start, curves], 1))
            for name, curves in zip(names, orders, strict=True)
        }

    return PassPlan(len(reversals) * len(maps) * len(removed), build, conclude, trace)


def _count_removed(shares: Sequence[float], pixels: int) -> Tensor:
    if not shares or not all(0 < share < 1 for share in shares):
        raise UsageError(
            f"Shares of pixels to remove lie between 0 and 1, as 0.1,0.5,0.9, not {shares}."
        )
    # as many pixels as lie at or above a percentile, if all values differ
    counts = [1 + floor((pixels - 1) * share + 1e-9) for share in shares]
    if max(counts) >= pixels:
        raise UsageError(
            f"No pixel is left to impute from when a share of {max(shares)} of {pixels} pixels is "
            "removed."
        )
    return torch.tensor(counts, dtype=torch.int32)
