"""The evidence of one forward and one backward pass: logits, activations, gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from camcli.engine.batch_context import BatchContext
from camcli.engine.evidence.class_head import HEAD, LOGITS
from camcli.engine.evidence.logit_gradient import begin_behind_logit
from camcli.engine.hooks import Recording, check_logits, record
from camcli.engine.targets import PlainTarget, TopKCategories, logit
from camcli.errors import MethodError, ModelError
from camcli.models.acceleration import copy_to_model_format
from camcli.models.inspection.layout import convert_to_maps
from camcli.models.inspection.probing_pass import GRADIENT_FREE_METHODS
from camcli.models.state import make_recordable, preserve_state
from camcli.registry import evidence
from camcli.utils.profiling import stage

# a function that builds a slice of the altered rows, and the number of all rows
Altered = Callable[[slice], Tensor]
# logits [m n] of one picture, by its row, or of the whole batch in order (None) -> scores [m]
ScoreFunction = Callable[[Tensor, int | None], Tensor]
# for each call of a method, the gradients of all categories
GradientCache = list[list[Tensor]]

# numbers of gradients that are kept: 128 MiB
MOST_KEPT = 2**25


@evidence
def inputs(context: BatchContext) -> Tensor:
    """The inputs of the network.  [b 3 H W]"""
    return context.inputs


@evidence
def recording(context: BatchContext) -> Recording:
    """Runs the forward pass that all other evidence shares."""
    return record(
        context.module, context.inputs, context.layers, graph=context.graph, heads=context.heads
    )


@evidence
def logits(context: BatchContext) -> Tensor:
    """The model's output in float32; raises ModelError unless it has a row a picture.  [b n]"""
    # no parameter of this function, so that no pass runs for the logits alone
    if context.first_pass == "full_pass" and len(context.inputs) == 1:
        logits: Tensor = context.get("full_pass")(0).logits.detach()
    elif context.first_pass == "guided_pass":
        logits = context.get("guided_pass").logits.detach()
    else:
        logits = context.get("recording").logits.detach()
    if len(logits) != len(context.inputs):
        b, shape = len(context.inputs), list(logits.shape)
        raise ModelError(
            f"The model returned {shape} for {b} inputs, not a row for each, [{b}, n]. If it makes "
            "one row of several pictures, give it one at a time (--batch-size 1)."
        )
    return logits


@evidence
def categories(context: BatchContext, logits: Tensor) -> Tensor:
    """The classes that are explained.  [b k]"""
    return (context.choice or TopKCategories()).pick(logits)


@evidence
def references(
    context: BatchContext, logits: Tensor, categories: Tensor, slot: int
) -> Tensor | None:
    """The classes that a contrast compares with, chosen on the unaltered pictures.  [b r]"""
    return context.target.references(logits, categories[:, slot])


@evidence
def target(
    context: BatchContext, categories: Tensor, references: Tensor | None, slot: int
) -> ScoreFunction:
    """The function that turns logits of pictures, altered or not, into the explained number."""

    def compute_scores(logits: Tensor, owner: int | None) -> Tensor:
        rows = slice(None) if owner is None else [owner] * len(logits)
        compared = None if references is None else references[rows]
        return context.target.score(logits, categories[rows, slot], compared)

    return compute_scores


@evidence
def scores(recording: Recording, target: ScoreFunction) -> Tensor:
    """The explained number of each picture.  [b]"""
    with torch.enable_grad():
        return target(recording.logits, None)


@evidence
def activations(context: BatchContext, layer: str, recording: Recording) -> Tensor:
    """A target layer's output as maps, in float32.  [b c h w]"""
    output = recording.outputs[layer].detach()
    return convert_to_maps(output, context.layout(layer, output)).float()


