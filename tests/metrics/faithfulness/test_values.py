"""Values of the faithfulness metrics that were worked out by hand."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor

from camcli.errors import UnknownName, UsageError
from camcli.metrics.faithfulness.adcc import adcc, harmonic_mean
from camcli.metrics.faithfulness.arcc import arcc
from camcli.metrics.faithfulness.coherency import coherency
from camcli.metrics.faithfulness.complexity import complexity
from camcli.metrics.faithfulness.confidence import (
    average_drop,
    average_gain,
    increase_in_confidence,
)
from camcli.metrics.faithfulness.deletion import deletion
from camcli.metrics.faithfulness.infidelity import infidelity
from camcli.metrics.faithfulness.insertion import insertion
from camcli.metrics.faithfulness.road import road, road_least, road_most
from camcli.metrics.faithfulness.saco import saco
from camcli.metrics.faithfulness.sensitivity import max_sensitivity
from camcli.metrics.perturbation.baseline import blur, make_baseline
from camcli.metrics.perturbation.curve import count_pixels, rank_pixels

# one channel, 2x2 pixels
IMAGE = torch.tensor([[[0.4, 0.3], [0.2, 0.1]]])
RIGHT = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
WRONG = 5 - RIGHT


def _sum(images: Tensor) -> Tensor:
    return images.sum((1, 2, 3))


def test_deletion_and_insertion_by_hand() -> None:
    maps = torch.cat((RIGHT, WRONG))
    # 1, .6, .3, .1, 0 and 1, .9, .7, .4, 0: the ends by half, over four steps
    assert deletion(maps, IMAGE, _sum, steps=4).tolist() == pytest.approx([0.375, 0.625])
    inserted = insertion(maps, IMAGE, _sum, steps=4, baseline="zero")
    # 0, .4, .7, .9, 1 and 0, .1, .3, .6, 1
    assert inserted.tolist() == pytest.approx([0.625, 0.375])
    # from a mean of .25 everywhere the sum never changes at the ends: 1, 1.15, 1.2, 1.15, 1
    inserted = insertion(RIGHT, IMAGE, _sum, steps=4, baseline="mean")
    assert inserted.item() == pytest.approx((1.15 + 1.2 + 1.15 + 1) / 4)


def test_the_authors_area_of_three_scores() -> None:
    # 1, .5, 0 -> .5, whatever the last step's length
    halves = torch.full((1, 1, 2), 0.5)
    assert deletion(halves, halves, _sum, steps=2).item() == pytest.approx(0.5)
    # three pixels in two steps of two: 1.5, .5, 0
    thirds = torch.full((1, 1, 3), 0.5)
    assert deletion(thirds, thirds, _sum, steps=2).item() == pytest.approx((0.75 + 0.5) / 2)


def test_steps_are_equally_long_and_the_last_takes_the_rest() -> None:
    assert count_pixels(224 * 224, 28)[:3] == [0, 1792, 3584]
    assert count_pixels(224 * 224, 224)[1] == 224
    assert count_pixels(10, 4) == [0, 3, 6, 9, 10]
    assert count_pixels(3, 28) == [0, 1, 2, 3]
    assert rank_pixels(torch.tensor([[[1.0, 2], [2, 0]]])).tolist() == [[[2, 0], [1, 3]]]


def test_the_authors_kernel_is_nearly_a_box_and_fades_to_zero_at_the_edge() -> None:
    spot = torch.zeros(1, 41, 41)
    spot[0, 20, 20] = 1
    blurred = blur(spot)[0]
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert (blurred[15, 15] / blurred[20, 20]).item() == pytest.approx(0.876, abs=5e-4)
    assert blurred[14].abs().max() == 0
    flat = blur(torch.ones(2, 41, 41))
    for corner, value in (((20, 20), 1.0), ((0, 20), 0.547), ((0, 0), 0.299)):
        assert flat[:, *corner].tolist() == pytest.approx([value] * 2, abs=5e-4)
    with pytest.raises(UnknownName, match=r"Unknown baseline 'blurr'.*Closest: 'blur'"):
        make_baseline(IMAGE, "blurr")


def test_confidence_by_hand() -> None:
    maps = torch.stack((torch.tensor([[1.0, 0], [0, 0]]), torch.ones(2, 2)))
    assert average_drop(maps, IMAGE, _sum).tolist() == pytest.approx([0.6, 0])
    assert increase_in_confidence(maps, IMAGE, _sum).tolist() == [0, 0]

    # without the lower row .8 where all of it has .5
    def against(images: Tensor) -> Tensor:
        return 0.8 - images[:, 0, 1].sum(1)

    upper = torch.tensor([[[1.0, 1], [0, 0]]])
    assert average_gain(upper, IMAGE, against).item() == pytest.approx(0.3 / 0.5)
    assert increase_in_confidence(upper, IMAGE, against).item() == 1
    assert average_drop(upper, IMAGE, against).item() == 0
    with pytest.raises(UsageError, match=r"must be above 0 and is -1: explain the probability"):
        average_drop(upper, IMAGE, lambda x: -_sum(x))
    with pytest.raises(UsageError, match=r"between 7 and 10: explain the probability"):
        average_gain(upper, IMAGE, lambda x: 10 * _sum(x))


def test_coherency_complexity_and_adcc_by_hand() -> None:
    maps = torch.tensor([[[1.0, 0], [0, 0]]])
    assert complexity(maps).item() == 0.25
    for again, r in (
        (maps, 1.0),
        (1 - maps, -1.0),
        (torch.tensor([[[1.0, 1], [0, 0]]]), 1 / sqrt(3)),
        (torch.ones(1, 2, 2), 0.0),
    ):
        value = coherency(maps, IMAGE, lambda _, __, again=again: again)
        assert value.item() == pytest.approx((r + 1) / 2, abs=1e-6)
    # 1, .75 and 1 - .6
    expected = 3 / (1 + 1 / 0.75 + 1 / 0.4)
    assert adcc(maps, IMAGE, _sum, lambda *_: maps).item() == pytest.approx(expected)
    # an empty map drops all
    empty = torch.zeros(1, 2, 2)
    assert adcc(empty, IMAGE, _sum, lambda *_: empty).item() == 0
    means = harmonic_mean(torch.tensor([0.5, 0.0]), torch.tensor([1.0, 1.0]))
    assert means.tolist() == pytest.approx([2 / 3, 0])


def test_road_by_hand() -> None:
    """Of a ramp one end's pixels are imputed by the neighbour that is left."""
    image = torch.tensor([[[0.0, 0.2, 0.4]]])
    maps = torch.tensor([[[1.0, 2.0, 3.0]]])

    # a share of .4 of three is the last pixel, or the first: each becomes .2
    assert road_most(maps, image, _sum, shares=(0.4,), noise=0.0).item() == pytest.approx(-0.2)
    assert road_least(maps, image, _sum, shares=(0.4,), noise=0.0).item() == pytest.approx(0.2)
    assert road(maps, image, _sum, shares=(0.4,), noise=0.0).item() == pytest.approx(0.2)
    half = arcc(maps / 3, image, _sum, lambda *_: maps / 3, shares=(0.4,), noise=0.0)
    assert half.item() == pytest.approx(3 / (1 + 1 / (1 - 2 / 3) + 1 / 0.4), rel=1e-4)
    for wrong in ((), (0.0,), (1.0,), (0.5, 1.2)):
        with pytest.raises(UsageError, match="lie between 0 and 1"):
            road(maps, image, _sum, shares=wrong)


