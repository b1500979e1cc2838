"""Coherency: whether a map stays the same when the picture is multiplied by it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.validation import check_image, check_maps, check_unit_maps, image_size
from camcli.registry import metric

# explains altered images by the method of one row of the maps: images [n c H W], row -> [n H W]
Explain = Callable[[Tensor, int], Tensor]


@metric(
    "coherency",
    family="faithfulness",
    direction="higher",
    range=(0, 1),
    paper="arXiv:2104.10252",
    explanations=1,
)
def coherency(unit_maps: Tensor, image: Tensor, explain: Explain) -> Tensor:
    """The correlation of a map with the map of the picture times that map, from 0 to 1.

    (Pearson's r + 1) / 2, arXiv:2104.10252.  A constant map has no r, which is then taken as 0.

    unit_maps [b H W], image [c H W] after normalisation, explain (images [n c H W], row) -> maps
    [n H W]; returns [b].
    """
    image = check_image(image)
    maps = check_unit_maps(unit_maps, image_size(image))
    masked = (maps[:, None] * image).to(image.dtype)
    again = torch.cat([explain_checked(explain, masked[i, None], i) for i in range(len(maps))])
    return (correlate(maps, again.to(maps)) + 1) / 2


def explain_checked(explain: Explain, images: Tensor, row: int) -> Tensor:
    """Returns the maps of altered images; raises UsageError for another shape, NaN or infinity."""
    maps = check_maps(explain(images, row), image_size(images))
    if len(maps) != len(images):
        raise UsageError(
            f"There must be a map for each of the {len(images)} images, not {len(maps)} maps."
        )
    return maps


def correlate(one: Tensor, other: Tensor) -> Tensor:
    """Returns Pearson's r of each pair of maps, 0 where one is constant.  [b H W] x 2 -> [b]"""
    first, second = (_centre(maps) for maps in (one, other))
    length = first.norm(dim=1) * second.norm(dim=1)
    r = (first * second).sum(1) / torch.where(length > 0, length, 1)
    return r.clamp(-1, 1).to(one.dtype)


def _centre(maps: Tensor) -> Tensor:
    # the first pixel is subtracted first: the rounded mean of equal values may differ from them
    flat = maps.flatten(1)
    flat = flat - flat[:, :1]
    return flat - flat.mean(1, keepdim=True)
