"""Evidence of CAM: the linear layer that reads the classes off the pooled features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from camcli.engine.hooks import Recording
from camcli.errors import MethodError
from camcli.registry import evidence

# names under which gradients by the head's input and by the logits stand, and no layer's
HEAD, LOGITS = "", "."
ROUNDING = 0.01  # of a tensor's length, in any precision


@dataclass(frozen=True)
class ClassHead:
    """How a layer's maps make the explained class's map: weights [b c], and a bias [b]."""

    weights: Tensor
    bias: Tensor


@evidence
def class_head(
    layer: str, recording: Recording, activations: Tensor, raw_gradients: dict[str, Tensor]
) -> ClassHead:
    """The head behind a target layer as the class's map has it, arXiv:1512.04150.

    Behind pooling its bias is no part of the map; in front of pooling its output is the map itself.
    Raises MethodError where the head is not average pooling and one linear layer, in either order.
    """
    logits, by_logits = recording.logits.detach(), raw_gradients[LOGITS].float()
    none = by_logits.new_zeros(len(by_logits))
    if _is_pooled_into(logits, activations):
        return ClassHead(by_logits, none)
    if recording.head is None or HEAD not in raw_gradients:
        raise MethodError(
            "CAM needs a head with one linear layer (or convolution of 1x1) beside average pooling,"
            " and this model's has none. Try --method gradcam."
        )
    head, given = recording.head[0], recording.head[1].detach().float()
    pooled = activations.mean((2, 3))
    if (
        given.numel() == pooled.numel()
        and _relative_difference(given.flatten(1), pooled) <= ROUNDING
    ):
        return ClassHead(raw_gradients[HEAD].flatten(1).float(), none)
    if given.shape == activations.shape and _relative_difference(given, activations) <= ROUNDING:
        weight = head.weight.detach().float().flatten(1)
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().float()
        maps = torch.einsum("nc,bchw->bnhw", weight, given) + bias[:, None, None]
        if _is_pooled_into(logits, maps):
            return ClassHead(by_logits @ weight, by_logits @ bias)
    raise MethodError(
        f"CAM needs a head that is average pooling followed by one linear layer, or a convolution "
        f"of 1x1 followed by average pooling; between {layer!r} and the logits there is more. Try "
        "--method gradcam."
    )


@evidence
def class_weights(class_head: ClassHead) -> Tensor:
    """The weight of each of a layer's channels in the class's map.  [b c]"""
    return class_head.weights


@evidence
def class_bias(class_head: ClassHead) -> Tensor:
    """What a head in front of pooling adds to the class's map at each place; else 0.  [b]"""
    return class_head.bias


def _is_pooled_into(logits: Tensor, maps: Tensor) -> bool:
    """Tells whether logits [b n] are the mean of maps [b n h w], rectified or not."""
    if maps.shape[:2] != logits.shape:
        return False
    pooled = (maps.mean((2, 3)), maps.relu().mean((2, 3)))
    return any(_relative_difference(values, logits) <= ROUNDING for values in pooled)


def _relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Returns the length of the difference as a share of the expected tensor's length."""
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-30))
