"""Reads the steps that autograd recorded: where values are joined, multiplied and picked.

torch's names of its operations tell what a step does.  Parameters are frozen while a pass is
recorded, so that every recorded step depends on the picture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node


def _node_names(operations: str) -> frozenset[str]:
    return frozenset(operations.split())


# they take several values cell by cell, or pass them on (torch's backward hooks); every other
# operation on several values multiplies them, as attention does
JOINS = _node_names(
    "Add Sub Mul Div Cat Stack Where Maximum Minimum Lerp Addcmul Addcdiv CopySlices IndexPut"
    " SliceScatter SelectScatter Scatter BackwardHookFunction"
)
# they mix channels by weights; grouped convolutions do not count
DENSE = _node_names("Addmm Mm Bmm Baddbmm Linear MkldnnLinear Convolution")
# they put out a part of their input
PARTS = _node_names("Split SplitWithSizes Unbind Select Slice Narrow")
# they pick one value of several along dimensions that they save
PICKS = _node_names("Max Min Amax Amin Aminmax Topk Kthvalue Median Nanmedian Mode Sort")
# they leave every place of maps [b c h w] where it is
STAYING = _node_names(
    "AccumulateGrad Clone ToCopy Convolution NativeBatchNorm CudnnBatchNorm MiopenBatchNorm"
    " NativeGroupNorm Relu Threshold LeakyRelu PreluKernel Elu Celu Gelu Silu Mish Hardswish"
    " Hardsigmoid Hardtanh Sigmoid Tanh Softplus Add Sub Mul Div Neg Clamp ClampMin ClampMax Mean"
    " MaxPool2DWithIndices AvgPool2D AdaptiveAvgPool2D NativeDropout UpsampleNearest2D"
    " UpsampleBilinear2D BackwardHookFunction"
)
CHANNELS = 1
# in cells; more padding than this shifts a picture in its grid
MOST_PADDING = 8


class AutogradGraph:
    """The steps on the way to an output, and the steps that take each one's result."""

    def __init__(self, output: Tensor) -> None:
        self.steps = list(iterate_steps_to(output.grad_fn))
        self._takers: dict[Node, list[Node]] = defaultdict(list)
        for step in self.steps:
            for source in list_sources(step):
                self._takers[source].append(step)

    def joins(self) -> Iterator[Node]:
        """Yields the steps that take several values cell by cell."""
        return (s for s in self.steps if operation_name(s) in JOINS and _has_several_inputs(s))

    def behind(self, step: Node) -> set[Node]:
        """Returns a step and all steps that depend on it."""
        dependants, waiting = {step}, [step]
        while waiting:
            new = [taker for taker in self._takers[waiting.pop()] if taker not in dependants]
            dependants.update(new)
            waiting += new
        return dependants

    def has_shortcut(self, step: Node, joins: Iterable[Node]) -> bool:
        """Tells whether one of these joins adds an unchanged shortcut to a step's result.

        A shortcut is unchanged if no weights have mixed it since it branched off before the step.
        """
        behind, before = self.behind(step), set(iterate_steps_to(step)) - {step}
        return any(
            self._comes_unmixed(source, before)
            for join in joins
            if join in behind and join is not step
            for source in list_sources(join)
            if source not in behind
        )

    def _comes_unmixed(self, start: Node, places: set[Node]) -> bool:
        waiting, seen = [start], {start}
        while waiting:
            step = waiting.pop()
            if step in places:
                return True
            if not _is_dense(step):
                new = [source for source in list_sources(step) if source not in seen]
                seen.update(new)
                waiting += new
        return False

    def is_attention_operand(self, step: Node) -> bool:
        """Tells whether a step makes queries, keys or values of attention.

        These are split and multiplied with each other, with no weights in between; or they are
        multiplied with something else, such as values with the attention of queries and keys.
        """
        parted: set[tuple[Node, bool]] = {(step, False)}
        waiting = [(step, False)]
        while waiting:
            one, in_parts = waiting.pop()
            if one is not step and self._multiplies(one):
                if in_parts:
                    return True
                continue
            if one is not step and _is_dense(one):
                continue
            new = {(taker, in_parts or _is_part(taker)) for taker in self._takers[one]} - parted
            parted |= new
            waiting += new
        return self._is_one_of_two(step)

    def _is_one_of_two(self, step: Node) -> bool:
        behind = self.behind(step)
        return any(
            source not in behind
            for product in self._first_products(step, through_weights=True)
            for last in self._first_products(product, through_weights=False) or [product]
            for source in _list_gathered(last)
        )

    def _first_products(self, start: Node, *, through_weights: bool) -> list[Node]:
        products, seen, waiting = [], {start}, [start]
        while waiting:
            new = [taker for taker in self._takers[waiting.pop()] if taker not in seen]
            seen.update(new)
            products += [step for step in new if self._multiplies(step)]
            waiting += [
                step
                for step in new
                if not self._multiplies(step) and (through_weights or not _is_dense(step))
            ]
        return products

    def _multiplies(self, step: Node) -> bool:
        return operation_name(step) not in JOINS and _has_several_inputs(step)


