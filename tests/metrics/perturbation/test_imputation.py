"""Imputed pixels are the weighted mean of their neighbours: by hand, and by a dense solution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from camcli.metrics.perturbation.imputation import impute

SQUARES = torch.tensor([[0.0, 1, 4], [9, 16, 25], [36, 49, 64]])


def _solve(image: Tensor, keep: Tensor) -> Tensor:
    """Solves the paper's equations pixel by pixel, as a dense system.  [c H W], [H W]"""
    _, h, w = image.shape
    system = torch.eye(h * w, dtype=torch.float64)
    right = image.double().flatten(1).T.clone()
    for y in range(h):
        for x in range(w):
            if keep[y, x]:
                continue
            around = {
                (y + i) * w + x + j: 1 / 12 if i and j else 1 / 6
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
                if (i or j) and 0 <= y + i < h and 0 <= x + j < w
            }
            for place, weight in around.items():
                system[y * w + x, place] = -weight / sum(around.values())
            right[y * w + x] = 0
    return torch.linalg.solve(system, right).T.reshape(image.shape)


def test_a_pixel_in_the_middle_and_one_in_the_corner_by_hand() -> None:
    keep = torch.ones(2, 3, 3, dtype=torch.bool)
    keep[0, 1, 1] = keep[1, 0, 0] = False
    middle, corner = impute(SQUARES[None], keep)
    assert middle[0, 1, 1].item() == pytest.approx(
        (1 + 9 + 25 + 49) / 6 + (0 + 4 + 36 + 64) / 12, abs=1e-4
    )
    assert corner[0, 0, 0].item() == pytest.approx(7.2, abs=1e-4)
    assert torch.equal(middle[0][keep[0]], SQUARES[keep[0]])


@pytest.mark.parametrize("size", [(12, 12), (17, 9), (1, 14), (2, 3), (33, 40)])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_any_mask_is_solved(size: tuple[int, int], share: float) -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(3, *size, generator=draw, dtype=torch.float64)
    scattered = torch.rand(size, generator=draw) > share
    block = torch.arange(size[1]).expand(size) >= share * size[1] - 1
    for keep in (scattered, block):
        keep[0, -1] = True
        filled = impute(image, keep[None], tolerance=1e-10)[0]
        torch.testing.assert_close(filled, _solve(image, keep), rtol=0, atol=1e-7)


def test_the_default_tolerance_is_far_below_the_noise() -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(3, 48, 48, generator=draw)
    blob = torch.zeros(48, 48, dtype=torch.bool)
    blob[:, :3] = True
    assert (impute(image, blob[None])[0] - _solve(image, blob)).abs().max() < 1e-3


def test_masks_are_solved_alike_alone_and_together() -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(3, 20, 20, generator=draw)
    keep = torch.rand(4, 20, 20, generator=draw) > torch.tensor([0.1, 0.4, 0.7, 0.9])[:, None, None]
    together = impute(image, keep)
    for row in range(4):
        torch.testing.assert_close(
            impute(image, keep[row, None])[0], together[row], rtol=0, atol=1e-5
        )
    assert torch.equal(impute(image, torch.ones(1, 20, 20, dtype=torch.bool))[0], image)


def test_half_precision_is_solved_in_single() -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(3, 20, 20, generator=draw).half()
    keep = torch.rand(6, 20, 20, generator=draw) > 0.5
    filled = impute(image, keep)
    assert filled.dtype == torch.float16
    expected = impute(image.float(), keep)
    torch.testing.assert_close(filled.float(), expected, rtol=1e-3, atol=1e-3)
