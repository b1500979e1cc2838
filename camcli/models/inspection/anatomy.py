"""Measures what kind of network a model is, and at which layers it is best explained.

Passes of noise measure all of it; names decide nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise, takewhile
from math import prod
from typing import Literal

from torch import nn

from camcli.errors import MethodError
from camcli.models.inspection.attention import measure_attentions
from camcli.models.inspection.autograd_graph import operation_name
from camcli.models.inspection.layout import TOKENS, Layout
from camcli.models.inspection.probing_pass import LayerObserver, run_probing_pass
from camcli.models.inspection.quirks import why_never_default
from camcli.models.inspection.target_layers import TargetLayer, kinds_around
from camcli.models.state import ModelCache, check_hookable

Kind = Literal["convolutional", "hierarchical", "class token", "pooled tokens", "mixed tokens"]
Shape = tuple[int, int, int]

# the stage before the last has a grid twice as fine, up to rounding
FINER = 1.5
# where the stride stops growing (dilated networks), half the channels mark a stage, too
FINE_STRIDE = 8
HALF = 0.5
# a transformer's earlier layer lies behind this share of its blocks
SHARE_OF_BLOCKS = 1 / 6


@dataclass(frozen=True)
class Anatomy:
    """A network's kind, its default target layer, and an earlier layer if there is one.

    `earlier` is the end of the stage before the last, or the block at a sixth of a transformer's
    depth.  The kind `mixed tokens` means that no attention among the tokens can be read.
    """

    kind: Kind
    last: str
    earlier: str | None


_known: ModelCache[Anatomy] = ModelCache()


def measure_anatomy(module: nn.Module, inputs_shape: Shape, default: TargetLayer) -> Anatomy:
    """Measures what kind of network this is, for inputs (channels, H, W); measures it only once.

    `default` is its default target layer.  Raises ModelError if the model does not run on noise.
    """
    module = check_hookable(module)
    known, key = _known.of(module), (inputs_shape, default.name)
    if key not in known:
        measured = _measure_tokens if default.layout.kind in TOKENS else _measure_stages
        known[key] = measured(module, inputs_shape, default)
    return known[key]


def _measure_tokens(module: nn.Module, inputs_shape: Shape, default: TargetLayer) -> Anatomy:
    try:
        attending = measure_attentions(module, inputs_shape)
    except MethodError:  # there is no attention, or none among all tokens
        return Anatomy("mixed tokens", default.name, None)
    is_token = len(attending.readers) < prod(attending.layout.grid)
    # a block's output holds all features of its tokens; a norm inside it feeds only a branch
    index = max(round(len(attending.blocks) * SHARE_OF_BLOCKS), 1) - 1
    kind: Kind = "class token" if is_token else "pooled tokens"
    return Anatomy(kind, default.name, attending.blocks[index].name)


def _measure_stages(module: nn.Module, inputs_shape: Shape, default: TargetLayer) -> Anatomy:
    observed = LayerObserver(inputs_shape[1:])
    run_probing_pass(module, inputs_shape, observed)
    attends = observed.graph is not None and any(
        operation_name(step) == "Softmax" or operation_name(step).startswith("ScaledDotProduct")
        for step in observed.graph.steps
    )
    kind: Kind = "hierarchical" if attends else "convolutional"
    return Anatomy(kind, default.name, _find_stage_before(module, observed, default))


def _find_stage_before(
    module: nn.Module, observed: LayerObserver, default: TargetLayer
) -> str | None:
    """Finds the last layer of the stage before the last that holds all features at each place."""
    last = observed.outputs[default.name]
    assert last.layout
    is_fine = max(observed.input_size) <= FINE_STRIDE * max(last.layout.grid)

    def is_before(shape: tuple[int, ...], layout: Layout) -> bool:
        pairs = zip(layout.grid, default.layout.grid, strict=True)
        is_finer = all(one >= FINER * other for one, other in pairs)
        narrow = HALF * _count_channels(last.shape, default.layout)
        return is_finer or (is_fine and _count_channels(shape, layout) <= narrow)

    for name in _iterate_backwards(observed, default.name):
        output = observed.outputs[name]
        if (
            output.layout
            and is_before(output.shape, output.layout)
            and _has_all_features(module, observed, name)
        ):
            return name
    return None


def list_spread_layers(
    module: nn.Module, inputs_shape: Shape, default: TargetLayer, count: int
) -> tuple[str, ...]:
    """Lists at most `count` layers with all features at each place, from fine to coarse grids.

    They are the last layers of the coarsest grids; the default target layer comes last.  If there
    are fewer grids, as in transformers, layers in the middle of the longest gaps between them are
    added.  Inputs are (channels, H, W).  Raises ModelError if the model does not run on noise.
    """
    module = check_hookable(module)
    observed = LayerObserver(inputs_shape[1:])
    run_probing_pass(module, inputs_shape, observed)
    if (
        default.name not in observed.outputs
    ):  # the default layer was measured on slices of the picture
        return (default.name,)
    names = [n for n in _iterate_backwards(observed, default.name) if observed.outputs[n].layout]
    # of layers that put out the same tensor, the last one
    latest = {id(observed.outputs[name]): name for name in reversed([default.name, *names])}
    usable = [
        name
        for name in latest.values()
        if name == default.name or _has_all_features(module, observed, name)
    ]
    usable.sort(key=list(observed.outputs).index)
    grids = {observed.outputs[name].layout.grid: name for name in usable}  # type: ignore[union-attr]
    coarsest = sorted(grids.values(), key=usable.index)[-count:]
    chosen = {usable.index(name) for name in {*coarsest, default.name}}
    while len(chosen) < min(count, len(usable)):
        chosen.add(_find_middle(chosen))
    return tuple(usable[place] for place in sorted(chosen))


def _find_middle(chosen: Collection[int]) -> int:
    """Returns the middle of the longest gap between numbers, of the last such gap; from -1 on."""
    ends = sorted({-1, *chosen}, reverse=True)
    high, low = max(pairwise(ends), key=lambda ends: ends[0] - ends[1])
    return (low + high) // 2


def _has_all_features(module: nn.Module, observed: LayerObserver, name: str) -> bool:
    """Tells whether a layer holds all features at each place, and the score depends on it."""
    share = observed.outputs[name].share
    # in an untrained model, zero-initialised branches pass only a part of the gradient
    is_used = share is not None and share.item() > 0
    return is_used and not (
        observed.why_no_default(name) or why_never_default(kinds_around(module, name))
    )


def _iterate_backwards(observed: LayerObserver, layer: str) -> Iterator[str]:
    """Yields the layers that finished before a given layer, the latest first."""
    yield from reversed(list(takewhile(lambda name: name != layer, observed.outputs)))


def _count_channels(shape: tuple[int, ...], layout: Layout) -> int:
    return shape[1 if layout.kind in ("nchw", "channel tokens") else -1]
