"""Tokens that do not stand row by row, which no shape tells: whose they are, and their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.layout import Layout


def in_order(module: nn.Module, layer: str, layout: Layout) -> Layout:
    """Returns a layer's layout with the order of its tokens, where they do not stand row by row."""
    parts = layer.split(".") if layout.kind == "tokens" else []
    for end in range(len(parts)):
        around = module.get_submodule(".".join(parts[:end]))
        for pattern, order in ORDERS.get(type(around).__name__, {}).items():
            if re.match(pattern, ".".join(parts[end:])):
                found = order(around, prod(layout.grid))
                row_by_row = torch.equal(found, torch.arange(len(found)))
                return replace(layout, order=() if row_by_row else tuple(found.tolist()))
    return layout


def _mask_units(hiera: Any, n: int) -> Tensor:
    """Hiera keeps what its next poolings join together, until the last one.  -> [n]"""
    unroll, (height, width) = hiera.unroll, hiera.unroll.size
    cells = torch.arange(height * width)
    # each row becomes the cells of one token, as pooling takes the maximum over the columns
    joined = unroll(cells.float()[None, :, None]).long().view(-1, n).T[:, 0]
    pooled = round((height * width / n) ** 0.5)
    y, x = joined // width // pooled, joined % width // pooled
    return torch.argsort(y * (width // pooled) + x)


# class of a model -> pattern of its layers -> the index of each cell's token, row by row
ORDERS: Mapping[str, Mapping[str, Callable[[Any, int], Tensor]]] = {
    "Hiera": {r"unroll|blocks\b": _mask_units}
}
