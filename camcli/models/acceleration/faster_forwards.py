"""Runs a model's layers in faster forwards wherever no graph is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from camcli.models.acceleration.fused_attention import (
    FusedAttention,
    is_fusable,
    make_fused_attention,
)
from camcli.models.acceleration.fused_window_attention import FusedWindowAttention
from camcli.models.acceleration.onednn_conv import can_prepack
from camcli.models.acceleration.onednn_linear import (
    OneDnnLinear,
    can_accelerate_linear,
    is_onednn_usable,
)
from camcli.models.acceleration.prepack_cache import PrepackCache, PrepackedConv
from camcli.models.state import ModelParts, has_patched_forward, list_parts


@contextmanager
def accelerate(module: nn.Module, prepack_cache: PrepackCache | None) -> Iterator[None]:
    """Gives layers faster forwards for its block, and their own ones back at its end.

    With a cache of prepacked weights, weights are prepacked from the second pass on.
    """
    parts = list_parts(module)
    having = [i for i, own in enumerate(parts.attributes) if "forward" in own]
    # a layer that has another forward already, such as compiled code, keeps it
    is_patched = any(has_patched_forward(parts.modules[i]) for i in having)
    forwards = {} if is_patched else dict(_make_forwards(parts, prepack_cache))
    # set by hand, since `patch_forward` for each layer of a transformer takes too long
    states = {layer: vars(layer) for layer in forwards if "forward" not in vars(layer)}
    try:
        for layer, state in states.items():
            state["forward"] = forwards[layer]
        yield
    finally:
        for state in states.values():
            del state["forward"]


def _make_forwards(
    parts: ModelParts, prepack_cache: PrepackCache | None
) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    # by their classes first, which are few: to look at each layer takes a part of a small pass
    kinds = {kind for kind in parts.kinds if kind is nn.Linear or is_fusable(kind)}
    usable = is_onednn_usable()
    for layer in [layer for layer in parts.modules if type(layer) in kinds] if kinds else ():
        if usable and can_accelerate_linear(layer):
            yield layer, OneDnnLinear(layer, prepack_cache)
        elif stand_in := make_fused_attention(layer):
            yield layer, stand_in
    if prepack_cache is not None:
        for layer in parts.modules:
            if can_prepack(layer):
                yield layer, PrepackedConv(layer, prepack_cache)


def is_accelerated(layer: nn.Module) -> bool:
    """Tells whether a layer's `forward` is one of these faster ones."""
    return isinstance(
        vars(layer).get("forward"),
        PrepackedConv | OneDnnLinear | FusedAttention | FusedWindowAttention,
    )
