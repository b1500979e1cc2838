"""The Python interface: shapes, targets, fusion, smoothing, refusals."""

from typing import Any

import pytest
import torch

import camcli
from camcli.errors import LayerError, MethodError, UnknownName, UsageError
from camcli.methods.postprocessing import normalise
from camcli.methods.smoothing import Noise
from camcli.registry import METHODS, depends_on_layer
from tests.networks import Pooled, Staged, network_for, noise


@pytest.fixture(scope="module")
def model() -> Staged:
    return Staged()


def test_shapes(model: Staged) -> None:
    inputs = noise()  # 48 x 64
    maps = camcli.heatmaps(model, inputs, target_layers="last")
    assert (maps.shape, maps.dtype) == ((2, 6, 8), torch.float32)
    assert camcli.heatmaps(model, inputs, target_layers=["middle", "last"]).shape == (2, 48, 64)
    k_each = camcli.heatmaps(model, inputs, target_layers="last", targets=[[0, 1, 2], [1, 2, 3]])
    assert k_each.shape == (2, 3, 6, 8)
    several = camcli.heatmaps(model, inputs, ["GradCAM", "eigen-cam"], target_layers="last")
    assert {k: v.shape for k, v in several.items()} == {
        "GradCAM": (2, 6, 8),
        "eigen-cam": (2, 6, 8),
    }
    layers = camcli.heatmaps(
        model, inputs, target_layers=["middle", "last"], layer_fusion="none", targets=1
    )
    assert {k: v.shape for k, v in layers.items()} == {"middle": (2, 12, 16), "last": (2, 6, 8)}


def test_the_layer_and_the_targets_may_be_left_out(model: Staged) -> None:
    inputs = noise()
    predicted = model.eval()(inputs).argmax(1).tolist()
    expected = camcli.heatmaps(model, inputs, target_layers="last", targets=predicted)
    torch.testing.assert_close(camcli.heatmaps(model, inputs), expected)


