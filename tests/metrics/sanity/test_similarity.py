"""Similarities of maps: values by hand, slow replicas, properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.sanity.equivariance import flip_equivariance, shift_equivariance
from camcli.metrics.sanity.hog_similarity import hog, hog_similarity
from camcli.metrics.sanity.rank_correlation import rank, rank_correlation
from camcli.metrics.sanity.structural_similarity import structural_similarity

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)

SIMILARITIES = (structural_similarity, rank_correlation, hog_similarity)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_map_is_like_itself_and_less_like_another(similarity: object) -> None:
    assert callable(similarity)
    maps, others = noise(0, 3, 48, 64), noise(1, 3, 48, 64)
    assert similarity(maps, maps).tolist() == pytest.approx([1] * 3)
    assert (similarity(maps, others) < 0.5).all()
    assert similarity(maps, others).tolist() == similarity(others, maps).tolist()
    # each pair by itself
    assert similarity(maps[1:2], others[1:2]).item() == pytest.approx(
        similarity(maps, others)[1].item()
    )
    with pytest.raises(UsageError, match="Maps have the size"):
        similarity(maps, others[:, :32])


# --- SSIM


def slow_similarity(one: Tensor, other: Tensor) -> float:
    """Wang's equation 13 at each place, with a window written out."""
    weights = [
        [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)]
        for i in range(11)
    ]
    total = sum(map(sum, weights))
    values = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            mx = my = xx = yy = xy = 0.0
            for i in range(11):
                for j in range(11):
                    w = weights[i][j] / total
                    x, y = float(one[top + i, left + j]), float(other[top + i, left + j])
                    mx, my = mx + w * x, my + w * y
                    xx, yy, xy = xx + w * x * x, yy + w * y * y, xy + w * x * y
            c1, c2 = 0.01**2, 0.03**2
            over = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
            values.append(over / ((mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2)))
    return sum(values) / len(values)


def test_structural_similarity_is_the_paper() -> None:
    one = noise(0, 14, 13)
    other = (one + noise(1, 14, 13)) / 2
    ours = structural_similarity(one[None], other[None]).item()
    assert ours == pytest.approx(slow_similarity(one, other), abs=1e-6)


def test_structural_similarity_of_constants() -> None:
    # the variances are 0, and what is left is that of the means: (2 * 1 * 0 + c1) / (1 + c1)
    ones, zeros = torch.ones(1, 12, 12), torch.zeros(1, 12, 12)
    assert structural_similarity(ones, zeros).item() == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-4)
    assert structural_similarity(ones * 255, zeros, span=255).item() == pytest.approx(
        1e-4 / (1 + 1e-4), rel=1e-4
    )
    # smaller than a window
    assert structural_similarity(noise(0, 1, 4, 7), noise(0, 1, 4, 7)).item() == pytest.approx(1)


# --- rank correlation


def test_equal_values_share_their_ranks() -> None:
    assert rank(torch.tensor([3.0, 1, 3, 2])).tolist() == [3.5, 1, 3.5, 2]


def test_rank_correlation_by_hand() -> None:
    # differences of the ranks 1, 1, 0, 0, 2, 2: 1 - 6 * 10 / (6 * 35)
    one = torch.tensor([[[1.0, 2, 3], [4, 5, 6]]])
    other = torch.tensor([[[2.0, 1, 3], [4, 7, 5]]])
    by_hand = 1 - 6 * (1 + 1 + 0 + 0 + 1 + 1) / (6 * 35)
    assert rank_correlation(one, other).item() == pytest.approx(by_hand)


@PROPERTY
@given(st.lists(st.integers(-3, 3), min_size=12, max_size=12, unique=False))
def test_rank_correlation_knows_no_scale(values: list[int]) -> None:
    one = torch.tensor(values, dtype=torch.float32).reshape(1, 3, 4)
    other = noise(0, 1, 3, 4)
    plain = rank_correlation(one, other)
    grown = rank_correlation(one.double().exp(), other)
    assert torch.allclose(plain, grown, equal_nan=True)
    assert plain.isnan().item() == (len(set(values)) == 1)


