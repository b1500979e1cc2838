"""Other forwards and flags in place of a layer's own, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def switch_off(layers: Iterable[nn.Module], names: Iterable[str]) -> Iterator[None]:
    """Sets the named attributes to False where they are on, and puts them back afterwards."""
    states = [vars(layer) for layer in layers]
    on = [(state, name, state[name]) for state in states for name in names if state.get(name)]
    try:
        for state, name, _ in on:
            state[name] = False
        yield
    finally:
        for state, name, value in on:
            state[name] = value


@contextmanager
def patch_forward(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Lets something else stand in for a layer's `forward`, and takes it away afterwards."""
    state = vars(layer)
    own = {"forward": state["forward"]} if "forward" in state else {}
    state["forward"] = forward
    try:
        yield
    finally:
        del state["forward"]
        state.update(own)


def has_patched_forward(layer: nn.Module) -> bool:
    """Tells whether something stands in for a layer's `forward`, and no method of its own."""
    forward = vars(layer).get("forward")
    return forward is not None and getattr(forward, "__self__", None) is not layer


def is_hooked(layer: nn.Module) -> bool:
    """Tells whether somebody looks at what goes into a layer, or comes out."""
    return bool(layer._forward_pre_hooks or layer._forward_hooks)
