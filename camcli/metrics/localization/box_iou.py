"""Box IoU: how well the box around the hot region fits the object's."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.metrics.annotation import check_boxes
from camcli.metrics.localization.components import find_components
from camcli.metrics.validation import check_maps
from camcli.registry import metric


@metric(
    "box_iou",
    family="localisation",
    direction="higher",
    range=(0, 1),
    paper="arXiv:1512.04150",
)
def box_iou(maps: Tensor, boxes: Tensor, *, threshold: float = 0.2) -> Tensor:
    """The IoU of the box around the largest hot region with the object's box.  -> [b]

    maps [b H W], boxes [n 4].  The CAM paper, arXiv:1512.04150, section 3.2: the region is the
    largest connected component of the pixels above 20 % of the map's maximum (`threshold`).  Of
    several objects the one that fits best counts.  A map without positive heat scores 0.  Raises
    UsageError for boxes that hold nothing, and for maps with NaN or infinity.

    >>> import torch
    >>> heat = torch.zeros(1, 4, 8)
    >>> heat[0, 1:3, 2:5] = 1
    >>> box_iou(heat, torch.tensor([[2, 1, 6, 3]]))
    tensor([0.7500])
    """
    maps = check_maps(maps)
    boxes = check_boxes(boxes)
    limits = threshold * maps.amax((1, 2), keepdim=True).clamp(min=0)
    hot = (maps > limits).cpu().numpy()
    best = []
    for mask in hot:
        region = torch.from_numpy(find_components(mask).largest).to(boxes)
        overlaps = box_overlap(region, boxes)
        best.append(overlaps.max() if overlaps.numel() else overlaps.new_zeros(()))
    return torch.stack(best).float()


def box_overlap(one: Tensor, other: Tensor, *, extra: int = 0) -> Tensor:
    """Returns the IoU of each pair of boxes.  [n 4], [m 4] -> [n m]

    `extra` is added to widths and heights: 0 for half-open boxes, 1 for boxes whose right and
    bottom edges are the last pixels inside.
    """
    low = torch.maximum(one[:, None, :2], other[None, :, :2])
    high = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low + extra).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2] + extra).prod(1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1] - shared)
