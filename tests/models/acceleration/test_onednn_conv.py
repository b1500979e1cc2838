"""Weights that are laid out for many passes give what they gave, and are used where they may be."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.config import from_keywords
from camcli.engine import answer_request as request_answering
from camcli.engine.answer_request import answer_request
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.targets import TopKCategories
from camcli.media.pictures.read import make_picture
from camcli.methods.smoothing import Noise
from camcli.models.acceleration import onednn_conv
from camcli.models.acceleration.faster_forwards import accelerate
from camcli.models.acceleration.memory_format import trust_channels_last
from camcli.models.acceleration.onednn_conv import OPERATORS, is_prepacking_supported
from camcli.models.acceleration.prepack_cache import PrepackCache
from camcli.models.state.forward_patching import patch_forward
from camcli.pipeline import make_plan
from camcli.pipeline.stages import explain_batch, prepare
from camcli.registry import METHODS
from tests.checkout import ROOT
from tests.networks import network_for, noise

CONVOLUTIONS: dict[str, tuple[tuple[int, int, Any], dict[str, Any]]] = {
    "plain": ((8, 16, 3), {"padding": 1}),
    "pointwise": ((8, 16, 1), {}),
    "pointwise strided": ((8, 16, 1), {"stride": 2}),
    "of a picture": ((3, 16, 7), {"stride": 2, "padding": 3, "bias": False}),
    "patches": ((3, 24, 8), {"stride": 8}),
    "dilated": ((5, 7, 3), {"padding": 4, "dilation": 4}),
    "narrow": ((4, 1, (1, 5)), {"padding": (0, 2)}),
    "tall": ((1, 3, (11, 1)), {"padding": (5, 0), "stride": (1, 2)}),
    "large": ((2, 2, 31), {"padding": 15}),
}
LAST = noise().contiguous(memory_format=torch.channels_last)
supported = pytest.mark.skipif(
    not is_prepacking_supported(OPERATORS), reason="a processor where it was not tried"
)


@pytest.fixture(autouse=True)
def _even_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_conv, "FEWEST", 0)


def _list_prepacked(prepack_cache: PrepackCache) -> list[bool]:
    return [seen.prepacked is not None for seen in prepack_cache.entries.values()]


@supported
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "contiguous"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_each_kind_gives_what_it_gave(name: str, last: bool) -> None:
    torch.manual_seed(0)
    sizes, options = CONVOLUTIONS[name]
    layer, prepack_cache = nn.Conv2d(*sizes, **options), PrepackCache()
    layout = torch.channels_last if last else torch.contiguous_format
    with torch.no_grad():
        for shape in ((2, 33, 40), (2, 33, 40), (2, 33, 40), (5, 33, 40), (3, 64, 37)):
            inputs = torch.randn(shape[0], sizes[0], *shape[1:]).contiguous(memory_format=layout)
            expected = layer(inputs)
            with accelerate(layer, prepack_cache):
                actual = layer(inputs)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
            # models view what they are given as something else
            assert actual.stride() == expected.stride()
    # of one channel nobody can tell how it is laid out
    assert _list_prepacked(prepack_cache) == ([True] if last and sizes[0] > 1 else [])


@supported
def test_a_single_pass_lays_nothing_out() -> None:
    layer, prepack_cache = nn.Conv2d(3, 4, 3), PrepackCache()
    with torch.no_grad(), accelerate(layer, prepack_cache):
        layer(LAST)
        assert _list_prepacked(prepack_cache) == [False]
        layer(LAST)
    assert _list_prepacked(prepack_cache) == [True]
    assert "forward" not in vars(layer)


@supported
def test_changed_weights_are_laid_out_anew() -> None:
    layer, prepack_cache = nn.Conv2d(3, 4, 3), PrepackCache()
    with torch.no_grad():
        for change in (
            lambda: None,
            lambda: layer.weight.mul_(2),
            # neither has a version counter notice it
            lambda: layer.weight.data.mul_(2),
            lambda: _step(layer),
            lambda: _replace(layer),
        ):
            change()
            for _ in range(3):
                expected = layer(LAST)
                with accelerate(layer, prepack_cache):
                    torch.testing.assert_close(layer(LAST), expected)


@supported
def test_weights_without_a_version_are_not_laid_out() -> None:
    with torch.inference_mode():
        layer, prepack_cache = nn.Conv2d(3, 4, 3), PrepackCache()
        for _ in range(3):
            layer.weight.mul_(2)
            expected = layer(LAST)
            with accelerate(layer, prepack_cache):
                torch.testing.assert_close(layer(LAST), expected)
    assert not prepack_cache.entries


def _step(layer: nn.Conv2d) -> None:
    layer.weight.grad = torch.ones_like(layer.weight)
    torch.optim.SGD([layer.weight], lr=0.1, fused=True).step()


@supported
def test_small_weights_are_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_conv, "FEWEST", 1000)
    model = nn.Sequential(nn.Conv2d(10, 99, 1), nn.Conv2d(10, 100, 1))
    with accelerate(model, PrepackCache()):
        assert ["forward" in vars(layer) for layer in model] == [False, True]


def _replace(layer: nn.Conv2d) -> None:
    layer.weight = nn.Parameter(torch.randn_like(layer.weight))


@supported
def test_where_a_graph_is_recorded_weights_are_as_they_were() -> None:
    layer, prepack_cache = nn.Conv2d(3, 4, 3), PrepackCache()
    with torch.no_grad(), accelerate(layer, prepack_cache):
        for _ in range(2):
            layer(LAST)
    inputs = LAST.clone().requires_grad_()
    with accelerate(layer, prepack_cache):
        layer(inputs).sum().backward()
    expected = torch.autograd.grad(layer(inputs).sum(), inputs)[0]
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, expected)
    with accelerate(layer, prepack_cache), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(LAST).dtype == torch.bfloat16


class _Standardised(nn.Conv2d):
    def forward(self, inputs: Tensor) -> Tensor:
        return self._conv_forward(inputs, self.weight - self.weight.mean(), self.bias)


def test_what_is_not_a_plain_convolution_is_left_alone() -> None:
    layers = [
        _Standardised(3, 4, 3),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3).to(torch.bfloat16),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        nn.ConvTranspose2d(3, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4),
    ]
    module = nn.ModuleList(layers)
    with accelerate(module, PrepackCache()):
        assert not any("forward" in vars(layer) for layer in module.modules())


@supported
def test_where_something_stands_in_for_a_layer_nothing_else_does() -> None:
    # compiled blocks run as they were written where something stands in for what is inside
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with patch_forward(model[1], torch.relu), accelerate(model, PrepackCache()):
        assert "forward" not in vars(model[0]) and vars(model[1])["forward"] is torch.relu
    with accelerate(model, PrepackCache()):
        assert all("forward" in vars(layer) for layer in model)


@supported
def test_a_program_that_switched_it_off_has_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with accelerate(model, PrepackCache()):
        assert "forward" not in vars(model[0])


@supported
def test_inputs_may_be_given_by_their_name() -> None:
    layer = nn.Conv2d(3, 4, 3)
    with torch.no_grad(), accelerate(layer, PrepackCache()):
        for _ in range(3):
            torch.testing.assert_close(layer(input=LAST), layer(LAST))


@supported
@pytest.mark.parametrize("name", METHODS)
def test_maps_are_what_they_were_and_the_model_is_left_as_found(name: str) -> None:
    network, prepack_cache = network_for(name), PrepackCache()
    before = copy.deepcopy(network.state_dict())
    request = ExplainRequest((name,), ("last",))
    actual = [
        answer_request(network, noise(), TopKCategories(), request, prepack_cache).maps[name]
        for _ in range(3)
    ]
    for layer, maps in actual[0].items():
        torch.testing.assert_close(actual[2][layer], maps, rtol=1e-3, atol=1e-5)
    assert not any("forward" in vars(layer) for layer in network.modules())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@supported
def test_a_run_lays_weights_out_for_its_later_batches() -> None:
    photos = [ROOT / "demo_images" / name for name in ("cat_and_coffee.jpg", "chelsea.png")]
    classifier = camcli.load_model(device="cpu")
    plan = make_plan(classifier, from_keywords())
    batches = [[prepare(make_picture(photo), plan)] for photo in (*photos, *photos)]
    first, *later = [next(explain_batch(batch, plan))[0].heatmap for batch in batches]
    laid_out = _list_prepacked(plan.prepack_cache)
    assert all(laid_out) and len(laid_out) > 10
    np.testing.assert_allclose(later[1], first, rtol=0, atol=1e-5)
    np.testing.assert_allclose(later[2], later[0], rtol=0, atol=1e-5)


@supported
@pytest.mark.usefixtures("folds_at_once")
def test_a_run_lays_no_weight_out_twice() -> None:
    photo = ROOT / "demo_images" / "chelsea.png"
    plan = make_plan(camcli.load_model(device="cpu"), from_keywords())
    batch = [prepare(make_picture(photo), plan)]
    first, *later = [next(explain_batch(batch, plan))[0].heatmap for _ in range(4)]
    # those that are folded are laid out with their norms
    assert not any(_list_prepacked(plan.prepack_cache))
    for heatmap in later:
        np.testing.assert_allclose(heatmap, first, rtol=0, atol=1e-5)


@supported
@pytest.mark.parametrize("name", METHODS)
def test_a_call_looks_for_weights_only_where_there_are_many_passes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, passed, looked = network_for(name), 0, 0
    # more than the tests' few copies, which are no more than the passes that try something out
    options = {name: {"samples": 8}} if name == "smoothgradcam++" else {}
    request = ExplainRequest((name,), ("last",), options=options, chunk=1)
    # what is measured of a model once is measured now
    trust_channels_last(network)
    answer_request(network, noise(1), TopKCategories(), request)

    def pass_by(*_: object) -> None:
        nonlocal passed
        passed += 1

    def look(module: nn.Module, prepack_cache: PrepackCache | None) -> AbstractContextManager[None]:
        nonlocal looked
        looked += prepack_cache is not None
        return accelerate(module, prepack_cache)

    monkeypatch.setattr(request_answering, "accelerate", look)
    with network.fc.register_forward_pre_hook(pass_by):
        answer_request(network, noise(1), TopKCategories(), request)
    # a few passes are made to try something out, or for each block or concept
    assert looked == (passed > 6)


def test_smoothing_passes_a_picture_many_times() -> None:
    once = ExplainRequest(("gradcam",), ("last",))
    assert not once.many_passes
    assert replace(once, aug_smooth=True).many_passes
    assert replace(once, noise=Noise(2)).many_passes
