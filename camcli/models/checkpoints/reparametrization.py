"""Joins weights that a file keeps in parts: pruned, weight-normalised or spectral-normalised.

What is computed is what PyTorch computes in evaluation mode: `torch.nn.utils.apply_pruning_mask`,
`torch.nn.utils.weight_norm` (arXiv:1602.07868 eq. 2) and `spectral_norm` (arXiv:1802.05957 eq. 8),
each in its older form of hooks and, where there is one, as a parametrization.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from camcli.models.model_spec import Weights

PARAMETRIZATION_PATTERN = re.compile(r"(^|\.)parametrizations\.")


@dataclass(frozen=True)
class Form:
    """What the parts of a weight are called, `{}` being its name, and how they make it up."""

    parts: tuple[str, ...]
    compute: Callable[..., Tensor]


def apply_pruning_mask(weight: Tensor, mask: Tensor) -> Tensor:
    """Multiplies the weight by its pruning mask."""
    if weight.shape != mask.shape:
        raise ValueError("a mask has its weight's shape")
    return weight * mask


def normalize_weight(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Gives each direction its magnitude; the norm is taken over the axes on which that is 1."""
    squares = direction.square()
    if magnitude.ndim != direction.ndim:  # one magnitude for the whole layer
        return direction * (magnitude / squares.sum().sqrt())
    for axis, length in enumerate(magnitude.shape):
        squares = squares.sum(axis, keepdim=True) if length == 1 else squares
    return direction * (magnitude / squares.sqrt())


def normalize_spectrum(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Divides a weight by its largest singular value, u W v; u belongs to the outputs."""
    # a transposed convolution has its outputs on the second axis
    rows = weight if len(left) == len(weight) else weight.transpose(0, 1)
    return weight / (left @ (rows.flatten(1) @ right))


FORMS: Sequence[Form] = (
    Form(("{}_orig", "{}_mask"), apply_pruning_mask),
    Form(("{}_g", "{}_v"), normalize_weight),
    Form(("{}_orig", "{}_u", "{}_v"), normalize_spectrum),
)
PARAMETRIZATIONS: Sequence[Form] = (
    Form(("{}.original0", "{}.original1"), normalize_weight),
    Form(("{}.original", "{}.0._u", "{}.0._v"), normalize_spectrum),
)


def merge_parts(weights: Weights) -> Weights:
    """Returns the weights with their parts joined, in the same order.

    Raises ValueError, RuntimeError or IndexError for parts whose shapes do not belong together.
    """
    merged = _merge(_merge(weights, PARAMETRIZATIONS), FORMS)
    # a pruned weight may have been a part of another
    return weights if merged.keys() == weights.keys() else merge_parts(merged)


def _is_stored(weight: Tensor | None) -> bool:
    """Tells whether there is a weight, and as many numbers in the file as it has."""
    if weight is None:
        return False
    return weight.numel() * weight.element_size() <= weight.untyped_storage().nbytes()


def _merge(weights: Weights, forms: Sequence[Form]) -> Weights:
    merged: dict[str, Tensor] = {}
    parts_of: dict[str, tuple[Form, str]] = {}
    for form in forms:
        first = form.parts[0].removeprefix("{}")
        for name in weights:
            whole = name.removesuffix(first)
            parts = [part.format(whole) for part in form.parts]
            if name.endswith(first) and all(_is_stored(weights.get(part)) for part in parts):
                parts_of.update(dict.fromkeys(parts, (form, whole)))
    for name, weight in weights.items():
        if name not in parts_of:
            merged.setdefault(name, weight)
            continue
        form, whole = parts_of[name]
        plain = PARAMETRIZATION_PATTERN.sub(r"\1", whole)
        if plain not in merged:
            merged[plain] = form.compute(*(weights[part.format(whole)] for part in form.parts))
    return merged
