"""Checks the masks and boxes that localisation metrics take."""

from __future__ import annotations

from torch import Tensor

from camcli.errors import UsageError


def check_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Checks a mask bool [H W]; raises UsageError for another type or size, or an empty mask."""
    if tuple(mask.shape) != size or mask.is_floating_point():
        raise UsageError(
            f"A mask is bool and has the maps' size {list(size)}, not {mask.dtype} "
            f"{list(mask.shape)}."
        )
    mask = mask.bool()
    if not mask.any():
        raise UsageError("The mask is empty, so no heat can lie in it: leave the picture out.")
    return mask


def check_boxes(boxes: Tensor) -> Tensor:
    """Returns boxes [n 4] as float64; raises UsageError for no boxes, or an empty one."""
    if boxes.ndim != 2 or boxes.shape[-1] != 4 or not len(boxes):
        raise UsageError(
            "Boxes have the shape [n 4] (left, top, right, bottom) with n of 1 or more, not "
            f"{list(boxes.shape)}."
        )
    boxes = boxes.detach().double()
    if not ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).all():
        raise UsageError(
            "A box is empty: its right edge must lie right of its left edge, and its bottom below "
            "its top. Leave empty boxes out."
        )
    return boxes
