"""Evidence of transformers: attention, its gradients, and each block's own score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.engine.batch_context import BatchContext, find_places
from camcli.engine.evidence.forward_backward import ScoreFunction
from camcli.engine.evidence.rescoring import can_run_tail
from camcli.engine.hooks import Recording, record, rerun_recorded
from camcli.errors import MethodError
from camcli.models.inspection.attention import (
    AttentionLayout,
    capture_attention,
    measure_attentions,
)
from camcli.models.inspection.layout import TOKENS
from camcli.models.state import ModelCache, preserve_state
from camcli.registry import evidence
from camcli.utils.profiling import stage

_known: ModelCache[AttentionLayout] = ModelCache()

NO_GRADIENT = (
    "No gradient reaches this model's attention (detach, integers, quantised weights). "
    "Try --method rollout, which needs none."
)


def find_attentions(module: nn.Module, shape: tuple[int, int, int]) -> AttentionLayout:
    """Finds where a model attends for inputs (channels, H, W); measures it only once."""
    known = _known.of(module)
    if shape not in known:
        attentions_of_model = measure_attentions(module, shape)
        first = attentions_of_model.blocks[0].name
        places = find_places(module, shape, [first]).get(first)
        if (
            places
            and places.layout.kind in TOKENS
            and places.layout.grid == attentions_of_model.layout.grid
        ):
            attentions_of_model = replace(attentions_of_model, layout=places.layout)
        known[shape] = attentions_of_model
    return known[shape]


@dataclass(frozen=True)
class AttentionPass:
    """A pass with readable attention: where the model attends, the attention, blocks and logits.

    `maps` has a list for each of l blocks, with the attention of each site [b heads q m].
    """

    attentions: AttentionLayout
    maps: list[list[Tensor]]
    recording: Recording


@evidence
def attention_pass(context: BatchContext) -> AttentionPass:
    """Runs a pass without fused attention; autograd records from the first block's attention on.

    Raises MethodError for a model whose attention cannot be read.
    """
    shape = context.inputs.shape
    attentions = find_attentions(context.module, (shape[1], shape[2], shape[3]))
    passed: dict[str, Tensor] = {}

    def store_attention(site: str, attention: Tensor) -> Tensor | None:
        if context.graph and not attention.requires_grad:
            # autograd records nothing before the first attention; `record` restores the mode
            attention = attention.detach().requires_grad_()
            torch.set_grad_enabled(True)
        passed[site] = attention
        return attention if context.graph else None

    sites = [site for block in attentions.blocks for site in block.sites]
    names = [block.name for block in attentions.blocks]
    with capture_attention(context.module, sites, store_attention):
        recording = record(context.module, context.inputs, names, graph=context.graph)
    maps = [[passed[site] for site in block.sites] for block in attentions.blocks]
    return AttentionPass(attentions, maps, recording)


@evidence
def attention(attention_pass: AttentionPass) -> list[Tensor]:
    """Softmaxed attention among all tokens, block by block.  l x [b heads n n]"""
    # a token that has not joined yet, or that is not updated, attends to itself
    return [
        _expand_to_all_tokens(maps, attention_pass.attentions.tokens, 1.0)
        for maps in attention_pass.maps
    ]


@evidence
def readout_weights(context: BatchContext, attention_pass: AttentionPass) -> Tensor:
    """The weight of each token where the head reads the tokens; the weights add up to 1.  [n]"""
    counts = torch.zeros(attention_pass.attentions.tokens, device=context.inputs.device)
    counts[list(attention_pass.attentions.readers)] = 1 / len(attention_pass.attentions.readers)
    return counts


@evidence
def token_grid(attention_pass: AttentionPass) -> Tensor:
    """The index of the token at each cell of the grid.  [h w]"""
    layout = attention_pass.attentions.layout
    order = torch.tensor(layout.order) if layout.order else torch.arange(prod(layout.grid))
    return layout.prefix + order.view(layout.grid)


@evidence
def attention_gradients(
    context: BatchContext, attention_pass: AttentionPass, target: ScoreFunction
) -> list[Tensor]:
    """The score's gradients with respect to the attention of all blocks.  l x [b heads n n]"""
    with torch.enable_grad():
        scores = target(attention_pass.recording.logits, None)
    sites = [site for maps in attention_pass.maps for site in maps]
    site_gradients = iter(_differentiate(context, scores, sites))
    gradients = [[next(site_gradients) for _ in maps] for maps in attention_pass.maps]
    return [
        _expand_to_all_tokens(maps, attention_pass.attentions.tokens, 0.0) for maps in gradients
    ]