def test_targets_one_for_all_one_a_picture_or_k_for_each(model: Staged) -> None:
    inputs = noise()
    each = camcli.heatmaps(model, inputs, targets=[1, 3])
    k_each = camcli.heatmaps(model, inputs, targets=torch.tensor([[1, 0], [2, 3]]))
    torch.testing.assert_close(each, torch.stack([k_each[0, 0], k_each[1, 1]]))
    torch.testing.assert_close(camcli.heatmaps(model, inputs, targets=1)[0], each[0])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1, 2, 3], "3 targets were given for 2 pictures"),
        ([1, 5], r"Category 5 is not in 0\.\.4"),
        ([-1, 0], r"Category -1 is not in 0\.\.4"),
        ([0.5, 1.0], "Targets are indices"),
        ([[[1]]], "Targets are indices"),
        ([True, False], "Targets are indices"),
        ("tabby", "Targets are indices"),
        (["tabby", "espresso"], "Targets are indices"),
        ([[0, 1], [2]], "Targets are indices"),
    ],
)
def test_bad_targets(model: Staged, targets: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        camcli.heatmaps(model, noise(), target_layers="last", targets=targets)


def test_several_layers_are_normalised_enlarged_and_averaged(model: Staged) -> None:
    inputs = noise()
    fused = camcli.heatmaps(model, inputs, target_layers=["middle", "last"], targets=1)
    one = [
        torch.nn.functional.interpolate(
            normalise(camcli.heatmaps(model, inputs, target_layers=layer, targets=1))[:, None],
            (48, 64),
            mode="bilinear",
        )[:, 0]
        for layer in ("middle", "last")
    ]
    torch.testing.assert_close(fused, (one[0] + one[1]) / 2)
    for how, expected in (("max", torch.maximum(*one)), ("product", one[0] * one[1])):
        heatmap = camcli.heatmaps(
            model, inputs, target_layers=["middle", "last"], targets=1, layer_fusion=how
        )
        torch.testing.assert_close(heatmap, expected)


def test_gradcam_scales_with_the_score_and_negation_turns_it(model: Staged) -> None:
    expected = camcli.heatmaps(model, noise(), target_layers="last", targets=2)
    for factor in (3.0, -1.0):
        other = Staged()
        with torch.no_grad():
            other.fc.weight.mul_(factor)
        heatmap = camcli.heatmaps(other, noise(), target_layers="last", targets=2)
        torch.testing.assert_close(heatmap, expected * factor)
    assert expected.min() < 0  # raw maps are signed


@pytest.mark.parametrize("name", METHODS)
def test_aug_smooth_is_the_mean_of_six_views_mapped_back(name: str) -> None:
    model, inputs = network_for(name), noise()
    expected = torch.zeros(())
    for factor in (0.9, 1.0, 1.1):
        for flipped in (False, True):
            views = (inputs * factor).flip(-1) if flipped else inputs * factor
            maps = camcli.heatmaps(model, views, name, target_layers="last", targets=[1, 2])
            expected = expected + (maps.flip(-1) if flipped else maps) / 6
    heatmap = camcli.heatmaps(
        model, inputs, name, target_layers="last", targets=[1, 2], aug_smooth=True
    )
    torch.testing.assert_close(heatmap, expected)


@pytest.mark.parametrize("name", METHODS)
def test_noise_smooth_is_the_mean_of_noisy_copies(name: str) -> None:
    model, inputs = network_for(name), noise()
    options = {"target_layers": "last", "targets": [1, 2]}
    draw = torch.Generator().manual_seed(3)
    spans = [float(picture.max() - picture.min()) for picture in inputs]
    maps = []
    for _ in range(2):
        drawn = torch.randn(inputs.shape[1:], generator=draw)
        noisy = [p + 0.2 * s * drawn for p, s in zip(inputs, spans, strict=True)]
        maps.append(camcli.heatmaps(model, torch.stack(noisy), name, **options, seed=3))
    heatmap = camcli.heatmaps(
        model, inputs, name, **options, seed=3, noise_smooth=2, noise_sigma=0.2
    )
    torch.testing.assert_close(heatmap, (maps[0] + maps[1]) / 2)


@pytest.mark.parametrize("name", METHODS)
def test_without_strength_noise_smooth_changes_nothing(name: str) -> None:
    model = network_for(name)
    plain = camcli.heatmaps(model, noise(), name, target_layers="last", targets=1)
    still = camcli.heatmaps(
        model, noise(), name, target_layers="last", targets=1, noise_smooth=1, noise_sigma=0
    )
    torch.testing.assert_close(still, plain)


@pytest.mark.parametrize("target", ["logit", "contrast"])
def test_noisy_copies_are_asked_about_the_plain_pictures_classes(target: str) -> None:
    model, inputs = Staged(seed=3), noise()
    options = {"target_layers": "last", "noise_smooth": 3, "noise_sigma": 2.0}
    best = model.eval()(inputs).topk(4).indices
    copies = Noise(3, 2.0).copies(inputs)
    others = [model(copy).topk(4).indices for copy in copies]
    assert all((other[:, 0] != best[:, 0]).all() for other in others)
    assert all((other.sort(1)[0] != best.sort(1)[0]).any(1).all() for other in others)
    for row in range(2):
        against = best[row, 1:].tolist() if target == "contrast" else []
        expected = camcli.heatmaps(
            model, inputs[row : row + 1], targets=int(best[row, 0]), contrast=against, **options
        )
        heatmap = camcli.heatmaps(model, inputs, target=target, **options)
        torch.testing.assert_close(heatmap[row], expected[0])


def test_of_augmented_views_each_is_smoothed_with_noise(model: Staged) -> None:
    inputs = noise()
    options = {"target_layers": "last", "targets": [1, 2], "noise_smooth": 2}
    expected = torch.zeros(())
    for factor in (0.9, 1.0, 1.1):
        expected = expected + camcli.heatmaps(model, inputs * factor, **options) / 6
        flipped = (inputs * factor).flip(-1)
        expected = expected + camcli.heatmaps(model, flipped, **options).flip(-1) / 6
    heatmap = camcli.heatmaps(model, inputs, **options, aug_smooth=True)
    torch.testing.assert_close(heatmap, expected)


def test_noisy_maps_may_be_principal_components(model: Staged) -> None:
    inputs = noise()
    options = {"target_layers": "last", "targets": [1, 2], "eigen_smooth": True}
    copies = Noise(2).copies(inputs)
    expected = sum(camcli.heatmaps(model, copy, **options) for copy in copies) / 2
    heatmap = camcli.heatmaps(model, inputs, **options, noise_smooth=2)
    torch.testing.assert_close(heatmap, expected)


@pytest.mark.parametrize(
    "wrong", [{"noise_smooth": 0}, {"noise_smooth": 2.5}, {"noise_smooth": 2, "noise_sigma": -0.1}]
)
def test_noise_that_is_none_is_refused(model: Staged, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="samples of 1 or more and a sigma of 0 or more"):
        camcli.heatmaps(model, noise(), **wrong)


REFINE: dict[str, Any] = {"target_layers": ["middle", "last"], "layer_fusion": "refine"}


@pytest.mark.parametrize("name", METHODS)
def test_refinecam_multiplies_the_maps_of_layers_and_is_refused_without(name: str) -> None:
    model, inputs = network_for(name), noise()
    options = {**REFINE, "targets": [1, 2]}
    if not depends_on_layer(name):
        with pytest.raises(MethodError, match=f"RefineCAM multiplies .*{name} looks at no layer"):
            camcli.heatmaps(model, inputs, name, **options)
        return
    if METHODS[name].details:
        with pytest.raises(MethodError, match=f"{name} shows more than a map"):
            camcli.heatmaps(model, inputs, name, **options)
        return
    if name == "cam":  # it looks at the last layer only
        return
    one_by_one = camcli.heatmaps(model, inputs, name, **{**options, "layer_fusion": "none"})
    expected = torch.ones(())
    for maps in one_by_one.values():
        large = torch.nn.functional.interpolate(maps.relu()[:, None], (48, 64), mode="bilinear")
        low, high = large.amin((1, 2, 3), keepdim=True), large.amax((1, 2, 3), keepdim=True)
        expected = expected * torch.where(high > low, (large - low) / (high - low), 0.0)[:, 0]
    heatmap = camcli.heatmaps(model, inputs, name, **options)
    torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layers", [None, "last", ["last", "last"]])
def test_refinecam_needs_several_layers(model: Staged, layers: Any) -> None:
    with pytest.raises(UsageError, match=r"several layers: name two or more with --target-layers"):
        camcli.heatmaps(model, noise(), target_layers=layers, layer_fusion="refine")


@pytest.mark.parametrize("name", METHODS)
def test_eigen_smooth_works_for_weighted_channels_and_is_refused_for_maps(name: str) -> None:
    inputs = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(0))

    def smooth() -> torch.Tensor:
        return camcli.heatmaps(
            Pooled(), inputs, name, target_layers="features", targets=0, eigen_smooth=True
        )

    if METHODS[name].gives == "map":
        with pytest.raises(MethodError, match=f"{name} makes a map directly"):
            smooth()
        return
    # the channels of `Pooled` are multiples of the input, so their component is the centred input
    centred = inputs[:, 0] - inputs[:, 0].mean((1, 2), keepdim=True)
    actual = smooth()
    ratio = (actual * centred).sum((1, 2), keepdim=True) / (centred**2).sum((1, 2), keepdim=True)
    torch.testing.assert_close(actual, ratio * centred, rtol=1e-4, atol=1e-5)
    plain = camcli.heatmaps(Pooled(), inputs, name, target_layers="features", targets=0)
    assert ((plain * actual).sum((1, 2)) > 0).all()


