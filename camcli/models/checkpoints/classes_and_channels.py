"""Builds a model with a checkpoint's numbers of classes and channels, read off its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import prod

from torch import Tensor

from camcli.models.checkpoints.checkpoint import Checkpoint
from camcli.models.checkpoints.state_dict_matching import (
    FittedWeights,
    fit_checkpoint,
    has_other_shapes_alone,
)
from camcli.models.model_spec import BuiltModel, ModelSpec, Weights

# how many times a file's features of a class a model has at most
MOST_FEATURES = 64


def read_num_classes(
    weights: Weights, classifiers: Iterable[str], own: Mapping[str, Tensor] | None = None
) -> int | None:
    """Reads the number of classes off the classifier's weight [n c ...], None without one.

    Nor where the model's own weights have many more features: rows of few or no numbers are no
    classes.
    """
    for name in (f"{classifier}.weight" for classifier in classifiers):
        weight = weights.get(name)
        if weight is not None and weight.ndim > 0:
            features = prod(own[name].shape[1:]) if own and name in own else 1
            enough = weight.numel() * MOST_FEATURES >= weight.shape[0] * features
            return weight.shape[0] if weight.numel() and enough else None
    return None


def read_in_chans(weights: Weights, built: BuiltModel) -> int | None:
    """Reads the number of input channels off the first layer [n c ...], None where it is another.

    The layer may take several pixels of each channel at once (space to depth, linear patches).
    """
    model_state = built.module.state_dict()
    for name in (f"{stem}.weight" for stem in built.stems):
        weight, own = weights.get(name), model_state.get(name)
        if weight is None or own is None or weight.ndim != own.ndim:
            continue
        channels, rest = divmod(int(weight.shape[1]) * built.in_chans, int(own.shape[1]))
        if not rest and (weight.shape[0], *weight.shape[2:]) == (own.shape[0], *own.shape[2:]):
            return channels
    return None


def build_for_checkpoint(
    checkpoint: Checkpoint, build: Callable[[ModelSpec], BuiltModel], request: ModelSpec
) -> tuple[BuiltModel, FittedWeights]:
    """Builds a model with the checkpoint's classes and channels, where no others were asked for.

    `build` is the library's.  Returns the model, and how the checkpoint's weights fit it.
    """
    built = build(request)
    fit = partial(fit_checkpoint, checkpoint, built.module, built.convert, built.classifiers)
    fitted_weights = fit(by_name=True)
    adapted = adapt_spec(built, fitted_weights, request)
    if adapted == request and has_other_shapes_alone(fitted_weights):
        fitted_weights = fit()
        adapted = adapt_spec(built, fitted_weights, request)
    if adapted == request:
        return built, fitted_weights
    built = build(adapted)
    return built, fit_checkpoint(checkpoint, built.module, built.convert, built.classifiers)


def adapt_spec(built: BuiltModel, fitted_weights: FittedWeights, request: ModelSpec) -> ModelSpec:
    """Asks for the weights' numbers of classes and channels, where no others were asked for."""
    adapted, other = request, find_other_numbers(built, fitted_weights)
    if request.num_classes is None and "num_classes" in other:
        adapted = replace(adapted, num_classes=other["num_classes"])
    if "in_chans" not in request.model_kwargs and "in_chans" in other:
        kwargs = {**request.model_kwargs, "in_chans": other["in_chans"]}
        adapted = replace(adapted, model_kwargs=kwargs)
    return adapted


def find_other_numbers(built: BuiltModel, fitted_weights: FittedWeights) -> dict[str, int]:
    """Returns the numbers of classes and channels in which the weights differ from the model."""
    classes = read_num_classes(fitted_weights.weights, built.classifiers, built.module.state_dict())
    channels = read_in_chans(fitted_weights.weights, built)
    pairs = {"num_classes": (classes, built.num_classes), "in_chans": (channels, built.in_chans)}
    return {k: saved for k, (saved, own) in pairs.items() if saved is not None and saved != own}