def operation_name(step: Node) -> str:
    """Returns the name of a step's operation: `Add` for AddBackward0."""
    return re.sub(r"Backward\d*$", "", step.name().rpartition("::")[2])


def list_sources(step: Node) -> list[Node]:
    """Returns the steps whose results a step takes as inputs."""
    return [source for source, _ in step.next_functions if source is not None]


def _has_several_inputs(step: Node) -> bool:
    # parts of one tensor, such as split queries and keys, count as several
    return len({taken for taken in step.next_functions if taken[0] is not None}) > 1


def iterate_steps_to(step: Node | None) -> Iterator[Node]:
    """Yields a step and all steps on the way to it."""
    waiting, seen = [step], set[Node]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += list_sources(node)
            yield node


def is_in_place(step: Node | None) -> bool:
    """Tells whether no step on the way to a step's maps [b c h w] moves a place."""
    return step is not None and all(
        operation_name(one) in STAYING or _is_among_channels(one) or _has_little_padding(one)
        for one in iterate_steps_to(step)
    )


def _has_little_padding(step: Node) -> bool:
    """Tells whether a step pads maps by no more cells than convolutions need."""
    if operation_name(step) != "ConstantPadNd":
        return False
    cells: Any = step._saved_pad  # type: ignore[attr-defined]
    return all(_to_signed(n) <= MOST_PADDING for n in cells)


def _is_among_channels(step: Node) -> bool:
    """Tells whether a step splits or joins maps [b c h w] along their channels."""
    if operation_name(step) not in ("Cat", "Slice", "Split", "SplitWithSizes"):
        return False
    dim: int = step._saved_dim  # type: ignore[attr-defined]
    return _to_signed(dim) % 4 == CHANNELS


def _is_dense(step: Node) -> bool:
    if operation_name(step) == "Convolution":
        groups: int = step._saved_groups  # type: ignore[attr-defined]
        return groups == 1
    return operation_name(step) in DENSE


def _is_part(step: Node) -> bool:
    """Tells whether a step takes only a part; leaving out a class token does not count."""
    if operation_name(step) != "Slice":
        return operation_name(step) in PARTS
    kind: Any = step
    length: int = kind._saved_self_sym_sizes[_to_signed(kind._saved_dim)]
    start, end = (
        _to_signed(n) % (length + 1) for n in (kind._saved_start, min(kind._saved_end, length))
    )
    return bool(2 * (end - start) <= length)


def _list_gathered(step: Node) -> list[Node]:
    """Lists the two operands of a product; of fused attention, those that follow the queries."""
    fused = operation_name(step).lstrip("_").startswith("ScaledDotProduct")
    taken = step.next_functions[1:3] if fused else step.next_functions
    return [source for source, _ in taken if source is not None]


def _to_signed(n: int) -> int:
    # autograd saves -1 as the largest 64-bit number
    return n - 2**64 if n >= 2**63 else n


def spread_picks(steps: Iterable[Node]) -> None:
    """Lets the gradient of a maximum go back to all of its inputs, not only to one place."""
    for step in steps:
        name = operation_name(step)
        if name in PICKS or name in ("MaxPool2DWithIndices", "AdaptiveMaxPool2D"):
            step.register_hook(_SpreadHook(step))


class _SpreadHook:
    """A hook that gives the gradient of each picked place also to the places it was picked from."""

    def __init__(self, step: Node) -> None:
        self.step: Any = step

    def __call__(
        self, to_sources: tuple[Tensor | None, ...], of_result: tuple[Tensor | None, ...]
    ) -> tuple[Tensor | None, ...]:
        source_gradient, given = to_sources[0], of_result[0]
        if source_gradient is None or given is None:
            return to_sources
        return (self._spread(source_gradient, given), *to_sources[1:])

    def _spread(self, gradient: Tensor, given: Tensor) -> Tensor:
        step = self.step
        match operation_name(step):
            case "MaxPool2DWithIndices" if all(n == 1 for n in step._saved_dilation):
                window = (step._saved_kernel_size, step._saved_stride, step._saved_padding)
                ceil = step._saved_ceil_mode
                pooled: Tensor = torch.ops.aten.avg_pool2d_backward(
                    given, step._saved_self, *window, ceil, True, None
                )
                return pooled
            case "MaxPool2DWithIndices":
                return gradient
            case "AdaptiveMaxPool2D":
                spread: Tensor = torch.ops.aten._adaptive_avg_pool2d_backward(
                    given, step._saved_self
                )
                return spread
        saved = getattr(step, "_saved_dim", ())
        dimensions = [_to_signed(n) for n in (saved if isinstance(saved, tuple) else (saved,))]
        total = gradient.sum(dimensions or tuple(range(gradient.ndim)), keepdim=True)
        return total.expand_as(gradient)
