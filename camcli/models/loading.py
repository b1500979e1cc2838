"""Weights out of a checkpoint into a model, where they fit or can be seen to belong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from camcli.models.advice import advise, is_unnamed, misfit, notes, other_architecture
from camcli.models.counterparts import carry_over, give_the_same
from camcli.models.fitting import (
    Fitted,
    adapt,
    is_another,
    list_faults,
    merge_stored,
    weights_that_fit,
)
from camcli.models.order_of_weights import is_by_name, moments_fit, place_by_order
from camcli.models.request import Built, Request

BY_ORDER = (
    "its names are unknown: its {} weights were taken by their order, which has the model's kinds "
    "and shapes. See that a prediction is what you know of it."
)


def carry_weights_over(theirs: Fitted, source: Built, built: Built) -> Fitted | None:
    """Carries weights over from another library's network, None if the two give other logits."""
    _load(source.module, theirs)
    weights = carry_over(source, built)
    if weights is None:
        return None
    found = replace(theirs, weights=weights, faults=list_faults(weights, built.module.state_dict()))
    _load(built.module, found)
    same = give_the_same(built.module, source.module, built.preprocessing.size, built.in_chans)
    return found if same else None


def place_weights_by_order(
    found: Fitted, built: Built, build: Callable[[Request], Built], request: Request
) -> tuple[Built, Fitted] | None:
    """Takes weights under names that nobody knows by their order, None where that is unsafe."""
    checkpoint = found.checkpoint
    if not is_another(found, built):  # the names are known, and say something else
        return None
    free = {f"{name}.{kind}": 0 for name in built.classifiers for kind in ("weight", "bias")}
    free |= {f"{name}.weight": 1 for name in built.stems}
    own = built.module.state_dict()
    placed = place_by_order(merge_stored(checkpoint), own, free)
    if placed is None:
        return None
    found = Fitted(checkpoint, placed, list_faults(placed, own))
    adapted = adapt(built, found, request)
    if adapted != request:
        built = build(adapted)
        found = replace(found, faults=list_faults(placed, built.module.state_dict()))
    if found.faults:
        return None
    _load(built.module, found)
    if not moments_fit(built.module, built.preprocessing.size, built.in_chans):
        return None
    return built, replace(found, note=BY_ORDER.format(len(placed)))


def _load(module: nn.Module, found: Fitted) -> None:
    """Loads what fits."""
    # the module's own dictionary knows the versions of its parts, which some of them ask for
    weights = module.state_dict()
    weights.update(weights_that_fit(found, module))
    module.load_state_dict(weights, strict=False)
    for name, part in module.named_modules():
        for pattern, eps in found.eps.items():
            if isinstance(getattr(part, "eps", None), float) and re.search(pattern, name):
                part.eps = eps


def load_into(
    built: Built,
    found: Fitted,
    request: Request,
    *,
    strict: bool,
    build: Callable[[Request], Built] | None = None,
) -> tuple[str, ...]:
    """Loads what fits, and returns in words what does not.

    Raises CheckpointError if nothing fits, and, if strict, for weights that are missing, unexpected
    or of another shape; `build` is asked whether other arguments give a model that they fit.
    """
    fitting, wanted = len(weights_that_fit(found, built.module)), len(built.module.state_dict())
    if is_another(found, built) and (strict or not fitting or is_unnamed(found, request)):
        stored, own = merge_stored(found.checkpoint), built.module.state_dict()
        by_name = is_by_name(stored, own)
        raise other_architecture(found, request, f"{fitting} of the {wanted}", by_name=by_name)
    if found.faults and strict:
        raise misfit(found, request, "", advise(built, found, request, build))
    _load(built.module, found)
    file = f"Checkpoint {str(found.checkpoint.path)!r}"
    return tuple(f"{file}: {note}" for note in notes(built, found, request))
