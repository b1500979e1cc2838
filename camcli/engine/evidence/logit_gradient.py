"""The gradient of a single logit, without the product with all weights of the last layer."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

# what torch imports to check a gradient that it is given, which takes longer than it saves
CHECKER = "torch.fx.experimental.symbolic_shapes"


def begin_behind_logit(logits: Tensor, index: int) -> tuple[GradientEdge, Tensor] | None:
    """Finds where the gradient of one logit goes on, and what it is there.  [1 n] -> [1 m]

    That is in front of the linear layer that put out the logits: its weights for this logit, to the
    last bit.  Torch multiplies all of its weights with a row of zeros and a one, which takes as
    long as to read them.  None where the logits of a single picture are not put out by such a layer
    with frozen weights on a CPU, or where something looks at the gradient in between.
    """
    step: Any = logits.grad_fn
    if type(step).__name__ != "AddmmBackward0" or len(logits) != 1 or CHECKER not in sys.modules:
        return None
    (bias, _), (source, number), (weights, _) = step.next_functions
    is_watched = logits.retains_grad or logits._backward_hooks
    if is_watched or bias or weights or source is None or logits.device.type != "cpu":
        return None
    if step._saved_alpha != 1:
        return None
    return GradientEdge(source, number), step._saved_mat2[:, index][None]
