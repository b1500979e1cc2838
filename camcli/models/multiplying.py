"""Linear layers that oneDNN multiplies, on processors where torch's usual library is slower."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from camcli.machine import processor_maker
from camcli.models.packing import Packings, is_plain_weight, is_unrecorded, works_here

# what was tried: MKL, which torch takes for linear layers, is of another maker
MAKERS = ("AuthenticAMD",)
# torch.compile's own, which other versions of torch may not have
OPERATORS = ("_linear_pointwise", "_reorder_linear_weight")
# the least of multiplications: MKL is done with fewer before oneDNN has begun
FEWEST = 2**25


class Multiplied:
    """Stands in for a linear layer's `forward`, with its weight laid out where there are packings.

    A pass took, with one picture, and with weights laid out, 0.88 to 0.96 and 0.84 to 0.92 of the
    time in Swin-T, 0.93 and 0.86 to 0.92 in ConvNeXt-T, 0.83 to 0.86 and 0.82 in ViT-B/16 (2 cores
    of an AMD EPYC, 2026-11-27).  Tried, too: MKL's laid out, 0.95 to 0.99; GELU in the same
    operation, 1.02 of that in Swin-T, 1.00 in ViT-B/16 and 0.89 in ConvNeXt-T.
    """

    def __init__(self, layer: nn.Linear, packings: Packings | None) -> None:
        self.layer, self.plain, self.packings = layer, layer.forward, packings

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Multiplies, as it was written where a graph is recorded, among others."""
        if is_unrecorded(*args, **kwargs) and self._is_worth_it(args[0]):
            return self._multiplied(args[0])
        return self.plain(*args, **kwargs)

    def _is_worth_it(self, inputs: Tensor) -> bool:
        layer = self.layer
        # what does not fit gets torch's own error
        fits = inputs.ndim > 0 and inputs.shape[-1] == layer.in_features
        return fits and inputs.numel() * layer.out_features >= FEWEST

    def _multiplied(self, inputs: Tensor) -> Tensor:
        layer, weight = self.layer, None
        if self.packings is not None:
            rows = inputs.shape[:-1].numel()
            weight = self.packings.of(layer, lambda w: _laid_out(w, rows))
        weight = layer.weight if weight is None else weight
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, weight, layer.bias, "none", [], None
        )
        return output


def _laid_out(weight: Tensor, rows: int) -> Tensor:
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return found


def multiplies_here() -> bool:
    """Tells whether oneDNN can multiply here, and is the faster one."""
    return processor_maker() in MAKERS and works_here(OPERATORS)


def is_multipliable(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Tells whether a layer is linear, and does with its weight what its class says, in float32."""
    # subclasses make something else of their weight
    return type(layer) is nn.Linear and is_plain_weight(layer.weight)
