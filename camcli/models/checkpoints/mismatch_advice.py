"""Describes weights that do not fit, and advises what would make them fit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from camcli.errors import CheckpointError
from camcli.models import embedded
from camcli.models.checkpoints.classes_and_channels import find_other_numbers
from camcli.models.checkpoints.reparametrization import PARAMETRIZATION_PATTERN
from camcli.models.checkpoints.state_dict_matching import (
    ANOTHER_NETWORK,
    NO_CLASSIFIER,
    POSITIONS,
    Fault,
    FittedWeights,
    refit,
)
from camcli.models.model_spec import BuiltModel, ModelSpec, warn_of_new_head
from camcli.utils.text_files import escape_text

NUMBERS: Mapping[str, str] = {
    "num_classes": "It has {} classes: leave out --num-classes.",
    "in_chans": "It takes {} channels: leave out in_chans.",
}
NAME_IT = "Name the model that it was saved from with --model."
OTHER_ARCHITECTURE = (
    "Is it of another model? --model names that one; a network of your own is "
    "--model FILE.py:FUNCTION."
)
OTHER_NETWORK = (
    "It was saved from a network that is built in another way: --model-kwargs KEY=VALUE changes "
    "how this one is built, and --model FILE.py:FUNCTION builds one of your own."
)
OTHER_HEAD = (
    "It has a classifier of its own: build that with --model FILE.py:FUNCTION, or leave it out "
    "with --num-classes 0 (after training without classes it is a projection)."
)
NO_HEAD = (
    "It has no classifier: --num-classes 0 builds the model without one, for the methods that ask "
    "no class."
)
PROJECTION = (
    "It was trained without classes: its {} is a projection, and no classifier. --num-classes 0 "
    "builds the model without one, for the methods that ask no class."
)
PARTS = (
    "Some of its layers are parametrized in a way that the file does not say: save it after "
    "torch.nn.utils.parametrize.remove_parametrizations, or build them with "
    "--model FILE.py:FUNCTION."
)
ASIDE = (
    "--no-strict leaves them aside, which is right if they served the training alone, as a second "
    "classifier does."
)
BY_NAME = (
    ", although its weights have the model's kinds and shapes: their names are others, and they lie"
    " in the order of these names, as safetensors keeps them, which does not tell which is which"
)
KEEP_ORDER = (
    "Save it with torch.save(model.state_dict(), 'weights.pth'), which keeps the model's order, or "
    "under the model's names; or load it in a function of your own: -m FILE.py:FUNCTION."
)
BESIDE_HEAD = "; what stood beside it (a dropout, a sigmoid) is not in the file"
# arguments of timm's constructors that change which weights there are, and what these are called
ARGUMENTS: Sequence[tuple[str, Mapping[str, Any]]] = (
    (r"norm\.", {"global_pool": "avg"}),
    (r"norm\.", {"global_pool": "token"}),
    (r"cls_token", {"class_token": False, "global_pool": "avg"}),
    (r"ls\d|gamma", {"init_values": 1e-5}),
    (r"qkv|[qv]_bias", {"qkv_bias": False}),
    (r"[qk]_norm", {"qk_norm": True}),
    (r"reg_token", {"reg_tokens": 4}),
    (r"reg_token", {"reg_tokens": 4, "no_embed_class": True}),
    (r"pos_embed", {"no_embed_class": True}),
    (r"norm_pre", {"pre_norm": True}),
    (r"norm\.", {"fc_norm": True}),
    (r"norm\.", {"fc_norm": False}),
    (r"rel", {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False}),
    (r"pos_embed", {"use_abs_pos_emb": True}),
    *((r"patch_embed", {"patch_size": size}) for size in (8, 14, 16, 32)),
)
MOST_ARGUMENTS = 3


def describe_fit(
    built: BuiltModel, fitted_weights: FittedWeights, request: ModelSpec
) -> Iterator[str]:
    """Yields notes on weights that were not loaded, or that were matched by another name."""
    yield from _group_faults(fitted_weights.faults)
    if fitted_weights.note:
        yield fitted_weights.note
    if any(
        kind != "unexpected" and _is_in_head(what, built) for kind, what in fitted_weights.faults
    ):
        yield warn_of_new_head(built.num_classes)
    if fitted_weights.head:
        note_on_head = "" if fitted_weights.head.rpartition(".")[2].isalpha() else BESIDE_HEAD
        yield f"took {fitted_weights.head} for the model's {built.classifiers[0]}{note_on_head}"
    if fitted_weights.resized and request.img_size is None:
        names = _join_names(fitted_weights.resized)
        yield f"resized {names}; --img-size gives the size that it was trained at"
    if fitted_weights.outside:
        yield f"left aside {_join_names(fitted_weights.outside)}"


def _is_in_head(what: str, built: BuiltModel) -> bool:
    return what.startswith(tuple(f"{name}." for name in built.classifiers))


def is_unnamed(fitted_weights: FittedWeights, request: ModelSpec) -> bool:
    """Tells whether neither the user nor the file named a model."""
    return request.name == embedded.NAME and not fitted_weights.checkpoint.arch


def other_architecture_error(
    fitted_weights: FittedWeights, request: ModelSpec, share: str, *, by_name: bool
) -> CheckpointError:
    """Says that the model has too little in common with the weights; `share` counts what it has.

    Or that they may be the model's, `by_name`, in an order that does not tell which is which.
    """
    arch = fitted_weights.checkpoint.arch
    if is_unnamed(fitted_weights, request):
        return CheckpointError(
            f"Checkpoint {str(fitted_weights.checkpoint.path)!r} does not say its architecture, and"
            f" it is not the embedded model's. {NAME_IT}"
        )
    says = f" (the file says {arch!r})" if arch else ""
    what = f": it is of another architecture{says}, with {share} weights in it"
    if _is_in_parts(fitted_weights):
        return misfit_error(fitted_weights, request, what, PARTS)
    if by_name:
        return misfit_error(fitted_weights, request, BY_NAME, KEEP_ORDER)
    return misfit_error(fitted_weights, request, what, OTHER_ARCHITECTURE)


def other_library_error(
    fitted_weights: FittedWeights, request: ModelSpec, name: str
) -> CheckpointError | None:
    """Says that weights are of the other library's network, which is not the same."""
    if fitted_weights.faults:
        only = {kind for kind, _ in fitted_weights.faults} == {ANOTHER_NETWORK}
        way_on = f"Load it with --model {fitted_weights.instead.format(name.rpartition('/')[2])}."
        return misfit_error(fitted_weights, request, "", way_on) if only else None
    return CheckpointError(
        f"Checkpoint {str(fitted_weights.checkpoint.path)!r} has the weights of {name}, and "
        f"{request.name!r} is another network, which gives other logits with them. "
        f"Load it with --model {name}."
    )


