"""RefineCAM, noise smoothing and smoothed frames: values worked out by hand, and slow replicas."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from camcli.errors import UsageError
from camcli.methods.postprocessing import Maps, enlarge, fuse, normalise
from camcli.methods.smoothing import FrameSmoother, Noise, smooth_by_noise
from tests.networks import noise

# RefineCAM

STEPS = torch.arange(8.0)[None]
# twice as large, each is 0, 1/4, 3/4, 3/4, 1/4, 0, ... of its contrast, or what lacks of that to 1
HILL, DENT = torch.tensor([[0.0, 4.0, 0.0, 0.0]]), torch.tensor([[4.0, 0.0, 4.0, 4.0]])


def test_refinecam_worked_out_by_hand() -> None:
    # each reaches 0 and 1 again: 0, 1/3, 1, 1, 1/3, 0, 0, 0 and 1, 2/3, 0, 0, 2/3, 1, 1, 1
    expected = torch.tensor([[0, 1 / 21, 2 / 7, 3 / 7, 4 / 21, 0, 0, 0]])
    torch.testing.assert_close(fuse([STEPS, HILL], (1, 8), "refine"), expected)
    expected = torch.tensor([[0, 2 / 21, 0, 0, 8 / 21, 5 / 7, 6 / 7, 1]])
    torch.testing.assert_close(fuse([STEPS, DENT], (1, 8), "refine"), expected)
    expected = torch.tensor([[0, 2 / 63, 0, 0, 8 / 63, 0, 0, 0]])
    torch.testing.assert_close(fuse([DENT, STEPS, HILL], (1, 8), "refine"), expected)


def test_the_plain_product_does_not_reach_the_ends_again() -> None:
    expected = 0.75 * torch.tensor([[0, 1 / 21, 2 / 7, 3 / 7, 4 / 21, 0, 0, 0]])
    torch.testing.assert_close(fuse([STEPS, HILL], (1, 8), "product"), expected)


def test_refinecam_asks_neither_for_scale_nor_for_order() -> None:
    maps = [_random(6, 8), _random(3, 4), _random(12, 16)]
    actual = fuse(maps, (24, 32), "refine")
    other = fuse([3 * maps[2], 0.1 * maps[0], 1e4 * maps[1]], (24, 32), "refine")
    torch.testing.assert_close(other, actual)


def test_refinecam_is_its_replica() -> None:
    maps = [_random(3, 4), _random(6, 8)]
    actual = fuse(maps, (12, 16), "refine")
    for i, j in np.ndindex(2, 3):
        expected = np.ones((12, 16))
        for one in maps:
            large = _enlarge(np.maximum(one[i, j].numpy(), 0), (12, 16))
            expected *= (large - large.min()) / (large.max() - large.min())
        np.testing.assert_allclose(actual[i, j], expected, rtol=1e-4, atol=1e-6)


def test_a_layer_that_shows_nothing_leaves_nothing() -> None:
    flat = torch.full((2, 3, 3, 4), 5.0)
    flat[1] = _random(3, 4)[1]
    actual = fuse([_random(6, 8), flat], (12, 16), "refine")
    assert actual.isfinite().all()
    assert not actual[0].any()
    assert normalise(actual[1]).amax((-2, -1)).eq(1).all()


def _random(h: int, w: int) -> torch.Tensor:
    return torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(h))


def _enlarge(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reads a map between its cells' centres, and at its edges what is nearest."""
    large = np.zeros(size)
    for place in np.ndindex(size):
        shares = []
        for at, length, full in zip(place, small.shape, size, strict=True):
            centre = min(max((at + 0.5) * length / full - 0.5, 0), length - 1)
            near = [max(1 - abs(cell - centre), 0) for cell in range(length)]
            shares.append(near)
        large[place] = sum(
            shares[0][i] * shares[1][j] * small[i, j] for i, j in np.ndindex(small.shape)
        )
    return large


# noise smoothing


def _brightness(inputs: torch.Tensor) -> Maps:
    return {"squared": {"a": inputs.mean(1, keepdim=True) ** 2}, "plain": {"": inputs[:, :1]}}


