"""Two maps on one scale, and one taken from the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from camcli.errors import UsageError
from camcli.pipeline import Explanation
from camcli.pipeline.comparison.map_comparison import MOST_CELLS, compare_maps
from camcli.records import Box, Heatmap, Picture, Record
from camcli.render.colormap import LOWERS, RAISES
from camcli.render.overlay import resize_map

SIZE = (40, 60)
PICTURE = Picture(np.full((*SIZE, 3), 255, np.uint8))
WHOLE = Box(0, 0, 60, 40)


def explain(values: Any, model: str = "a", view: Box = WHOLE, **facts: Any) -> Explanation:
    heat = np.array(values, np.float32)
    record = Record(
        "cat.png", model=model, method="gradcam", layers=("last",), category=1, label="cat",
        target="logit", minimum=float(heat.min()), maximum=float(heat.max()), view=view, **facts,
    )  # fmt: skip
    return Explanation(PICTURE, view, record, Heatmap(heat, "gradcam", ("last",), 1), (32, 32))


def everywhere(explanation: Explanation) -> NDArray[np.float32]:
    return resize_map(explanation.heatmap, explanation.view, SIZE)


def test_the_difference_is_one_minus_the_other_on_one_scale() -> None:
    draw = np.random.default_rng(0)
    one = explain(draw.normal(size=(7, 7)), "a")
    other = explain(3 * draw.normal(size=(4, 6)), "b")
    first, second, difference = compare_maps(one, other)
    most = float(other.heatmap.max())
    assert first.scale == second.scale == difference.scale == (0.0, most)
    expected = everywhere(explain(np.maximum(one.heatmap, 0))) - everywhere(
        explain(np.maximum(other.heatmap, 0))
    )
    np.testing.assert_allclose(everywhere(difference), expected, atol=1e-6)
    record = difference.record
    assert (record.model, record.compared_with) == ("a - b", "b")
    assert (record.minimum, record.maximum) == pytest.approx((expected.min(), expected.max()))
    assert difference.is_signed and not first.is_signed


def test_red_is_where_the_first_is_stronger_and_blue_where_the_other_is() -> None:
    one, other = explain([[1.0, 0.0]], "a"), explain([[0.0, 1.0]], "b")
    first, second, difference = compare_maps(one, other)
    drawn = difference.overlay(alpha=1)
    assert tuple(drawn[20, 0]) == RAISES and tuple(drawn[20, -1]) == LOWERS
    # both are drawn alike, as both reach the end of the scale
    assert (first.overlay()[:, ::-1] == second.overlay()).all()


def test_half_as_strong_is_drawn_half_as_hot() -> None:
    strong, weak = explain([[0.0, 4.0]], "a"), explain([[0.0, 2.0]], "b")
    first, second, difference = compare_maps(strong, weak)
    grey = explain([[0.0, 4.0]]).overlay(1, "bone")
    assert (first.overlay(1, "bone") == grey).all()
    half = explain([[0.0, 2.0]]).overlay(1, "bone", scale=(0, 4))
    assert (second.overlay(1, "bone") == half).all()
    assert everywhere(difference)[0, -1] == pytest.approx(2)
    # by its own maximum it is as hot, and nothing is left
    first, second, difference = compare_maps(strong, weak, own_scales=True)
    assert (first.overlay() == second.overlay()).all()
    assert not difference.heatmap.any() and first.scale is None


def test_a_map_compared_with_itself_leaves_nothing() -> None:
    one = explain(np.random.default_rng(0).normal(size=(7, 7)))
    _, _, difference = compare_maps(one, one)
    assert not difference.heatmap.any()
    assert (difference.overlay() == PICTURE.pixels).all()


def test_signed_maps_keep_their_sign() -> None:
    one, other = explain([[-2.0, 1.0]], "a", value=3.0), explain([[1.0, 1.0]], "b", value=1.0)
    first, _, difference = compare_maps(one, other)
    assert first.scale == (0.0, 2.0)
    assert everywhere(difference)[0, [0, -1]] == pytest.approx([-3, 0])
    assert difference.value is None and difference.record.probability is None


def test_models_that_see_other_parts_are_compared_where_both_see() -> None:
    one = explain([[1.0, 1.0]], "a", Box(0, 0, 40, 40))
    other = explain([[0.5]], "b", Box(20, -5, 70, 45))
    _, _, difference = compare_maps(one, other)
    assert difference.view == Box(20, 0, 40, 40)
    assert difference.heatmap.shape == (40, 20)
    np.testing.assert_allclose(difference.heatmap, 0.5)
    with pytest.raises(UsageError, match="no common part"):
        compare_maps(one, explain([[1.0]], "b", Box(50, 0, 60, 40)))


def test_large_pictures_take_fewer_cells() -> None:
    large = Picture(np.zeros((1500, 3000, 3), np.uint8))
    view = Box(0, 0, 3000, 1500)
    one, other = (
        Explanation(large, view, e.record, e.map, (32, 32))
        for e in (explain([[0.0, 1.0]]), explain([[1.0, 0.0]]))
    )
    _, _, difference = compare_maps(one, other)
    assert difference.heatmap.shape == (512, MOST_CELLS)
    assert difference.view.width == pytest.approx(3000)
    with pytest.raises(UsageError, match="60x40 and 3000x1500 pixels"):
        compare_maps(explain([[0.0, 1.0]]), other)
