"""Finds the repeating blocks of a model, which are worth compiling by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.state import in_this_thread, preserve_state


def find_blocks(module: nn.Module, layers: Iterable[str]) -> dict[str, nn.Module]:
    """Finds the parts to compile: blocks that repeat, and parts without such blocks inside.

    A part around a target layer is not compiled, because the hook inside it must be called.  The
    target layer itself may be compiled: its hook is called outside of its forward.
    """
    # whole stages are no faster, and each stage would be compiled rather than each kind of block
    around = {name.rpartition(".")[0] for name in _list_parents(layers)}
    targets: dict[str, nn.Module] = {}

    def search(inside: nn.Module, prefix: str) -> None:
        for key, child in inside.named_children():
            name = f"{prefix}{key}"
            if not any(True for _ in child.children()):
                continue  # a single operation gains nothing
            if name in around or _has_repeats(child):
                search(child, f"{name}.")
            else:
                targets[name] = child

    search(module, "")
    return targets


def _list_parents(layers: Iterable[str]) -> Iterator[str]:
    for layer in layers:
        parts = layer.split(".")
        yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _has_repeats(layer: nn.Module) -> bool:
    """Tells whether a layer holds a sequence of blocks of one kind, compiled only once."""
    for part in layer.modules():
        if isinstance(part, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            kinds = [type(child) for child in part.children() if any(child.children())]
            if len(kinds) > len(set(kinds)):
                return True
    return False


def find_compile_targets(
    module: nn.Module, inputs: Tensor, layers: Iterable[str]
) -> dict[str, nn.Module]:
    """Finds the blocks to compile, by name, without those with a linear layer of pooled features.

    The model runs once, on inputs [b c H W].  Parts around the target `layers` are not compiled.
    """
    heads: set[nn.Module] = set()

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if args and args[0].ndim == 2:
            heads.add(layer)

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, nn.Linear):
                stack.callback(part.register_forward_pre_hook(in_this_thread(note)).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(preserve_state(module))
        module(inputs)
    targets = find_blocks(module, layers).items()
    return {name: layer for name, layer in targets if heads.isdisjoint(layer.modules())}
