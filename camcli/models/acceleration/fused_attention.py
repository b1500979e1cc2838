"""Switches fused attention on in modules that have it, but leave it off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from camcli.models.acceleration.fused_window_attention import WINDOWS, FusedWindowAttention
from camcli.models.acceleration.onednn_conv import is_unrecorded
from camcli.models.inspection.attention import FUSED
from camcli.models.inspection.quirks import FUSABLE
from camcli.models.state import StandIn, is_hooked

(SWITCH,) = FUSED


class FusedAttention(StandIn):
    """A `forward` of an attention module in which its fused attention is switched on."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.plain = layer, layer.forward
        names = FUSABLE[type(layer).__name__]
        parts = (layer._modules.get(name) for name in names)
        self.left_out = [part for part in parts if part is not None]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Attends in one operation, unless a graph is recorded or a hook looks at the attention."""
        if not is_unrecorded(*args[:1]) or any(map(_is_hooked, self.left_out)):
            return self.plain(*args, **kwargs)
        with switch_on_fused_attention([self.layer]):
            return self.plain(*args, **kwargs)


def make_fused_attention(layer: nn.Module) -> Callable[..., Any] | None:
    """Returns a fused forward for an attention module, if it is known to be faster."""
    kind = type(layer)
    if kind.__name__ == WINDOWS and kind.__module__.startswith("torchvision."):
        return FusedWindowAttention(layer)
    return FusedAttention(layer) if can_fuse(layer) else None


def is_fusable(kind: type[nn.Module]) -> bool:
    """Tells whether layers of a class may have fused attention that is known to be faster."""
    return kind.__name__ == WINDOWS or kind.__name__ in FUSABLE


def can_fuse(layer: nn.Module) -> bool:
    """Tells whether a layer has fused attention that is off, and known to be faster."""
    kind = type(layer)
    left_off = kind.__name__ in FUSABLE and vars(layer).get(SWITCH) is False
    return left_off and _is_allowed(kind)


@contextmanager
def switch_on_fused_attention(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Switches fused attention on in layers for its block, and off again at its end."""
    # a module's own way to set attributes is slow
    states = [vars(layer) for layer in layers]
    for state in states:
        state[SWITCH] = True
    try:
        yield
    finally:
        for state in states:
            state[SWITCH] = False


def _is_allowed(kind: type[nn.Module]) -> bool:
    """Tells whether a class is timm's, and TIMM_FUSED_ATTN does not forbid fusing."""
    if not kind.__module__.startswith("timm."):
        return False
    # it is imported already
    from timm.layers.config import use_fused_attn

    return use_fused_attn()


def _is_hooked(layer: nn.Module) -> bool:
    return is_hooked(layer) or "forward" in vars(layer)
