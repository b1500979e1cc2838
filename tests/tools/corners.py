"""Does a layer's grid lie where it says?  Brighten a part of the input and see where it changes.

Brightening each corner catches transposed grids, windows in the wrong order and [b h w c] taken for
[b c h w]; brightening the first and the last column catches extra tokens cut off at the wrong end.
Random weights have to be prepared for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import camcli

CORNERS = [(down, right) for down in (False, True) for right in (False, True)]
SHARE = 3  # a corner takes a third of each side
# little against the noise of 1 below it: random weights answer a flash of light chaotically, yet in
# some networks what is little drowns
BRIGHTER = (0.03, 0.3)
DAMPED = 0.1
# of the sides, towards the corner that was brightened; a wrong layout is far below 0
CLEAR = 0.02
DRAWS = 8
Part = tuple[slice, slice]
Shape = tuple[int, int, int]


def noise(shape: Shape, seed: int = 0) -> Tensor:
    """Seeded normal noise.  (channels, H, W) -> [1 channels H W]"""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def prepare_module(module: nn.Module, shape: Shape) -> nn.Module:
    """Gives random weights on which a place of the input keeps its place in the layers.

    A zero classifier has no gradient, BatchNorm's first statistics let values grow or fade from
    layer to layer, and a few layers mix all places (`LOCAL`).
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            weight = getattr(part, "weight", None)
            if not isinstance(weight, nn.Parameter):
                continue
            if isinstance(part, _BatchNorm):
                # a zero one ends a residual branch, beside which the shortcut keeps the place
                weight.fill_(1 if weight.any() else DAMPED)
            elif not weight.any():
                weight.normal_(std=1 / math.sqrt(weight[0].numel()), generator=generator)
        for part in module.modules():
            if type(part).__name__ in LOCAL:
                LOCAL[type(part).__name__](part)
        with _calibrate(module):
            module(_brighten(noise(shape), _corners(shape), max(BRIGHTER)))
    return module.eval()


def _near(part: nn.Module) -> None:
    """LeViT's attention between stages has no shortcut: let it prefer near places."""
    width = part.resolution[1]
    offsets = torch.arange(part.attention_biases.shape[1])
    part.attention_biases.copy_(-(offsets // width + offsets % width).float() * 3)
    part.attention_bias_cache.clear()


def _dampen(part: nn.Module) -> None:
    """EfficientViT's linear attention takes the mean of nearly all places: let it be weak."""
    part.proj.norm.weight.fill_(DAMPED)


def _near_in_transformers(part: nn.Module) -> None:
    """LeViT's once more, where another library wrote it."""
    width = math.isqrt(part.len_points)
    offsets = torch.arange(part.attention_biases.shape[1])
    part.attention_biases.copy_(-(offsets // width + offsets % width).float() * 3)
    part.attention_bias_cache.clear()


LOCAL: Mapping[str, Callable[..., None]] = {
    "AttentionDownsample": _near,
    "LevitAttentionSubsample": _near_in_transformers,
    "LiteMLA": _dampen,
}


@contextmanager
def _calibrate(module: nn.Module) -> Iterator[None]:
    module.eval()
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def keeps_places(module: nn.Module, layer: str, shape: Shape) -> bool:
    """Tells whether a layer changes clearly towards each corner that is brightened."""
    return any(margin(module, layer, shape, draws) > CLEAR for draws in (1, DRAWS))


def margin(module: nn.Module, layer: str, shape: Shape, draws: int = 1) -> float:
    """Brightens each corner: how far towards it the change lies, as a share of the sides.

    It is the least of four corners and two axes, at most 0.5, and below 0 for a wrong layout.  What
    changes alike whichever corner is brightened (attention, pooled gates) is left aside.  More
    draws of the noise that is brightened, by little and by much, are for networks that scatter it.
    """
    corners = _corners(shape)
    shares = sum(changes(module, layer, shape, corners, draw) for draw in range(draws)) / draws
    own = (shares - shares.mean(0)).clamp(min=0)
    own = own / own.sum((1, 2), keepdim=True)
    y, x = ((torch.arange(n) + 0.5) / n - 0.5 for n in own.shape[1:])
    return min(
        min((y if down else -y) @ change.sum(1), (x if right else -x) @ change.sum(0)).item()
        for (down, right), change in zip(CORNERS, own, strict=True)
    )


def outer_columns(module: nn.Module, layer: str, shape: Shape, columns: int) -> tuple[int, int]:
    """Brightens the first and then the last of some columns: which columns change most."""
    width = shape[2] // columns
    first, last = changes(
        module, layer, shape, [(slice(None), slice(width)), (slice(None), slice(-width, None))]
    )
    difference = (first - last).sum(0)
    return int(difference.argmax()), int(difference.argmin())


def changes(
    module: nn.Module, layer: str, shape: Shape, parts: Sequence[Part], draw: int = 0
) -> Tensor:
    """Shares of the cells in the change that each brightened part makes.  -> [parts h w]"""
    images = _brighten(noise(shape, draw), parts, BRIGHTER[draw % len(BRIGHTER)])
    maps = camcli.activations(module, images, layer)[layer]
    changes = (maps[1:] - maps[:1]).abs().sum(1)
    return changes / changes.sum((1, 2), keepdim=True)


def _brighten(image: Tensor, parts: Sequence[Part], by: float) -> Tensor:
    """Brightens parts of an image [1 c H W], which itself comes first.  -> [1+parts c H W]"""
    images = image.repeat(1 + len(parts), 1, 1, 1)
    for brighter, (rows, columns) in zip(images[1:], parts, strict=True):
        brighter[:, rows, columns] += by
    return images


def _corners(shape: Shape) -> list[Part]:
    return [(_end(shape[1], down), _end(shape[2], right)) for down, right in CORNERS]


def _end(length: int, last: bool) -> slice:
    return slice(-(length // SHARE), None) if last else slice(length // SHARE)
