"""How a budget of passes is spent."""

from __future__ import annotations

import pytest

from camcli.errors import UsageError
from camcli.pipeline.tuning.schedule import (
    FINALISTS,
    RIVALS,
    STEPS,
    SearchSize,
    make_schedule,
    split_pictures,
)

FREE = SearchSize(singles=40, layers=5, map_passes=2, has_boxes=True)
DEAR = SearchSize(singles=40, layers=5, map_passes=2, has_boxes=False)


def test_a_third_is_held_back() -> None:
    assert [split_pictures(n) for n in (3, 4, 5, 6, 12, 100)] == [
        (2, 1), (3, 1), (4, 1), (4, 2), (8, 4), (67, 33),
    ]  # fmt: skip


def test_with_boxes_a_picture_costs_its_maps_alone() -> None:
    schedule = make_schedule(128, FREE, 6000)
    assert (schedule.search, schedule.held, schedule.passes) == (86, 42, 256)
    assert schedule.rounds == (86, 86, 86)
    # of each layer the two best, each two in two ways
    assert FREE.paired == 10 and FREE.pairs == 90
    # pictures are fewer where passes are
    assert make_schedule(128, FREE, 100).pictures == 50
    assert make_schedule(128, FREE, 6).pictures == 3
    with pytest.raises(UsageError, match=r"--budget 5 is too small: .* take 6 passes"):
        make_schedule(128, FREE, 5)


@pytest.mark.parametrize("budget", [1300, 2000, 6000, 50_000])
@pytest.mark.parametrize("pictures", [3, 4, 12, 40, 1000])
@pytest.mark.parametrize("size", [DEAR, SearchSize(8, 2, 4, has_boxes=False)])
def test_without_boxes_what_is_planned_costs_no_more_than_the_budget(
    size: SearchSize, pictures: int, budget: int
) -> None:
    schedule = make_schedule(pictures, size, budget)
    first, second, last = schedule.rounds
    assert 3 <= schedule.pictures <= pictures and last == schedule.search
    assert 1 <= first <= last and 1 <= second <= last
    # a map has so many altered pictures of its own, and a picture three that its maps share
    each = 2 * (STEPS - 1)
    passes = schedule.pictures * size.map_passes
    passes += first * (3 + (size.singles + RIVALS) * each)
    passes += second * (3 + (size.paired + size.pairs + RIVALS) * each)
    passes += last * (3 + FINALISTS * each) + schedule.held * (3 + (1 + RIVALS) * each)
    assert passes == schedule.passes <= budget
    # more of them are used where the budget is larger
    assert make_schedule(pictures, size, 2 * budget).pictures >= schedule.pictures


def test_a_budget_that_is_too_small_is_told() -> None:
    with pytest.raises(UsageError, match="--budget 500 is too small: 40 single maps"):
        make_schedule(20, DEAR, 500)
