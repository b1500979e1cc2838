"""Sanity checks: maps that depend on weights and classes fall apart, others stay."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

import camcli
from camcli.engine.sanity import compare_classes, compare_maps, randomize_step_by_step
from camcli.errors import UsageError
from camcli.models.state import find_weighted_layers, randomize_layers
from tests.networks import Staged, noise


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Staged().eval()


def test_a_cascade_goes_down_and_maps_lose_their_likeness(module: nn.Module) -> None:
    before = {k: v.clone() for k, v in module.state_dict().items()}
    steps = list(
        randomize_step_by_step(
            module, noise(), ["gradcam", "randomcam"], [0, 1], target_layers=["last"]
        )
    )
    assert [step.layer for step in steps] == [
        layer.name for layer in find_weighted_layers(module, noise())
    ]
    assert [step.randomized for step in steps] == list(range(1, 8))
    for step in steps:
        assert set(step.similarities) == {"gradcam", "randomcam"}
        shapes = {k: tuple(v.shape) for k, v in step.similarities["gradcam"].items()}
        assert shapes == {"ssim": (2,), "rank": (2,), "hog": (2,)}
    last = steps[-1].similarities["gradcam"]["ssim"]
    assert (last < 0.9).all()
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_what_lies_behind_the_layer_is_nothing_to_eigencam(module: nn.Module) -> None:
    """EigenCAM reads the layer's output alone: fresh weights behind it change nothing."""
    first, *_, last = randomize_step_by_step(module, noise(), ["eigencam"], target_layers=["last"])
    assert first.layer == "fc"
    for values in first.similarities["eigencam"].values():
        assert values.tolist() == pytest.approx([1, 1])
    assert (last.similarities["eigencam"]["rank"] < 0.99).all()


def test_each_layer_by_itself(module: nn.Module) -> None:
    cascade, single = (
        list(randomize_step_by_step(module, noise(), ["layercam"], [0, 1], order=order))
        for order in ("cascading", "independent")
    )
    assert [step.randomized for step in single] == [1] * 7
    assert torch.equal(
        single[0].similarities["layercam"]["ssim"], cascade[0].similarities["layercam"]["ssim"]
    )
    assert not torch.allclose(
        single[3].similarities["layercam"]["ssim"], cascade[3].similarities["layercam"]["ssim"]
    )


def test_maps_are_those_of_a_model_that_has_the_fresh_weights(module: nn.Module) -> None:
    """No cache of the engine remembers what the weights were."""
    inputs, layers = noise(), find_weighted_layers(module, noise())
    camcli.heatmaps(module, inputs, "gradcam", targets=[0, 1])
    with randomize_layers(module, layers):
        altered = camcli.heatmaps(module, inputs, "gradcam", targets=[0, 1])
        copy = deepcopy(module)
    assert torch.equal(camcli.heatmaps(copy, inputs, "gradcam", targets=[0, 1]), altered)
    plain = camcli.heatmaps(module, inputs, "gradcam", targets=[0, 1])
    assert not torch.allclose(plain, altered)


def test_steps_are_spread_over_the_layers(module: nn.Module) -> None:
    steps = randomize_step_by_step(module, noise(), ["eigencam"], steps=3)
    assert [step.randomized for step in steps] == [1, 4, 7]
    (step,) = randomize_step_by_step(module, noise(), ["eigencam"], steps=1)
    assert step.randomized == 7
    with pytest.raises(UsageError, match="Steps are 1 or more"):
        list(randomize_step_by_step(module, noise(), ["eigencam"], steps=0))


def test_a_class_has_to_be_named(module: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"gradcam explains a class.*give targets"):
        next(iter(randomize_step_by_step(module, noise(), ["eigencam", "gradcam"])))


def test_another_class_has_another_map(module: nn.Module) -> None:
    actual = compare_classes(module, noise(), ["gradcam", "eigencam"], [0, 1], [2, 3])
    assert actual["eigencam"]["ssim"].tolist() == pytest.approx([1, 1])
    assert (actual["gradcam"]["ssim"] < 0.99).all()
    with pytest.raises(UsageError, match="Class 1 is compared with itself"):
        compare_classes(module, noise(), ["gradcam"], [0, 1], [2, 1])


def test_a_map_that_is_not_finite_is_like_nothing() -> None:
    maps = noise(2, 1, (32, 32))[:, 0]
    others = maps.clone()
    others[0, 0, 0] = torch.inf
    for values in compare_maps(maps, others).values():
        assert values[0].isnan()
        assert values[1].item() == pytest.approx(1)
