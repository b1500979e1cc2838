"""Classifiers out of torchvision, by name; `name.WEIGHTS` chooses among pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from camcli.errors import ModelError, UnknownName
from camcli.models.checkpoints import check_published
from camcli.models.model_spec import BuiltModel, ModelSpec, Weights, build_error, warn_of_new_head
from camcli.models.preprocessing import fit_channels
from camcli.models.weight_download import fetch_url_file
from camcli.records import Preprocessing

# (beginning of the name, argument of the constructor that fixes the input size)
FIXED_SIZE = (("vit_", "image_size"), ("maxvit", "input_size"))
# without weights these warn unless told how to begin; and people's checkpoints of them come from
# the pretrained ones, which take their input normalised in another way
WITHOUT_WEIGHTS: Mapping[str, Mapping[str, Any]] = {
    "inception_v3": {"init_weights": True, "transform_input": True},
    "googlenet": {"init_weights": True, "transform_input": True},
}
# heads that speak during training only
AUXILIARY = ("AuxLogits", "aux1", "aux2")


def knows(name: str) -> bool:
    """Tells whether torchvision has a classifier of that name, whatever follows the dot."""
    return name.partition(".")[0] in list_names()


def list_names() -> list[str]:
    """Returns all classifiers of torchvision."""
    return list(list_models(module=torchvision.models))


def build(request: ModelSpec) -> BuiltModel:
    """Builds a torchvision model; raises ModelError, WeightsError, or UnknownName for weights."""
    name, weights = _choose_weights(request.name)
    if request.num_classes is not None and request.num_classes < 1:
        raise ModelError(f"torchvision's {name} needs at least one class.")
    channels = request.in_chans or 3
    arguments = _collect_arguments(name, request, weights)
    # fetched first, so that torchvision finds it in the cache
    file = fetch_url_file(request.name, weights.url) if request.pretrained else None
    try:
        if file:
            check_published(file)
        module = _build_module(name, request, weights, arguments)
    except Exception as error:  # each constructor raises its own kinds
        raise build_error("torchvision", request, error, file) from error
    _drop_auxiliary_heads(module)
    stem, first = _find_stem(module)
    _take_channels(module, first, channels)
    classifier, layer = _find_classifier(module)
    own_classes = layer.weight.shape[0]
    num_classes = request.num_classes or own_classes
    new_head = num_classes != own_classes
    if new_head:
        _replace(module, classifier, _make_like(layer, num_classes))
    categories = weights.meta["categories"]
    return BuiltModel(
        module=module,
        preprocessing=_read_preprocessing(weights.transforms(), request.img_size, channels),
        num_classes=num_classes,
        weights=repr(weights) if request.pretrained else "random",
        classifiers=(classifier,),
        stems=(stem,),
        in_chans=channels,
        labels=tuple(categories) if categories else None,
        warnings=(warn_of_new_head(num_classes),) if new_head else (),
        convert=_convert,
    )


def _choose_weights(given: str) -> tuple[str, Any]:
    name, _, tag = given.partition(".")
    known = get_model_weights(name)
    if not tag:
        return name, known.DEFAULT
    for weights in known:
        if weights.name.lower() == tag.lower():
            return name, weights
    tags = [weights.name for weights in known]
    raise UnknownName("weights", tag, tags, f"torchvision's {name} has {', '.join(tags)}.")


def _build_module(
    name: str, request: ModelSpec, weights: Any, arguments: Mapping[str, Any]
) -> nn.Module:
    resized = request.img_size is not None and any(name.startswith(b) for b, _ in FIXED_SIZE)
    if request.pretrained and not resized:
        module: nn.Module = get_model(name, weights=weights, **arguments)
        return module
    module = get_model(name, weights=None, **arguments)
    if request.pretrained:
        # torchvision itself builds pretrained models at their own size only
        module.load_state_dict(_convert(weights.get_state_dict(weights_only=True), module))
    return module


def _collect_arguments(name: str, request: ModelSpec, weights: Any) -> dict[str, Any]:
    arguments = {k: v for k, v in request.model_kwargs.items() if k != "in_chans"}
    if not request.pretrained:
        arguments = {**WITHOUT_WEIGHTS.get(name, {}), **arguments}
        if request.num_classes is not None:
            arguments["num_classes"] = request.num_classes
    size = request.img_size or tuple(weights.transforms().crop_size) * 2
    for beginning, argument in FIXED_SIZE:
        if name.startswith(beginning):
            arguments.setdefault(argument, _spell_size(argument, name, size))
    return arguments


def _spell_size(argument: str, name: str, size: tuple[int, ...]) -> int | tuple[int, ...]:
    if argument == "input_size":
        return size
    if size[0] != size[1]:
        raise ModelError(
            f"torchvision's {name} takes square pictures only, not {size[0]}x{size[1]}: "
            "timm's vision transformers take both."
        )
    return size[0]


def _read_preprocessing(
    transforms: Any, asked: tuple[int, int] | None, channels: int
) -> Preprocessing:
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    size = asked or (crop, crop)
    return Preprocessing(
        size=size,
        scale=(round(size[0] * resize / crop), round(size[1] * resize / crop)),
        mean=fit_channels(transforms.mean, channels),
        std=fit_channels(transforms.std, channels),
        interpolation=transforms.interpolation.value,
        fit="crop",
    )


def _find_classifier(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    # SqueezeNet's is a convolution
    *_, last = (
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d)
    )
    return last


def _make_like(old: nn.Linear | nn.Conv2d, num_classes: int) -> nn.Module:
    bias = old.bias is not None
    if isinstance(old, nn.Conv2d):
        return nn.Conv2d(old.in_channels, num_classes, 1, bias=bias)
    return nn.Linear(old.in_features, num_classes, bias=bias)


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, new)


def _find_stem(module: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((n, part) for n, part in module.named_modules() if isinstance(part, nn.Conv2d))


def _take_channels(module: nn.Module, stem: nn.Conv2d, channels: int) -> None:
    """Makes the first convolution take other channels with the weights that it has, as timm does.

    One grey channel gives what it gave in all of them; more see the weights repeated.
    """
    old, weight = stem.in_channels, stem.weight.detach()
    if channels == old:
        return
    repeated = weight.repeat(1, math.ceil(channels / old), 1, 1)[:, :channels] * (old / channels)
    stem.weight = nn.Parameter(weight.sum(1, keepdim=True) if channels == 1 else repeated)
    stem.in_channels = channels
    if getattr(module, "transform_input", False):
        module.transform_input = False  # type: ignore[assignment]  # it knows three channels only


def _drop_auxiliary_heads(module: nn.Module) -> None:
    for name in AUXILIARY:
        if getattr(module, name, None) is not None:
            setattr(module, name, None)
            module.aux_logits = False  # type: ignore[assignment]


def _convert(weights: Weights, module: nn.Module) -> Weights:
    kept = {k: v for k, v in weights.items() if k.partition(".")[0] not in AUXILIARY}
    if isinstance(module, VisionTransformer):
        kept = interpolate_embeddings(module.image_size, module.patch_size, kept)
    return kept
