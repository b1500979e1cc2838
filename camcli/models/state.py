"""A model in the state in which it can be watched, and left as it was found (law 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


@contextmanager
def left_as_found(module: nn.Module) -> Iterator[None]:
    """Evaluates a model with frozen weights, and puts its and the caller's state back afterwards.

    Frozen, because a graph keeps no inputs for frozen weights.
    """
    training = {layer: layer.training for layer in module.modules()}
    parameters = list(module.parameters())
    learning = [p for p in parameters if p.requires_grad and not p.is_inference()]
    devices = {p.device for p in parameters if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)):
        try:
            module.eval()
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
            for layer, was_training in training.items():
                layer.training = was_training


def recordable(module: nn.Module) -> Callable[[Tensor], Any]:
    """Returns the model with clones of its inference tensors, which no graph can hold."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    clones = {name: tensor.clone() for name, tensor in tensors.items() if tensor.is_inference()}
    return partial(functional_call, module, clones) if clones else module
