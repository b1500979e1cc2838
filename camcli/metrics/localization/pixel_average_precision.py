"""Pixel average precision: whether the object's pixels rank before all others."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.metrics.annotation import check_mask
from camcli.metrics.validation import check_maps
from camcli.registry import metric


@metric(
    "pixel_ap",
    family="localisation",
    direction="higher",
    range=(0, 1),
    paper="arXiv:2007.04178",
)
def pixel_average_precision(maps: Tensor, mask: Tensor) -> Tensor:
    """Average precision of the pixels, ranked by their heat.  maps [b H W], mask [H W] -> [b]

    The sum over thresholds of the precision times the gain in recall, arXiv:2007.04178 (PxAP).
    Here every value of one picture is a threshold; the authors pool the pixels of all pictures in
    1,000 bins.  A constant map scores the mask's share of the picture.  Raises UsageError for an
    empty mask.

    >>> import torch
    >>> heat = torch.tensor([[[3.0, 2.0, 1.0]]])
    >>> pixel_average_precision(heat, torch.tensor([[True, False, True]]))
    tensor([0.8333])
    """
    maps = check_maps(maps)
    hits = check_mask(mask, (maps.shape[1], maps.shape[2])).flatten()
    rows = [average_precision(values, hits) for values in maps.flatten(1)]
    return torch.stack(rows).float()


def average_precision(values: Tensor, hits: Tensor) -> Tensor:
    """Returns the average precision of values [n] with hits bool [n]; equal values rank as one."""
    order = values.sort(descending=True)
    reached = hits[order.indices].double().cumsum(0)
    # a threshold takes all equal values together, so it stands at the last of them
    ends = torch.ones_like(hits)
    ends[:-1] = order.values[1:] != order.values[:-1]
    ranks = torch.arange(1, len(values) + 1, device=values.device)[ends]
    reached = reached[ends]
    gain = reached.diff(prepend=reached.new_zeros(1)) / reached[-1]
    return (reached / ranks * gain).sum()
