"""Matches weights of unknown names by their order, if only one match is possible.

All layers have to follow each other with the same kinds and shapes of weights as the model's.
Layers that could be exchanged are told apart by their names alone: these have to count upward, or
to begin alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise, zip_longest
from math import log10
from statistics import median

import torch
from torch import Tensor, nn

from camcli.models.checkpoints.cross_library_keys import find_kind
from camcli.models.model_spec import Weights

HEAD = 2  # a classifier's weight and bias

# how many times larger or smaller than what a layer gives its noted variance may be;
# layers of trained networks stay far below it on noise
LARGEST_RATIO = 1000.0


def place_by_order(
    weights: Weights, model_state: Mapping[str, Tensor], free: Mapping[str, int]
) -> Weights | None:
    """Returns the weights under the model's names, None where the order may be another.

    `free` has the axis in which a weight may have another length: classes, or channels.
    """
    given = {k: w for k, w in weights.items() if _is_counted(w)}
    own = {k: w for k, w in model_state.items() if _is_counted(w)}
    # safetensors sorts by name, and the order says nothing then
    if len(given) != len(own) or list(given) == sorted(given):
        return None
    pairs = list(zip(given, own, strict=True))
    if not all(
        find_kind(theirs) == find_kind(name) and _fits(given[theirs], own[name], free.get(name))
        for theirs, name in pairs
    ):
        return None
    if not _is_layer_match(pairs) or not _is_only_order(pairs, own):
        return None
    return {name: given[theirs] for theirs, name in pairs}


def is_by_name(weights: Weights, model_state: Mapping[str, Tensor]) -> bool:
    """Tells whether weights of the model's kinds and shapes lie in the order of other names.

    But for a classifier of other classes.
    """
    given, own = (
        Counter((find_kind(name), w.shape) for name, w in some.items() if _is_counted(w))
        for some in (weights, model_state)
    )
    names = [name for name, weight in weights.items() if _is_counted(weight)]
    return names == sorted(names) and max((given - own).total(), (own - given).total()) <= HEAD


def _is_counted(weight: Tensor) -> bool:
    return weight.is_floating_point()


def _fits(weight: Tensor, own_weight: Tensor, free: int | None) -> bool:
    if weight.ndim != own_weight.ndim:
        return False
    return all(
        theirs == own or axis == free
        for axis, (theirs, own) in enumerate(zip(weight.shape, own_weight.shape, strict=True))
    )


def _is_layer_match(pairs: Sequence[tuple[str, str]]) -> bool:
    """Tells whether the weights of one layer of the file lie in one layer of the model."""
    layer_of: dict[str, str] = {}
    return all(
        layer_of.setdefault(theirs.rpartition(".")[0], own.rpartition(".")[0])
        == own.rpartition(".")[0]
        for theirs, own in pairs
        if find_kind(own)
    )


def _is_only_order(pairs: Sequence[tuple[str, str]], model_state: Mapping[str, Tensor]) -> bool:
    """Tells whether the names confirm the order of all weights that could be exchanged."""
    alike: dict[tuple[str, torch.Size], list[tuple[str, str]]] = {}
    for theirs, own in pairs:
        alike.setdefault((find_kind(own), model_state[own].shape), []).append((theirs, own))
    return all(
        _is_confirmed(before, after) for same in alike.values() for before, after in pairwise(same)
    )


def _is_confirmed(before: tuple[str, str], after: tuple[str, str]) -> bool:
    theirs, own = (_first_difference(a, b) for a, b in zip(before, after, strict=True))
    if theirs is None or own is None:  # the names are of different depth: one is no sibling
        return True
    upward = all(_split_numbers(a) < _split_numbers(b) for a, b in (theirs, own))
    begin_alike = theirs[0][:1] == own[0][:1] and theirs[1][:1] == own[1][:1]
    return upward or (begin_alike and own[0][:1] != own[1][:1])


def _first_difference(a: str, b: str) -> tuple[str, str] | None:
    left, right = a.split("."), b.split(".")
    if len(left) != len(right):
        return None
    return next(((x, y) for x, y in zip_longest(left, right) if x != y), None)


def _split_numbers(part: str) -> list[tuple[int, int | str]]:
    """Cuts a name into words and numbers, which sort by their value."""
    cut = (word for word in re.split(r"(\d+)", part) if word)
    return [(0, int(word)) if word.isdecimal() else (1, word) for word in cut]


def is_plausible_batchnorm(module: nn.Module, size: tuple[int, int], channels: int) -> bool:
    """Tells whether the variances that BatchNorm noted are of the size that the layers give.

    Half of the layers may be off: noise is no picture.  Moments that were never noted say nothing.
    """
    ratios: list[float] = []

    def compare(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        noted: Tensor = norm.running_var  # type: ignore[assignment]
        seen = inputs[0].transpose(0, 1).flatten(1).var(1)
        usable = (noted > 0) & (seen > 0)
        if bool(usable.any()) and not bool((noted == 1).all()):
            ratios.append((seen[usable] / noted[usable]).log10().median().item())

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_var is not None:
                stack.callback(part.register_forward_pre_hook(compare).remove)
        images = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            module.eval()(images)
    return not ratios or median(map(abs, ratios)) < log10(LARGEST_RATIO)
