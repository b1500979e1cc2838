"""Chooses the memory format of inputs and weights: channels last where the output stays the same.

Convolutions are fastest in it, and their outputs have it, too.  Only a single picture in a network
of large kernels is not worth the copies of the weights that torch makes in each pass.  A model that
calls `view`, reads strides or asks `is_contiguous()` may fail then, or read values in another
order, so each model is tried once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from weakref import ref

import torch
from torch import Tensor, nn

from camcli.models.state import ModelCache, NestedCall, preserve_state, seed_random_state

LAST = torch.channels_last
# of the largest number: rounding makes 1e-6 in float32, 1e-3 in a GPU's TF32, and a percent in half
TOLERANCE, TF32_TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2, 5e-2
HALF = frozenset({torch.float16, torch.bfloat16})
# numbers of weights for each picture that torch copies into channels last in a pass, and then loses
# more time than it gains
MOST_COPIED = 2**23
Shape = tuple[int, ...]


@dataclass(frozen=True)
class _FormatAnswers:
    """Whether a model accepts channels last, by the shape of its inputs.

    A single picture has an answer of its own: a view that folds the batch works with one picture.
    """

    is_trusted: bool = False
    several: dict[Shape, bool] = field(default_factory=dict)
    single: dict[Shape, bool] = field(default_factory=dict)

    def answer(self, inputs: Tensor) -> bool | None:
        """Returns the answer for inputs [b c H W]; None if there is none yet."""
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


@dataclass(frozen=True)
class _CopiedWeights:
    """The weights that torch copies for channels last: their numbers, and the largest's layer."""

    numel: int = 0
    # not held, since it may be the model itself
    largest: ref[nn.Conv2d] | None = None

    @classmethod
    def of(cls, module: nn.Module) -> _CopiedWeights:
        layers = [part for part in module.modules() if _is_copied(part)]
        if not layers:
            return cls()
        largest = max(layers, key=lambda layer: layer.weight.numel())
        return cls(sum(layer.weight.numel() for layer in layers), ref(largest))


_answers: ModelCache[_FormatAnswers] = ModelCache()
_copied: ModelCache[_CopiedWeights] = ModelCache()
# all answers of a model are one attribute of it
ATTRIBUTE_MARK = ""


def copy_to_model_format(module: nn.Module, inputs: Tensor) -> Tensor:
    """Copies inputs, channels last if the model accepts that and gains by it.  [b c H W]"""
    takes = accepts_channels_last(module, inputs) and not _costs_more(module, inputs)
    # always a copy, because a model may write into its input
    return inputs.clone(memory_format=LAST if takes else torch.contiguous_format)


