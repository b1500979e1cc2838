"""How far methods agree on a picture, on maps worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from camcli.report.agreement import measure_agreement
from tests.report.made_runs import made, spot, stored


def test_equal_maps_agree_and_opposite_ones_do_not() -> None:
    values = spot(2, 2)
    items = [
        made("a.png", values),
        made("a.png", 3 * values, method="layercam"),
        made("b.png", values),
        made("b.png", values.max() - values, method="layercam"),
        made("c.png", values),
    ]
    agreement = measure_agreement([stored(item) for item in items])
    assert agreement[:2] == pytest.approx([1, 1]) and agreement[2:4] == pytest.approx([-1, -1])
    assert agreement[4] is None


def test_each_map_has_the_mean_of_its_correlations_on_any_grid() -> None:
    one, two = spot(2, 2), spot(2, 4)
    expected = np.corrcoef(one.ravel(), two.ravel())[0, 1]
    fine = np.kron(one, np.ones((2, 2), np.float32))
    items = [
        made("a.png", one),
        made("a.png", fine, method="layercam"),
        made("a.png", two, method="hirescam"),
    ]
    agreement = measure_agreement([stored(item) for item in items])
    # the common grid cuts cells, which rounds a little
    assert agreement == pytest.approx([(1 + expected) / 2] * 2 + [expected], abs=0.02)


def test_other_classes_and_the_same_method_are_not_compared() -> None:
    items = [
        made("a.png", spot(1, 1)),
        made("a.png", spot(5, 5), category=2, method="layercam"),
        made("a.png", spot(5, 5), layers=("layer3",)),
        made("a.png", np.zeros((7, 7), np.float32), method="hirescam"),
    ]
    assert measure_agreement([stored(item) for item in items]) == [None] * 4
