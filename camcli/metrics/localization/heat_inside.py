"""Heat inside: the share of the heat that lies on the object."""

from __future__ import annotations

from torch import Tensor

from camcli.metrics.annotation import check_mask
from camcli.metrics.validation import check_maps
from camcli.registry import metric


@metric(
    "heat_inside",
    family="localisation",
    direction="higher",
    range=(0, 1),
    paper="arXiv:1910.01279",
)
def heat_inside(maps: Tensor, mask: Tensor) -> Tensor:
    """The share of the positive heat that lies on the object.  maps [b H W], mask [H W] -> [b]

    Score-CAM's energy-based pointing game, arXiv:1910.01279: the heat in the object's boxes, or in
    its mask, over all heat.  A uniform map scores the object's share of the picture, a map without
    positive heat 0.  Raises UsageError for an empty mask.

    >>> import torch
    >>> heat_inside(torch.tensor([[[1.0, 3.0, -5.0]]]), torch.tensor([[True, False, True]]))
    tensor([0.2500])
    """
    heat = check_maps(maps).clamp(min=0).double()
    mask = check_mask(mask, (maps.shape[1], maps.shape[2]))
    whole = heat.sum((1, 2))
    inside = (heat * mask).sum((1, 2))
    return (inside / whole.where(whole > 0, whole.new_ones(()))).float()
