"""Runs one forward and one backward pass of noise, and notes what they show of every layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from camcli.errors import CamvizError, ModelError
from camcli.models.inspection.autograd_graph import AutogradGraph, list_sources, spread_picks
from camcli.models.inspection.layout import (
    Layout,
    convert_to_maps,
    find_tensor,
    measure_layout,
    replace_tensor,
)
from camcli.models.outputs.logits import describe_output, select_output
from camcli.models.state import in_this_thread, make_recordable, preserve_state

SEED = 0
# strides and unpadded convolutions may skip the last row of a grid; a class token skips all rows
EVERYWHERE = 0.9
NO_GRADIENT = "its output passes no gradient back (no_grad, detach, quantised weights)"
GRADIENT_FREE_METHODS = "--method eigencam or scorecam"


@dataclass
class _LayerOutput:
    """A module's output: its shape and layout, and the autograd step that made it.

    `share` is the share of the grid's cells on which the score depends.
    """

    shape: tuple[int, ...]
    layout: Layout | None
    step: Node | None = None
    share: Tensor | None = None

    def see(self, gradient: Tensor | None) -> None:
        """Notes the share of the grid's cells where any channel has a gradient."""
        # quantised layers pass no gradient back
        if self.layout and gradient is not None:
            self.share = _compute_share(gradient, self.layout)

    @property
    def depends(self) -> bool:
        return self.share is not None and self.share.item() >= EVERYWHERE


def _compute_share(gradient: Tensor, layout: Layout) -> Tensor:
    maps = convert_to_maps(gradient, layout)
    strongest: Tensor = torch.linalg.vector_norm(maps, ord=inf, dim=1)
    return strongest.gt(0).float().mean()


