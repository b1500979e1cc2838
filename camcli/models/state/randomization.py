"""Draws the weights of some layers of a model anew, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camcli.errors import ModelError
from camcli.models.state.model_state import (
    check_hookable,
    preserve_state,
    seed_random_state,
)


@dataclass(frozen=True)
class WeightedLayer:
    """A layer with weights of its own: its name, and how many layers' weights are used after it.

    The name is that in `named_modules()`, empty for the model itself.
    """

    name: str
    module: nn.Module
    depth: int

    def redraw(self, seed: int) -> None:
        """Draws the layer's own weights anew, always the same ones for a seed and a depth.

        By `reset_parameters`, as the layer was made; what that leaves alone, or where there is
        none, from a normal distribution with each tensor's own mean and deviation.
        """
        before = {name: value.detach().clone() for name, value in _list_own_weights(self.module)}
        own = [value for _, value in _list_own_weights(self.module)]
        seed_random_state(seed + self.depth, own[0].device)
        reset = getattr(self.module, "reset_parameters", None)
        with _allow_writing(own):
            if callable(reset):
                reset()
            for name, value in _list_own_weights(self.module):
                if torch.equal(value, before[name]):
                    value.normal_(float(value.mean()), float(value.std(correction=0)))


def _list_own_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in module._parameters.items():
        if value is not None and value.is_floating_point() and value.numel():
            yield name, value


def find_weighted_layers(module: nn.Module, inputs: Tensor) -> tuple[WeightedLayer, ...]:
    """Lists the layers whose weights a pass uses, from the output back to the input.

    inputs [b 3 H W].  The order is measured: a layer stands where its weights are used last, so
    that a head that is defined first comes first.  Weights that the pass does not use, as those of
    an auxiliary head, are not among them.  Raises ModelError where there are none.
    """
    module = check_hookable(module)
    owners: dict[int, tuple[str, nn.Module]] = {}
    for name, layer in module.named_modules():
        for _, value in _list_own_weights(layer):
            owners.setdefault(id(value), (name, layer))
    uses = _Uses(owners)
    with preserve_state(module), torch.no_grad(), uses:
        module(inputs)
    last: dict[str, int] = {}
    for key, moment in uses.moments.items():
        name = owners[key][0]
        last[name] = max(last.get(name, 0), moment)
    if not last:
        raise ModelError(
            f"This {type(module).__name__} uses no floating-point weights that could be drawn anew:"
            " sanity checks need the model before it was quantised or exported."
        )
    modules = dict(module.named_modules())
    order = sorted(last, key=lambda name: -last[name])
    return tuple(WeightedLayer(name, modules[name], n) for n, name in enumerate(order))


class _Uses(TorchFunctionMode):
    """Notes when each of some tensors was last given to a function of torch."""

    def __init__(self, watched: Iterable[int]) -> None:
        super().__init__()
        self.watched, self.calls = frozenset(watched), 0
        self.moments: dict[int, int] = {}

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.calls += 1
        # a look at an attribute, such as a weight's type, is no use of its values
        if getattr(func, "__name__", "") != "__get__":
            self._note((args, kwargs))
        return func(*args, **(kwargs or {}))

    def _note(self, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) in self.watched:
                self.moments[id(value)] = self.calls
        elif isinstance(value, list | tuple):
            for part in value:
                self._note(part)
        elif isinstance(value, Mapping):
            self._note(list(value.values()))


@contextmanager
def randomize_layers(
    module: nn.Module, layers: Iterable[WeightedLayer], seed: int = 0
) -> Iterator[None]:
    """Gives layers fresh weights inside the block, and the old ones back afterwards.

    Weights and statistics are written in place, and no tensor changes hands; the caller's random
    numbers go on as if nothing had been drawn.
    """
    tensors = [*module.parameters(), *module.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    slots: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (held, dict(held))
        for layer in module.modules()
        for held in (layer._parameters, layer._buffers)
    ]
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    try:
        with torch.random.fork_rng(list(devices)):
            for layer in layers:
                layer.redraw(seed)
        yield
    finally:
        # a layer's own code may have put other tensors in their places
        for held, before in slots:
            held.update(before)
        for tensor, values in zip(tensors, kept, strict=True):
            # only what differs: writing makes everybody's copies of a weight stale
            if not torch.equal(tensor, values):
                with _allow_writing([tensor]):
                    tensor.copy_(values)


@contextmanager
def _allow_writing(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Allows tensors to be written in place, those of inference mode too."""
    # not for others: inference mode would hide from caches that they were written
    with torch.inference_mode(any(tensor.is_inference() for tensor in tensors)), torch.no_grad():
        yield
