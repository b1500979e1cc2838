"""Runs linear layers in oneDNN where MKL, torch's usual library, is slower."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from camcli.models.acceleration.onednn_conv import (
    is_plain_weight,
    is_prepacking_supported,
    is_unrecorded,
)
from camcli.models.acceleration.prepack_cache import PrepackCache
from camcli.models.state import StandIn
from camcli.utils.cpu import find_processor_maker

# by the processor's maker: the instructions that oneDNN needs to be faster than MKL, as torch calls
# them, and the most multiplications with a weight that is not prepacked (camviz help speed)
TESTED_PROCESSORS: Mapping[str, tuple[str, float]] = {
    "AuthenticAMD": ("", inf),
    "GenuineIntel": ("AVX512", 2**30),
}
# torch.compile's own, which other versions of torch may not have
OPERATORS = ("_linear_pointwise", "_reorder_linear_weight")
# the fewest multiplications: with fewer of them MKL is faster
FEWEST = 2**25


class OneDnnLinear(StandIn):
    """A linear layer's `forward` in oneDNN, with its weight prepacked if a cache is given."""

    def __init__(self, layer: nn.Linear, prepack_cache: PrepackCache | None) -> None:
        self.layer, self.plain, self.prepack_cache = layer, layer.forward, prepack_cache

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Multiplies in oneDNN, unless a graph is recorded or the layer is small."""
        if is_unrecorded(*args, **kwargs) and self._is_large(args[0]):
            weight = self._weight_for(args[0])
            if weight is not None:
                return _multiply(args[0], weight, self.layer.bias)
        return self.plain(*args, **kwargs)

    def _is_large(self, inputs: Tensor) -> bool:
        # inputs of a wrong width get torch's own error
        fits = inputs.ndim > 0 and inputs.shape[-1] == self.layer.in_features
        return fits and self._size(inputs) >= FEWEST

    def _size(self, inputs: Tensor) -> int:
        return inputs.numel() * self.layer.out_features

    def _weight_for(self, inputs: Tensor) -> Tensor | None:
        if self.prepack_cache is not None:
            rows = inputs.shape[:-1].numel()
            weight = self.prepack_cache.of(self.layer, lambda w: _prepack(w, rows))
            if weight is not None:
                return weight
        return self.layer.weight if self._size(inputs) <= _limit_products() else None


def _multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], None)
    return output


def _prepack(weight: Tensor, rows: int) -> Tensor:
    prepacked: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return prepacked


def is_onednn_usable() -> bool:
    """Tells whether oneDNN can multiply here, on a processor on which that was measured."""
    return _limit_products() > 0 and is_prepacking_supported(OPERATORS)


def _limit_products() -> float:
    """Returns the most multiplications for which a plain weight is fast here; 0 means none."""
    instructions, most = TESTED_PROCESSORS.get(find_processor_maker(), ("", 0))
    return most if torch.backends.cpu.get_cpu_capability().startswith(instructions) else 0


def can_accelerate_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Tells whether a layer is a plain linear layer in float32."""
    # subclasses may use their weight in another way
    return type(layer) is nn.Linear and is_plain_weight(layer.weight)
