"""Sanity checks: whether a map depends on the weights, and on the class, at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.engine.api import heatmaps
from camcli.errors import UsageError
from camcli.methods.postprocessing import normalise
from camcli.metrics.sanity.hog_similarity import hog_similarity
from camcli.metrics.sanity.rank_correlation import rank_correlation
from camcli.metrics.sanity.structural_similarity import structural_similarity
from camcli.models.state import find_weighted_layers, randomize_layers
from camcli.registry import depends_on_category, find_method_name

Order = Literal["cascading", "independent"]
Targets = Tensor | Sequence[int]
SHIFT = 16  # pixels of the network's input

Similarity = Callable[[Tensor, Tensor], Tensor]

# computed on maps between 0 and 1, at the input's size
SIMILARITIES: Mapping[str, Similarity] = {
    "ssim": structural_similarity,
    "rank": rank_correlation,
    "hog": hog_similarity,
}


@dataclass(frozen=True)
class SanityStep:
    """The similarity of maps before and after layers got fresh weights.

    `similarities` is {method: {`ssim`, `rank`, `hog`: [b]}}, NaN for a map that is constant or not
    finite.  `layer` is the layer that this step adds, and `randomized` the number of layers with
    fresh weights: in a cascade all layers behind it as well.
    """

    layer: str
    randomized: int
    similarities: Mapping[str, Mapping[str, Tensor]]


def randomize_step_by_step(
    module: nn.Module,
    inputs: Tensor,
    methods: Sequence[str],
    targets: Targets | None = None,
    *,
    order: Order = "cascading",
    steps: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Iterator[SanityStep]:
    """Compares maps with those of the same model with fresh weights, arXiv:1810.03292, section 4.

    `targets` [b] are the explained classes of `inputs` [b 3 H W]; they stay while the weights
    change.  `cascading` (the default) draws new weights for the last layer, then for the last two,
    and so on to the input; `independent` for one layer at a time.  `steps` of the layers are tried,
    evenly spread from the first to the last; by default all of them.  `options` are those of
    `camcli.heatmaps`.  The model is left as it was found after each step.

    Raises UsageError if a method explains a class and there are no targets: a predicted class
    changes with the weights, and so does its map.
    """
    names = [find_method_name(method) for method in methods]
    asking = [name for name in names if depends_on_category(name)]
    if asking and targets is None:
        raise UsageError(
            f"{asking[0]} explains a class, and fresh weights may predict another class: give "
            "targets, a class for each picture."
        )
    layers = find_weighted_layers(module, inputs)
    plain = _normalise_all(module, inputs, names, targets, options)
    for index in _choose_steps(len(layers), steps):
        fresh = layers[: index + 1] if order == "cascading" else layers[index : index + 1]
        with randomize_layers(module, fresh, seed):
            altered = _normalise_all(module, inputs, names, targets, options)
        yield SanityStep(
            layers[index].name,
            len(fresh),
            {name: compare_maps(plain[name], altered[name]) for name in names},
        )


def compare_classes(
    module: nn.Module,
    inputs: Tensor,
    methods: Sequence[str],
    targets: Targets,
    others: Targets,
    **options: Any,
) -> Mapping[str, Mapping[str, Tensor]]:
    """Compares the maps of one class with those of another.  inputs [b 3 H W], targets [b] each

    -> {method: {`ssim`, `rank`, `hog`: [b]}}; similar maps do not tell the classes apart.  Raises
    UsageError if a class is compared with itself.
    """
    one, other = torch.as_tensor(targets), torch.as_tensor(others)
    if (one == other).any():
        raise UsageError(
            f"Class {int(one[one == other][0])} is compared with itself: give another class."
        )
    names = [find_method_name(method) for method in methods]
    plain, altered = (_normalise_all(module, inputs, names, t, options) for t in (one, other))
    return {name: compare_maps(plain[name], altered[name]) for name in names}


def compare_views(
    module: nn.Module,
    inputs: Tensor,
    methods: Sequence[str],
    targets: Targets | None = None,
    **options: Any,
) -> Mapping[str, Mapping[str, Tensor]]:
    """Compares maps with those of the mirrored and of the shifted picture, moved back.

    inputs [b 3 H W], targets [b] -> {method: {`flip`, `shift`: rank correlation [b]}}, after
    arXiv:2304.06715.  The picture is shifted by `SHIFT` pixels, or by a quarter of an edge if that
    is less.  Pixels that leave it come in on the other side, and only those that stayed inside are
    compared.  NaN for a constant map.
    """
    names = [find_method_name(method) for method in methods]
    down, right = (min(SHIFT, edge // 4) for edge in inputs.shape[-2:])
    views = (inputs, inputs.flip(-1), inputs.roll((down, right), (-2, -1)))
    plain, flipped, moved = (_normalise_all(module, v, names, targets, options) for v in views)
    return {
        name: {
            "flip": _correlate(plain[name], flipped[name].flip(-1)),
            "shift": _correlate(
                plain[name][:, : -down or None, : -right or None], moved[name][:, down:, right:]
            ),
        }
        for name in names
    }


def _correlate(maps: Tensor, others: Tensor) -> Tensor:
    finite = (maps.isfinite() & others.isfinite()).flatten(1).all(1)
    values = maps.new_full((len(maps),), torch.nan)
    if finite.any():
        values[finite] = rank_correlation(maps[finite], others[finite]).to(maps)
    return values


def compare_maps(maps: Tensor, others: Tensor) -> dict[str, Tensor]:
    """Returns the `SIMILARITIES` of maps, NaN if a map is not finite.  [b H W], [b H W] -> [b]"""
    finite = (maps.isfinite() & others.isfinite()).flatten(1).all(1)
    values = {}
    for name, similarity in SIMILARITIES.items():
        values[name] = maps.new_full((len(maps),), torch.nan)
        if finite.any():
            values[name][finite] = similarity(maps[finite], others[finite]).to(maps)
    return values


def _normalise_all(
    module: nn.Module,
    inputs: Tensor,
    methods: Sequence[str],
    targets: Targets | None,
    options: Mapping[str, Any],
) -> Mapping[str, Tensor]:
    """Returns each method's maps from 0 to 1 at the input's size, NaN if a map is not finite."""
    raw = heatmaps(module, inputs, list(methods), target_category=targets, **options)
    return {
        name: _normalise_to_size(maps, (inputs.shape[-2], inputs.shape[-1]))
        for name, maps in raw.items()
    }


def _normalise_to_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    finite = maps.isfinite().flatten(1).all(1)
    unit = F.interpolate(normalise(maps)[:, None], size, mode="bilinear", align_corners=False)
    return unit[:, 0].where(finite[:, None, None], torch.nan)


def _choose_steps(count: int, steps: int | None) -> list[int]:
    """Chooses `steps` of `count` layers, with the first and the last one."""
    if steps is None or steps >= count:
        return list(range(count))
    if steps < 1:
        raise UsageError(f"Steps are 1 or more, not {steps}.")
    if steps == 1:
        return [count - 1]
    return [round(index * (count - 1) / (steps - 1)) for index in range(steps)]
