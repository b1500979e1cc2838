"""Keeps prepacked weights for the passes that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from camcli.models.acceleration.change_watch import TensorWatch, can_watch
from camcli.models.acceleration.onednn_conv import convolve, is_plain, prepack
from camcli.models.state import ModelParts, StandIn


@dataclass
class _CacheEntry:
    """A layer's weight as it is, and as it was prepacked."""

    watch: TensorWatch
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
        """Returns a layer's prepacked weight, from the second time on that it is asked for.

        `lay_out` prepacks it.  [out in k k] or [out in] -> the layout that it chooses; None until
        then, and for a weight whose changes cannot be seen.
        """
        weight = layer.weight
        if not can_watch(weight):
            return None
        seen = self.entries.get(layer)
        if seen is None or not seen.watch.is_unchanged([weight]):
            # for a single pass prepacking takes longer
            self.entries[layer] = _CacheEntry(TensorWatch([weight]))
            return None
        if seen.prepacked is None:
            seen.prepacked = lay_out(weight.detach())
        return seen.prepacked


class PrepackedConv(StandIn):
    """A convolution's `forward` that uses the prepacked weight once there is one."""

    def __init__(self, layer: nn.Conv2d, prepack_cache: PrepackCache) -> None:
        self.layer, self.plain, self.prepack_cache = layer, layer.forward, prepack_cache

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Convolves with the prepacked weight, unless a graph is recorded."""
        if is_plain(*args, **kwargs):
            weight = self.prepack_cache.of(self.layer, partial(prepack, self.layer, inputs=args[0]))
            if weight is not None:
                return convolve(self.layer, args[0], weight, self.layer.bias)
        return self.plain(*args, **kwargs)


def find_prepack_cache(parts: ModelParts) -> PrepackCache | None:
    """Finds what keeps the prepacked weights of these layers; None outside of a block."""
    forwards = [own["forward"] for own in parts.attributes if "forward" in own]
    return next((f.prepack_cache for f in forwards if isinstance(f, PrepackedConv)), None)
