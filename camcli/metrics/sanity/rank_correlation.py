"""Spearman's rank correlation of maps."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.metrics.validation import check_maps


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Returns Spearman's rank correlation of pairs of maps, -1 to 1.  [b H W], [b H W] -> [b]

    As in arXiv:1810.03292, section 3; equal values share the mean of their ranks.  NaN where one of
    the maps is constant.  Raises UsageError for maps of different sizes, NaN or infinity.

    >>> import torch
    >>> one = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> rank_correlation(one, one**2), rank_correlation(one, -one)
    (tensor([1.]), tensor([-1.]))
    """
    maps = check_maps(maps)
    others = check_maps(others, (maps.shape[1], maps.shape[2]))
    pairs = zip(maps.flatten(1), others.flatten(1), strict=True)
    return torch.stack([correlate(rank(one), rank(other)) for one, other in pairs]).float()


def rank(values: Tensor) -> Tensor:
    """Returns the ranks of values, from 1 on; equal ones share their mean.  [n] -> float64 [n]"""
    _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = (counts.cumsum(0) - (counts - 1) / 2).double()[which]
    return ranks


def correlate(one: Tensor, other: Tensor) -> Tensor:
    """Returns Pearson's correlation, NaN if one of the two is constant.  [n], [n] -> []"""
    one, other = one - one.mean(), other - other.mean()
    size = torch.linalg.vector_norm(one) * torch.linalg.vector_norm(other)
    correlation: Tensor = ((one * other).sum() / size).clamp(-1, 1)
    return correlation
