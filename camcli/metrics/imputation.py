"""Noisy linear imputation: pixels that are taken away become the weighted mean of their neighbours.

arXiv:2202.00449, section 4.2: every missing pixel equals the mean of its eight neighbours, of which
direct ones weigh 1/6 and diagonal ones 1/12; what lies outside the picture is left out and the rest
weighs more.  The system is sparse, symmetric and positive definite, so that conjugate gradients
solve it for all channels of many masks at once, without a factorisation; a multigrid cycle in front
makes the number of steps independent of how large the missing areas are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DIAGONAL = 1 / 12  # a diagonal neighbour's weight; a direct one's is twice that
# what is left of the residual, as a share of that at the start
TOLERANCE = 1e-5
MOST_STEPS = 200
# of Jacobi's method, which damps the highest frequencies of this stencil best
DAMPING = 0.8
SMALLEST_SIDE = 4


def impute(image: Tensor, keep: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Fills what is not kept of an image in each of some masks.

    image [c H W], keep bool [n H W] with at least one pixel kept in each -> [n c H W]
    """
    missing = ~keep[:, None]
    known = torch.where(missing, 0, image)
    # a good start: a mean of the known pixels around, taken on ever coarser grids
    start = torch.where(missing, _pull(known, keep[:, None].to(image.dtype)), 0)
    levels = _Levels(missing, image.dtype)
    right = torch.where(missing, _neighbours(known + start) - levels.weights[0] * start, 0)
    return known + start + _conjugate_gradients(levels, right, tolerance)


class _Levels:
    """The missing pixels and their neighbours' weights, on the picture's and ever coarser grids."""

    def __init__(self, missing: Tensor, dtype: torch.dtype) -> None:
        self.missing, self.weights = [missing], [_weights(missing, dtype)]
        while min(missing.shape[-2:]) >= 2 * SMALLEST_SIDE:
            # a coarse pixel is missing where all that it stands for are
            missing = ~(F.max_pool2d((~missing).to(dtype), 2, ceil_mode=True) > 0)
            self.missing.append(missing)
            self.weights.append(_weights(missing, dtype))


def _weights(missing: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums the weights of each pixel's neighbours inside the picture.  -> [1 1 H W]"""
    return _neighbours(torch.ones(1, 1, *missing.shape[-2:], dtype=dtype, device=missing.device))


def _spread(values: Tensor) -> Tensor:
    """Adds to each pixel its neighbours, a direct one twice and itself four times.  [... H W]"""
    rows = values * 2
    rows[..., 1:, :] += values[..., :-1, :]
    rows[..., :-1, :] += values[..., 1:, :]
    both = rows * 2
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    return both


def _neighbours(values: Tensor) -> Tensor:
    """Sums each pixel's neighbours by their weights.  [... H W] -> [... H W]"""
    return _spread(values).sub_(values, alpha=4).mul_(DIAGONAL)


def _apply(levels: _Levels, level: int, values: Tensor) -> Tensor:
    """Applies the system: a missing pixel less the weighted mean of its missing neighbours."""
    out = _neighbours(values)
    torch.sub(levels.weights[level] * values, out, out=out)
    return out.mul_(levels.missing[level])


def _cycle(levels: _Levels, level: int, right: Tensor) -> Tensor:
    """Solves a level roughly: smooth, correct by the coarser level, smooth.  [n c h w]"""
    step = DAMPING / levels.weights[level]
    values = right * step
    sweeps = 1 if level + 1 < len(levels.missing) else 8
    for _ in range(sweeps):
        values += step * (right - _apply(levels, level, values))
    if level + 1 == len(levels.missing):
        return values
    rest = right - _apply(levels, level, values)
    coarse = _cycle(levels, level + 1, _restrict(levels, level + 1, rest))
    values += _prolong(levels, level, coarse)
    for _ in range(sweeps + 1):
        values += step * (right - _apply(levels, level, values))
    return values


def _restrict(levels: _Levels, level: int, rest: Tensor) -> Tensor:
    # four times the mean: a coarse pixel's distance is two fine ones, and its square four
    pooled = F.avg_pool2d(_blur(rest), 2, ceil_mode=True, count_include_pad=False)
    return pooled.mul_(4).mul_(levels.missing[level])


def _prolong(levels: _Levels, level: int, coarse: Tensor) -> Tensor:
    h, w = levels.missing[level].shape[-2:]
    fine = coarse.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :h, :w]
    return _blur(fine).mul_(levels.missing[level])


def _blur(values: Tensor) -> Tensor:
    """Blurs by [1 2 1] / 4 along both sides, the edge repeated.  [... h w] -> [... h w]"""
    rows = values * 2
    rows[..., 1:, :] += values[..., :-1, :]
    rows[..., :-1, :] += values[..., 1:, :]
    rows[..., 0, :] += values[..., 0, :]
    rows[..., -1, :] += values[..., -1, :]
    both = rows * 2
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    both[..., 0] += rows[..., 0]
    both[..., -1] += rows[..., -1]
    return both.mul_(1 / 16)


def _pull(known: Tensor, kept: Tensor) -> Tensor:
    """Guesses each pixel from the known ones around it, on ever coarser grids.  [n c H W]"""
    h, w = known.shape[-2:]
    if min(h, w) < 2:
        return known.sum((-2, -1), keepdim=True) / kept.sum((-2, -1), keepdim=True).clamp(min=1)
    weight = F.avg_pool2d(kept, 2, ceil_mode=True, count_include_pad=False)
    total = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
    mean = total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    some = (weight > 0).to(weight.dtype)
    coarse = torch.where(some > 0, mean, _pull(mean * some, some))
    return F.interpolate(coarse, (2 * coarse.shape[-2], 2 * coarse.shape[-1]), mode="bilinear")[
        ..., :h, :w
    ]


def _conjugate_gradients(levels: _Levels, right: Tensor, tolerance: float) -> Tensor:
    """Solves all systems at once; each stops moving when it is solved.  [n c H W]"""
    values, rest = torch.zeros_like(right), right
    enough = tolerance * right.flatten(2).norm(dim=2)
    along, before = torch.zeros_like(right), torch.zeros_like(right[..., :1, :1])
    for _ in range(MOST_STEPS):
        better = _cycle(levels, 0, rest)
        product = (rest * better).sum((-2, -1), keepdim=True)
        along = better + _divide(product, before) * along
        moved = _apply(levels, 0, along)
        length = _divide(product, (along * moved).sum((-2, -1), keepdim=True))
        values = values + length * along
        rest = rest - length * moved
        before = product
        if (rest.flatten(2).norm(dim=2) <= enough).all():
            break
    return values


def _divide(one: Tensor, other: Tensor) -> Tensor:
    return torch.where(other > 0, one / other, 0)
