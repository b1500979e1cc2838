"""Structural similarity (SSIM) of maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.metrics.validation import check_maps

WINDOW, SIGMA = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03


def structural_similarity(maps: Tensor, others: Tensor, *, span: float = 1.0) -> Tensor:
    """Returns the mean SSIM of pairs of maps, -1 to 1.  [b H W], [b H W] -> [b]

    Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13 and section III-C: a Gaussian window of 11
    x 11 pixels and sigma 1.5, at all places where it lies inside the map.  Smaller maps get the
    largest odd window that fits.  `span` is the range of the values (default 1).  Raises UsageError
    for maps of different sizes, NaN or infinity.
    """
    maps = check_maps(maps).double()
    others = check_maps(others, (maps.shape[1], maps.shape[2])).double()
    edge = min(WINDOW, *maps.shape[1:])
    window = _make_window(edge - 1 + edge % 2).to(maps)

    def average(values: Tensor) -> Tensor:
        return F.conv2d(values[:, None], window)[:, 0]

    mean, other_mean = average(maps), average(others)
    variance = average(maps**2) - mean**2
    other_variance = average(others**2) - other_mean**2
    covariance = average(maps * others) - mean * other_mean
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    likeness = (2 * mean * other_mean + c1) * (2 * covariance + c2)
    size = (mean**2 + other_mean**2 + c1) * (variance + other_variance + c2)
    return (likeness / size).mean((1, 2)).float()


def _make_window(edge: int) -> Tensor:
    steps = torch.arange(edge, dtype=torch.float64) - (edge - 1) / 2
    line = torch.exp(-(steps**2) / (2 * SIGMA**2))
    line = line / line.sum()
    return (line[:, None] * line)[None, None]
