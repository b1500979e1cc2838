"""Baselines: the pixels that replace those that are removed from a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.errors import UnknownName

# the values of RISE's authors
KERNEL, SIGMA = 11, 5.0


def make_baseline(image: Tensor, name: str) -> Tensor:
    """Returns an image's baseline by its name: blur, mean or zero.  [c H W] -> [c H W]

    Raises UnknownName for another name.
    """
    if name not in BASELINES:
        raise UnknownName("baseline", name, BASELINES, f"All: {', '.join(BASELINES)}.")
    return BASELINES[name](image)


def blur(image: Tensor) -> Tensor:
    """Blurs with the kernel of RISE's authors, 11x11 and sigma 5.  [c H W] -> [c H W]

    Zeros lie outside the picture, so its border fades to zero, the mean colour after normalisation.
    """
    line = _kernel_line(KERNEL, SIGMA).to(image)
    rows = F.conv2d(image[:, None], line[None, None, :, None], padding=(KERNEL // 2, 0))
    return F.conv2d(rows, line[None, None, None], padding=(0, KERNEL // 2))[:, 0]


def fill_mean(image: Tensor) -> Tensor:
    """Fills each channel with its mean.  [c H W] -> [c H W]"""
    return image.mean((1, 2), keepdim=True).expand_as(image)


def fill_zero(image: Tensor) -> Tensor:
    """Fills with zero, the training data's mean colour after normalisation.  [c H W] -> [c H W]"""
    return torch.zeros_like(image)


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "blur": blur,
    "mean": fill_mean,
    "zero": fill_zero,
}


@lru_cache(4)
def _kernel_line(width: int, sigma: float) -> Tensor:
    """Returns the vector whose outer product with itself is the authors' kernel.  -> [width]

    They filter a row of zeros with a one in its middle by a Gaussian that is cut at four sigma, and
    *reflect* the row at its ends: what leaves the kernel comes back into it, so it is nearly a box.
    """
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = (-(offsets**2) / (2 * sigma**2)).exp()
    weights /= weights.sum()
    # where each weight lands: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
    places = (width // 2 + torch.arange(-reach, reach + 1)) % (2 * width)
    places = torch.where(places < width, places, 2 * width - 1 - places)
    return torch.zeros(width, dtype=torch.float64).index_add(0, places, weights)