# --- HOG


def slow_hog(values: Tensor, cell: int) -> list[float]:
    """The features of a map with one block, as written by Dalal and Triggs."""
    height, width = values.shape
    rows, columns = height // cell, width // cell
    histograms = [[[0.0] * 9 for _ in range(columns)] for _ in range(rows)]
    for y in range(rows * cell):
        for x in range(columns * cell):
            down = float(values[y + 1, x] - values[y - 1, x]) if 0 < y < height - 1 else 0.0
            right = float(values[y, x + 1] - values[y, x - 1]) if 0 < x < width - 1 else 0.0
            turn = math.degrees(math.atan2(down, right)) % 180
            strength = math.hypot(down, right) / cell**2
            histograms[y // cell][x // cell][int(turn // 20) % 9] += strength

    def unit(block: list[float]) -> list[float]:
        length = math.sqrt(sum(v * v for v in block) + 1e-10)
        return [v / length for v in block]

    # by orientation first, then by place, as the features here are ordered
    block = [histograms[r][c][o] for o in range(9) for r in range(rows) for c in range(columns)]
    return unit([min(v, 0.2) for v in unit(block)])


@pytest.mark.parametrize("size", [(12, 12), (8, 14)])
def test_hog_is_the_papers(size: tuple[int, int]) -> None:
    values = noise(3, *size).double()
    assert hog(values[None], 4)[0].tolist() == pytest.approx(slow_hog(values, 4), abs=1e-6)


def test_edges_of_one_direction_are_like_each_other() -> None:
    ramp = torch.arange(48.0).expand(1, 48, 48)
    assert hog_similarity(ramp, ramp * 2 + 1).item() == pytest.approx(1)
    assert hog_similarity(ramp, ramp.mT).item() < 0
    assert hog_similarity(ramp, torch.ones_like(ramp)).isnan().all()
    with pytest.raises(UsageError, match="height"):
        hog_similarity(ramp[:, :8], ramp[:, :8])


# --- equivariance


def brightness(images: Tensor, row: int) -> Tensor:
    return images.mean(1) * (row + 1)


def columns(images: Tensor, row: int) -> Tensor:  # noqa: ARG001
    """A map that looks at no picture."""
    return torch.arange(float(images.shape[-1])).expand(len(images), *images.shape[-2:])


def test_what_looks_at_the_picture_moves_with_it() -> None:
    image = noise(0, 3, 20, 24)
    maps = torch.cat([brightness(image[None], row) for row in range(2)])
    assert flip_equivariance(maps, image, brightness).tolist() == pytest.approx([1, 1])
    for right, down in ((4, 3), (-5, 0), (0, -7)):
        moved = shift_equivariance(maps, image, brightness, right=right, down=down)
        assert moved.tolist() == pytest.approx([1, 1])


def test_what_does_not_look_at_the_picture_stays() -> None:
    image = noise(0, 3, 20, 24)
    maps = columns(image[None], 0)
    assert flip_equivariance(maps, image, columns).item() == pytest.approx(-1)
    image, still = (
        noise(0, 3, 60, 64),
        torch.rand(1, 60, 64, generator=torch.Generator().manual_seed(0)),
    )
    moved = shift_equivariance(still, image, lambda images, row: still, right=4)  # noqa: ARG005
    assert abs(moved.item()) < 0.2


def test_only_what_stayed_inside_is_compared() -> None:
    image = torch.zeros(1, 4, 10)
    image[0, :, 8:] = torch.rand(4, 2) * 100  # leaves the picture and comes in on the left
    image[0, :, :8] = noise(1, 4, 8)
    maps = brightness(image[None], 0)

    def edge_only(images: Tensor, row: int) -> Tensor:
        heat = brightness(images, row)
        heat[:, :, :2] = -5
        return heat

    assert shift_equivariance(maps, image, edge_only, right=2, down=0).item() == pytest.approx(1)
    with pytest.raises(UsageError, match="a part of it has to stay inside"):
        shift_equivariance(maps, image, brightness, right=10, down=0)
