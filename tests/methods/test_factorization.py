"""Deep feature factorization: what it finds, and what it leaves open."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camcli.engine.api import activations as activations_of
from camcli.engine.batch_context import BatchContext
from camcli.engine.targets import TopKCategories
from camcli.errors import UsageError
from camcli.methods.factorization import dff, factorise
from camcli.models.acceleration.memory_format import trust_channels_last
from camcli.records import Detailed
from camcli.registry import METHODS
from tests.networks import Counting, Pooled, Staged, noise

pytestmark = pytest.mark.usefixtures("all_steps")


def _mix(noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
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
    parts, maps = factorise(activations, k)
    apart = activations - torch.einsum("bkhw,kc->bchw", maps, parts)
    return float(apart.norm() / activations.norm())


def test_concepts_that_share_no_channel_are_found_strongest_first() -> None:
    maps, parts, activations = _mix()
    actual, where = factorise(activations, 3)
    torch.testing.assert_close(actual, parts, rtol=0, atol=0.01)
    torch.testing.assert_close(where, maps, rtol=0, atol=0.1)


def test_one_concept_is_the_first_singular_vector() -> None:
    activations = _mix(noise=1.0)[2]
    actual, maps = factorise(activations, 1)
    rows = activations.permute(0, 2, 3, 1).reshape(-1, 12)
    _, values, right = torch.linalg.svd(rows, full_matrices=False)
    torch.testing.assert_close(actual[0], right[0].abs(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(maps.norm(), values[0], rtol=1e-3, atol=0)


def test_more_concepts_explain_more() -> None:
    activations = torch.rand(2, 10, 6, 6, generator=torch.Generator().manual_seed(1))
    errors = [_error(activations, k) for k in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_shapes_lengths_and_the_same_again() -> None:
    activations = _mix(noise=1.0)[2]
    parts, maps = factorise(activations, 4)
    assert (parts.shape, maps.shape) == ((4, 12), (2, 4, 5, 6))
    assert parts.dtype == maps.dtype == torch.float32
    torch.testing.assert_close(parts.norm(dim=1), torch.ones(4))
    strengths = maps.square().sum((0, 2, 3))
    assert torch.equal(strengths, strengths.sort(descending=True).values)
    assert min(parts.min(), maps.min()) >= 0
    for before, after in zip((parts, maps), factorise(activations, 4), strict=True):
        assert torch.equal(before, after)


def test_what_is_negative_or_not_finite_counts_as_none() -> None:
    activations = _mix(noise=1.0)[2]
    expected = factorise(activations.where(activations > 1, 0.0), 3)
    bad = activations.where(activations > 1, -5.0)
    bad[0, 0][activations[0, 0] <= 1] = torch.nan
    for actual, other in zip(factorise(bad, 3), expected, strict=True):
        torch.testing.assert_close(actual, other)


def test_nothing_has_no_strength() -> None:
    parts, maps = factorise(torch.zeros(1, 6, 3, 3), 2)
    assert parts.isfinite().all()
    assert not maps.any()


@pytest.mark.parametrize("k", [0, 7])
def test_no_more_concepts_than_channels_or_places(k: int) -> None:
    with pytest.raises(UsageError, match=f"concepts is 1 to 6 .*, not {k}"):
        factorise(torch.rand(1, 6, 3, 3), k)


def _slow_error(places: np.ndarray, k: int, seed: int) -> float:
    """Lee's and Seung's updates from random numbers, a number at a time.  [n c]"""
    draw, (n, c) = np.random.default_rng(seed), places.shape
    w, h = draw.random((n, k)), draw.random((k, c))
    for _ in range(300):
        rebuilt = w @ h
        for i, j in np.ndindex(k, c):
            h[i, j] *= w[:, i] @ places[:, j] / (w[:, i] @ rebuilt[:, j])
        rebuilt = w @ h
        for i, j in np.ndindex(n, k):
            w[i, j] *= places[i] @ h[j] / (rebuilt[i] @ h[j])
    return float(np.linalg.norm(places - w @ h) / np.linalg.norm(places))


def test_a_slow_replica_from_random_numbers_comes_no_nearer() -> None:
    activations = _mix(noise=1.0)[2][:1]
    rows = activations.double().permute(0, 2, 3, 1).reshape(-1, 12).numpy()
    assert _error(activations, 3) < 1.005 * min(_slow_error(rows, 3, seed) for seed in range(3))


# on a model


def _explain(model: nn.Module, inputs: Tensor, layer: str, concepts: int) -> Detailed:
    context = BatchContext(model.eval(), inputs, [layer], TopKCategories(), graph=False, chunk=2)
    return context.apply(METHODS["dff"], layer, 0, concepts=concepts)


def test_one_concept_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    actual = _explain(Pooled(), x.view(1, 1, 2, 2), "features", 1)
    # the channels are x and 2x: one concept, (1, 2) / sqrt(5), is all there is
    torch.testing.assert_close(actual.map, 5**0.5 * x[None])
    torch.testing.assert_close(actual.details["concepts"], 5**0.5 * x[None, None])
    torch.testing.assert_close(actual.details["concept_logits"], torch.tensor([[[2.5, 12.5]]]))


class Primary(nn.Module):
    """Its features are the input's channels, and the means of these its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.features.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean((2, 3))


