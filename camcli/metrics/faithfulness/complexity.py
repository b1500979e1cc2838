"""Complexity: how much of the picture a map marks."""

from __future__ import annotations

from torch import Tensor

from camcli.metrics.validation import check_unit_maps
from camcli.registry import metric


@metric(
    "complexity",
    family="faithfulness",
    direction="lower",
    range=(0, 1),
    paper="arXiv:2104.10252",
)
def complexity(unit_maps: Tensor) -> Tensor:
    """The map's mean, which is its L1 norm by pixel, arXiv:2104.10252.  [b H W] -> [b]

    A map without heat has the lowest complexity, so the value alone says nothing: it is a part of
    `adcc` and `arcc`.
    """
    return check_unit_maps(unit_maps).mean((1, 2))
