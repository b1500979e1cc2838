"""Evidence of second derivatives: the score's Hessian times the activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from camcli.engine.batch_context import BatchContext
from camcli.engine.hooks import Recording
from camcli.errors import MethodError
from camcli.models.inspection.autograd_graph import iterate_steps_to
from camcli.models.inspection.layout import convert_to_maps
from camcli.models.state import preserve_state
from camcli.registry import evidence
from camcli.utils.profiling import stage

# autograd's name for fused attention on any device; it has no second derivative
FUSED_ATTENTION = "ScaledDotProduct"
# nodes that stand in a graph for a missing derivative: torch's own, and that of custom operators;
# autograd skips the latter silently, as if the derivative were zero
NO_SECOND_DERIVATIVE = {"torch::autograd::NotImplemented", "torch::autograd::Error"}


@evidence
def unfused_context(context: BatchContext, recording: Recording) -> BatchContext:
    """The batch's context, or one for the same inputs whose pass ran without fused attention."""
    if not any(
        FUSED_ATTENTION in node.name() for node in iterate_steps_to(recording.logits.grad_fn)
    ):
        return context
    other = context.with_inputs(context.inputs)
    with _PlainAttention():
        other.get("recording")
    return other


class _PlainAttention(TorchFunctionMode):
    """Computes attention by operations that have second derivatives.

    torch's own switch is one for the whole process, so it would change the passes of other threads.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **options)
        if func is F.multi_head_attention_forward:
            # its inner calls are not seen here; it does not fuse if its weights are asked for
            output, weights = func(*args, **{**options, "need_weights": True})
            return output, weights if options.get("need_weights", True) else None
        return func(*args, **options)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        kept = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = kept.masked_fill(~attn_mask, -torch.inf)
    result: Tensor
    result, _ = torch._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, **options
    )
    return result


@evidence
def curvature(
    context: BatchContext, layer: str, slot: int, unfused_context: BatchContext
) -> Tensor:
    """The score's Hessian at a target layer times the layer's output, in float32.  [b c h w]

    Raises MethodError if an operation behind the layer has no second derivative.
    """
    output = unfused_context.get("recording").outputs[layer]
    scores = unfused_context.get("scores", layer, slot)
    with stage("backward"), torch.enable_grad(), preserve_state(context.module):
        (first,) = torch.autograd.grad(
            scores, output, torch.ones_like(scores), create_graph=True, materialize_grads=True
        )
        if any(node.name() in NO_SECOND_DERIVATIVE for node in iterate_steps_to(first.grad_fn)):
            raise MethodError(
                f"ShapleyCAM needs second derivatives, and an operation behind {layer!r} has none. "
                "Try --method gradcam, which is the same without the curvature."
            )
        product = _differentiate_along(output.detach(), first, output)
    return convert_to_maps(product, context.layout(layer, output)).float()


def _differentiate_along(vector: Tensor, gradient: Tensor, output: Tensor) -> Tensor:
    if (
        not gradient.requires_grad
    ):  # the score is linear in the output, so its Hessian is zero, so its Hessian is zero
        return torch.zeros_like(vector)
    (product,) = torch.autograd.grad(
        gradient, output, vector, retain_graph=True, materialize_grads=True
    )
    return product
