"""The candidates of a search: methods at layers, and pairs of them combined into one map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from camcli.methods.combine import SIGNS, CombinedMethod, combine
from camcli.methods.postprocessing import enlarge
from camcli.records import Combination

SAME = 1e-6  # metrics of one map differ by less, from rounding
# a method and the layer that it looks at, "" for none
Part = tuple[str, str]


@dataclass(frozen=True)
class Candidate:
    """Methods, each at a layer, and how their maps are combined; a single one is not."""

    parts: tuple[Part, ...]
    combination: Combination | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """Each part in the form of the command line: METHOD@LAYER, or METHOD."""
        return CombinedMethod("", self.parts, self.combination or "mean").terms

    def is_same(self, other: Candidate) -> bool:
        """Tells whether two candidates make the same map, in any order of their parts."""
        return {*self.parts} == {*other.parts} and self.combination == other.combination

    def make_map(self, raw: Mapping[Part, Tensor], size: tuple[int, int]) -> Tensor:
        """Makes the candidate's map [H W] of raw maps, [h w] each, or [t h w] for t slices."""
        if self.combination:
            made = combine([raw[part] for part in self.parts], size, self.combination)
            return made.mean(0) if made.ndim == 3 else made
        values = raw[self.parts[0]]
        return enlarge(values.mean(0) if values.ndim == 3 else values, size)

    def __str__(self) -> str:
        """The candidate in a line: `gradcamelementwise@layer3 x hirescam@layer4`."""
        return SIGNS[self.combination or "mean"].join(self.terms)


def choose_paired(
    ranked: Sequence[Candidate], most: int, values: Mapping[Candidate, NDArray[np.float64]]
) -> tuple[Candidate, ...]:
    """Chooses the best single maps of each layer, at most `most`; the best one comes first.

    Of maps with equal values only the first counts, since they are the same map: LayerCAM's and
    GradCAMElementWise's are the same behind a ReLU.
    """
    taken: dict[str, list[Candidate]] = {}
    for candidate in ranked:
        ((_, layer),) = candidate.parts
        others = taken.setdefault(layer, [])
        is_new = not any(np.allclose(values[candidate], values[o], atol=SAME) for o in others)
        if len(others) < most and is_new:
            others.append(candidate)
    chosen = {candidate for others in taken.values() for candidate in others}
    return tuple(candidate for candidate in ranked if candidate in chosen)


def list_pairs(singles: Sequence[Candidate]) -> Iterator[Candidate]:
    """Yields all pairs of single maps, each combined in every way."""
    for one, other in combinations(singles, 2):
        for how in get_args(Combination):
            yield Candidate((*one.parts, *other.parts), how)
