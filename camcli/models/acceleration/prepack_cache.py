"""Weights that are laid out for their operations, kept for the passes that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from camcli.models.acceleration.onednn_conv import convolve, is_plain, prepack


@dataclass
class _CacheEntry:
    """A weight that a layer had, at which version, and as it is laid out."""

    weight: Tensor
    version: int
    prepacked: Tensor | None = None


@dataclass(frozen=True)
class PrepackCache:
    """Prepacked weights of layers, kept while the same weights are used.

    They take about as much memory as the weights.  What else was tried, and was no faster, stands
    in `camviz help speed`.
    """

    entries: dict[nn.Module, _CacheEntry] = field(default_factory=dict)

    def of(
        self, layer: nn.Conv2d | nn.Linear, lay_out: Callable[[Tensor], Tensor]
    ) -> Tensor | None:
        """Returns a layer's weight laid out, from the second time on that it is asked for."""
        weight = layer.weight
        if weight.is_inference():
            # it has no version, and so nobody could tell when it changes
            return None
        seen, version = self.entries.get(layer), weight._version
        if seen is None or seen.weight is not weight or seen.version != version:
            # a single pass would only take longer
            self.entries[layer] = _CacheEntry(weight, version)
            return None
        if seen.prepacked is None:
            seen.prepacked = lay_out(weight.detach())
        return seen.prepacked


class PrepackedConv:
    """Stands in for a convolution's `forward`, with its weight laid out where that is at hand."""

    def __init__(self, layer: nn.Conv2d, packings: PrepackCache) -> None:
        self.layer, self.plain, self.packings = layer, layer.forward, packings

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the convolution, as it was written where a graph is recorded, among others."""
        if is_plain(*args, **kwargs):
            weight = self.packings.of(self.layer, partial(prepack, self.layer, inputs=args[0]))
            if weight is not None:
                return convolve(self.layer, args[0], weight, self.layer.bias)
        return self.plain(*args, **kwargs)
