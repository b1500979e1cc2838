"""Every method against values worked out by hand, and against a slow replica from its paper."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import camcli
from camcli.method_info import METHOD_INFO
from camcli.methods import postprocessing, principal_component
from camcli.records import Fusion
from camcli.registry import EVIDENCE, METHODS, collect_evidence, depends_on_category
from tests.networks import Pooled

X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def _sigmoid_component() -> Tensor:
    """Four places on a line at -3t, -t, t and 3t: what is odd in them is the first component."""
    outer, inner = math.tanh(6.625) + math.tanh(4.625), math.tanh(1.625) - math.tanh(0.375)
    mixed = math.tanh(2.875) + math.tanh(0.875)
    value = (outer + inner) / 2 + math.hypot((outer - inner) / 2, mixed)
    far, near = mixed, value - outer
    vector = torch.tensor([[-far, -near], [near, far]])
    return math.sqrt(value) * vector / vector.norm()


# on `Pooled`, for category 0 and the input X; the channels are X and 2X, the gradients 3/4 and -1/4
BY_HAND = {
    "gradcam": 0.75 * X - 0.25 * 2 * X,
    # alpha = 1 / (2 + sum(X) * 3/4) for the first channel; the second has negative gradients
    "gradcam++": 4 * 0.75 / (2 + 10 * 0.75) * X,
    "xgradcam": 0.75 * X - 0.25 * 2 * X,
    "layercam": 0.75 * X,
    "hirescam": 0.75 * X - 0.25 * 2 * X,
    # the channels (1, 2) * (X - mean) lie on one line
    "eigencam": 5**0.5 * (X - 2.5),
    "eigengradcam": (0.75**2 + 0.5**2) ** 0.5 * (X - 2.5),
    "cam": 3 * X - 2 * X,
    # the score 7.5 - 5 loses 7.5 without the first channel, and gains 5 without the second
    "ablationcam": 7.5 / 2.5 * X - 5 / 2.5 * 2 * X,
    # both channels make the same mask, and so weigh the same
    "scorecam": (X + 2 * X) / 2,
    "sscam": (X + 2 * X) / 2,
    "iscam": (X + 2 * X) / 2,
    # the window is larger than the picture
    "occlusion": torch.tensor([[2.5]]),
    "gradcamelementwise": 0.75 * X,
    # there is no bias, and the input's gradient is the same everywhere
    "fullgrad": (X - 1) / 3,
    # the gradients are the same wherever the noise leads, and the score has no curvature
    "smoothgradcam++": 4 * 0.75 / (2 + 10 * 0.75) * X,
    "shapleycam": 0.75 * X - 0.25 * 2 * X,
    "segeigencam": (0.75**2 + 0.5**2) ** 0.5 * (X - 2.5),
    "kpcacam": _sigmoid_component(),
    # no place is two standard deviations above the mean of four
    "fem": torch.zeros(2, 2),
}


# RISE by hand stands in test_perturbation: with one cell, as its default masks have 49; attention
# in test_attention, what needs a rectifier in test_backprop, and concepts, of which two channels
# hold no five, in test_factorization
GUIDED = ("guidedbackprop", "guidedgradcam")
ELSEWHERE = ("dff", "rise", "rollout", "genericattention", "gradattention", "legrad", *GUIDED)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ELSEWHERE])
def test_a_value_worked_out_by_hand(name: str) -> None:
    heatmap = camcli.heatmaps(
        Pooled(), X.view(1, 1, 2, 2), name, target_layers="features", targets=0
    )
    if name == "randomcam":
        weights = torch.rand(2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        expected = weights[0] * X + weights[1] * 2 * X
    else:
        expected = BY_HAND[name]
    torch.testing.assert_close(heatmap[0], expected, rtol=2e-6, atol=1e-5)


def _per_channel(weight: Callable[[np.ndarray, np.ndarray], float]) -> Callable[..., np.ndarray]:
    def replica(a: np.ndarray, g: np.ndarray) -> np.ndarray:
        out = np.zeros(a.shape[1:])
        for k in range(len(a)):
            out += weight(a[k], g[k]) * a[k]
        return out

    return replica


def _plus_plus_weight(a: np.ndarray, g: np.ndarray) -> float:
    total = 0.0
    for i in np.ndindex(a.shape):
        alpha = g[i] ** 2 / (2 * g[i] ** 2 + a.sum() * g[i] ** 3 + 1e-6)
        total += alpha * max(g[i], 0)
    return total


def _per_place(value: Callable[[float, float], float]) -> Callable[..., np.ndarray]:
    def replica(a: np.ndarray, g: np.ndarray) -> np.ndarray:
        out = np.zeros(a.shape[1:])
        for k, i, j in np.ndindex(a.shape):
            out[i, j] += value(a[k, i, j], g[k, i, j])
        return out

    return replica


def _component(m: np.ndarray, strength: np.ndarray) -> np.ndarray:
    rows = m.reshape(len(m), -1).T
    rows = rows - rows.mean(0)
    projection = rows @ np.linalg.svd(rows, full_matrices=False)[2][0]
    return (projection * np.sign(projection @ strength.reshape(-1))).reshape(m.shape[1:])


def _farthest_above(m: np.ndarray) -> np.ndarray:
    rows = m.reshape(len(m), -1).T
    rows = rows - rows.mean(0)
    projection = rows @ np.linalg.svd(rows, full_matrices=False)[2][0]
    sign = np.sign(projection[np.abs(projection).argmax()])
    return (projection * sign).reshape(m.shape[1:])


def _sigmoid_kernel_component(a: np.ndarray, _: np.ndarray) -> np.ndarray:
    rows = a.reshape(len(a), -1).T
    rows, n = rows - rows.mean(0), a[0].size
    kernel = np.array([[np.tanh(x @ y / len(a) + 1) for y in rows] for x in rows])
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(centre @ kernel @ centre)
    projection = vectors[:, -1] * np.sqrt(values[-1])
    strength = np.sqrt((a**2).sum(0)).reshape(-1)
    return (projection * np.sign(projection @ strength)).reshape(a.shape[1:])


def _fem(a: np.ndarray, _: np.ndarray) -> np.ndarray:
    out = np.zeros(a.shape[1:])
    for channel in a:
        for i in np.ndindex(channel.shape):
            if channel[i] > channel.mean() + 2 * channel.std():
                out[i] += channel.mean()
    return out


def _random(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    del g
    draws = torch.rand(len(a), generator=torch.Generator().manual_seed(0)).numpy() * 2 - 1
    return np.einsum("c,chw->hw", draws, a)


REPLICAS: dict[str, Callable[..., np.ndarray]] = {
    "gradcam": _per_channel(lambda _, g: float(np.mean(g))),
    "gradcam++": _per_channel(_plus_plus_weight),
    "xgradcam": _per_channel(lambda a, g: float((a * g).sum() / (a.sum() + 1e-7))),
    "layercam": _per_place(lambda a, g: max(g, 0) * a),
    "hirescam": _per_place(lambda a, g: g * a),
    "eigencam": lambda a, g: _component(a, np.sqrt((a**2).sum(0))),  # noqa: ARG005
    "eigengradcam": lambda a, g: _component(a * g, (a * g).sum(0)),
    # CAM's weights are one number a channel: here the gradients' sum, as behind average pooling
    "cam": _per_channel(lambda _, g: float(np.sum(g))),
    "randomcam": _random,
    "gradcamelementwise": _per_place(lambda a, g: max(g * a, 0)),
    # here the curvature is twice the activations
    "shapleycam": _per_channel(lambda a, g: float(np.mean(g - a))),
    "segeigencam": lambda a, g: _farthest_above(np.abs(g) * a),
    "kpcacam": _sigmoid_kernel_component,
    "fem": _fem,
}
TENSORS = {"activations", "gradients", "class_weights", "class_bias", "curvature"}
# the others ask questions of a model: their replicas stand in the tests of their families
ON_TENSORS = [name for name in METHODS if set(METHODS[name].evidence) <= TENSORS]


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 3, 5, 4)], ids=["c<hw", "c>hw"])
@pytest.mark.parametrize("name", ON_TENSORS)
def test_a_slow_replica_on_random_tensors(name: str, shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(3)
    tensors = {
        "activations": torch.rand(shape, generator=draw),
        "gradients": torch.randn(shape, generator=draw),
    }
    tensors["class_weights"] = tensors["gradients"].sum((2, 3))
    tensors["class_bias"] = torch.zeros(shape[0])
    tensors["curvature"] = 2 * tensors["activations"]
    method = METHODS[name]
    actual = method.function(*(tensors[e] for e in method.evidence))
    if method.gives == "weighted activations":
        actual = postprocessing.sum_channels(actual)
    for row in range(len(actual)):
        arrays = (tensors[e][row].double().numpy() for e in ("activations", "gradients"))
        np.testing.assert_allclose(actual[row], REPLICAS[name](*arrays), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS | METHOD_INFO)
def test_cards_tell_what_the_registry_knows(name: str) -> None:
    card, asked = METHOD_INFO[name], collect_evidence([METHODS[name]])
    assert card.asks_class == depends_on_category(name)
    assert card.gradients == any(EVIDENCE[evidence].backward for evidence in asked)
    assert ("backward" in card.cost) == card.gradients


@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_its_source_in_one_line(name: str) -> None:
    summary = METHODS[name].summary
    assert name == "randomcam" or "arXiv" in summary or "10." in summary
    assert any(shape in summary for shape in ("[b c h w]", "[b 3 H W]", "[b heads"))


def _map(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def test_normalise_clips_below_and_spans_0_to_1() -> None:
    actual = postprocessing.normalise(_map([-2.0, 0.0], [1.0, 4.0]))
    torch.testing.assert_close(actual, _map([0.0, 0.0], [0.25, 1.0]))
    actual = postprocessing.normalise(_map([2.0, 3.0], [4.0, 6.0]))
    torch.testing.assert_close(actual, _map([0.0, 0.25], [0.5, 1.0]))


@pytest.mark.parametrize("value", [0.0, -1.0, 3.0, torch.nan, torch.inf])
def test_normalise_gives_zeros_for_an_empty_map(value: float) -> None:
    maps = torch.full((2, 3, 3), value)
    maps[1] = torch.arange(9.0).view(3, 3)  # a neighbour is not affected
    actual = postprocessing.normalise(maps)
    assert not actual[0].any()
    torch.testing.assert_close(actual[1], maps[1] / 8)


def test_normalise_keeps_a_tiny_map_and_drops_rounding_noise() -> None:
    tiny = torch.arange(4.0).view(2, 2) * 1e-30
    torch.testing.assert_close(postprocessing.normalise(tiny), torch.arange(4.0).view(2, 2) / 3)
    assert not postprocessing.normalise(_map([1.0, 1.0], [1.0, 1.0 + 1e-7])).any()


def test_one_scale_for_many_maps_worked_out_by_hand() -> None:
    actual = postprocessing.scale_to_range(_map([-2.0, 0.0], [1.0, 4.0]), 0, 2)
    torch.testing.assert_close(actual, _map([0.0, 0.0], [0.5, 1.0]))
    actual = postprocessing.scale_to_range(_map([-9.0, 1.0], [2.0, 2.5]), 1, 3)
    torch.testing.assert_close(actual, _map([0.0, 0.0], [0.5, 0.75]))


def test_with_one_scale_a_constant_map_has_its_heat_and_a_broken_one_has_none() -> None:
    maps = torch.stack([_map([3.0, 3.0]), _map([3.0, torch.nan]), _map([torch.inf, 3.0])])
    actual = postprocessing.scale_to_range(maps, 0, 4)
    torch.testing.assert_close(actual, torch.stack([_map([0.75, 0.75]), *[torch.zeros(1, 2)] * 2]))


def test_the_scale_of_a_map_itself_changes_nothing() -> None:
    maps = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    for one, heat in zip(maps, postprocessing.normalise(maps), strict=True):
        low, high = float(one.relu().min()), float(one.max())
        torch.testing.assert_close(postprocessing.scale_to_range(one, low, high), heat)


def test_enlarging_has_half_pixel_centres() -> None:
    actual = postprocessing.enlarge(_map([0.0, 1.0]), (1, 8))
    torch.testing.assert_close(actual[0], torch.tensor([0, 0, 1, 3, 5, 7, 8, 8]) / 8)


@pytest.mark.parametrize(("how", "expected"), [("mean", 0.5), ("max", 1.0), ("product", 0.0)])
def test_fusion_normalises_each_layer_first(how: Fusion, expected: float) -> None:
    small = _map([0.0, 1.0], [0.0, 1.0]) * 1000
    large = torch.zeros(4, 4)
    large[:, :2] = 1e-3
    fused = postprocessing.fuse([small, large], (4, 4), how)
    assert fused[0, 0] == fused[0, 3] == expected


def test_first_component_has_its_sign_from_the_strength() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 4, 5, 6, generator=draw)
    strength = torch.rand(3, 5, 6, generator=draw)
    actual = principal_component.project_first_component(maps, strength)
    assert ((actual * strength).sum((1, 2)) >= 0).all()
    torch.testing.assert_close(principal_component.project_first_component(-maps, strength), actual)


def test_first_component_of_a_bad_picture_spares_its_neighbours() -> None:
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    alone = principal_component.project_first_component(maps[1:], maps[1:].norm(dim=1))
    maps[0, 1, 2, 3] = torch.nan
    actual = principal_component.project_first_component(maps, maps.nan_to_num().norm(dim=1))
    assert actual[0].isnan().all()
    torch.testing.assert_close(actual[1:], alone)


def test_squaring_leaves_the_strongest_component_worked_out_by_hand() -> None:
    grams = torch.tensor([[[2.0, 1.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 9.0]], [[0.0, 0.0]] * 2])
    values, vectors = principal_component.raise_to_power(grams.double())
    torch.testing.assert_close(values.float(), torch.tensor([[3.0], [9.0], [0.0]]))
    half = 0.5**0.5
    expected = torch.tensor([[half, half], [0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(vectors.abs().float(), expected)


@pytest.mark.parametrize("gap", [0.5, 1e-3, 1e-6])
def test_squaring_finds_what_eigh_finds(gap: float) -> None:
    draw = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(5, 49, 49, generator=draw, dtype=torch.float64))[0]
    values = torch.cat([torch.linspace(0, 0.4, 47), torch.tensor([1 - gap, 1.0])]) * 1e-20
    grams = basis @ torch.diag(values.double()) @ basis.mT
    value, vector = principal_component.raise_to_power(grams)
    torch.testing.assert_close(value * 1e20, torch.ones_like(value))
    along = (vector * basis[..., -1]).sum(1).abs()
    torch.testing.assert_close(along, torch.ones_like(along))
    others = (vector[:, None] @ basis[..., :-1]).abs()
    assert others.max() < 1e-6
