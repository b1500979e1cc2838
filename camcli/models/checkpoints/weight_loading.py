"""Loads weights out of a checkpoint into a model, if they fit or can be shown to belong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from camcli.models.checkpoints.classes_and_channels import adapt_spec
from camcli.models.checkpoints.cross_library_keys import convert_weights, is_same_network
from camcli.models.checkpoints.mismatch_advice import (
    advise,
    describe_fit,
    is_unnamed,
    misfit_error,
    other_architecture_error,
)
from camcli.models.checkpoints.positional_matching import (
    is_by_name,
    is_plausible_batchnorm,
    place_by_order,
)
from camcli.models.checkpoints.state_dict_matching import (
    FittedWeights,
    is_other_architecture,
    list_faults,
    merge_stored,
    select_fitting_weights,
)
from camcli.models.model_spec import BuiltModel, ModelSpec

BY_ORDER = (
    "its names are unknown: its {} weights were taken by their order, which has the model's kinds "
    "and shapes. See that a prediction is what you know of it."
)


def carry_weights_over(
    theirs: FittedWeights, source: BuiltModel, built: BuiltModel
) -> FittedWeights | None:
    """Carries weights over from another library's network, None if the two give other logits.

    `theirs` are the weights that fit `source`, and `built` is to have them.
    """
    copy_weights(source.module, theirs)
    weights = convert_weights(source, built)
    if weights is None:
        return None
    fitted_weights = replace(
        theirs, weights=weights, faults=list_faults(weights, built.module.state_dict())
    )
    copy_weights(built.module, fitted_weights)
    same = is_same_network(built.module, source.module, built.preprocessing.size, built.in_chans)
    return fitted_weights if same else None


def place_weights_by_order(
    fitted_weights: FittedWeights,
    built: BuiltModel,
    build: Callable[[ModelSpec], BuiltModel],
    request: ModelSpec,
) -> tuple[BuiltModel, FittedWeights] | None:
    """Matches weights of unknown names by their order; returns None where that is unsafe.

    `build` makes the model anew where the weights have other classes or channels than `request`.
    """
    checkpoint = fitted_weights.checkpoint
    if not is_other_architecture(
        fitted_weights, built
    ):  # the names are known, and say something else
        return None
    free = {f"{name}.{kind}": 0 for name in built.classifiers for kind in ("weight", "bias")}
    free |= {f"{name}.weight": 1 for name in built.stems}
    own = built.module.state_dict()
    placed = place_by_order(merge_stored(checkpoint), own, free)
    if placed is None:
        return None
    fitted_weights = FittedWeights(checkpoint, placed, list_faults(placed, own))
    adapted = adapt_spec(built, fitted_weights, request)
    if adapted != request:
        built = build(adapted)
        fitted_weights = replace(
            fitted_weights, faults=list_faults(placed, built.module.state_dict())
        )
    if fitted_weights.faults:
        return None
    copy_weights(built.module, fitted_weights)
    if not is_plausible_batchnorm(built.module, built.preprocessing.size, built.in_chans):
        return None
    return built, replace(fitted_weights, note=BY_ORDER.format(len(placed)))


def copy_weights(module: nn.Module, fitted_weights: FittedWeights) -> None:
    """Loads what fits."""
    # the module's own dictionary knows the versions of its parts, which some of them ask for
    weights = module.state_dict()
    weights.update(select_fitting_weights(fitted_weights, module))
    module.load_state_dict(weights, strict=False)
    for name, part in module.named_modules():
        for pattern, eps in fitted_weights.eps.items():
            if isinstance(getattr(part, "eps", None), float) and re.search(pattern, name):
                part.eps = eps


def load_into(
    built: BuiltModel,
    fitted_weights: FittedWeights,
    request: ModelSpec,
    *,
    strict: bool,
    build: Callable[[ModelSpec], BuiltModel] | None = None,
) -> tuple[str, ...]:
    """Loads what fits, and returns in words what does not.

    Raises CheckpointError if nothing fits, and, if strict, for weights that are missing, unexpected
    or of another shape; `build` is asked whether other arguments give a model that they fit.
    """
    fitting, total = (
        len(select_fitting_weights(fitted_weights, built.module)),
        len(built.module.state_dict()),
    )
    if is_other_architecture(fitted_weights, built) and (
        strict or not fitting or is_unnamed(fitted_weights, request)
    ):
        stored, own = merge_stored(fitted_weights.checkpoint), built.module.state_dict()
        by_name = is_by_name(stored, own)
        raise other_architecture_error(
            fitted_weights, request, f"{fitting} of the {total}", by_name=by_name
        )
    if fitted_weights.faults and strict:
        raise misfit_error(
            fitted_weights, request, "", advise(built, fitted_weights, request, build)
        )
    copy_weights(built.module, fitted_weights)
    file = f"Checkpoint {str(fitted_weights.checkpoint.path)!r}"
    return tuple(f"{file}: {note}" for note in describe_fit(built, fitted_weights, request))
