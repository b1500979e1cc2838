"""How passes are spent: on which pictures how many candidates are measured.

Where boxes say what is right, a candidate costs no pass.  Faithfulness costs passes, which are
spent by halving: single maps are measured on a few pictures, pairs of the best of them on some, and
the finalists on all.
"""

from __future__ import annotations

from dataclasses import dataclass

from camcli.errors import UsageError

BUDGET = 6000
# points of a curve, of which the two at its ends are shared by all maps of a picture
STEPS = 8
CURVES = 2  # deletion and insertion
FEWEST_PICTURES = 3
FINALISTS = 6
RIVALS = 2
# of each layer as many single maps are paired
PAIRED_BY_BOXES, PAIRED_BY_PASSES = 2, 1
# what the finalists and the pictures that are held back may take of a budget, and single maps of
# what is left
SHARE_OF_FINALISTS, SHARE_OF_SINGLES = 0.4, 0.5


@dataclass(frozen=True)
class SearchSize:
    """What is searched, and what a picture costs.

    `map_passes` give all single maps of a picture; `has_boxes` says that candidates cost no pass.
    """

    singles: int
    layers: int
    map_passes: int
    has_boxes: bool

    @property
    def paired(self) -> int:
        """How many single maps are paired at most."""
        each = PAIRED_BY_BOXES if self.has_boxes else PAIRED_BY_PASSES
        return min(self.singles, each * self.layers)

    @property
    def pairs(self) -> int:
        """How many pairs there are at most, each combined in two ways."""
        return self.paired * (self.paired - 1)

    def cost(self, candidates: int) -> int:
        """Returns how many passes it takes to measure candidates on a picture."""
        # the picture itself, and the other end of each curve
        shared = 1 + CURVES
        return 0 if self.has_boxes else shared + candidates * CURVES * (STEPS - 1)


@dataclass(frozen=True)
class Schedule:
    """How many pictures choose and how many are held back, and how many each round has of them.

    `passes` is what all of it takes at most.
    """

    search: int
    held: int
    rounds: tuple[int, int, int]
    passes: int

    @property
    def pictures(self) -> int:
        """How many pictures are used."""
        return self.search + self.held


def make_schedule(pictures: int, size: SearchSize, budget: int) -> Schedule:
    """Spends a budget of passes on at most so many pictures; raises UsageError where it is small.

    A third of the pictures is held back.
    """
    least = _spend(FEWEST_PICTURES, size, None)
    if least.passes > budget:
        raise UsageError(
            f"--budget {budget} is too small: {size.singles} single maps and their pairs on "
            f"{FEWEST_PICTURES} pictures take {least.passes} passes. Give more, or fewer --method "
            "and --layers."
        )
    share = 1.0 if size.has_boxes else SHARE_OF_FINALISTS
    for used in range(pictures, FEWEST_PICTURES, -1):
        schedule = _spend(used, size, budget)
        if _count_fixed(used, size) <= share * budget and schedule.passes <= budget:
            return schedule
    return _spend(FEWEST_PICTURES, size, budget)


def split_pictures(pictures: int) -> tuple[int, int]:
    """Returns how many of some pictures choose, and how many are held back: a third."""
    held = max(1, pictures // 3)
    return pictures - held, held


def _count_fixed(pictures: int, size: SearchSize) -> int:
    """Counts the passes of all maps, of the finalists, and of the pictures that are held back."""
    search, held = split_pictures(pictures)
    maps = pictures * size.map_passes
    return maps + search * size.cost(FINALISTS) + held * size.cost(1 + RIVALS)


def _spend(pictures: int, size: SearchSize, budget: int | None) -> Schedule:
    """Spends the rest of a budget on single maps and pairs; without one, as little as can be."""
    search, held = split_pictures(pictures)
    passes = _count_fixed(pictures, size)
    first, second = size.cost(size.singles + RIVALS), size.cost(size.paired + size.pairs + RIVALS)
    if size.has_boxes:
        return Schedule(search, held, (search, search, search), passes)
    rest = 0 if budget is None else budget - passes
    singles = _afford(rest * SHARE_OF_SINGLES, first, search)
    pairs = _afford(rest - singles * first, second, search)
    singles = max(singles, _afford(rest - pairs * second, first, search))
    passes += singles * first + pairs * second
    return Schedule(search, held, (singles, pairs, search), passes)


def _afford(passes: float, cost: int, most: int) -> int:
    """Returns for how many pictures the passes suffice, one at least."""
    return max(1, min(most, int(passes // cost)))
