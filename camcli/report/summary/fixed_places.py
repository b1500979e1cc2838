"""Finds the classes whose heat hangs on one place of the view: a corner, an edge, the frame.

That is how a watermark, a ruler or a copyright tag shows that a model learned.  A place is named
where a class's heat lies there several times as much as if it were spread evenly, half as much
again as in the other classes, and more than chance would have it (the rank test of Mann and
Whitney, 1947, corrected for all classes and places that are tried).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from camcli.report.summary.map_geometry import BORDER_AREA, FRAME, PLACES

Array = NDArray[np.float64]

FEWEST = 5  # pictures of a class, fewer than which are no pattern
CHANCE = 0.01  # of naming any class where none hangs on a place
LEAST_RATIO = 1.5  # to the other classes' mean share
# the mean share from which heat hangs on a place: 4 times its area, and of the frame 1.7 times
LEAST_SHARES: Mapping[str, float] = {**dict.fromkeys(PLACES, 0.25), FRAME: 0.75}


@dataclass(frozen=True)
class FixedPlace:
    """A place on which a class's heat hangs.

    `share` is its mean share of the heat, `area` of the view, `others` of the other classes' heat,
    None where there is no other class; `hot` of the class's `pictures` have such a share there.
    """

    place: str
    share: float
    area: float
    others: float | None
    hot: int
    pictures: int

    def describe(self) -> str:
        """Says what was found, in words."""
        beside = "" if self.others is None else f", {self.others:.0%} in the other classes"
        at = "at" if self.place.endswith("edge") else "in"
        return (
            f"{self.share:.0%} of the heat lies {at} the {self.place} of the view ({self.area:.0%} "
            f"for even heat{beside}), in {self.hot} of {self.pictures} pictures: look whether a "
            "watermark, a logo, a ruler or a tag is there"
        )


def find_fixed_places(
    shares_by_class: Sequence[Mapping[str, Array]],
) -> list[tuple[FixedPlace, ...]]:
    """Finds for each class the places on which its heat hangs, the most striking first.

    A class is given as the shares of heat in each place, one number a picture [n].
    """
    tried = sum(len(shares[FRAME]) >= FEWEST for shares in shares_by_class) * len(LEAST_SHARES)
    least = NormalDist().inv_cdf(1 - CHANCE / tried) if tried else inf
    found = ([*_find_places(shares_by_class, n, least)] for n in range(len(shares_by_class)))
    return [tuple(sorted(_drop_implied(places), key=_order)) for places in found]


def _order(found: FixedPlace) -> float:
    return -found.share / found.area


def _drop_implied(places: Sequence[FixedPlace]) -> list[FixedPlace]:
    """Leaves out the frame where a corner or an edge has half of its heat: it says no more then."""
    inner = max((found.share for found in places if found.place != FRAME), default=0.0)
    return [found for found in places if found.place != FRAME or inner < found.share / 2]


def _find_places(
    shares_by_class: Sequence[Mapping[str, Array]], number: int, least: float
) -> Iterator[FixedPlace]:
    for place, least_share in LEAST_SHARES.items():
        own = shares_by_class[number][place]
        if len(own) < FEWEST or own.mean() < least_share:
            continue
        elsewhere = [s[place] for n, s in enumerate(shares_by_class) if n != number]
        others = np.concatenate(elsewhere) if elsewhere else np.empty(0)
        if len(others) and not _is_higher(own, others, least):
            continue
        yield FixedPlace(
            place,
            float(own.mean()),
            BORDER_AREA if place == FRAME else PLACES[place].area,
            float(others.mean()) if len(others) else None,
            int((own >= least_share).sum()),
            len(own),
        )


def _is_higher(own: Array, others: Array, least: float) -> bool:
    return bool(own.mean() >= LEAST_RATIO * others.mean()) and _score_ranks(own, others) >= least


def _score_ranks(own: Array, others: Array) -> float:
    """Returns how many standard deviations the ranks of some values are higher than by chance."""
    n, m = len(own), len(others)
    ordered = np.sort(others)
    below = (np.searchsorted(ordered, own) + np.searchsorted(ordered, own, "right")).sum() / 2
    return float((below - n * m / 2) / sqrt(n * m * (n + m + 1) / 12))