def test_the_noise_of_road_is_the_same_for_the_same_seed() -> None:
    image, maps = torch.zeros(1, 8, 8), torch.rand(1, 8, 8)
    values = [road_most(maps, image, _sum, seed=seed).item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert abs(values[0]) < 0.5


def test_saco_by_hand() -> None:
    """Groups of a pixel, hidden under the mean of .25: .15, .05, -.05 and -.15 are lost."""
    assert saco(RIGHT, IMAGE, _sum, groups=4).item() == 1
    assert saco(WRONG, IMAGE, _sum, groups=4).item() == -1
    # 4, 3, 1, 2 by what they lose: the pair of 2 and 1 contradicts, and the six differ by 10
    swapped = torch.tensor([[[4.0, 3.0], [1.0, 2.0]]])
    assert saco(swapped, IMAGE, _sum, groups=4).item() == pytest.approx(8 / 10)
    assert saco(torch.full((1, 2, 2), 0.3), IMAGE, _sum, groups=4).item() == 0
    with pytest.raises(UsageError, match="4 pixels cannot be split into 5 groups"):
        saco(RIGHT, IMAGE, _sum, groups=5)


def test_infidelity_of_an_exact_map_of_any_scale_is_zero() -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(1, 9, 9, generator=draw)
    maps = torch.cat((image, -3 * image, torch.zeros(1, 9, 9)))
    exact, turned, empty = infidelity(maps, image, _sum, samples=50).tolist()
    assert exact == pytest.approx(0, abs=1e-9) and turned == pytest.approx(0, abs=1e-9)
    # nothing fits: the mean square of what is lost
    assert empty > 0.1


def test_max_sensitivity_by_hand() -> None:
    """A map that is the picture moves by the noise, at most its radius in each pixel."""
    image = torch.full((1, 10, 10), 2.0)
    value = max_sensitivity(image, image, lambda x, _: x[:, 0], samples=8, radius=0.1).item()
    # the noise's norm is 10 times its root mean square of .1 / sqrt(3), the map's is 20
    assert value == pytest.approx(0.1 / sqrt(3) * 10 / 20, rel=0.15)
    assert max_sensitivity(image, image, lambda x, _: 2 + 0 * x[:, 0]).item() == 0
    empty = torch.zeros(1, 10, 10)
    assert max_sensitivity(empty, image, lambda x, _: x[:, 0], samples=2).item() == float("inf")