@dataclass(frozen=True)
class BlockReadout:
    """Blocks whose outputs have one shape, with these outputs and the logits that they give.

    outputs [l*b ...] one block after another, logits [l*b k]; autograd records from the outputs on.
    """

    blocks: tuple[str, ...]
    outputs: Tensor
    logits: Tensor


@evidence
def block_readouts(context: BatchContext, attention_pass: AttentionPass) -> list[BlockReadout]:
    """Computes each block's logits, as if it were the last block.

    The block's tokens go to the layers behind the last block with an output of the same shape.
    """
    recording = attention_pass.recording
    shapes = groupby(recording.outputs, lambda name: recording.outputs[name].shape)

    def read_blocks(blocks: tuple[str, ...]) -> BlockReadout:
        axis = attention_pass.attentions.batch_axis
        joined = torch.cat([recording.outputs[name] for name in blocks], axis)
        outputs = joined.detach().requires_grad_()
        inputs = context.inputs
        if not can_run_tail(context, blocks[-1], recording):
            inputs = inputs.repeat(len(blocks), 1, 1, 1)
        return BlockReadout(
            blocks, outputs, rerun_recorded(context.module, inputs, blocks[-1], outputs)
        )

    return [read_blocks(tuple(blocks)) for _, blocks in shapes]


@evidence
def block_gradients(
    context: BatchContext,
    attention_pass: AttentionPass,
    block_readouts: list[BlockReadout],
    target: ScoreFunction,
) -> list[Tensor]:
    """The gradients of each block's own score with respect to its attention.  l x [b heads q n]"""
    behind: dict[str, Tensor] = {}
    for reading in block_readouts:
        with torch.enable_grad():
            logits = reading.logits.chunk(len(reading.blocks))
            scores = torch.cat([target(part, None) for part in logits])
        (gradients,) = _differentiate(context, scores, [reading.outputs])
        parts = gradients.chunk(len(reading.blocks), attention_pass.attentions.batch_axis)
        behind |= zip(reading.blocks, parts, strict=True)
    outputs = attention_pass.recording.outputs
    return [
        _join_heads(
            _differentiate(context, outputs[name], maps, behind[name]),
            attention_pass.attentions.tokens,
        )
        for name, maps in zip(outputs, attention_pass.maps, strict=True)
    ]


def _differentiate(
    context: BatchContext, outputs: Tensor, inputs: Sequence[Tensor], weights: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Differentiates outputs by inputs; raises MethodError if no gradient reaches any input."""
    if not outputs.requires_grad:
        raise MethodError(NO_GRADIENT)
    weights = torch.ones_like(outputs) if weights is None else weights
    with stage("backward"), preserve_state(context.module):
        gradients = torch.autograd.grad(
            outputs, inputs, weights, retain_graph=True, allow_unused=True
        )
    if all(gradient is None for gradient in gradients):
        raise MethodError(NO_GRADIENT)
    pairs = zip(gradients, inputs, strict=True)
    return tuple(torch.zeros_like(x) if gradient is None else gradient for gradient, x in pairs)


def _join_heads(sites: Sequence[Tensor], n: int) -> Tensor:
    """Joins the heads of a block's sites, and places the keys last among n.  -> [b heads q n]"""
    heads = torch.cat([site.detach().float() for site in sites], 1)
    return F.pad(heads, (n - heads.shape[-1], 0))


def _expand_to_all_tokens(sites: Sequence[Tensor], n: int, itself: float) -> Tensor:
    """Expands a block's attention to n tokens; all others attend to themselves, by `itself`.

    sites x [b heads q m] -> [b heads n n]; q is 1 if only the class token in front attends, else m.
    """
    given = _join_heads(sites, n)
    (b, heads, q), m = given.shape[:3], sites[0].shape[-1]
    if q == n:
        return given
    full = itself * torch.eye(n, device=given.device).repeat(b, heads, 1, 1)
    first = 0 if q == 1 else n - m
    full[:, :, first : first + q] = given
    return full
