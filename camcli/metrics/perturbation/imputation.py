"""Linear imputation: removed pixels become the weighted mean of their neighbours.

arXiv:2202.00449: every missing pixel equals the mean of its eight neighbours; direct neighbours
weigh 1/6 and diagonal ones 1/12.  Neighbours outside the picture are left out, and the others weigh
more. The system is sparse, symmetric and positive definite, so conjugate gradients solve it for all
channels of many masks at once, without a factorisation.  A multigrid cycle as the preconditioner
makes the number of steps independent of the size of the missing areas.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DIAGONAL = 1 / 12  # a diagonal neighbour's weight; a direct one's is twice that
# the residual at which solving ends, as a share of the first one
TOLERANCE = 1e-4
MOST_STEPS = 200
# of Jacobi's method; this value damps the highest frequencies of this stencil best
DAMPING = 0.8
SMALLEST_SIDE = 4
COARSEST_SWEEPS = 8
MASKS_AT_ONCE = 4


def impute(image: Tensor, keep: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Imputes the pixels of an image that each mask does not keep.

    image [c H W], keep bool [n H W] with at least one pixel kept in each mask -> [n c H W];
    `tolerance` is the residual at which solving ends, as a share of the first one (default 1e-4).
    """
    # a few masks at a time stay in a processor's cache; a GPU is faster with all of them
    size = MASKS_AT_ONCE if keep.is_cpu else len(keep)
    precise = image if image.element_size() >= 4 else image.float()
    parts = [keep[start : start + size] for start in range(0, len(keep), size)]
    return torch.cat([_impute(precise, part, tolerance) for part in parts]).to(image.dtype)


def _impute(image: Tensor, keep: Tensor, tolerance: float) -> Tensor:
    missing = ~keep[:, None]
    known = torch.where(missing, 0, image)
    # a good start: the mean of the known pixels around, from coarser and coarser grids
    start = torch.where(missing, _pull(known, keep[:, None].to(image.dtype)), 0)
    levels = _Levels(missing, image.dtype)
    right = torch.where(missing, _count_neighbours(known + start) - levels.weights[0] * start, 0)
    return known + start + _conjugate_gradients(levels, right, tolerance)


class _Levels:
    """The missing pixels and their neighbours' weights, on the picture's grid and coarser ones."""

    def __init__(self, missing: Tensor, dtype: torch.dtype) -> None:
        # as floats, since multiplying by floats is faster than by booleans
        self.missing = [missing.to(dtype)]
        while min(self.missing[-1].shape[-2:]) >= 2 * SMALLEST_SIDE:
            # a coarse pixel is missing where all of its fine pixels are
            kept = _pool(1 - self.missing[-1])
            self.missing.append((kept == 0).to(dtype))
        self.weights = [
            _count_neighbours(torch.ones(m.shape[-2:], dtype=dtype, device=m.device))
            for m in self.missing
        ]


def _pool(values: Tensor) -> Tensor:
    """Sums blocks of 2x2 pixels, with zeros outside.  [... h w] -> [... ceil(h/2) ceil(w/2)]"""
    h, w = values.shape[-2:]
    if h % 2 or w % 2:
        values = F.pad(values, (0, w % 2, 0, h % 2))
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _spread(values: Tensor) -> Tensor:
    """Sums each pixel four times, its direct neighbours twice, diagonal ones once.  [... H W]"""
    rows = values * 2
    rows[..., 1:, :] += values[..., :-1, :]
    rows[..., :-1, :] += values[..., 1:, :]
    both = rows * 2
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    return both


def _count_neighbours(values: Tensor) -> Tensor:
    """Returns the weighted sum of each pixel's neighbours.  [... H W] -> [... H W]"""
    return _spread(values).sub_(values, alpha=4).mul_(DIAGONAL)


def _apply(levels: _Levels, level: int, values: Tensor) -> Tensor:
    """Applies the system: a missing pixel minus the weighted mean of its missing neighbours."""
    out = _count_neighbours(values)
    return torch.addcmul(out.neg_(), levels.weights[level], values).mul_(levels.missing[level])


def _cycle(levels: _Levels, level: int, right: Tensor) -> Tensor:
    """Solves a level roughly: smooths, corrects by the coarser level, smooths.  [n c h w]"""
    step = DAMPING / levels.weights[level]
    values = right * step
    if level + 1 == len(levels.missing):
        for _ in range(COARSEST_SWEEPS):
            values += step * (right - _apply(levels, level, values))
        return values
    rest = right - _apply(levels, level, values)
    values += _prolong(levels, level, _cycle(levels, level + 1, _restrict(levels, level + 1, rest)))
    values += step * (right - _apply(levels, level, values))
    return values


def _restrict(levels: _Levels, level: int, rest: Tensor) -> Tensor:
    # a sum, four times the mean: coarse pixels lie twice as far apart, which counts squared
    return _pool(_blur(rest)).mul_(levels.missing[level])


def _prolong(levels: _Levels, level: int, coarse: Tensor) -> Tensor:
    h, w = levels.missing[level].shape[-2:]
    doubled = coarse[..., :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    fine = doubled.reshape(*coarse.shape[:-2], 2 * coarse.shape[-2], 2 * coarse.shape[-1])
    return _blur(fine[..., :h, :w]).mul_(levels.missing[level])


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
    """Guesses each pixel from known ones around it, on coarser and coarser grids.  [n c H W]"""
    h, w = known.shape[-2:]
    if min(h, w) < 2:
        return known.sum((-2, -1), keepdim=True) / kept.sum((-2, -1), keepdim=True).clamp(min=1)
    weight, total = _pool(kept), _pool(known)
    mean = total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    some = (weight > 0).to(weight.dtype)
    coarse = torch.where(some > 0, mean, _pull(mean * some, some))
    return F.interpolate(coarse, (2 * coarse.shape[-2], 2 * coarse.shape[-1]), mode="bilinear")[
        ..., :h, :w
    ]


def _conjugate_gradients(levels: _Levels, right: Tensor, tolerance: float) -> Tensor:
    """Solves all systems at once; each one stays as it is once it is solved.  [n c H W]"""
    values, rest = torch.zeros_like(right), right
    enough = tolerance * _compute_norm(right)
    along, before = torch.zeros_like(right), torch.zeros_like(enough)
    for _ in range(MOST_STEPS):
        unsolved = _compute_norm(rest) > enough
        if not unsolved.any():
            break
        better = _cycle(levels, 0, rest)
        product = (rest * better).sum((-2, -1), keepdim=True)
        along = better + _divide(product, before) * along
        moved = _apply(levels, 0, along)
        length = _divide(product, (along * moved).sum((-2, -1), keepdim=True)) * unsolved
        values = values + length * along
        rest = rest - length * moved
        before = product
    return values


def _compute_norm(values: Tensor) -> Tensor:
    norms: Tensor = values.flatten(2).norm(dim=2)
    return norms[..., None, None]


def _divide(one: Tensor, other: Tensor) -> Tensor:
    return torch.where(other > 0, one / other, 0)
