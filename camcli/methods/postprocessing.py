"""Reduces, normalises, enlarges and fuses the maps of every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.errors import UsageError
from camcli.records import Fusion

# a map whose values differ by less than this share of its maximum is constant but for rounding
SMALLEST_CONTRAST = 1e-6


def normalise(maps: Tensor) -> Tensor:
    """ReLU, then min-max; zeros where a map is empty, constant or not finite.  [... h w] -> 0..1"""
    return min_max(maps.relu())


def min_max(maps: Tensor) -> Tensor:
    """Stretches each map to 0..1; zeros where it is constant or not finite.  [... h w] -> 0..1"""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return torch.where(_differ(low, high), (maps - low) / (high - low), 0.0)


def scale_signed(maps: Tensor, low: float = 0.0, high: float | None = None) -> Tensor:
    """Keeps the sign: `low` to `high` of what is raised or lowered becomes 0 to 1, and -1.

    [... h w] -> -1..1.  Left out, `high` is each map's largest value of either sign; zeros where a
    map is zero everywhere or not finite.
    """
    size = maps.abs()
    most = size.amax((-2, -1), keepdim=True) if high is None else torch.full_like(maps, high)
    usable = maps.flatten(-2).isfinite().all(-1)[..., None, None] & (most > low)
    share = ((size - low) / (most - low)).clamp(0, 1)
    return torch.where(usable, maps.sign() * share, 0.0)


def scale_to_range(maps: Tensor, low: float, high: float) -> Tensor:
    """ReLU, then `low` to `high` becomes 0 to 1, cut off beyond; zeros where a map is not finite.

    [... h w] -> 0..1.  With one scale for many maps a constant one has its heat.
    """
    usable = maps.flatten(-2).isfinite().all(-1)[..., None, None]
    return torch.where(usable, ((maps.relu() - low) / (high - low)).clamp(0, 1), 0.0)


def has_contrast(maps: Tensor) -> Tensor:
    """Tells whether a map is finite and more than constant but for rounding.  [... h w] -> bool"""
    return _differ(maps.amin((-2, -1)), maps.amax((-2, -1)))


def _differ(low: Tensor, high: Tensor) -> Tensor:
    """Tells whether extremes are finite, and differ by more than rounding."""
    span = high - low
    # not below infinity if an extreme is NaN, or both are infinite
    return (span < math.inf) & (span > SMALLEST_CONTRAST * torch.maximum(high, -low))


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes maps bilinearly with half-pixel centres.  [... h w] -> [... H W]"""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    resized = F.interpolate(flat, size, mode="bilinear", align_corners=False)
    return resized.reshape(*maps.shape[:-2], *size)


def fuse(
    maps: Sequence[Tensor], size: tuple[int, int], how: Fusion, *, keep_sign: bool = False
) -> Tensor:
    """Fuses layers: each map normalised, enlarged, then combined.  l x [... h w] -> [... H W]

    With `keep_sign` each spans -1 to 1 at most, and only their mean is defined.

    `refine` is RefineCAM, arXiv:2605.14641: the product of the enlarged maps, each of which spans
    0 to 1, as in the authors' code and in grad-cam.
    """
    if keep_sign:
        if how != "mean":
            raise UsageError(
                f"Layer fusion {how} is of maps from 0 to 1, and those of a value have two signs:"
                " give mean or none."
            )
        return torch.stack([enlarge(scale_signed(m), size) for m in maps]).mean(0)
    stack = torch.stack([enlarge(normalise(m), size) for m in maps])
    combine: Mapping[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda s: s.mean(0),
        "max": lambda s: s.amax(0),
        "product": lambda s: s.prod(0),
        # what is enlarged no longer reaches the ends
        "refine": lambda s: min_max(s).prod(0),
    }
    return combine[how](stack)


def sum_channels(weighted: Tensor) -> Tensor:
    """Sums weighted activations over the channels.  [b c h w] -> [b h w]"""
    return weighted.sum(1)


Maps = Mapping[str, Mapping[str, Tensor]]
