"""Methods combined: values worked out by hand, a slow replica, and what a product does not ask."""

import numpy as np
import pytest
import torch

from camcli.errors import UsageError
from camcli.methods.combine import combine

RAMP = torch.tensor([[0.0, 2.0, 4.0, 8.0]])
# below zero there is no heat, and the largest value becomes 1
HILL = torch.tensor([[-3.0, 5.0, 10.0, -1.0]])


def test_combined_by_hand() -> None:
    product, mean = (combine([RAMP, HILL], (1, 4), how) for how in ("product", "mean"))
    torch.testing.assert_close(product, torch.tensor([[0, 1 / 8, 1 / 2, 0]]))
    torch.testing.assert_close(mean, torch.tensor([[0, 3 / 8, 3 / 4, 1 / 2]]))


def test_grids_of_several_sizes_are_enlarged_first() -> None:
    # a step between two cells is 0, 1/4, 3/4, 1 when it is twice as wide
    actual = combine([torch.tensor([[0.0, 9.0]]), torch.ones(2, 4).triu()], (2, 4), "product")
    expected = torch.tensor([[0, 1 / 4, 3 / 4, 1], [0, 1 / 4, 3 / 4, 1]])
    expected[1, 0] = 0
    torch.testing.assert_close(actual, expected)


def test_it_is_its_replica_map_by_map() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 4, 5, generator=draw) for _ in range(3)]
    actual = combine(maps, (4, 5), "product")
    for place in np.ndindex(2, 3):
        expected = np.ones((4, 5), np.float32)
        for one in maps:
            positive = np.maximum(one[place].numpy(), 0)
            expected *= positive / positive.max()
        np.testing.assert_allclose(actual[place], expected, rtol=1e-5, atol=1e-7)


def test_neither_order_nor_scale_counts() -> None:
    draw = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 6, 6, generator=draw), torch.randn(2, 3, 3, generator=draw)]
    actual = combine(maps, (12, 12), "product")
    torch.testing.assert_close(combine([1e4 * maps[1], 0.1 * maps[0]], (12, 12), "product"), actual)


def test_where_one_shows_nothing_the_product_does_not_either_and_the_mean_does() -> None:
    flat = torch.full((1, 4), 5.0)
    assert not combine([RAMP, flat], (1, 4), "product").any()
    torch.testing.assert_close(combine([RAMP, flat], (1, 4), "mean"), RAMP / 16)


def test_one_method_is_its_normalised_map() -> None:
    torch.testing.assert_close(combine([HILL], (1, 4), "product"), HILL.relu() / 10)


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(UsageError, match="mean or product, not 'max'"):
        combine([RAMP], (1, 4), "max")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no maps to combine"):
        combine([], (1, 4), "mean")
