"""Maps that are made without the network; a method has to beat them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH = 0.25  # the Gaussian's standard deviation, as a share of each edge


def centred_gaussian(image: Tensor) -> Tensor:
    """Draws a centred Gaussian; its deviation is a quarter of each edge.  [c H W] -> [H W]"""
    lines = []
    for edge in image.shape[-2:]:
        places = (torch.arange(edge, device=image.device) + 0.5) / edge - 0.5
        lines.append((-(places**2) / (2 * WIDTH**2)).exp())
    return torch.outer(lines[0], lines[1])


def sobel_edges(image: Tensor) -> Tensor:
    """Returns the strength of Sobel's edges in the mean of the channels.  [c H W] -> [H W]

    The pixels at the border are repeated beyond it.
    """
    smooth = torch.tensor([1.0, 2.0, 1.0], device=image.device)
    change = torch.tensor([-1.0, 0.0, 1.0], device=image.device)
    kernels = torch.stack([torch.outer(smooth, change), torch.outer(change, smooth)])[:, None]
    grey = F.pad(image.detach().float().mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    across, down = F.conv2d(grey, kernels)[0]
    return torch.hypot(across, down)


def uniform_map(image: Tensor) -> Tensor:
    """Returns the same heat everywhere.  [c H W] -> [H W]"""
    return torch.ones(image.shape[-2:], device=image.device)


BASELINE_MAPS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gaussian": centred_gaussian,
    "edges": sobel_edges,
    "uniform": uniform_map,
}
