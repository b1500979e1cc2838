"""Equivariance: whether the map moves with the picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.sanity.rank_correlation import rank_correlation
from camcli.metrics.validation import check_image, check_maps
from camcli.registry import metric

Explain = Callable[[Tensor, int], Tensor]


@metric(
    "flip_equivariance",
    family="sanity",
    direction="higher",
    range=(-1, 1),
    explanations=1,
    paper="arXiv:2304.06715",
)
def flip_equivariance(maps: Tensor, image: Tensor, explain: Explain) -> Tensor:
    """The rank correlation of a map with the mirrored picture's map, mirrored back.  -> [b]

    maps [b H W], image [c H W]; after arXiv:2304.06715.  NaN for a constant map.
    """
    maps = check_maps(maps)
    mirrored = check_image(image).flip(-1)[None]
    others = torch.cat([explain(mirrored, row) for row in range(len(maps))])
    return rank_correlation(maps, others.to(maps).flip(-1))


@metric(
    "shift_equivariance",
    family="sanity",
    direction="higher",
    range=(-1, 1),
    explanations=1,
    paper="arXiv:2304.06715",
)
def shift_equivariance(
    maps: Tensor, image: Tensor, explain: Explain, *, right: int = 16, down: int = 16
) -> Tensor:
    """The rank correlation of a map with the shifted picture's map, shifted back.  -> [b]

    maps [b H W], image [c H W]; after arXiv:2304.06715.  The picture is shifted by `right` and
    `down` pixels (16 each by default).  Pixels that leave it come in on the other side, and only
    those that stayed inside are compared.  NaN for a constant map.  Raises UsageError for a shift
    that leaves nothing inside.
    """
    maps = check_maps(maps)
    image = check_image(image)
    height, width = image.shape[-2:]
    if abs(right) >= width or abs(down) >= height:
        raise UsageError(
            f"A picture of {width} x {height} pixels cannot be shifted by {right} and {down} "
            "pixels: a part of it has to stay inside."
        )
    moved = image.roll((down, right), (-2, -1))[None]
    others = torch.cat([explain(moved, row) for row in range(len(maps))]).to(maps)
    others = others.roll((-down, -right), (-2, -1))
    rows = slice(max(0, -down), height - max(0, down))
    columns = slice(max(0, -right), width - max(0, right))
    return rank_correlation(maps[:, rows, columns], others[:, rows, columns])