def test_the_mean_of_noisy_copies_worked_out_by_hand() -> None:
    # ranges of 2 and 40, a deviation of half of that
    inputs = torch.tensor([[[[-1.0, 1.0]]], [[[0.0, 40.0]]]])
    draw = torch.Generator().manual_seed(7)
    drawn = [torch.randn(1, 1, 2, generator=draw) for _ in range(2)]
    copies = [inputs + torch.tensor([1.0, 20.0]).view(2, 1, 1, 1) * one for one in drawn]
    actual = smooth_by_noise(_brightness, inputs, Noise(2, 0.5, 7))
    expected = {
        "squared": {"a": (copies[0] ** 2 + copies[1] ** 2) / 2},
        "plain": {"": (copies[0] + copies[1]) / 2},
    }
    torch.testing.assert_close(actual, expected)


def test_the_mean_of_many_is_the_map_and_what_the_noise_adds() -> None:
    # of a square, the noise's variance: 3 channels are averaged, so it is a third
    inputs = noise(1)
    span = float(inputs.max() - inputs.min())
    actual = smooth_by_noise(_brightness, inputs, Noise(400, 0.1))["squared"]["a"]
    added = actual - _brightness(inputs)["squared"]["a"]
    assert float(added.mean()) == pytest.approx((0.1 * span) ** 2 / 3, rel=0.02)


def test_the_plain_picture_is_no_copy_and_each_copy_is_another() -> None:
    inputs = noise()
    copies = [inputs, *Noise(4).copies(inputs)]
    assert len(copies) == 5
    assert not any(torch.equal(copies[i], copies[j]) for i in range(5) for j in range(i))
    again = list(Noise(4).copies(inputs))
    other = list(Noise(4, seed=1).copies(inputs))
    assert all(torch.equal(a, b) for a, b in zip(copies[1:], again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(again, other, strict=True))


def test_copies_keep_precision_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    for dtype in (torch.float64, torch.bfloat16):
        (still,) = Noise(1, 0.0).copies(noise().to(dtype))
        assert torch.equal(still, noise().to(dtype))
        (noisy,) = Noise(1).copies(noise().to(dtype))
        assert noisy.dtype == dtype
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "wrong", [(0, 0.1), (-2, 0.1), (1.5, 0.1), (3, -0.1), (3, float("nan")), (3, float("inf"))]
)
def test_what_is_no_noise_is_refused(wrong: tuple[Any, float]) -> None:
    with pytest.raises(UsageError, match="samples of 1 or more and a sigma of 0 or more, not "):
        Noise(*wrong)


# Frames


def test_smoothed_frames_worked_out_by_hand() -> None:
    smoother = FrameSmoother(1 / math.log(2))  # half of what is new
    actual = [smoother.smooth("a", torch.full((1, 2), v)) for v in (4.0, 0.0, 2.0)]
    assert [float(f[0, 0]) for f in actual] == pytest.approx([4, 2, 2])
    assert smoother.smooth("b", torch.ones(1, 2)).eq(1).all()


def test_a_jump_is_followed_within_the_time_constant() -> None:
    smoother = FrameSmoother(5)
    smoother.smooth(0, torch.zeros(1))
    steps = [float(smoother.smooth(0, torch.ones(1))) for _ in range(5)]
    assert steps[-1] == pytest.approx(1 - math.exp(-1))
    assert steps == sorted(steps)


def test_a_broken_frame_is_passed_on_and_forgotten() -> None:
    smoother, broken = FrameSmoother(2), torch.tensor([torch.nan, 1.0])
    first = smoother.smooth(0, torch.ones(2))
    assert smoother.smooth(0, broken) is broken
    torch.testing.assert_close(smoother.smooth(0, torch.ones(2)), first)


def test_smoothing_leaves_maps_alone() -> None:
    smoother, maps = FrameSmoother(2), torch.ones(2)
    smoother.smooth(0, maps)
    smoother.smooth(0, torch.zeros(2))
    assert maps.eq(1).all()


@pytest.mark.parametrize("frames", [0, -1, math.inf, math.nan])
def test_smoothing_over_no_frames_is_refused(frames: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        FrameSmoother(frames)


def test_the_replica_enlarges_as_we_do() -> None:
    small = _random(3, 4)[0, 0]
    np.testing.assert_allclose(
        _enlarge(small.numpy(), (12, 16)), enlarge(small, (12, 16)), rtol=1e-5, atol=1e-6
    )