def misfit_error(
    fitted_weights: FittedWeights, request: ModelSpec, what: str, way_on: str
) -> CheckpointError:
    """Says what does not fit, by its kind, and what to do."""
    first = (
        f"Checkpoint {str(fitted_weights.checkpoint.path)!r} does not fit {request.name!r}{what}:"
    )
    lines = (first, *map("  {}".format, _group_faults(fitted_weights.faults)), way_on.strip())
    return CheckpointError("\n".join(filter(None, lines)))


def advise(
    built: BuiltModel,
    fitted_weights: FittedWeights,
    request: ModelSpec,
    build: Callable[[ModelSpec], BuiltModel] | None = None,
) -> str:
    """Says what would make it fit, in a sentence, or that another network has to be built."""
    for key, number in find_other_numbers(built, fitted_weights).items():
        return NUMBERS[key].format(number)
    if _is_in_parts(fitted_weights):
        return PARTS
    heads = [what for kind, what in fitted_weights.faults if _is_in_head(what, built)]
    missing = [what for kind, what in fitted_weights.faults if kind == "missing"]
    if missing and len(heads) == len(fitted_weights.faults):
        if fitted_weights.projection:
            return PROJECTION.format(fitted_weights.projection)
        return (
            OTHER_HEAD
            if len(missing) < len(heads) or _has_matrix_beside(fitted_weights)
            else NO_HEAD
        )
    if all(
        kind == "other shape" and POSITIONS.search(name) for kind, name in fitted_weights.faults
    ):
        return "It was trained at another input size: name that with --img-size."
    arguments = _try_arguments(built, fitted_weights, request, build) if build else {}
    if arguments:
        given = " ".join(f"--model-kwargs {key}={value}" for key, value in arguments.items())
        return f"It fits the same model with {given}."
    kinds = {kind for kind, _ in fitted_weights.faults}
    if kinds == {ANOTHER_NETWORK}:
        name = request.name.rpartition("/")[2].partition(".")[0]
        return f"Load it with --model {fitted_weights.instead.format(name)}."
    if missing and heads == missing:
        unexpected = [what for kind, what in fitted_weights.faults if kind == "unexpected"]
        return OTHER_HEAD if any(map(_is_layer, unexpected)) else NO_HEAD
    return (
        ASIDE if kinds == {"unexpected"} and _lie_outside(built, fitted_weights) else OTHER_NETWORK
    )


