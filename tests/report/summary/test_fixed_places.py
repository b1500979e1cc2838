"""A class is named whose heat hangs on one place, and no other one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from camcli.report.summary.fixed_places import find_fixed_places
from camcli.report.summary.map_geometry import FRAME, PLACES

Shares = Mapping[str, NDArray[np.float64]]


def even(pictures: int, seed: int = 0, **hot: float) -> Shares:
    """Shares as of even heat with some noise; of the places that are named, as much as is said."""
    draw = np.random.default_rng(seed)
    means = {**dict.fromkeys(PLACES, 1 / 16), FRAME: 0.44} | {
        name.replace("_", " "): share for name, share in hot.items()
    }
    return {name: draw.normal(mean, 0.02, pictures).clip(0) for name, mean in means.items()}


@pytest.mark.parametrize("place", PLACES)
def test_the_class_and_the_place_are_named_first(place: str) -> None:
    classes = [even(20, 1), even(20, 2, **{place.replace(" ", "_"): 0.4}), even(20, 3)]
    found = find_fixed_places(classes)
    assert found[0] == found[2] == ()
    first = found[1][0]
    assert first.place == place and first.pictures == first.hot == 20
    assert first.share == pytest.approx(0.4, abs=0.02) and first.area == pytest.approx(1 / 16)
    assert first.others == pytest.approx(1 / 16, abs=0.02)
    said = first.describe()
    where = f"at the {place}" if place.endswith("edge") else f"in the {place}"
    assert said.startswith(f"40% of the heat lies {where} of the view (6% for even heat, ")
    assert "6% in the other classes), in 20 of 20 pictures" in said


def test_the_frame_is_named() -> None:
    found = find_fixed_places([even(12, 1, frame=0.8), even(12, 2)])
    assert [one.place for one in found[0]] == [FRAME]
    assert "in the frame of the view (44% for even heat, 44% in" in found[0][0].describe()


def test_a_corner_that_has_the_frames_heat_is_named_alone() -> None:
    found = find_fixed_places([even(12, 1, frame=0.9, upper_left_corner=0.7), even(12, 2)])
    assert [one.place for one in found[0]] == ["upper left corner"]


def test_what_all_classes_share_is_named_of_none() -> None:
    classes = [even(20, seed, upper_left_corner=0.4) for seed in range(4)]
    assert find_fixed_places(classes) == [()] * 4


def test_few_pictures_are_no_pattern() -> None:
    assert find_fixed_places([even(4, 1, upper_edge=0.9), even(40, 2)]) == [(), ()]


def test_the_only_class_is_held_against_its_area() -> None:
    ((found,),) = find_fixed_places([even(8, 1, left_edge=0.5)])
    assert found.place == "left edge" and found.others is None
    assert "other classes" not in found.describe()


def test_chance_names_nobody() -> None:
    # 40 classes of 10 pictures, heavy tails: some class is hot somewhere by chance
    for seed in range(10):
        draw = np.random.default_rng(seed)
        classes = [{place: draw.beta(0.5, 3, 10) for place in (*PLACES, FRAME)} for _ in range(40)]
        assert not any(find_fixed_places(classes)), seed


def test_no_class_is_no_error() -> None:
    assert find_fixed_places([]) == []
