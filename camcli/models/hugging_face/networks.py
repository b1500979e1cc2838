"""Networks of transformers made to take a picture alone, under the names that they have."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHAPES, MASK = "spatial_shapes", "pixel_attention_mask"
# the methods of models of pictures and words, and the name under which their own forward is kept
EMBED_PICTURES, EMBED_TEXTS = "get_image_features", "get_text_features"
FORWARD_WITH_TEXTS = "forward_with_texts"
# what a backbone says of a whole picture, if it does, and of its places
POOLED, TOKENS = "pooler_output", "last_hidden_state"


def list_inputs(kind: Any) -> list[str]:
    """Lists the arguments of a network's forward, in their order."""
    return list(inspect.signature(kind.forward).parameters)[1:]


def fix_arguments(module: Any, arguments: Mapping[str, Any]) -> None:
    """Lets a network take these arguments besides each picture."""
    _override(module, lambda _: arguments)


def embeds_words(kind: Any) -> bool:
    """Tells whether a class embeds pictures and texts, each by a method of its own."""
    return hasattr(kind, EMBED_PICTURES) and hasattr(kind, EMBED_TEXTS)


def fix_for_pictures(module: Any) -> None:
    """Lets a network take pictures [b c h w] that takes texts or patches, or draws what it sees."""
    inputs, config = list_inputs(type(module)), module.config
    method = EMBED_PICTURES if embeds_words(type(module)) else "forward"
    if {SHAPES, MASK} <= set(inputs):
        patch = getattr(config, "vision_config", config).patch_size
        _override(module, lambda pixels: cut_into_patches(pixels, patch), method)
    elif method == EMBED_PICTURES:
        _override(module, lambda _: {}, method)
    elif "noise" in inputs and hasattr(config, "mask_ratio"):
        # masked autoencoders leave out most patches, and shuffle the others by noise
        config.mask_ratio = 0.0
        _override(module, lambda pixels: {"noise": _count_up(pixels, config.patch_size)})


def embed_by_tokens(module: Any) -> None:
    """Lets a backbone embed a picture by its class token, or by the mean of its tokens.

    For those that pool nothing, and for poolers that were never trained.
    """
    kind = type(module)
    has_class_token = any(name.endswith("cls_token") for name, _ in module.named_parameters())

    def forward(self: Any, *args: Any, **others: Any) -> Any:
        output = kind.forward(self, *args, **others)
        tokens = output[TOKENS]
        output[POOLED] = tokens[:, 0] if has_class_token else tokens.mean(1)
        return output

    _replace_class(module, {"forward": forward})


def _count_up(pixels: Tensor, patch: int) -> Tensor:
    """Returns noise by which patches stay in their order.  [b c h w] -> [b n]"""
    b, _, height, width = pixels.shape
    n = (height // patch) * (width // patch)
    return torch.arange(n, dtype=torch.float32, device=pixels.device).repeat(b, 1)


def _override(
    module: Any,
    make_arguments: Callable[[Tensor], Mapping[str, Any]],
    method: str = "forward",
) -> None:
    """Replaces a network's forward in a class of its own, so that its layers keep their names."""
    kind = type(module)

    def forward(self: Any, pixel_values: Tensor, **others: Any) -> Any:
        arguments = {"pixel_values": pixel_values, **others, **make_arguments(pixel_values)}
        return getattr(kind, method)(self, **arguments)

    def forward_with_texts(self: Any, pixel_values: Tensor, **others: Any) -> Any:
        below = getattr(kind, FORWARD_WITH_TEXTS, kind.forward)
        arguments = {"pixel_values": pixel_values, **others, **make_arguments(pixel_values)}
        return below(self, **arguments)

    _replace_class(module, {"forward": forward, FORWARD_WITH_TEXTS: forward_with_texts})


def _replace_class(module: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
    """Makes a module one of a class that has other methods, and the same name."""
    kind = type(module)
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__, **methods}
    module.__class__ = type(kind.__name__, (kind,), names)


def cut_into_patches(pixels: Tensor, patch: int) -> dict[str, Tensor | None]:
    """Cuts pictures into patches, channels last in each.  [b c h w] -> [b n patch*patch*c]"""
    b, c, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    blocks = pixels.reshape(b, c, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    shapes = torch.tensor([[rows, columns]] * b, device=pixels.device)
    return {
        "pixel_values": blocks.reshape(b, rows * columns, patch * patch * c),
        # all of them are seen
        MASK: None,
        SHAPES: shapes,
    }


def undo_patches(processor: Any) -> Any:
    """Returns a processor that gives pictures, of one that gives their patches."""
    return _Unpatched(processor) if hasattr(processor, "max_num_patches") else processor


class _Unpatched:
    """Puts the patches of a processor together again."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        edge = processor.patch_size * math.isqrt(processor.max_num_patches)
        self.own_size = edge, edge
        self.resample = processor.resample
        self.backend = processor.backend
        self.image_mean, self.image_std = processor.image_mean, processor.image_std

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        output = self.processor(**inputs)
        if SHAPES not in output:
            return dict(output)
        (rows, columns), patch = output[SHAPES][0], self.processor.patch_size
        shown = np.asarray(output["pixel_values"][0])[: rows * columns]
        blocks = shown.reshape(rows, columns, patch, patch, -1).transpose(4, 0, 2, 1, 3)
        return {"pixel_values": blocks.reshape(1, -1, rows * patch, columns * patch)}
