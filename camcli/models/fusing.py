"""Attention in one operation, where a model has that, but leaves it off."""

from __future__ import annotations

from typing import Any

from torch import nn

from camcli.models.families import FUSABLE
from camcli.models.packing import is_unrecorded

# timm's attribute for it
SWITCH = "fused_attn"


class Fused:
    """Stands in for the `forward` of an attention module, with its fused attention switched on.

    A pass of Swin-T took 0.78 of the time with one picture and 0.73 with 8, of Swin-B 0.84 with one
    (2 cores of an Intel Xeon with AVX-512, 2026-11-28).
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.plain = layer, layer.forward
        names = FUSABLE[type(layer).__name__]
        parts = (layer._modules.get(name) for name in names)
        self.left_out = [part for part in parts if part is not None]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Attends, as it was written where a graph is recorded or somebody looks at attention."""
        if not is_unrecorded(*args[:1]) or any(map(_is_looked_at, self.left_out)):
            return self.plain(*args, **kwargs)
        # by hand: a module's own way to set attributes is slow
        state = vars(self.layer)
        state[SWITCH] = True
        try:
            return self.plain(*args, **kwargs)
        finally:
            state[SWITCH] = False


def is_fusable(layer: nn.Module) -> bool:
    """Tells whether a layer has fused attention, left off, that is known to be faster."""
    return (
        type(layer).__name__ in FUSABLE
        and vars(layer).get(SWITCH) is False
        and _is_allowed(type(layer).__module__)
    )


def _is_allowed(module: str) -> bool:
    if module.partition(".")[0] != "timm":
        return False
    # who has timm's layers already; torchvision's models need none of it
    from timm.layers.config import use_fused_attn

    # a program, or TIMM_FUSED_ATTN=0, may have switched all of it off
    return use_fused_attn()


def _is_looked_at(layer: nn.Module) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return bool(hooked) or "forward" in vars(layer)
