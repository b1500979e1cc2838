"""Finds the constants that operations add: their biases, and whatever acts as a bias.

Operations are watched, not modules.  So a bias is found also if a subclass adds it before its
activation (timm's BatchNormAct2d), if the forward pass puts it together (BEiT's biases of queries
and values), or if it is a bare parameter of the model (position embeddings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Operation = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]
Rule = Callable[[Operation, Arguments, Keywords], Tensor | None]


def find_bias(operation: Operation, args: Arguments, kwargs: Keywords) -> Tensor | None:
    """Returns the constant that an operation adds to values that depend on the input, or None.

    It has the output's shape [...], or one that is broadcast to it.  Values that depend on the
    input require gradient.
    """
    rule = RULES.get(operation)
    if rule is None or not any(map(_requires_grad, _iterate_tensors((args, *kwargs.values())))):
        return None
    with torch.no_grad():
        bias = rule(operation, args, kwargs)
        # -inf masks places in a softmax, and infinity times a zero gradient is NaN
        return None if bias is None else bias.masked_fill(bias.isinf(), 0)


def open_operation(operation: Operation) -> Operation | None:
    """Returns a replacement that shows the parts of a composed operation, or None for others."""
    if operation not in COMPOSED_OPERATIONS or not isinstance(operation, FunctionType):
        return None
    # a watcher of operations would see only the whole call of these, and not their parts
    shown = {**operation.__globals__, "has_torch_function": lambda _: False}
    return FunctionType(
        operation.__code__, shown, operation.__name__, operation.__defaults__, operation.__closure__
    )


def _requires_grad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _iterate_tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for part in value:
            yield from _iterate_tensors(part)
    else:
        yield value


def _zero(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_zero(part) for part in value]
    return torch.zeros_like(value) if _requires_grad(value) else value


def _find_given_bias(_: Operation, args: Arguments, kwargs: Keywords) -> Tensor | None:
    bias: Tensor | None = args[2] if len(args) > 2 else kwargs.get("bias")
    return bias


def _find_bias_per_channel(
    operation: Operation, args: Arguments, kwargs: Keywords
) -> Tensor | None:
    bias = _find_given_bias(operation, args, kwargs)
    return None if bias is None else bias.view(-1, *[1] * (args[0].ndim - 2))


def _compute_bias_of_zero_maps(operation: Operation, args: Arguments, kwargs: Keywords) -> Tensor:
    """Returns BatchNorm's bias - weight * mean / std, with the training statistics."""
    # two places, since one has no statistics; both get the same value
    zeros = args[0].new_zeros(2, *args[0].shape[1:])
    output: Tensor = operation(zeros, *args[1:], **kwargs)
    return output[:1]


def _compute_bias_of_zeros(
    operation: Operation, args: Arguments, kwargs: Keywords
) -> Tensor | None:
    tensors = [p for p in _iterate_tensors((args, *kwargs.values())) if isinstance(p, Tensor)]
    number = operation not in CONCATENATIONS and any(p for p in args[:2] if isinstance(p, Real))
    if not number and all(map(_requires_grad, tensors)):
        return None
    output: Tensor = operation(*_zero(args), **{k: _zero(v) for k, v in kwargs.items()})
    return output


def _compute_bias_beyond_slope(operation: Operation, args: Arguments, kwargs: Keywords) -> Tensor:
    """Returns a piecewise linear activation's offset: its output minus slope times input."""
    x = args[0].detach().clone().requires_grad_()
    with torch.enable_grad():
        # a clone, since the operation may work in place
        out: Tensor = operation(x.clone(), *args[1:], **kwargs)
    (slope,) = torch.autograd.grad(out, x, torch.ones_like(out))
    left: Tensor = out.detach() - slope * x
    return left


CONVOLUTIONS = (
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
)  # fmt: skip
NORMS = (F.batch_norm, F.instance_norm, F.group_norm, F.layer_norm)
SUMS = (
    torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__,
    torch.sub, Tensor.sub, Tensor.sub_, Tensor.__sub__, Tensor.__isub__, Tensor.__rsub__,
    torch.rsub, torch.addcmul, Tensor.addcmul, torch.addmm, torch.baddbmm,
)  # fmt: skip
# a class token stands before the others
CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
STRAIGHT_PIECES = (
    F.hardtanh, F.relu6, F.hardsigmoid, torch.clamp, Tensor.clamp, Tensor.clamp_,
)  # fmt: skip

RULES: Mapping[Operation, Rule] = {
    F.linear: _find_given_bias,
    **dict.fromkeys(CONVOLUTIONS, _find_bias_per_channel),
    **dict.fromkeys(NORMS, _compute_bias_of_zero_maps),
    **dict.fromkeys((*SUMS, *CONCATENATIONS), _compute_bias_of_zeros),
    **dict.fromkeys(STRAIGHT_PIECES, _compute_bias_beyond_slope),
}
COMPOSED_OPERATIONS = (F.multi_head_attention_forward,)
