"""Deep feature factorization: what it finds, and what it leaves open."""

import pytest
import torch
from torch import Tensor

from camcli.errors import UsageError
from camcli.methods.factorization import factorised


def _mixed(noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Activations of three concepts that share no channel, in two pictures.  -> maps, parts, sum"""
    draw = torch.Generator().manual_seed(0)
    parts = torch.zeros(3, 12)
    for k in range(3):
        parts[k, 4 * k : 4 * k + 4] = torch.rand(4, generator=draw) + 0.5
    parts /= parts.norm(dim=1, keepdim=True)
    maps = torch.rand(2, 3, 5, 6, generator=draw) * torch.tensor([9.0, 4.0, 1.0]).view(3, 1, 1)
    # each is missing from some places, or any wider cone of concepts would do as well
    maps *= torch.rand(maps.shape, generator=draw) > 0.5
    activations = torch.einsum("bkhw,kc->bchw", maps, parts)
    return maps, parts, activations + noise * torch.rand(activations.shape, generator=draw)


def _error(activations: Tensor, k: int) -> float:
    parts, maps = factorised(activations, k)
    apart = activations - torch.einsum("bkhw,kc->bchw", maps, parts)
    return float(apart.norm() / activations.norm())


def test_concepts_that_share_no_channel_are_found_strongest_first() -> None:
    maps, parts, activations = _mixed()
    found, where = factorised(activations, 3)
    torch.testing.assert_close(found, parts, rtol=0, atol=0.01)
    torch.testing.assert_close(where, maps, rtol=0, atol=0.1)


def test_one_concept_is_the_first_singular_vector() -> None:
    activations = _mixed(noise=1.0)[2]
    found, maps = factorised(activations, 1)
    rows = activations.permute(0, 2, 3, 1).reshape(-1, 12)
    _, values, right = torch.linalg.svd(rows, full_matrices=False)
    torch.testing.assert_close(found[0], right[0].abs(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(maps.norm(), values[0], rtol=1e-3, atol=0)


def test_more_concepts_explain_more() -> None:
    activations = torch.rand(2, 10, 6, 6, generator=torch.Generator().manual_seed(1))
    errors = [_error(activations, k) for k in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_shapes_lengths_and_the_same_again() -> None:
    activations = _mixed(noise=1.0)[2]
    parts, maps = factorised(activations, 4)
    assert (parts.shape, maps.shape) == ((4, 12), (2, 4, 5, 6))
    assert parts.dtype == maps.dtype == torch.float32
    torch.testing.assert_close(parts.norm(dim=1), torch.ones(4))
    strengths = maps.square().sum((0, 2, 3))
    assert torch.equal(strengths, strengths.sort(descending=True).values)
    assert min(parts.min(), maps.min()) >= 0
    for before, after in zip((parts, maps), factorised(activations, 4), strict=True):
        assert torch.equal(before, after)


def test_what_is_negative_or_not_finite_counts_as_none() -> None:
    activations = _mixed(noise=1.0)[2]
    wanted = factorised(activations.where(activations > 1, 0.0), 3)
    bad = activations.where(activations > 1, -5.0)
    bad[0, 0][activations[0, 0] <= 1] = torch.nan
    for found, other in zip(factorised(bad, 3), wanted, strict=True):
        torch.testing.assert_close(found, other)


def test_nothing_has_no_strength() -> None:
    parts, maps = factorised(torch.zeros(1, 6, 3, 3), 2)
    assert parts.isfinite().all()
    assert not maps.any()


@pytest.mark.parametrize("k", [0, 7])
def test_no_more_concepts_than_channels_or_places(k: int) -> None:
    with pytest.raises(UsageError, match="choose 1 to 6"):
        factorised(torch.rand(1, 6, 3, 3), k)
