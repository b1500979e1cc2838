"""A model whose layers run as oneDNN has them fastest, where no graph is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from camcli.models.fusing import Fused, fused
from camcli.models.multiplying import Multiplied, is_multipliable, multiplies_here
from camcli.models.packing import Packed, Packings, is_packable
from camcli.models.state import has_stand_in, parts
from camcli.models.windows import FusedWindows


@contextmanager
def hastened(module: nn.Module, packings: Packings | None) -> Iterator[None]:
    """Hastens what a model does, and puts its layers back.

    With packings, which are for many passes, weights are laid out from the second pass on.
    """
    layers = parts(module)
    # where something stands in for a layer already, compiled code for one, nothing else does
    found = {} if any(map(has_stand_in, layers)) else dict(_stand_ins(layers, packings))
    # by hand: `standing_in` for each of a transformer's takes a hundredth of a picture's pass
    states = {layer: vars(layer) for layer in found if "forward" not in vars(layer)}
    try:
        for layer, state in states.items():
            state["forward"] = found[layer]
        yield
    finally:
        for state in states.values():
            del state["forward"]


def _stand_ins(
    layers: Sequence[nn.Module], packings: Packings | None
) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    if multiplies_here():
        for layer in layers:
            if is_multipliable(layer):
                yield layer, Multiplied(layer, packings)
    for layer in layers:
        if stand_in := fused(layer):
            yield layer, stand_in
    # to look for what to lay out takes some of a single picture's time
    if packings is not None:
        for layer in layers:
            if is_packable(layer):
                yield layer, Packed(layer, packings)


def is_hastened(layer: nn.Module) -> bool:
    """Tells whether what stands in for a layer's `forward` is what hastens it."""
    return isinstance(vars(layer).get("forward"), Packed | Multiplied | Fused | FusedWindows)
