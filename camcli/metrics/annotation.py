"""Checks the masks and boxes that metrics of localisation take."""

from __future__ import annotations

from torch import Tensor

from camcli.errors import UsageError


def check_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns a mask bool [H W]; raises UsageError for another type or size, or an empty one."""
    if tuple(mask.shape) != size or mask.is_floating_point():
        raise UsageError(
            f"A mask is bool of the maps' size {list(size)}, not {mask.dtype} {list(mask.shape)}."
        )
    mask = mask.bool()
    if not mask.any():
        raise UsageError("The mask is empty, so that nothing can lie in it: leave the picture out.")
    return mask


def check_boxes(boxes: Tensor) -> Tensor:
    """Returns boxes [n 4] in float64; raises UsageError for none, or for one that holds nothing."""
    if boxes.ndim != 2 or boxes.shape[-1] != 4 or not len(boxes):
        raise UsageError(
            f"Boxes have the shape [n 4], left, top, right, bottom of one or more, not "
            f"{list(boxes.shape)}."
        )
    boxes = boxes.detach().double()
    if not ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).all():
        raise UsageError(
            "A box's right edge lies right of its left one, and its bottom below its top: leave "
            "boxes out that hold nothing."
        )
    return boxes
