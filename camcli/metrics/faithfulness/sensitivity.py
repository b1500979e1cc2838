"""Sensitivity: how far a map moves when the picture hardly does."""

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
    """The furthest that a map moves, as a share of its norm, when uniform noise is added.

    max ||map(x + d) - map(x)|| / ||map(x)|| over `samples` of d between -radius and radius,
    arXiv:1901.09392, divided as in the authors' code; their radius for maps of the
    whole input is 0.1, in the units of what the network is given.  A map of zeros that
    stays has 0, one that moves infinity.

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
