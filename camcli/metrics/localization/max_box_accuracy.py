"""MaxBoxAccV2: how often the box around the hot region fits, at the data's best threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.annotation import check_boxes
from camcli.metrics.localization.box_iou import box_overlap
from camcli.metrics.localization.components import find_components, find_holes
from camcli.metrics.validation import check_unit_maps
from camcli.registry import metric

IOUS = (0.3, 0.5, 0.7)
STEP = 0.001  # between thresholds
LEVELS = 255  # of a map in 8 bits


@dataclass(frozen=True)
class BoxAccuracy:
    """MaxBoxAccV2, and for each IoU the best threshold's share of pictures, and that threshold."""

    value: float
    shares: tuple[float, ...]
    thresholds: tuple[float, ...]


def threshold_overlaps(unit_maps: Tensor, boxes: Tensor, *, step: float = STEP) -> Tensor:
    """Returns the best IoU of any hot region's box with any true one, at each threshold.

    unit_maps [b H W] in 0..1, boxes [n 4] of the same picture -> [b t], thresholds 0, step, ... 1.

    As the authors of arXiv:2007.04178 do it: the map in 8 bits by truncation; hot is what is above
    `int(threshold * maximum)`; boxes of all contours, those of holes too; the right and the bottom
    edge one pixel beyond the last one inside, but not beyond the picture's last, while widths count
    one more; true boxes truncated to whole pixels.  They scale maps and boxes to 224 x 224 first.
    Raises UsageError.
    """
    maps = check_unit_maps(unit_maps).double().cpu().numpy()
    truths = check_boxes(boxes).cpu().trunc()
    thresholds = np.arange(0, 1, step)
    rows = [
        _compute_overlaps((values * LEVELS).astype(np.uint8), truths, thresholds) for values in maps
    ]
    return torch.stack(rows)


def _compute_overlaps(
    grey: NDArray[np.uint8], truths: Tensor, thresholds: NDArray[np.float64]
) -> Tensor:
    limits = (thresholds * int(grey.max())).astype(np.intp)
    # a thousand thresholds are 256 different ones at most
    different, which = np.unique(limits, return_inverse=True)
    best = [
        box_overlap(_list_region_boxes(grey > limit), truths, extra=1).max() for limit in different
    ]
    return torch.stack(best)[torch.from_numpy(which)].float()


def _list_region_boxes(mask: NDArray[np.bool_]) -> Tensor:
    """Lists the authors' boxes around regions and holes, 0, 0, 0, 0 where there are none.  [n 4]"""
    boxes = np.concatenate([find_components(mask).boxes, find_holes(mask)])
    if not len(boxes):
        boxes = np.zeros((1, 4), np.intp)
    height, width = mask.shape
    last = np.array([width - 1, height - 1])
    boxes[:, 2:] = np.minimum(boxes[:, 2:], last)
    return torch.from_numpy(boxes).double()


def max_box_accuracy(
    overlaps: Tensor, ious: Sequence[float] = IOUS, *, step: float = STEP
) -> BoxAccuracy:
    """Returns MaxBoxAccV2 of pictures, arXiv:2007.04178: overlaps [n t] of `threshold_overlaps`.

    For each IoU the share of the n pictures that reach it, at the threshold that is best for all of
    them; then the mean over the IoUs.  Raises UsageError for no pictures.

    >>> import torch
    >>> max_box_accuracy(torch.tensor([[0.9, 0.2], [0.4, 0.6]]), (0.5,), step=0.5)
    BoxAccuracy(value=0.5, shares=(0.5,), thresholds=(0.0,))
    """
    if overlaps.ndim != 2 or not overlaps.numel():
        raise UsageError(
            f"Box accuracy is of one or more pictures, [n t], not {list(overlaps.shape)}."
        )
    shares = torch.stack([(overlaps >= iou).double().mean(0) for iou in ious])
    best = shares.max(1)
    return BoxAccuracy(
        float(best.values.mean()),
        tuple(best.values.tolist()),
        tuple(round(index * step, 6) for index in best.indices.tolist()),
    )


def conclude_box_accuracy(shares: Tensor) -> Tensor:
    """Makes MaxBoxAccV2 of the shares of pictures that reach each IoU at each threshold.

    [... ious t] -> [...]: the best threshold's share for each IoU, and their mean.
    """
    return shares.amax(-1).mean(-1)


@metric(
    "max_box_accuracy",
    family="localisation",
    direction="higher",
    range=(0, 1),
    paper="arXiv:2007.04178",
    conclude=conclude_box_accuracy,
)
def reach_ious(unit_maps: Tensor, boxes: Tensor) -> Tensor:
    """Which IoUs the box around the hot region reaches at which threshold, for MaxBoxAccV2.

    unit_maps [b H W] in 0..1, boxes [n 4] of the same picture -> bool [b ious t], IoU 0.3, 0.5 and
    0.7, and those of the authors' thousand thresholds that differ on a map that reaches 1.  The
    mean over the pictures goes to `conclude_box_accuracy`; a single picture [b] has no value.
    Raises UsageError.

    >>> import torch
    >>> heat = torch.zeros(1, 8, 8)
    >>> heat[0, 2:6, 2:6] = 1
    >>> reach = reach_ious(heat, torch.tensor([[2, 2, 6, 6]]))
    >>> conclude_box_accuracy(reach.double())
    tensor([1.], dtype=torch.float64)
    """
    overlaps = threshold_overlaps(unit_maps, boxes)[:, list_levels()]
    return torch.stack([overlaps >= iou for iou in IOUS], 1)


def list_levels() -> list[int]:
    """Lists the first of the thresholds, by its number, that cuts at each of the map's 255 levels.

    >>> list_levels()[:3]
    [0, 4, 8]
    """
    levels = (np.arange(0, 1, STEP) * LEVELS).astype(np.intp)
    firsts: list[int] = np.unique(levels, return_index=True)[1].tolist()
    return firsts
