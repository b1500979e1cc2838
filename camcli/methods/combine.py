"""Combines several methods' maps of one picture and class into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from camcli.errors import UsageError
from camcli.methods.postprocessing import fuse

Combination = Literal["mean", "product"]


def combine(maps: Sequence[Tensor], size: tuple[int, int], how: Combination) -> Tensor:
    """Combines methods' maps, each with a grid of its own, normalised and enlarged.  m x [... h w]

    What comes out is 0 to 1 at `size`, [... H W].  The product keeps what all of the maps show, and
    asks neither for their order nor for their scale; where one of them shows nothing, so does it.
    Raises UsageError for no maps, or another way to combine them.

    >>> import torch
    >>> ramp, top = torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0], [0.0]])
    >>> combine([ramp, top], (2, 2), "product")
    tensor([[0., 1.],
            [0., 0.]])
    """
    if how not in get_args(Combination):
        allowed = " or ".join(get_args(Combination))
        raise UsageError(f"Methods are combined by {allowed}, not {how!r}.")
    if not maps:
        raise UsageError("There are no maps to combine: name one method or more.")
    return fuse(maps, size, how)