def test_randomcam_follows_its_seed_and_leaves_the_callers_alone(model: Staged) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        camcli.heatmaps(model, noise(), "randomcam", target_layers="last", seed=s)
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_cam_needs_pooling_and_one_linear_layer() -> None:
    with pytest.raises(MethodError, match="average pooling followed by one linear layer"):
        camcli.heatmaps(Staged(), noise(), "cam", target_layers="middle")
    no_linear = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten()
    )
    with pytest.raises(MethodError, match="has no such layer"):
        camcli.heatmaps(no_linear, noise(), "cam", target_layers="0")


def test_unknown_names_offer_the_closest(model: Staged) -> None:
    with pytest.raises(UnknownName, match=r"'midle'.*Closest: 'middle'"):
        camcli.heatmaps(model, noise(), target_layers="midle")
    with pytest.raises(UnknownName, match="Closest: 'gradcam"):
        camcli.heatmaps(model, noise(), "gradcm")
    with pytest.raises(UsageError, match="one of mean, max, product, refine, none"):
        camcli.heatmaps(model, noise(), layer_fusion="median")


def test_a_layer_without_a_grid_is_refused(model: Staged) -> None:
    for layer in ("pool", "fc"):
        with pytest.raises(LayerError, match=layer):
            camcli.heatmaps(model, noise(), target_layers=layer)


def test_inputs_must_be_a_float_batch(model: Staged) -> None:
    bytes_, none = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, 3, 8, 8)
    for wrong in (torch.zeros(3, 8, 8), bytes_, none, none.numpy()):
        with pytest.raises(UsageError, match="float tensor"):
            camcli.heatmaps(model, wrong)


def test_activations_are_laid_out_as_maps(model: Staged) -> None:
    model.eval()
    maps = camcli.activations(model, noise())
    assert list(maps) == ["last"]
    torch.testing.assert_close(maps["last"], model.last(model.middle(model.stem(noise())).relu()))
    both = camcli.activations(model, noise(), ["stem", "middle"])
    assert [tuple(v.shape) for v in both.values()] == [(2, 8, 24, 32), (2, 12, 12, 16)]


def test_a_layer_itself_names_it(model: Staged) -> None:
    expected = camcli.heatmaps(model, noise(), target_layers="middle")
    torch.testing.assert_close(
        camcli.heatmaps(model, noise(), target_layers=model.middle), expected
    )
    both = camcli.heatmaps(model, noise(), target_layers=[model.middle, "last"])
    assert both.shape == (2, 48, 64)
    with pytest.raises(LayerError, match="Conv2d is not a layer of the model"):
        camcli.heatmaps(model, noise(), target_layers=[torch.nn.Conv2d(3, 3, 1)])


def test_a_stage_that_was_swapped_is_seen() -> None:
    changing = Staged()
    assert list(camcli.activations(changing, noise())) == ["last"]
    changing.last = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(12, 16, 1), torch.nn.Flatten(2)
    )
    changing.last.append(torch.nn.Unflatten(2, (1, 1)))
    assert list(camcli.activations(changing, noise())) == ["middle"]