def _has_matrix_beside(fitted_weights: FittedWeights) -> bool:
    """Tells whether a classifier could lie outside of the backbone."""
    weights = fitted_weights.checkpoint.weights
    return any(
        weights[name].ndim == 2 and not NO_CLASSIFIER.search(name)
        for name in fitted_weights.outside
        if name in weights
    )


def _is_layer(what: str) -> bool:
    """Tells whether a weight is a layer's, and no single parameter such as a mask token."""
    return what.partition(" ")[0].endswith((".weight", ".bias"))


def _is_in_parts(fitted_weights: FittedWeights) -> bool:
    return any(
        kind == "unexpected" and PARAMETRIZATION_PATTERN.search(name)
        for kind, name in fitted_weights.faults
    )


def _lie_outside(built: BuiltModel, fitted_weights: FittedWeights) -> bool:
    """Tells whether all that is unexpected lies in modules of which the model has none."""
    own = {name.partition(".")[0] for name in built.module.state_dict()}
    return all(name.partition(".")[0] not in own for _, name in fitted_weights.faults)


def _try_arguments(
    built: BuiltModel,
    fitted_weights: FittedWeights,
    request: ModelSpec,
    build: Callable[[ModelSpec], BuiltModel],
) -> dict[str, Any]:
    """Tries arguments of timm's constructors, one after the other, until all weights fit."""
    chosen: dict[str, Any] = {}
    asked = replace(request, num_classes=built.num_classes)
    own = {**request.model_kwargs}
    if built.in_chans != 3:
        own["in_chans"] = built.in_chans
    fewest = len(fitted_weights.faults)
    for _ in range(MOST_ARGUMENTS):
        tried: dict[int, dict[str, Any]] = {}
        for pattern, argument in ARGUMENTS:
            concerned = any(re.search(pattern, what) for _, what in fitted_weights.faults)
            if not concerned or argument.keys() & request.model_kwargs.keys():
                continue
            # each constructor has its own errors for arguments that it does not take
            with contextlib.suppress(Exception), torch.device("meta"):
                kwargs = {**own, **chosen, **argument}
                faults = refit(fitted_weights, build(replace(asked, model_kwargs=kwargs))).faults
                tried.setdefault(len(faults), {**chosen, **argument})
        if not tried or min(tried) >= fewest:
            return {}
        fewest, chosen = min(tried), tried[min(tried)]
        if not fewest:
            return chosen
    return {}


def _group_faults(faults: Sequence[Fault]) -> list[str]:
    kinds = dict.fromkeys(kind for kind, _ in faults)
    return [f"{kind}: {_join_names([what for k, what in faults if k == kind])}" for kind in kinds]


def _join_names(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(escape_text, names[:most])) + more
