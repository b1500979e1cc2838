"""Intervals, paired tests and baseline maps, by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from camcli.errors import UsageError
from camcli.metrics.baseline_maps import BASELINE_MAPS, centred_gaussian, sobel_edges, uniform_map
from camcli.metrics.bootstrap import bootstrap_interval
from camcli.metrics.significance import adjust_holm, permute_signs, smallest_p


def test_the_interval_of_two_pictures_holds_their_means_and_ends() -> None:
    # means of two draws out of 0 and 1: 0, 1/2, 1/2, 1, each in a quarter
    assert bootstrap_interval(torch.tensor([0.0, 1.0])) == (0.0, 1.0)
    assert bootstrap_interval(torch.tensor([0.0, 1.0]), level=0.4) == (0.5, 0.5)


def test_the_interval_of_many_is_the_normal_one() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(3)).double()
    low, high = bootstrap_interval(values)
    half = 1.96 * float(values.std(correction=0)) / 20
    assert low == pytest.approx(float(values.mean()) - half, abs=0.02)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.02)
    assert (low, high) == bootstrap_interval(values)
    assert (low, high) != bootstrap_interval(values, seed=1)
    # whatever the number that is drawn together
    assert bootstrap_interval(values.repeat(30), draws=500)[0] < float(values.mean())


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [[1.0, 2.0]]])
def test_what_has_no_interval(values: list[float]) -> None:
    with pytest.raises(UsageError, match="two or more finite values"):
        bootstrap_interval(torch.tensor(values))
    with pytest.raises(UsageError, match="level"):
        bootstrap_interval(torch.tensor([1.0, 2.0]), level=1.0)


def test_signs_are_tried_one_and_all() -> None:
    # of eight sums of 1, 2 and 3 two are 6 or -6
    assert permute_signs(torch.tensor([1.0, 2.0, 3.0])) == 2 / 8
    # 2, -1, 0: sums of +-2 +-1 are 3, 1, -1, -3, each at least 1 from zero
    assert permute_signs(torch.tensor([2.0, -1.0, 0.0])) == 1.0
    # nobody differs
    assert permute_signs(torch.zeros(4)) == 1.0
    # sums that are equal but for rounding count
    assert permute_signs(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)) == 2 / 8
    values = [0.5, -0.2, 0.9, 0.4, -0.1]
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True)))
            for signs in itertools.product((1, -1), repeat=5)]  # fmt: skip
    expected = sum(s >= abs(sum(values)) - 1e-9 for s in sums) / 32
    assert permute_signs(torch.tensor(values, dtype=torch.float64)) == expected


def test_of_many_signs_some_are_drawn() -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(1)).double()
    centred = values - values.mean()
    one = permute_signs(centred + 0.13)
    # 0.13 is about one deviation of the mean of 60
    assert 0.2 < one < 0.5 and one == permute_signs(centred + 0.13)
    assert permute_signs(centred + 1) == 1 / 10_001 == smallest_p(60)
    assert permute_signs(torch.ones(5)) == smallest_p(5) == 2 / 32
    with pytest.raises(UsageError, match="finite"):
        permute_signs(torch.tensor([1.0, float("inf")]))


def test_holm_multiplies_from_the_least_on() -> None:
    assert adjust_holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert adjust_holm([0.5, 0.9]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_a_gaussian_is_highest_in_the_middle_and_alike_on_all_sides() -> None:
    heat = centred_gaussian(torch.zeros(3, 8, 12))
    assert heat.shape == (8, 12)
    torch.testing.assert_close(heat, heat.flip(0))
    torch.testing.assert_close(heat, heat.flip(1))
    assert heat[3, 5] == heat.max()
    # half an edge from the middle is two deviations
    assert float(heat[0, 5] / heat[3, 5]) == pytest.approx(
        float(torch.tensor((0.4375**2 - 0.0625**2) / (2 * 0.25**2)).neg().exp())
    )


def test_edges_are_where_the_picture_changes() -> None:
    image = torch.zeros(3, 6, 8)
    image[:, :, 4:] = 1
    edges = sobel_edges(image)
    # 1 + 2 + 1 rows of a step by one, on both sides of it
    assert edges[:, 3:5].eq(4).all()
    assert edges[:, :3].eq(0).all() and edges[:, 5:].eq(0).all()
    assert uniform_map(image).eq(1).all()
    assert all(make(image).shape == (6, 8) for make in BASELINE_MAPS.values())