@evidence
def raw_gradients(
    context: BatchContext, recording: Recording, scores: Tensor, categories: Tensor, slot: int
) -> dict[str, Tensor]:
    """The score's gradients at all target layers and at the head, from one backward pass.

    A layer on which the score does not depend gets zeros.  Raises MethodError if no gradient
    reaches any of them.
    """
    deaf = [name for name in context.layers if not recording.outputs[name].requires_grad]
    if deaf or not scores.requires_grad:
        raise MethodError(_explain_no_gradient(context, deaf or context.layers))
    tensors = dict(recording.outputs)
    if context.heads:
        tensors[LOGITS] = recording.logits
        if recording.head is not None and recording.head[1].requires_grad:
            tensors[HEAD] = recording.head[1]
    begin = _find_begin(context, recording, categories[:, slot])
    outputs, gradient_there = begin or (sum_scores(scores), None)
    # one backward pass a category, since a batch of them (is_grads_batched) is slower (help speed)
    # a model with activation checkpointing runs some of its layers again here
    with stage("backward"), preserve_state(context.module):
        layer_gradients = torch.autograd.grad(
            outputs,
            list(tensors.values()),
            gradient_there,
            retain_graph=True,
            allow_unused=True,
        )
    gradients = dict(zip(tensors, layer_gradients, strict=True))
    # dynamic quantisation leaves a graph that no gradient passes
    if context.layers and all(gradients[name] is None for name in context.layers):
        raise MethodError(_explain_no_gradient(context, context.layers))
    return {
        name: torch.zeros_like(tensors[name]) if gradient is None else gradient
        for name, gradient in gradients.items()
    }


def _find_begin(
    context: BatchContext, recording: Recording, explained: Tensor
) -> tuple[GradientEdge, Tensor] | None:
    """Finds a later begin of the backward pass, if the explained number is a plain logit."""
    logits = recording.logits
    # the head's gradient begins at the logits
    is_one = len(explained) == 1 < logits.shape[1] and not context.heads
    is_logit = isinstance(context.target, PlainTarget) and context.target.function is logit
    return begin_behind_logit(logits, int(explained)) if is_one and is_logit else None


def _explain_no_gradient(context: BatchContext, layers: Sequence[str]) -> str:
    names = ", ".join(map(repr, layers))
    return (
        f"No gradient reaches {names}: the layers behind do not use it, or stop the gradient "
        "(quantised weights, detach, reentrant checkpointing). Try "
        f"{_advise_layer(context)}{GRADIENT_FREE_METHODS}, which need no gradient."
    )


def _advise_layer(context: BatchContext) -> str:
    """Advises another layer if a gradient reaches the input, and so some of the layers."""
    module, inputs = context.module, copy_to_model_format(context.module, context.inputs[:1])
    with torch.enable_grad(), preserve_state(module):
        output = make_recordable(module)(inputs.requires_grad_().clone())
        logits = check_logits(output)
        if not logits.requires_grad:
            return ""
        try:
            (gradient,) = torch.autograd.grad(sum_scores(logits[0]), inputs, allow_unused=True)
        except RuntimeError:  # reentrant checkpointing passes no gradient to the input
            return ""
        return "" if gradient is None else "another layer, or "


def sum_scores(scores: Tensor) -> Tensor:
    """Sums scores; the sum's gradient by a picture is that of the picture's score.  [b] -> []

    A single score is its own sum, and stays [1].
    """
    if scores.numel() == 1:
        return scores
    # for several outputs torch imports sympy, which is slow, to check the gradient's shape
    with torch.enable_grad():
        return scores.sum()


@evidence
def gradients(
    context: BatchContext, layer: str, recording: Recording, raw_gradients: dict[str, Tensor]
) -> Tensor:
    """The score's gradients at a target layer as maps, in float32.  [b c h w]"""
    layout = context.layout(layer, recording.outputs[layer])
    return convert_to_maps(raw_gradients[layer], layout).float()


@evidence
def gradient_cache() -> GradientCache:
    """The gradients of all categories that one method at one layer has asked for so far."""
    return []


@evidence
def gradients_at(
    context: BatchContext,
    layer: str,
    gradient_cache: GradientCache,
    categories: Tensor,
    slot: int,
) -> Callable[[Tensor], Tensor]:
    """A function that returns the score's gradients at a layer for other inputs.

    [b 3 H W] -> maps [b c h w].  The inputs must not depend on the category, since they pass once
    for all categories; where their gradients would take much memory, once for each.
    """
    slots, calls = categories.shape[1], count()

    def compute_gradients(inputs: Tensor) -> Tensor:
        call = next(calls)
        if call < len(gradient_cache):
            return gradient_cache[call][slot]
        with context.with_inputs(inputs.to(context.inputs)) as other:
            gradients: Tensor = other.get("gradients", layer, slot)
            if slot == 0 and (call + 1) * slots * gradients.numel() <= MOST_KEPT:
                gradient_cache.append([other.get("gradients", layer, s) for s in range(slots)])
        return gradients

    return compute_gradients