def test_each_concept_speaks_for_the_class_that_it_feeds() -> None:
    inputs = torch.zeros(1, 3, 4, 4)
    inputs[0, 0, 2:, 2:] = 1
    inputs[0, 2, :2, :2] = 3
    actual = _explain(Primary(), inputs, "features", 2)
    expected = inputs[:, [2, 0]]
    torch.testing.assert_close(actual.details["concepts"], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(actual.map, expected.sum(1), rtol=0, atol=1e-4)
    # each alone is as long as both, and is on at 4 of 16 places
    one = 40**0.5 / 2 * 4 / 16
    logits = torch.tensor([[[0, 0, one], [one, 0, 0]]])
    torch.testing.assert_close(actual.details["concept_logits"], logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("alone", [True, False], ids=["the tail", "the whole model"])
def test_logits_of_a_concept_are_those_of_the_layer_that_holds_nothing_else(alone: bool) -> None:
    model = (Staged() if alone else Counting()).eval()
    actual = _explain(model, noise(), "last", 4)
    maps = activations_of(model, noise(), "last")["last"]
    for row in range(2):
        parts, strengths = factorise(maps[row : row + 1], 4)
        length = maps[row].relu().norm()
        for k in range(4):
            layer = torch.einsum("c,hw->chw", parts[k], strengths[0, k])
            pooled = (layer * length / layer.norm()).mean((1, 2))
            expected = model.fc(pooled)
            torch.testing.assert_close(actual.details["concept_logits"][row, k], expected)
    assert (maps < 0).any()  # which count as none


def test_without_a_choice_of_classes_nothing_is_asked_of_the_output() -> None:
    model, passes = Staged().eval(), []
    trust_channels_last(model)
    model.fc.register_forward_hook(lambda *_: passes.append(1))
    context = BatchContext(model, noise(), ["last"], None, graph=False)
    actual = context.apply(METHODS["dff"], "last", 0, concepts=3)
    assert actual.details["concept_logits"].shape == (2, 3, 0)
    assert len(passes) == 1


def _no_logits(altered: Callable[[slice], Tensor], count: int, _: int) -> Tensor:
    return altered(slice(0, count)).sum((1, 2, 3))[:, None]


def test_a_picture_that_overflowed_is_reported_and_spares_its_neighbours() -> None:
    activations = _mix(noise=1.0)[2]
    expected = dff(activations, _no_logits, concepts=3)
    activations[0, 1, 2, 3] = torch.inf
    actual = dff(activations, _no_logits, concepts=3)
    assert actual.map[0].isnan().all()
    torch.testing.assert_close(actual.map[1], expected.map[1])
    torch.testing.assert_close(actual.details["concepts"][1], expected.details["concepts"][1])


def test_a_dead_layer_has_concepts_without_strength() -> None:
    actual = dff(torch.zeros(1, 6, 3, 3), _no_logits, concepts=2)
    assert not actual.map.any()
    assert actual.details["concept_logits"].isfinite().all()
