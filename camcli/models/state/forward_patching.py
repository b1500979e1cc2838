"""Replaces forwards and flags of layers for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class StandIn:
    """A forward that stands in for a layer's own one for a while, and does the same."""


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
    """Replaces a layer's `forward` in its block, and takes the replacement away afterwards."""
    state = vars(layer)
    own = {"forward": state["forward"]} if "forward" in state else {}
    state["forward"] = forward
    try:
        yield
    finally:
        del state["forward"]
        state.update(own)


def has_patched_forward(layer: nn.Module) -> bool:
    """Tells whether a layer's `forward` is replaced by something that is no method of it."""
    forward = vars(layer).get("forward")
    return forward is not None and getattr(forward, "__self__", None) is not layer


def is_hooked(layer: nn.Module) -> bool:
    """Tells whether a layer has hooks on its input or output."""
    return bool(layer._forward_pre_hooks or layer._forward_hooks)
