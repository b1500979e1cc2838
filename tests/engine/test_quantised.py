"""Quantised models: what can be shown of them, and advice that works where something cannot."""

import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import camcli
import camcli.methods
from camcli.engine.compatibility import find_incompatible_methods
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.targets import TopKCategories
from camcli.errors import LayerError, MethodError
from camcli.registry import METHODS, depends_on_layer
from tests.networks import noise

SCALE, ZERO = 0.05, 128


class Quantise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.quantize_per_tensor(x, SCALE, ZERO, torch.quint8)


class Dequantise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.dequantize()


class Rounding(nn.Module):
    """The same in floats: what the numbers stand for."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, SCALE, ZERO, 0, 255)


def network(quantised: bool = True) -> nn.Sequential:
    """Convolutions whose output is rounded to eight bits, rectified and pooled as such."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, head = nn.Conv2d(3, 8, 3, 4, 1), nn.Linear(8, 4)
    begin, end = (Quantise(), Dequantise()) if quantised else (Rounding(), Rounding())
    layers = [conv, begin, nn.ReLU(), nn.AdaptiveAvgPool2d(1), end, nn.Flatten(), head]
    return nn.Sequential(*layers).eval()


def options_of(name: str) -> dict[str, Any]:
    few = {"rise": {"masks": 20}, "dff": {"concepts": 3}}
    return {"targets": [[1, 3], [0, 2]], "set": few.get(name, {})}


def find_advice(error: Exception) -> tuple[list[str], list[str]]:
    """Reads the methods and the layers that a message names."""
    text = str(error).replace("All: camviz --preview-model", "")
    methods = re.search(r"--method (\w+)(?: or (\w+))?", text)
    assert methods, text
    return [m for m in methods.groups() if m], re.findall(r"such as '(\S+)'", text)


GRADIENTLESS = ["ablationcam", "dff", "eigencam", "fem", "iscam", "kpcacam", "occlusion"]
GRADIENTLESS += ["randomcam", "rise", "scorecam", "sscam"]


@pytest.mark.parametrize("name", METHODS)
def test_each_method_gives_a_map_or_advice_that_works(name: str) -> None:
    model, inputs, options = network(), noise(size=(32, 48)), options_of(name)
    # a layer that puts out what is quantised
    options["target_layers"] = "2"
    if name in GRADIENTLESS:
        heatmap = camcli.heatmaps(model, inputs, name, **options)
        expected = camcli.heatmaps(network(quantised=False), inputs, name, **options)
        # pooled values are rounded once more
        torch.testing.assert_close(
            heatmap, expected, rtol=0, atol=0.02 * float(expected.abs().max())
        )
        return
    with pytest.raises(MethodError) as caught:
        camcli.heatmaps(model, inputs, name, **options)
    methods, _ = find_advice(caught.value)
    for other in methods:
        options = {**options_of(other), "target_layers": "2"}
        heatmap = camcli.heatmaps(model, inputs, other, **options)
        assert heatmap.isfinite().all() and heatmap.any()


@pytest.mark.parametrize("name", [name for name in METHODS if depends_on_layer(name)])
def test_without_a_layer_one_that_works_is_named(name: str) -> None:
    model, inputs = network(), noise(size=(32, 48))
    with pytest.raises(LayerError, match="its output passes no gradient back") as caught:
        camcli.heatmaps(model, inputs, name, **options_of(name))
    methods, layers = find_advice(caught.value)
    assert (methods, layers) == (["eigencam", "scorecam"], ["2"])
    for other in methods:
        heatmap = camcli.heatmaps(model, inputs, other, targets=1, target_layers=layers[0])
        assert heatmap.isfinite().all() and heatmap.any()


def test_activations_are_the_numbers_that_quantised_ones_stand_for() -> None:
    inputs = noise(size=(32, 48))
    maps = camcli.activations(network(), inputs, "2")["2"]
    expected = camcli.activations(network(quantised=False), inputs, "2")["2"]
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected)


def test_a_float_tail_is_explained_by_gradients() -> None:
    # what is no longer quantised is like any other layer
    tail = nn.Sequential(nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(network()[:3], Dequantise(), tail).eval()
    assert camcli.heatmaps(model, noise(size=(32, 48)), target_layers="2.0").any()
    with pytest.raises(MethodError, match=r"No gradient reaches '0\.2'"):
        camcli.heatmaps(model, noise(size=(32, 48)), target_layers=["0.2", "2.0"])


def test_of_all_methods_those_that_need_a_gradient_are_left_out() -> None:
    request = ExplainRequest((), ("2",), options={"dff": {"concepts": 3}})
    inputs = noise(1, size=(32, 48))
    actual = find_incompatible_methods(network(), inputs, TopKCategories(), request, METHODS)
    assert sorted(METHODS.keys() - actual.keys()) == sorted(GRADIENTLESS)


@pytest.mark.filterwarnings("ignore")
def test_torchvisions_quantised_networks_advice_works() -> None:
    models: Any = torchvision.models.quantization
    model, inputs = models.mobilenet_v3_large(quantize=True, num_classes=5), noise(1, size=(64, 64))
    with pytest.raises(LayerError) as caught:
        camcli.heatmaps(model, inputs)
    assert find_advice(caught.value) == (["eigencam", "scorecam"], ["features"])
    few = {"set": {"max_channels": 4}}
    for name, options in {"eigencam": {}, "scorecam": few, "ablationcam": few}.items():
        heatmap = camcli.heatmaps(model, inputs, name, target_layers="features", **options)
        assert heatmap.shape == (1, 2, 2) and heatmap.isfinite().all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METHODS)
def test_what_is_quantised_while_it_runs_is_no_map_of_zeros(name: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    model = torch.ao.quantization.quantize_dynamic(plain.eval(), {nn.Linear}, dtype=torch.qint8)
    options = {**options_of(name), "target_layers": "1"}
    try:
        heatmap = camcli.heatmaps(model, noise(size=(32, 48)), name, **options)
    except MethodError as error:
        # attention and its like are not there at all
        assert name not in GRADIENTLESS
        assert re.search("No gradient reaches|softmaxed attention|CAM needs", str(error))
    else:
        assert name in GRADIENTLESS
        assert heatmap.any()
    with pytest.raises(LayerError, match="its output passes no gradient back"):
        camcli.heatmaps(model, noise(size=(32, 48)))
