"""Evidence of CAM: the linear layer that computes the logits from the pooled features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from camcli.engine.hooks import Recording
from camcli.errors import MethodError
from camcli.registry import evidence

# keys of the gradients at the head's input and at the logits; no layer has such a name
HEAD, LOGITS = "", "."
ROUNDING = 0.01  # relative to a tensor's length, in any precision


@dataclass(frozen=True)
class ClassHead:
    """What makes the class's map of a layer's maps: weights [b c] and a bias [b]."""

    weights: Tensor
    bias: Tensor


@evidence
def class_head(
    layer: str, recording: Recording, activations: Tensor, raw_gradients: dict[str, Tensor]
) -> ClassHead:
    """The weights and bias of the head behind a target layer, arXiv:1512.04150.

    The bias of a head behind the pooling is no part of the map; the output of a head in front of it
    is the map itself.  Raises MethodError unless the head is average pooling and one linear layer,
    in either order.
    """
    logits, by_logits = recording.logits.detach(), raw_gradients[LOGITS].float()
    none = by_logits.new_zeros(len(by_logits))
    if _is_pooled_into(logits, activations):
        return ClassHead(by_logits, none)
    if recording.head is None or HEAD not in raw_gradients:
        raise MethodError(
            "CAM needs a head of average pooling and one linear layer (or 1x1 convolution), and "
            "this model has no such layer. Try --method gradcam."
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
        "CAM needs a head of average pooling followed by one linear layer, or of a 1x1 "
        f"convolution followed by average pooling, and there is more between {layer!r} and the "
        "logits. Try --method gradcam."
    )


@evidence
def class_weights(class_head: ClassHead) -> Tensor:
    """The weight of each of a layer's channels in the class's map.  [b c]"""
    return class_head.weights


@evidence
def class_bias(class_head: ClassHead) -> Tensor:
    """The bias that a head in front of pooling adds to each place of its map, else 0.  [b]"""
    return class_head.bias


def _is_pooled_into(logits: Tensor, maps: Tensor) -> bool:
    """Tells whether logits [b n] are the mean of maps [b n h w], with or without a ReLU."""
    if maps.shape[:2] != logits.shape:
        return False
    pooled = (maps.mean((2, 3)), maps.relu().mean((2, 3)))
    return any(_relative_difference(values, logits) <= ROUNDING for values in pooled)


def _relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Returns the length of the difference as a share of the expected tensor's length."""
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-30))
