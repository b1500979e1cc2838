"""MaxBoxAccV2: how often the box around the hot region fits, at the data set's best threshold."""

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
    """MaxBoxAccV2, and for each IoU the best threshold and the share of pictures that fit there."""

    value: float
    shares: tuple[float, ...]
    thresholds: tuple[float, ...]


def threshold_overlaps(unit_maps: Tensor, boxes: Tensor, *, step: float = STEP) -> Tensor:
    """Returns the best IoU of any hot region's box with any true box, at each threshold.

    unit_maps [b H W] in 0..1, boxes [n 4] of the same picture -> [b t], at the thresholds 0, step,
    2 step, ... below 1.

    The steps are those of the code of arXiv:2007.04178.  The map is truncated to 8 bits, and pixels
    above `int(threshold * maximum)` are hot.  All contours have a box, also those of holes.  The
    right and the bottom edge lie one pixel beyond the last pixel inside, but not beyond the
    picture's last pixel, and widths and heights count one more.  True boxes are truncated to whole
    pixels.  (The authors first scale maps and boxes to 224 x 224; here the caller does.)  Raises
    UsageError for values below 0 or above 1, and for boxes that hold nothing.
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
    # a map in 8 bits is cut in as many ways as it has levels, 256 at most
    ranks = np.searchsorted(np.unique(grey), limits, side="right")
    _, firsts, which = np.unique(ranks, return_index=True, return_inverse=True)
    regions = [_list_region_boxes(grey > limit) for limit in limits[firsts]]
    fits = box_overlap(torch.cat(regions), truths, extra=1).amax(1)
    begins = np.cumsum([0, *map(len, regions[:-1])])
    best = np.maximum.reduceat(fits.numpy(), begins)
    return torch.from_numpy(best[which]).float()


def _list_region_boxes(mask: NDArray[np.bool_]) -> Tensor:
    """Lists the authors' boxes around regions and holes; one of zeros if there are none.  [n 4]"""
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
    """Returns MaxBoxAccV2 of n pictures, arXiv:2007.04178, from `threshold_overlaps` [n t].

    For each IoU it is the share of pictures that reach this IoU, at the threshold where most of
    them do; the value is the mean over the IoUs.  Raises UsageError for no pictures.

    >>> import torch
    >>> max_box_accuracy(torch.tensor([[0.9, 0.2], [0.4, 0.6]]), (0.5,), step=0.5)
    BoxAccuracy(value=0.5, shares=(0.5,), thresholds=(0.0,))
    """
    if overlaps.ndim != 2 or not overlaps.numel():
        raise UsageError(
            "Box accuracy needs overlaps [n t] of one or more pictures, not "
            f"{list(overlaps.shape)}."
        )
    shares = torch.stack([(overlaps >= iou).double().mean(0) for iou in ious])
    best = shares.max(1)
    return BoxAccuracy(
        float(best.values.mean()),
        tuple(best.values.tolist()),
        tuple(round(index * step, 6) for index in best.indices.tolist()),
    )


def conclude_box_accuracy(shares: Tensor) -> Tensor:
    """Returns MaxBoxAccV2 from the shares of pictures that reach each IoU at each threshold.

    [... ious t] -> [...]: the share at each IoU's best threshold, and the mean over the IoUs.
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
    """Whether the box around the hot region reaches each IoU at each threshold, for MaxBoxAccV2.

    unit_maps [b H W] in 0..1, boxes [n 4] of the same picture -> bool [b ious t], for IoU 0.3, 0.5
    and 0.7.  Of the authors' thousand thresholds only those are kept that differ on a map that
    reaches 1.  `conclude_box_accuracy` takes the mean over the pictures; a single picture has no
    MaxBoxAccV2.  Raises UsageError for values below 0 or above 1, and for boxes that hold nothing.

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
    """Lists the number of the first threshold that cuts at each of a map's 255 levels.

    >>> list_levels()[:3]
    [0, 4, 8]
    """
    levels = (np.arange(0, 1, STEP) * LEVELS).astype(np.intp)
    firsts: list[int] = np.unique(levels, return_index=True)[1].tolist()
    return firsts
