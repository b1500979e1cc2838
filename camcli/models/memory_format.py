"""In which memory format a model's inputs and weights lie: channels last, where it gives the same.

Convolutions are fastest so, and hand it on.  A model that views or strides what they put out, or
asks `is_contiguous()`, does not run then, or reads it in another order: it is tried once before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.model_cache import ModelCache
from camcli.models.model_lock import NestedCall
from camcli.models.state import left_as_found

LAST = torch.channels_last
# of the largest number: rounding makes 1e-6 in float32, 1e-3 in a GPU's TF32, and a percent in half
TOLERANCE, TF32_TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2, 5e-2
HALF = frozenset({torch.float16, torch.bfloat16})
Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Measured:
    """What was found out of a model, by the shape of its inputs.

    A single picture has an answer of its own, for what folds the batch by a view works with one.
    """

    is_trusted: bool = False
    several: dict[Shape, bool] = field(default_factory=dict)
    single: dict[Shape, bool] = field(default_factory=dict)

    def answer(self, inputs: Tensor) -> bool | None:
        """Returns what is known of inputs [b c H W]; None where that is nothing."""
        if self.is_trusted:
            return True
        shape = tuple(inputs.shape[1:])
        if shape in self.several:
            return self.several[shape]
        alone = self.single.get(shape)
        # what fails with one picture fails with more
        return alone if len(inputs) == 1 or alone is False else None

    def note(self, inputs: Tensor, answer: bool) -> None:
        """Remembers an answer for inputs [b c H W]."""
        known = self.single if len(inputs) == 1 else self.several
        known[tuple(inputs.shape[1:])] = answer


_measured: ModelCache[_Measured] = ModelCache()
# what is noted of a model stands together, under one name
NOTED = ""


def network_input(module: nn.Module, inputs: Tensor) -> Tensor:
    """Copies inputs, channels last unless the model gives something else for that.  [b c H W]"""
    takes = takes_channels_last(module, inputs)
    # always a copy, for a model may write into what it is given
    return inputs.clone(memory_format=LAST if takes else torch.contiguous_format)


def takes_channels_last(module: nn.Module, inputs: Tensor) -> bool:
    """Tells whether a model gives the same for inputs [b c H W] that are laid out channels last.

    It is measured on the first two of them, once for their shape and the model's parts.
    """
    measured = _of(module)
    answer = measured.answer(inputs)
    if answer is None:
        answer = _takes(module, inputs[:2].detach())
        if answer is not None:
            measured.note(inputs, answer)
    return bool(answer)


def trust(module: nn.Module) -> None:
    """Notes that a model, as it is, takes channels last, so that nothing is tried."""
    _measured.of(module)[NOTED] = _Measured(is_trusted=True)


def lay_out_weights(module: nn.Module, memory_format: torch.memory_format = LAST) -> None:
    """Lays the weights of convolutions out, channels last if nothing else is said."""
    for part in module.modules():
        # not the whole module: other 4-D parameters may be viewed in their own order; and tensors
        # in formats of their own cannot be laid out
        if isinstance(part, nn.Conv2d) and not hasattr(part.weight, "__tensor_flatten__"):
            part.to(memory_format=memory_format)


def lay_out_weights_if_alike(module: nn.Module, shape: tuple[int, int, int]) -> None:
    """Lays the weights of convolutions out channels last, and back where that changes the output.

    It is tried on noise (channels, H, W).
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    noise = noise.to(like.device, like.dtype)
    wanted = _output(module, noise)
    lay_out_weights(module)
    if wanted is None or not _alike(_output(module, noise, LAST), wanted):
        lay_out_weights(module, torch.contiguous_format)
        return
    _of(module).note(noise, answer=True)


def _of(module: nn.Module) -> _Measured:
    return _measured.of(module).setdefault(NOTED, _Measured())


def _takes(module: nn.Module, inputs: Tensor) -> bool | None:
    """Compares both formats; None where the model runs in neither, for a reason of its own."""
    found, wanted = _output(module, inputs, LAST), _output(module, inputs)
    if found is None and wanted is None:
        return None
    # a model may want channels last, too
    return found is not None and (wanted is None or _alike(found, wanted))


def _output(
    module: nn.Module, inputs: Tensor, memory_format: torch.memory_format = torch.contiguous_format
) -> tuple[Any] | None:
    """Runs a pass and returns its output, wrapped up; None where the model does not run on it."""
    devices = [inputs.device] if inputs.is_cuda else []
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        left_as_found(module),
        torch.random.fork_rng(devices),
    ):
        # what is drawn on the way is the same for each
        torch.manual_seed(0)
        try:
            return (module(inputs.clone(memory_format=memory_format)),)
        except NestedCall:  # nothing is wrong with the model
            raise
        except Exception:  # the answer to the question; the pass that is meant raises it again
            return None


def _alike(found: Any, wanted: Any) -> bool:
    """Tells whether two outputs are the same but for rounding, whatever holds their tensors."""
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, Tensor):
        return found.shape == wanted.shape and found.dtype == wanted.dtype and _near(found, wanted)
    if isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(_alike(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, tuple | list):
        pairs = zip(found, wanted, strict=True)
        return len(found) == len(wanted) and all(_alike(one, other) for one, other in pairs)
    return not hasattr(wanted, "__dict__") or _alike(vars(found), vars(wanted))


def _near(found: Tensor, wanted: Tensor) -> bool:
    if wanted.is_quantized:
        found, wanted = found.dequantize(), wanted.dequantize()
    if not wanted.is_floating_point():
        return torch.equal(found, wanted)
    kind, place = wanted.dtype, wanted.device.type
    tolerance = TF32_TOLERANCE if place == "cuda" else TOLERANCE
    if kind in HALF or torch.is_autocast_enabled(place):
        tolerance = HALF_TOLERANCE
    found, wanted = found.double().cpu(), wanted.double().cpu()
    finite = wanted[wanted.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    return torch.allclose(found, wanted, rtol=0, atol=tolerance * largest, equal_nan=True)
