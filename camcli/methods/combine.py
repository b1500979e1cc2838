"""Combines several methods' maps of one picture and class into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from camcli.errors import UsageError
from camcli.method_terms import AT
from camcli.methods.postprocessing import fuse
from camcli.records import Combination
from camcli.registry import depends_on_category


@dataclass(frozen=True)
class CombinedMethod:
    """Methods, each with the layer it looks at ("" for none), whose maps become one of this name.

    Raises UsageError for another way to combine them.
    """

    name: str
    parts: tuple[tuple[str, str], ...]
    combination: Combination

    def __post_init__(self) -> None:
        """Refuses what is not defined."""
        check_combination(self.combination)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, each once."""
        return tuple(dict.fromkeys(method for method, _ in self.parts))

    @property
    def layers(self) -> tuple[str, ...]:
        """The target layers, each once; none where no method looks at one."""
        return tuple(dict.fromkeys(layer for _, layer in self.parts if layer))

    @property
    def terms(self) -> tuple[str, ...]:
        """Each part as a person writes it: METHOD@LAYER, or METHOD."""
        return tuple(f"{m}{AT}{layer}" if layer else m for m, layer in self.parts)

    @property
    def asks_class(self) -> bool:
        """Whether the map is another one for another class."""
        return any(map(depends_on_category, self.methods))

    def __str__(self) -> str:
        """The parts in a line: `gradcamelementwise@layer3 x hirescam@layer4`."""
        return SIGNS[self.combination].join(self.terms)


SIGNS = {"product": " x ", "mean": " + "}


def check_combination(how: str) -> None:
    """Raises UsageError for what is no way to combine methods."""
    if how not in get_args(Combination):
        allowed = " or ".join(get_args(Combination))
        raise UsageError(f"Methods are combined by {allowed}, not {how!r}.")


def combine(
    maps: Sequence[Tensor], size: tuple[int, int], how: Combination, *, keep_sign: bool = False
) -> Tensor:
    """Combines methods' maps, each with a grid of its own, normalised and enlarged.  m x [... h w]

    What comes out is 0 to 1 at `size`, [... H W].  The product keeps what all of the maps show, and
    asks neither for their order nor for their scale; where one of them shows nothing, so does it.
    With `keep_sign` the maps are those of a value, of which only the mean is defined, -1 to 1.
    Raises UsageError for no maps, or another way to combine them.

    >>> import torch
    >>> ramp, top = torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0], [0.0]])
    >>> combine([ramp, top], (2, 2), "product")
    tensor([[0., 1.],
            [0., 0.]])
    """
    check_combination(how)
    if not maps:
        raise UsageError("There are no maps to combine: name one method or more.")
    return fuse(maps, size, how, keep_sign=keep_sign)