@dataclass
class LayerObserver:
    """Hooks that note the layers' last outputs, the classifier, and the recorded graph.

    `joins` are the steps that join values in a grid on which the score depends everywhere.  Outputs
    have a row for each of `slices` slices of the one picture.
    """

    input_size: tuple[int, int]
    slices: int = 1
    outputs: dict[str, _LayerOutput] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    # the last module with weights of its own, and its input; it is the classifier if it is linear
    weighted: tuple[str, nn.Module, Tensor] | None = None
    classifier: str | None = None
    latest: tuple[Tensor, int, _LayerOutput] | None = None
    steps: set[Node] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    no_sources: dict[str, str] = field(default_factory=dict)
    graph: AutogradGraph | None = None
    joins: list[Node] = field(default_factory=list)
    problem: str = ""

    def count_writes(self, name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        """Notes how often a layer's input had been written to; a forward pre-hook."""
        given = find_tensor(args)
        if given is not None:
            self.versions[name] = given._version

    def note(self, name: str, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Notes a call and returns what the next layer gets; a forward hook with a bound name."""
        tensor = find_tensor(output)
        if tensor is None:
            return output
        self.no_sources[name] = self._explain_no_source(name, layer, args, tensor)
        if any(arg is tensor for arg in args):
            # a tensor that a layer passes on unchanged may be used elsewhere, which is no use of
            # the layer
            tensor = tensor.clone()
            output = replace_tensor(output, tensor)
        self.calls[name] += 1
        self.outputs.pop(name, None)
        self.outputs[name] = self._output(tensor)
        if args and isinstance(args[0], Tensor) and next(layer.parameters(False), None) is not None:
            self.weighted = (name, layer, args[0])
        return output

    def layout_of(self, tensor: Tensor) -> Layout | None:
        """Measures a tensor's layout from its shape, if it has a row for each slice."""
        return measure_layout(tuple(tensor.shape), self.input_size, batch=self.slices)

    def _output(self, tensor: Tensor) -> _LayerOutput:
        # a stage, its last block and an identity put out the same tensor, which is looked at once
        if self.latest and self.latest[0] is tensor and self.latest[1] == tensor._version:
            return self.latest[2]
        shape, step = tuple(tensor.shape), tensor.grad_fn
        output = _LayerOutput(shape, self.layout_of(tensor), step)
        if step is not None:
            self.steps.add(step)
        if output.layout and tensor.requires_grad:
            # hooks on the tensor keep no gradient alive, and they stay with this value even if an
            # in-place activation changes the tensor afterwards
            tensor.register_hook(output.see)  # type: ignore[no-untyped-call]
        self.latest = (tensor, tensor._version, output)
        return output

    def _explain_no_source(
        self, name: str, layer: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> str:
        """Says what a layer does to another layer's output if it has no output of its own."""
        given = find_tensor(args)
        if given is None or next(layer.parameters(), None) is not None:
            return ""
        if given._version != self.versions[name] or not self._is_put_out(given.grad_fn):
            return ""
        if output is given or _has_same_values(given, output):
            return "only passes it on" if torch.equal(given, output) else "only turns it"
        before, behind = self.layout_of(given), self.layout_of(output)
        return "pools it" if before and behind and before.grid != behind.grid else ""

    def _is_put_out(self, step: Node | None) -> bool:
        """Tells whether a layer put out a step's result, or something that is made only of it."""
        while step is not None and step not in self.steps:
            before = list_sources(step)
            step = before[0] if len(before) == 1 else None
        return step is not None

    def follow(self, score: Tensor) -> None:
        """Reads the recorded graph, and prepares the backward pass."""
        self.graph = AutogradGraph(score)
        spread_picks(self.graph.steps)
        for join in self.graph.joins():
            join.register_prehook(partial(self._record_join, join))

    def _record_join(self, join: Node, gradients: tuple[Tensor | None, ...]) -> None:
        gradient = gradients[0]
        layout = None if gradient is None else self.layout_of(gradient)
        if gradient is not None and layout and _compute_share(gradient, layout) >= EVERYWHERE:
            self.joins.append(join)

    def why_no_default(self, name: str) -> str:
        """Says why a layer's output does not hold all features at its place; empty if it does."""
        step = self.outputs[name].step
        if self.no_sources[name] or not self.graph or step is None:
            return self.no_sources[name]
        if self.graph.is_attention_operand(step):
            return "holds queries, keys or values of attention"
        if self.graph.has_shortcut(step, self.joins):
            return "lies beside a shortcut"
        return ""


def _has_same_values(one: Tensor, other: Tensor) -> bool:
    """Tells whether two tensors hold the same values, in any order."""
    if one.numel() != other.numel() or one.dtype != other.dtype:
        return False
    if one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
        return True
    one, other = one.detach(), other.detach()
    alike = (torch.equal(f(one), f(other)) for f in (torch.amin, torch.amax))
    # any activation makes zeros of zeros
    return (
        all(alike)
        and not one.eq(one.amin()).all()
        and torch.equal(*(t.flatten().sort().values for t in (one, other)))
    )


def _is_classifier(layer: nn.Module, logits: Tensor) -> bool:
    """Tells whether the last module with weights is linear and as wide as the logits.

    A model without a classifier ends in a norm, or in another module that is not linear.
    """
    width = logits.shape[-1] if logits.ndim < 3 else logits.shape[1]
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.out_channels == width
    return isinstance(layer, nn.Linear) and layer.out_features == width


def run_probing_pass(
    module: nn.Module, inputs_shape: tuple[int, int, int], observed: LayerObserver
) -> None:
    """Runs noise (channels, H, W) forward and backward, and notes every layer's output."""
    # drawn on the CPU, so that every device sees the same noise
    generator = torch.Generator().manual_seed(SEED)
    with torch.inference_mode(False), torch.enable_grad(), preserve_state(module):
        noise = torch.randn(1, *inputs_shape, generator=generator)
        inputs = like_parameters(module, noise).requires_grad_()
        with _attach_hooks(module, observed):
            # a leaf cannot be changed in place, but its clone can
            logits = _run_model(module, inputs.clone())
        scored = [logits]
        if observed.weighted and _is_classifier(observed.weighted[1], logits):
            observed.classifier, _, classified = observed.weighted
            scored.append(classified)
        score = sum(
            (t.float() * torch.randn(t.shape, generator=generator).to(t.device)).sum()
            for t in scored
        )
        if not torch.as_tensor(score).isfinite():
            observed.problem = (
                "its output is not finite (NaN weights, or half precision overflowed)"
            )
        elif isinstance(score, Tensor) and score.requires_grad:
            observed.follow(score)
            if not _has_gradient(score, inputs):
                # dynamic quantisation leaves a graph that no gradient passes
                observed.problem = NO_GRADIENT
        else:
            observed.problem = NO_GRADIENT


def like_parameters(module: nn.Module, inputs: Tensor) -> Tensor:
    """Moves inputs to the device and the precision of the parameters."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    return inputs.to(like.device, like.dtype)


def _run_model(module: nn.Module, inputs: Tensor) -> Tensor:
    try:
        output = make_recordable(module)(inputs)
    except CamvizError:
        raise
    except Exception as error:
        size = "x".join(map(str, inputs.shape[1:]))
        message = f"The model does not run on a {size} input: {type(error).__name__}: {error}"
        raise ModelError(message) from error
    logits = find_tensor(select_output(output, None))
    if logits is None:
        raise ModelError(
            f"The model returned {describe_output(output)}, not a tensor of logits: name the part "
            "that holds them with --output-key (in Python output_key)."
        )
    return logits


def _has_gradient(score: Tensor, inputs: Tensor) -> bool:
    try:
        (gradient,) = torch.autograd.grad(score, inputs, allow_unused=True)
    except RuntimeError as error:
        why = str(error).partition(". ")[0]
        raise ModelError(
            f"No gradient passes through the model: {why}. Name a layer with --target-layers, and "
            f"a method that needs no gradient: {GRADIENT_FREE_METHODS}."
        ) from error
    return gradient is not None


@contextmanager
def _attach_hooks(module: nn.Module, observed: LayerObserver) -> Iterator[None]:
    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if name:
                begin, note = partial(observed.count_writes, name), partial(observed.note, name)
                stack.callback(layer.register_forward_pre_hook(in_this_thread(begin)).remove)
                stack.callback(layer.register_forward_hook(in_this_thread(note)).remove)
        yield
