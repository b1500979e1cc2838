"""Converts weights of torchvision's networks for timm's, and back.

Two networks count as one only if both give the same logits for a picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from camcli.models.model_spec import BuiltModel, Weights

# torchvision's name, timm's name; where they are called alike there is no row
NAMES: Mapping[str, str] = {
    "mnasnet0_5": "mnasnet_050",
    "mnasnet0_75": "mnasnet_075",
    "mnasnet1_0": "mnasnet_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "regnet_x_400mf": "regnetx_004",
    "regnet_x_800mf": "regnetx_008",
    "regnet_x_1_6gf": "regnetx_016",
    "regnet_x_3_2gf": "regnetx_032",
    "regnet_x_8gf": "regnetx_080",
    "regnet_x_16gf": "regnetx_160",
    "regnet_x_32gf": "regnetx_320",
    "regnet_y_400mf": "regnety_004",
    "regnet_y_800mf": "regnety_008",
    "regnet_y_1_6gf": "regnety_016",
    "regnet_y_3_2gf": "regnety_032",
    "regnet_y_8gf": "regnety_080",
    "regnet_y_16gf": "regnety_160",
    "regnet_y_32gf": "regnety_320",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_v2_t": "swinv2_tiny_window8_256",
    "swin_v2_s": "swinv2_small_window8_256",
    "swin_v2_b": "swinv2_base_window8_256",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
}
# the largest difference between two networks' logits that rounding explains, of the largest logit
ROUNDING = 1e-8
# pixels of the picture with which two networks are compared, where they take it
SMALL = (96, 96)

Signature = tuple[tuple[str, int, int], ...]


def find_counterpart(library: str, name: str) -> tuple[str, str] | None:
    """Returns the other library, and the name there that may stand for the same network."""
    if library == "torchvision":
        return "timm", NAMES.get(name.partition(".")[0], name.partition(".")[0])
    if library == "timm":
        back = {timms: torchvisions for torchvisions, timms in NAMES.items()}
        return "torchvision", back.get(name.partition(".")[0], name.partition(".")[0])
    return None


def convert_weights(source: BuiltModel, target: BuiltModel) -> Weights | None:
    """Returns the source's weights under the target's names, None where there is no such order.

    The libraries' converters say which is which; where they do not, a layer of the target takes
    the weights of the source's layer that comes as late among those of the same shapes.
    """
    theirs, own = source.module.state_dict(), target.module.state_dict()
    origin = _match_by_converter(source, target) or match_by_order(theirs, own)
    if origin is None:
        return None
    carried = {name: theirs[origin[name]].reshape(own[name].shape) for name in origin}
    # tables that follow from the network's shape
    return {**own, **carried}


def _match_by_converter(source: BuiltModel, target: BuiltModel) -> dict[str, str] | None:
    """Finds which weight becomes which, by tracing where a converter puts numbers."""
    for one, other in ((target, source), (source, target)):
        given, own_weights = one.module.state_dict(), other.module.state_dict()
        places = {weight.data_ptr(): name for name, weight in given.items() if weight.numel() > 1}
        # a converter that was written for other files may fail
        with suppress(Exception):
            converted = other.convert(dict(given), other.module) if other.convert else {}
            pairs = {k: places.get(w.data_ptr(), "") for k, w in converted.items() if w.numel() > 1}
            if pairs.keys() == {k for k, w in own_weights.items() if w.numel() > 1} and all(
                pairs.values()
            ):
                return pairs if other is target else {own: name for name, own in pairs.items()}
    return None


def match_by_order(theirs: Weights, own: Weights) -> dict[str, str] | None:
    """Finds which weight becomes which where layers of the same shapes come in the same order."""
    given, needed = _group_by_signature(theirs), _group_by_signature(own)
    if {key: len(names) for key, names in given.items()} != {k: len(n) for k, n in needed.items()}:
        return None
    return {
        name: from_name
        for key, layers in needed.items()
        for names, sources in zip(layers, given[key], strict=True)
        for name, from_name in zip(names, sources, strict=True)
    }


def _group_by_signature(weights: Mapping[str, Tensor]) -> dict[Signature, list[tuple[str, ...]]]:
    """Sorts layers by the kinds and shapes of their weights, each in its own order."""
    layers: dict[str, list[str]] = defaultdict(list)
    for name, weight in weights.items():
        if weight.is_floating_point() and "relative_coords_table" not in name:
            kind = find_kind(name)
            layers[name.rpartition(".")[0] if kind else name].append(name)
    groups: dict[Signature, list[tuple[str, ...]]] = defaultdict(list)
    for names in layers.values():
        ordered = tuple(sorted(names, key=find_kind))
        groups[tuple(_describe_shape(name, weights[name]) for name in ordered)].append(ordered)
    return groups


def _describe_shape(name: str, weight: Tensor) -> tuple[str, int, int]:
    # a linear layer, a 1x1 convolution and one over a whole map hold the same numbers
    rows = next((n for n in weight.shape if n > 1), 1)
    return find_kind(name), rows, weight.numel()


KINDS = ("weight", "bias", "running_mean", "running_var")


def find_kind(name: str) -> str:
    """Returns the kind at the end of a name (weight, bias, ...); "" for a parameter of its own."""
    last = name.rpartition(".")[2]
    return next((kind for kind in KINDS if last == kind or last.endswith(f"_{kind}")), "")


def is_same_network(a: nn.Module, b: nn.Module, size: tuple[int, int], channels: int) -> bool:
    """Tells whether two classifiers give the same logits for a picture of noise.

    They count in double precision: in single, what one adds to its variances may pass for rounding.
    """
    for edges in (SMALL, size):
        image = torch.randn(1, channels, *edges, generator=torch.Generator().manual_seed(0))
        # not every network takes a picture smaller than its own size
        with suppress(Exception):
            mine, theirs = (_compute_logits(module, image) for module in (a, b))
            return mine.shape == theirs.shape and bool(
                (mine - theirs).abs().max() <= ROUNDING * theirs.abs().max()
            )
    return False


def _compute_logits(module: nn.Module, image: Tensor) -> Tensor:
    training = module.training
    try:
        with torch.no_grad():
            logits: Tensor = module.double().eval()(image.double())
    finally:
        module.float().train(training)
    return logits
