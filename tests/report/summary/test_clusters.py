"""Maps of a class that are hot in different places are told apart, and maps alike are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from camcli.report.summary import share_heat
from camcli.report.summary.clusters import cluster_maps, measure_difference
from tests.report.made_runs import spot

pytest.importorskip("sklearn")


def noisy(row: int, column: int, count: int, seed: int) -> list[NDArray[np.float64]]:
    draw = np.random.default_rng(seed)
    maps = (spot(row, column) + 0.05 * draw.random((7, 7)).astype(np.float32) for _ in range(count))
    return [shares for one in maps if (shares := share_heat(one)) is not None]


def test_two_places_are_two_clusters_the_larger_first() -> None:
    maps = np.stack([*noisy(1, 1, 8, 0), *noisy(5, 5, 16, 1)])
    assert cluster_maps(maps).tolist() == [1] * 8 + [0] * 16


def test_three_places_are_three_clusters() -> None:
    maps = np.stack([*noisy(0, 0, 12, 0), *noisy(6, 6, 11, 1), *noisy(0, 6, 10, 2)])
    assert cluster_maps(maps).tolist() == [0] * 12 + [1] * 11 + [2] * 10


def test_maps_alike_are_one() -> None:
    assert not cluster_maps(np.stack(noisy(3, 3, 30, 0))).any()


def test_few_maps_are_one() -> None:
    assert not cluster_maps(np.stack([*noisy(1, 1, 4, 0), *noisy(5, 5, 5, 1)])).any()


def test_more_maps_than_are_clustered_go_to_the_nearest_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("camcli.report.summary.clusters.MOST", 20)
    maps = np.stack([*noisy(1, 1, 40, 0), *noisy(5, 5, 60, 1)])
    assert cluster_maps(maps).tolist() == [1] * 40 + [0] * 60


def test_the_difference_is_the_share_that_lies_elsewhere() -> None:
    one, other = np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.5])
    assert measure_difference(one, other) == 0.5
    assert measure_difference(one, one) == 0