def _is_copied(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer's weight lies otherwise than channels last on a CPU."""
    if type(layer) is not nn.Conv2d or layer.weight.device.type != "cpu":
        return False
    # kernels of one pixel lie alike in both
    return not layer.weight.is_contiguous(memory_format=LAST)


def _costs_more(module: nn.Module, inputs: Tensor) -> bool:
    """Tells whether copies of the weights take longer than channels last saves."""
    known = _copied.of(module)
    copied = known.get(ATTRIBUTE_MARK)
    if copied is None:
        copied = known[ATTRIBUTE_MARK] = _CopiedWeights.of(module)
    largest = copied.largest() if copied.largest else None
    if largest is None or copied.numel <= MOST_COPIED * len(inputs):
        return False
    # those that are prepacked for this pass, or were laid out since, are not copied
    return "forward" not in vars(largest) and _is_copied(largest)


def accepts_channels_last(module: nn.Module, inputs: Tensor) -> bool:
    """Tells whether a model's output stays the same for inputs [b c H W] in channels last.

    It is measured on the first two of them, once for each shape.
    """
    measured = _find_answers(module)
    answer = measured.answer(inputs)
    if answer is None:
        answer = _compare_formats(module, inputs[:2].detach())
        if answer is not None:
            measured.note(inputs, answer)
    return bool(answer)


def trust_channels_last(module: nn.Module) -> None:
    """Notes that a model accepts channels last, so that it is not measured."""
    _answers.of(module)[ATTRIBUTE_MARK] = _FormatAnswers(is_trusted=True)


def convert_weights_format(module: nn.Module, memory_format: torch.memory_format = LAST) -> None:
    """Converts the weights of convolutions, by default to channels last."""
    for part in module.modules():
        # not the whole module: other 4-D parameters may be viewed in their own order; and tensors
        # in formats of their own cannot be laid out
        if isinstance(part, nn.Conv2d) and not hasattr(part.weight, "__tensor_flatten__"):
            part.to(memory_format=memory_format)


def convert_weights_format_if_safe(module: nn.Module, shape: tuple[int, int, int]) -> None:
    """Converts the weights of convolutions to channels last if that does not change the output.

    It is tried on noise (channels, H, W).
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    noise = noise.to(like.device, like.dtype)
    expected = _find_output_path(module, noise)
    convert_weights_format(module)
    if expected is None or not _is_same(_find_output_path(module, noise, LAST), expected):
        convert_weights_format(module, torch.contiguous_format)
        return
    _find_answers(module).note(noise, answer=True)


def _find_answers(module: nn.Module) -> _FormatAnswers:
    return _answers.of(module).setdefault(ATTRIBUTE_MARK, _FormatAnswers())


def _compare_formats(module: nn.Module, inputs: Tensor) -> bool | None:
    """Compares the outputs of both formats; None if the model runs in neither."""
    actual, expected = _find_output_path(module, inputs, LAST), _find_output_path(module, inputs)
    if actual is None and expected is None:
        return None
    if expected is None:
        # it runs in channels last alone, whatever that costs
        _copied.of(module)[ATTRIBUTE_MARK] = _CopiedWeights()
    # a model may want channels last, too
    return actual is not None and (expected is None or _is_same(actual, expected))


def _find_output_path(
    module: nn.Module, inputs: Tensor, memory_format: torch.memory_format = torch.contiguous_format
) -> tuple[Any] | None:
    """Runs a pass and returns its output, wrapped up; None where the model does not run on it."""
    devices = [inputs.device] if inputs.is_cuda else []
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        preserve_state(module),
        torch.random.fork_rng(devices),
    ):
        # random numbers drawn in the pass are the same for both
        seed_random_state(0, inputs.device)
        try:
            return (module(inputs.clone(memory_format=memory_format)),)
        except NestedCall:  # nothing is wrong with the model
            raise
        except Exception:  # the model does not take the format; the real pass raises again
            return None


def _is_same(actual: Any, expected: Any) -> bool:
    """Tells whether the tensors in two outputs are the same but for rounding."""
    if type(actual) is not type(expected):
        return False
    if isinstance(expected, Tensor):
        return (
            actual.shape == expected.shape
            and actual.dtype == expected.dtype
            and _is_close(actual, expected)
        )
    if isinstance(expected, Mapping):
        return actual.keys() == expected.keys() and all(
            _is_same(actual[k], expected[k]) for k in expected
        )
    if isinstance(expected, tuple | list):
        pairs = zip(actual, expected, strict=True)
        return len(actual) == len(expected) and all(_is_same(one, other) for one, other in pairs)
    return not hasattr(expected, "__dict__") or _is_same(vars(actual), vars(expected))


def _is_close(actual: Tensor, expected: Tensor) -> bool:
    if expected.is_quantized:
        actual, expected = actual.dequantize(), expected.dequantize()
    if not expected.is_floating_point():
        return torch.equal(actual, expected)
    kind, place = expected.dtype, expected.device.type
    tolerance = TF32_TOLERANCE if place == "cuda" else TOLERANCE
    if kind in HALF or torch.is_autocast_enabled(place):
        tolerance = HALF_TOLERANCE
    # a model may return its own weights, as CLIP does its scale
    actual, expected = (t.detach().double().cpu() for t in (actual, expected))
    finite = expected[expected.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    return torch.allclose(actual, expected, rtol=0, atol=tolerance * largest, equal_nan=True)
