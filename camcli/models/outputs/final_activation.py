"""Follows the numbers in front of a softmax or sigmoid to a model's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

# what was done to numbers: the ends that are looked for, and the steps of those written by hand
End = Literal[
    "softmax", "class of a softmax", "sigmoid", "hard-sigmoid", "log-softmax", "log-sigmoid"
]
Step = End | Literal["plain", "maximum", "shifted", "exp", "sum-exp", "1+exp"]

ENDS: Mapping[str, End] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "expit": "sigmoid",
    "hardsigmoid": "hard-sigmoid",
    "log_softmax": "log-softmax",
    "log_sigmoid": "log-sigmoid",
    "logsigmoid": "log-sigmoid",
}
# each rearranges or copies numbers, so that the numbers in front can be treated alike; a clamp
# keeps probabilities away from 0 and 1
SHAPE_OPERATIONS = frozenset(
    {
        "view", "view_as", "reshape", "reshape_as", "squeeze", "unsqueeze", "flatten",
        "unflatten", "ravel", "getitem", "select", "narrow", "index_select", "permute",
        "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "contiguous",
        "clone", "to", "float", "double", "half", "bfloat16", "type", "cpu", "cuda", "expand",
        "expand_as", "alias", "dropout", "detach",
    }
)  # fmt: skip
CLAMPS = frozenset({"clamp", "clip", "clamp_min", "clamp_max", "nan_to_num"})
CONCATENATIONS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack"})
# what was added to keep a logarithm or a quotient finite
MOST_ADDED = 1e-3
# a layer's own numbers, whatever their range
PLAIN = frozenset(
    {"linear", "bilinear", "conv1d", "conv2d", "conv3d", "addmm", "relu", "relu6", "hardtanh"}
)
SPLITS = frozenset({"chunk", "split", "unbind", "tensor_split"})
TRANSPOSES = frozenset({"T", "mT", "H", "mH"})


@dataclass(frozen=True)
class PreActivation:
    """Numbers, and what was done to them.

    `odds` gives the logits of a softmax's classes one by one, for where not all of them go on.
    """

    step: Step
    numbers: Tensor
    odds: Callable[[], Tensor] | None = None


class FinalActivation(TorchFunctionMode):
    """While it is on, notes what stands in front of each softmax and sigmoid, and behind it.

    A hook on a module would miss functions, and autograd knows gradients, but no values.
    """

    def __init__(self) -> None:
        super().__init__()
        # not longer than the results themselves: attention is a softmax, too, and large
        self._noted: Any = WeakTensorKeyDictionary()
        self._plain: Any = WeakTensorKeyDictionary()

    def is_plain(self, tensor: object) -> bool:
        """Tells whether a tensor is a layer's output, clamped or not, and no probabilities."""
        return isinstance(tensor, Tensor) and tensor in self._plain

    def find_source(self, tensor: object) -> PreActivation | None:
        """Returns what a tensor was made of, if that is known."""
        if not isinstance(tensor, Tensor):
            return None
        noted: PreActivation | None = self._noted.get(tensor)
        return noted

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
        plain = name.strip("_").removeprefix("special_")
        # found before, as an operation in place changes what it is given
        traced = self._trace(plain, func, args, kwargs, copied=in_place)
        is_plain = self._stays_plain(plain, args, kwargs)
        result = func(*args, **kwargs)
        if in_place and args and isinstance(args[0], Tensor):
            self._noted.pop(args[0], None)
            self._plain.pop(args[0], None)
        if is_plain and traced is None and isinstance(result, Tensor):
            self._plain[result] = True
        if traced is not None:
            self._note(result, traced)
        return result

    def _stays_plain(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        if name in CLAMPS:
            # a probability is kept away from 0 and 1, and a value is cut off there
            return {0, 1} <= {
                b for b in (*args[1:], *kwargs.values()) if isinstance(b, int | float)
            }
        return name in PLAIN or (
            name in SHAPE_OPERATIONS | TRANSPOSES and bool(args) and self.is_plain(args[0])
        )

    def _note(self, result: Any, traced: PreActivation | list[PreActivation]) -> None:
        if isinstance(traced, list):
            for part, made in zip(result, traced, strict=True):
                self._noted[part] = made
        else:
            # a maximum along an axis comes with its places
            self._noted[result[0] if isinstance(result, tuple) else result] = traced

    def _trace(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        copied: bool,
    ) -> PreActivation | list[PreActivation] | None:
        """Tells what a call's result is made of."""
        if not args:
            return None
        first, second = args[0], args[1] if len(args) > 1 else None
        if name in ENDS and isinstance(first, Tensor):
            numbers = first.clone() if copied else first
            dim = kwargs.get("dim", second if isinstance(second, int) else None)
            is_softmax = name == "softmax" and isinstance(dim, int)
            return PreActivation(
                ENDS[name], numbers, partial(_compute_odds, numbers, dim) if is_softmax else None
            )
        if name in CONCATENATIONS:
            return self._trace_join(func, args, kwargs)
        step = STEPS.get(name)
        if step is not None:
            return step(first, self.find_source(first), second, self.find_source(second))
        before = self.find_source(first)
        if before is None or before.step not in ENDS.values():
            return None
        if name in CLAMPS:
            return before
        if name in SHAPE_OPERATIONS or name in TRANSPOSES:
            odds = before.odds
            return PreActivation(
                before.step,
                func(before.numbers, *args[1:], **kwargs),
                (lambda: func(odds(), *args[1:], **kwargs)) if odds else None,
            )
        if name in SPLITS:
            parts = func(before.numbers, *args[1:], **kwargs)
            return [PreActivation(before.step, part) for part in parts]
        return None

    def _trace_join(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> PreActivation | None:
        parts = [self.find_source(part) for part in args[0]]
        steps = {part.step if part else None for part in parts}
        if len(steps) != 1 or not steps <= {"sigmoid", "log-sigmoid"}:
            return None
        numbers = [part.numbers for part in parts if part]
        (step,) = (step for step in steps if step)
        return PreActivation(step, func(numbers, *args[1:], **kwargs))


def _compute_odds(numbers: Tensor, dim: int) -> Tensor:
    """Returns the logit of each class against all others together, log p / (1 - p)."""
    if numbers.shape[dim] == 2:
        # of two it is their difference, also where one is 1 but for rounding
        return numbers - numbers.flip(dim)
    log_p = numbers.float().log_softmax(dim)
    return log_p - torch.log(-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).min)


Traced = PreActivation | None


def _trace_exponential(first: Any, before: Traced, *_: Any) -> Traced:
    if before is None:
        return PreActivation("exp", first)
    after: Mapping[Step, Step] = {
        "log-softmax": "softmax",
        "log-sigmoid": "sigmoid",
        "shifted": "exp",
    }
    return (
        PreActivation(after.get(before.step, "exp"), before.numbers)
        if before.step in after
        else None
    )


def _trace_logarithm(_: Any, before: Traced, *__: Any) -> Traced:
    after: Mapping[Step, Step] = {"softmax": "log-softmax", "sigmoid": "log-sigmoid"}
    return (
        PreActivation(after[before.step], before.numbers)
        if before and before.step in after
        else None
    )


def _trace_maximum(first: Any, *_: Any) -> Traced:
    return PreActivation("maximum", first) if isinstance(first, Tensor) else None


def _trace_difference(first: Any, _: Traced, __: Any, other: Traced) -> Traced:
    if isinstance(first, int | float):
        return _trace_rest(other) if first == 1 else None
    if other and other.step == "maximum" and other.numbers is first:
        return PreActivation("shifted", first)
    return None


def _trace_reversed_difference(_: Any, before: Traced, second: Any, __: Traced) -> Traced:
    return _trace_rest(before) if isinstance(second, int | float) and second == 1 else None


def _trace_rest(before: Traced) -> Traced:
    """What stands in front of 1 - p."""
    return (
        PreActivation("sigmoid", -before.numbers) if before and before.step == "sigmoid" else None
    )


def _trace_total(_: Any, before: Traced, *__: Any) -> Traced:
    return PreActivation("sum-exp", before.numbers) if before and before.step == "exp" else None


def _trace_sum(first: Any, before: Traced, second: Any, other: Traced) -> Traced:
    for number, noted in ((second, before), (first, other)):
        if noted is None or not isinstance(number, int | float):
            continue
        if number == 1 and noted.step == "exp":
            return PreActivation("1+exp", noted.numbers)
        if 0 <= number <= MOST_ADDED and noted.step in ENDS.values():
            return noted
    return None


def _trace_quotient(first: Any, before: Traced, second: Any, other: Traced) -> Traced:
    if isinstance(first, int | float):
        return _trace_reciprocal(second, other) if first == 1 else None
    if not (before and other and before.step == "exp" and before.numbers is other.numbers):
        return None
    made: Mapping[Step, Step] = {"sum-exp": "softmax", "1+exp": "sigmoid"}
    return PreActivation(made[other.step], before.numbers) if other.step in made else None


def _trace_reversed_quotient(first: Any, before: Traced, second: Any, _: Traced) -> Traced:
    return (
        _trace_reciprocal(first, before)
        if isinstance(second, int | float) and second == 1
        else None
    )


def _trace_reciprocal(_: Any, before: Traced, *__: Any) -> Traced:
    return PreActivation("sigmoid", -before.numbers) if before and before.step == "1+exp" else None


# 1 / (1 + exp(-x)), exp(x) / exp(x).sum(), with or without the maximum taken off, and 1 - p
STEPS: Mapping[str, Callable[..., Traced]] = {
    "exp": _trace_exponential,
    "log": _trace_logarithm,
    "max": _trace_maximum,
    "amax": _trace_maximum,
    "sub": _trace_difference,
    "rsub": _trace_reversed_difference,
    "sum": _trace_total,
    "add": _trace_sum,
    "radd": _trace_sum,
    "div": _trace_quotient,
    "truediv": _trace_quotient,
    "true_divide": _trace_quotient,
    "rdiv": _trace_reversed_quotient,
    "rtruediv": _trace_reversed_quotient,
    "reciprocal": _trace_reciprocal,
}


def apply_end(numbers: Tensor, end: End) -> Tensor:
    """Applies an end, a softmax or sigmoid, to rows of numbers.  [b n] -> [b n]"""
    if end == "softmax":
        return numbers.softmax(1)
    if end == "log-softmax":
        return numbers.log_softmax(1)
    if end == "hard-sigmoid":
        return torch.nn.functional.hardsigmoid(numbers)
    if end == "log-sigmoid":
        return torch.nn.functional.logsigmoid(numbers)
    return torch.sigmoid(numbers)
