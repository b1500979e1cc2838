"""The pointing game: whether the hottest pixel lies on the object."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from camcli.metrics.annotation import check_mask
from camcli.metrics.validation import check_at_least, check_maps
from camcli.registry import metric


@metric(
    "pointing_game",
    family="localisation",
    direction="higher",
    range=(0, 1),
    paper="arXiv:1608.00507",
)
def pointing_game(maps: Tensor, mask: Tensor, *, tolerance: int = 0) -> Tensor:
    """Whether the map's maximum lies on the object, 1 or 0.  maps [b H W], mask [H W] -> [b]

    arXiv:1608.00507, section 4.1: a maximum hits if it lies at most `tolerance` pixels from the
    object (default 0; 15 in the paper).  Several equal maxima score the share of them that hits, so
    that a constant map scores as chance does.  Raises UsageError for an empty mask.

    >>> import torch
    >>> pointing_game(torch.tensor([[[0.0, 2.0, 1.0]]]), torch.tensor([[True, False, False]]))
    tensor([0.])
    >>> mask = torch.tensor([[True, False, False]])
    >>> pointing_game(torch.tensor([[[0.0, 2.0, 1.0]]]), mask, tolerance=1)
    tensor([1.])
    """
    maps = check_maps(maps)
    check_at_least(0, tolerance=tolerance)
    near = widen(check_mask(mask, (maps.shape[1], maps.shape[2])), tolerance)
    peaks = maps == maps.amax((1, 2), keepdim=True)
    return (peaks & near).sum((1, 2)) / peaks.sum((1, 2))


def widen(mask: Tensor, tolerance: int) -> Tensor:
    """Widens a mask by all pixels whose centres lie at most `tolerance` pixels away.  bool [H W]"""
    if tolerance == 0:
        return mask
    edge = min(tolerance, max(mask.shape))
    steps = torch.arange(-edge, edge + 1, device=mask.device)
    disc = (steps[:, None] ** 2 + steps**2 <= tolerance**2).float()
    padded = F.pad(mask.float()[None, None], (edge,) * 4)
    reached: Tensor = F.conv2d(padded, disc[None, None]) > 0.5
    return reached[0, 0]
