"""Evidence of FullGrad: what the input and every bias contribute to the score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from camcli.engine.batch_context import BatchContext, find_places
from camcli.engine.evidence.forward_backward import ScoreFunction, sum_scores
from camcli.engine.hooks import check_logits
from camcli.errors import MethodError
from camcli.methods.principal_component import to_float64
from camcli.models.acceleration import copy_to_model_format
from camcli.models.inspection.attention import FUSED
from camcli.models.inspection.biases import find_bias, open_operation
from camcli.models.inspection.layout import TOKENS, convert_to_maps, measure_layout
from camcli.models.state import in_this_thread, make_recordable, preserve_state, switch_off
from camcli.records import FullGradients
from camcli.registry import evidence
from camcli.utils.profiling import stage

NO_GRADIENT = (
    "No gradient reaches the input (detach, integers, quantised weights). "
    "Try --method occlusion or rise, which need none."
)


@dataclass(frozen=True)
class Bias:
    """A bias that an operation of a layer added, and the graph edge of the operation's output."""

    constant: Tensor
    layer: str
    edge: GradientEdge


@dataclass(frozen=True)
class FullPass:
    """One picture's pass, recorded by autograd from the input [1 3 H W] on."""

    inputs: Tensor
    biases: list[Bias]
    logits: Tensor


class _BiasRecorder(TorchFunctionMode):
    """Records the bias of every operation while a model runs."""

    def __init__(self, running: list[str]) -> None:
        super().__init__()
        self.running = running
        self.biases: list[Bias] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if inside := open_operation(func):
            with self:
                return inside(*args, **kwargs)
        # found before the call, since an in-place operation changes its input
        constant = find_bias(func, args, kwargs)
        output = func(*args, **kwargs)
        if constant is not None and output.requires_grad:
            # the edge stays the same if a later operation works in place
            self.biases.append(Bias(constant, self.running[-1], get_gradient_edge(output)))
        return output


@contextmanager
def _track_running_layers(module: nn.Module) -> Iterator[list[str]]:
    """Keeps the names of the layers that are running, from the outermost on."""
    running = [""]
    with ExitStack() as stack:
        for name, layer in module.named_modules():

            def push_name(*_: Any, name: str = name) -> None:
                running.append(name)

            def pop_name(*_: Any) -> None:
                running.pop()

            stack.callback(layer.register_forward_pre_hook(in_this_thread(push_name)).remove)
            stack.callback(layer.register_forward_hook(in_this_thread(pop_name)).remove)
        yield running


@evidence
def full_pass(context: BatchContext) -> Callable[[int], FullPass]:
    """A function that runs one picture's pass, recorded from the input on; the latest is kept.

    Pictures pass one by one, because windows, and tokens in front of the batch, mix the rows of a
    batch, and because the gradients of all layers take much memory.
    """
    module = context.module

    @lru_cache(maxsize=1)
    def run_pass(row: int) -> FullPass:
        inputs = context.inputs[row : row + 1].detach().clone().requires_grad_()
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(preserve_state(module))
            # a fused kernel adds position biases inside, where they cannot be recorded
            stack.enter_context(switch_off(module.modules(), FUSED))
            noting = _BiasRecorder(stack.enter_context(_track_running_layers(module)))
            stack.enter_context(noting)
            output = make_recordable(module)(copy_to_model_format(module, inputs))
            return FullPass(inputs, noting.biases, check_logits(output))

    return run_pass


@evidence
def full_gradients(
    context: BatchContext, full_pass: Callable[[int], FullPass], target: ScoreFunction
) -> Callable[[int], FullGradients]:
    """The input's and each bias's contribution to a picture's score: value times gradient.

    Raises MethodError if no gradient reaches the input.
    """

    def score(row: int) -> Tensor:
        with torch.enable_grad():
            return target(full_pass(row).logits, row)

    if not score(0).requires_grad:
        raise MethodError(NO_GRADIENT)

    def compute_gradients(row: int) -> FullGradients:
        scores, recorded = score(row), full_pass(row)
        edges = [get_gradient_edge(recorded.inputs), *(bias.edge for bias in recorded.biases)]
        with stage("backward"), preserve_state(context.module):
            first, *gradients = torch.autograd.grad(
                sum_scores(scores), edges, retain_graph=True, allow_unused=True
            )
        if first is None:
            raise MethodError(NO_GRADIENT)
        input_term = _multiply(recorded.inputs, first)
        # a term without a gradient contributes nothing to the score
        terms = [
            (bias.layer, _multiply(bias.constant, gradient))
            for bias, gradient in zip(recorded.biases, gradients, strict=True)
            if gradient is not None
        ]
        explained = _sum_term(input_term) + sum(_sum_term(term) for _, term in terms)
        residual = to_float64(scores[0].detach()) - explained
        maps = list(_to_maps(context, terms))
        return FullGradients(scores[0].detach(), input_term[0], maps, residual.float())

    return compute_gradients


def _multiply(value: Tensor, gradient: Tensor) -> Tensor:
    return value.detach() * gradient.to(torch.promote_types(gradient.dtype, torch.float32))


def _sum_term(term: Tensor) -> Tensor:
    return to_float64(term).sum()


def _to_maps(context: BatchContext, terms: Sequence[tuple[str, Tensor]]) -> Iterator[Tensor]:
    """Yields the terms as maps [c h w]; terms without places, such as a head's, are left out."""
    _, channels, height, width = context.inputs.shape
    layouts = [measure_layout(tuple(term.shape), (height, width), batch=1) for _, term in terms]
    # tokens of one grid keep their order throughout a model
    among = {
        layout: layer
        for (layer, _), layout in zip(terms, layouts, strict=True)
        if layer and layout and layout.kind in TOKENS
    }
    places = find_places(context.module, (channels, height, width), list(among.values()))
    orders = {p.layout.grid: p.layout for p in places.values() if p.layout.order}
    for (_, term), layout in zip(terms, layouts, strict=True):
        if layout is None:
            continue
        known = orders.get(layout.grid)
        in_order = known and replace(known, order=()) == layout
        yield convert_to_maps(term, known if known and in_order else layout)[0]
