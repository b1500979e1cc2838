"""Sensitivity: how much a map changes when the picture hardly changes."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.metrics.faithfulness.coherency import Explain, explain_checked
from camcli.metrics.validation import check_at_least, check_image, check_maps, image_size
from camcli.registry import metric


@metric(
    "max_sensitivity",
    family="faithfulness",
    direction="lower",
    range=(0, float("inf")),
    paper="arXiv:1901.09392",
    explanations=lambda samples: samples,
)
def max_sensitivity(
    maps: Tensor,
    image: Tensor,
    explain: Explain,
    *,
    samples: int = 50,
    radius: float = 0.1,
    seed: int = 0,
    batch_size: int = 8,
) -> Tensor:
    """The largest change of a map under uniform noise, as a share of the map's norm.

    max ||map(x + d) - map(x)|| / ||map(x)|| over `samples` (default 50) draws of d between -radius
    and radius, arXiv:1901.09392; the division is that of the authors' code, and so is the radius
    0.1, in the units of the network's input.  A map of zeros has 0 if it stays zero, else infinity.

    maps [b H W] as `explain` makes them, image [c H W], explain (images [n c H W], row) -> maps
    [n H W]; returns [b].
    """
    check_at_least(1, samples=samples, batch_size=batch_size)
    check_at_least(0, radius=radius)
    image = check_image(image)
    maps = check_maps(maps, image_size(image))
    furthest = maps.new_zeros(len(maps))
    draw = torch.Generator().manual_seed(seed)
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        noise = 2 * torch.rand(count, *image.shape, generator=draw) - 1
        noisy = image + radius * noise.to(image)
        for row, map_ in enumerate(maps):
            moved = (explain_checked(explain, noisy, row).to(maps) - map_).flatten(1).norm(dim=1)
            furthest[row] = torch.maximum(furthest[row], moved.amax())
    return torch.where(furthest > 0, furthest / maps.flatten(1).norm(dim=1), 0)
