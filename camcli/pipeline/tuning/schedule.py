"""Decides how passes are spent: how many candidates are measured on how many pictures.

With boxes a candidate costs no pass.  Faithfulness costs passes, so the number of candidates is
halved in rounds: single maps are measured on a few pictures, pairs of the best of them on more, and
the finalists on all.
"""

from __future__ import annotations

from dataclasses import dataclass

from camcli.errors import UsageError

BUDGET = 6000
# points of a curve; all maps of a picture share the two at its ends
STEPS = 8
CURVES = 2  # deletion and insertion
FEWEST_PICTURES = 3
FINALISTS = 6
RIVALS = 2
# so many single maps of each layer are paired
PAIRED_BY_BOXES, PAIRED_BY_PASSES = 2, 1
# the share of a budget for the finalists and the pictures held back, and the share of the rest for
# single maps
SHARE_OF_FINALISTS, SHARE_OF_SINGLES = 0.4, 0.5


@dataclass(frozen=True)
class SearchSize:
    """The size of a search, and the cost of a picture.

    `map_passes` passes make all single maps of a picture; with `has_boxes` candidates cost no pass.
    """

    singles: int
    layers: int
    map_passes: int
    has_boxes: bool

    @property
    def paired(self) -> int:
        """The largest number of single maps that are paired."""
        each = PAIRED_BY_BOXES if self.has_boxes else PAIRED_BY_PASSES
        return min(self.singles, each * self.layers)

    @property
    def pairs(self) -> int:
        """The largest number of pairs, each combined in two ways."""
        return self.paired * (self.paired - 1)

    def cost(self, candidates: int) -> int:
        """Returns the number of passes that measure so many candidates on a picture."""
        # beside them the picture itself, and the other end of each curve
        shared = 1 + CURVES
        return 0 if self.has_boxes else shared + candidates * CURVES * (STEPS - 1)


@dataclass(frozen=True)
class Schedule:
    """How many pictures choose, how many are held back, and how many each round uses.

    `passes` is the largest number of passes of the whole search.
    """

    search: int
    held: int
    rounds: tuple[int, int, int]
    passes: int

    @property
    def pictures(self) -> int:
        """The number of pictures that are used."""
        return self.search + self.held


def make_schedule(pictures: int, size: SearchSize, budget: int) -> Schedule:
    """Spends a budget of passes on at most `pictures` pictures; a third of them is held back.

    Raises UsageError if the budget is too small.
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
    """Returns how many pictures choose, and how many are held back: a third."""
    held = max(1, pictures // 3)
    return pictures - held, held


def _count_fixed(pictures: int, size: SearchSize) -> int:
    """Counts the passes of all maps, of the finalists, and of the pictures held back."""
    search, held = split_pictures(pictures)
    maps = pictures * size.map_passes
    return maps + search * size.cost(FINALISTS) + held * size.cost(1 + RIVALS)


def _spend(pictures: int, size: SearchSize, budget: int | None) -> Schedule:
    """Spends the rest of a budget on single maps and pairs; the least without a budget."""
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
    """Returns for how many pictures the passes are enough; at least one."""
    return max(1, min(most, int(passes // cost)))
