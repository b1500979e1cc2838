"""Baselines: what stands in a picture where pixels are taken away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.errors import UnknownName

# as RISE's authors have them
KERNEL, SIGMA = 11, 5.0


def make_baseline(image: Tensor, name: str) -> Tensor:
    """Returns the baseline of an image by its name, in `BASELINES`.  [c H W] -> [c H W]

    Raises UnknownName.
    """
    if name not in BASELINES:
        raise UnknownName("baseline", name, BASELINES, f"All: {', '.join(BASELINES)}.")
    return BASELINES[name](image)


def blur(image: Tensor) -> Tensor:
    """Blurs as RISE's authors do: 11x11, sigma 5, zeros around.  [c H W] -> [c H W]

    Zero is the mean colour of a normalised picture.  The edges fade towards it.
    """
    line = _kernel_line(KERNEL, SIGMA).to(image)
    rows = F.conv2d(image[:, None], line[None, None, :, None], padding=(KERNEL // 2, 0))
    return F.conv2d(rows, line[None, None, None], padding=(0, KERNEL // 2))[:, 0]


def fill_mean(image: Tensor) -> Tensor:
    """Fills with each channel's mean.  [c H W] -> [c H W]"""
    return image.mean((1, 2), keepdim=True).expand_as(image)


def fill_zero(image: Tensor) -> Tensor:
    """Fills with zero, the mean colour of the training data where pictures are normalised."""
    return torch.zeros_like(image)


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "blur": blur,
    "mean": fill_mean,
    "zero": fill_zero,
}


@lru_cache(4)
def _kernel_line(width: int, sigma: float) -> Tensor:
    """Returns one side of the authors' kernel, the outer product of which it is.  -> [width]

    They filter a single one in the middle of as many zeros, *reflected* at their ends, by a
    Gaussian cut at four sigma: what leaves the kernel comes back into it, which makes it nearly
    a box.
    """
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = (-(offsets**2) / (2 * sigma**2)).exp()
    weights /= weights.sum()
    # where each weight lands: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
    places = (width // 2 + torch.arange(-reach, reach + 1)) % (2 * width)
    places = torch.where(places < width, places, 2 * width - 1 - places)
    return torch.zeros(width, dtype=torch.float64).index_add(0, places, weights)
