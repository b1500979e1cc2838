"""Maps of models whose outputs are probabilities, independent classes or values, against the bare.

Hand-worked values of readings are in tests/models/outputs/test_interpretation.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.answer_request import answer_request
from camcli.engine.explain_request import ExplainRequest, ExplainResult
from camcli.engine.targets import LikelyCategories, TopKCategories
from camcli.errors import ModelError, UsageError
from camcli.models.outputs.interpretation import measure_output
from camcli.registry import METHODS, depends_on_category
from tests.networks import Staged, network_for, noise

OF_A_CLASS = [name for name in METHODS if depends_on_category(name)]
LAYER = "last"


class Ended(nn.Module):
    def __init__(self, net: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.net, self.end = net, end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.net(x))


class Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze()


def options_of(name: str) -> dict[str, Any]:
    return {"set": {"masks": 6}} if name == "rise" else {}


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid(), Squeeze()], ids=str)
@pytest.mark.parametrize("name", OF_A_CLASS)
def test_an_end_makes_no_difference(name: str, end: nn.Module) -> None:
    options, expected = options_of(name), explain_bare(name)
    heatmap = camcli.heatmaps(Ended(network_for(name), end), noise(), name, **options)
    torch.testing.assert_close(heatmap, expected, rtol=1e-5, atol=1e-7)
    # of a model that no batch has gone through, single pictures are read alike
    model = Ended(network_for(name), end)
    alone = [camcli.heatmaps(model, x[None], name, **options) for x in noise()]
    torch.testing.assert_close(torch.cat(alone), expected, rtol=1e-3, atol=1e-5)


@cache
def explain_bare(name: str) -> Tensor:
    return camcli.heatmaps(network_for(name), noise(), name, **options_of(name))


def by_hand(model: nn.Module, inputs: Tensor, sign: float) -> Tensor:
    """Grad-CAM of the single output of the net without its end, times a sign."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        seen.append(output)
        return output.clone()  # a ReLU in place is behind it

    with model.last.register_forward_hook(keep):
        score = model.eval()(inputs.clone().requires_grad_()).sum() * sign
    (gradient,) = torch.autograd.grad(score, seen[0])
    maps: Tensor = (gradient.mean((2, 3), keepdim=True) * seen[0]).sum(1).detach()
    return maps


@pytest.mark.parametrize(("bias", "sign"), [(-3.0, -1.0), (3.0, 1.0)])
def test_one_sigmoid_explains_the_side_that_it_is_on(bias: float, sign: float) -> None:
    net = Staged(1)
    nn.init.constant_(net.fc.bias, bias)
    p = net.eval()(noise()).sigmoid()
    assert bool((p > 0.5).all() if sign > 0 else (p < 0.5).all())
    heatmap = camcli.heatmaps(Ended(net, nn.Sigmoid()), noise(), target_layers="net.last")
    torch.testing.assert_close(heatmap, by_hand(net, noise(), sign), rtol=1e-5, atol=1e-7)


def test_a_value_is_explained_itself_whatever_its_sign() -> None:
    net = Staged(1)
    nn.init.constant_(net.fc.bias, -40)
    options: dict[str, Any] = {"target_layers": LAYER, "outputs": "value"}
    heatmap = camcli.heatmaps(net, noise(), **options)
    torch.testing.assert_close(heatmap, by_hand(net, noise(), 1.0), rtol=1e-5, atol=1e-7)
    against = camcli.heatmaps(net, noise(), target="counterfactual", **options)
    torch.testing.assert_close(against, -heatmap)
    with pytest.raises(UsageError, match=r"Output 1 is not in 0\.\.0"):
        camcli.heatmaps(net, noise(), targets=1, **options)
    for wrong in ({"target": "probability"}, {"contrast": [0]}):
        with pytest.raises(UsageError, match="is a value and not a class"):
            camcli.heatmaps(net, noise(), **wrong, **options)


def test_of_several_values_one_is_chosen() -> None:
    with pytest.raises(UsageError, match="puts out 5 values: say with target_category which"):
        camcli.heatmaps(Staged(), noise(), target_layers=LAYER, outputs="value")
    heatmap = camcli.heatmaps(Staged(), noise(), target_layers=LAYER, outputs="value", targets=3)
    torch.testing.assert_close(
        heatmap, camcli.heatmaps(Staged(), noise(), target_layers=LAYER, targets=3)
    )


def test_layers_of_a_value_are_fused_with_their_sign() -> None:
    options: dict[str, Any] = {"target_layers": ["middle", LAYER], "outputs": "value"}
    heatmap = camcli.heatmaps(Staged(1), noise(), **options)
    assert heatmap.min() < 0 < heatmap.max()
    assert heatmap.abs().max() <= 1
    turned = camcli.heatmaps(Staged(1), noise(), target="counterfactual", **options)
    torch.testing.assert_close(turned, -heatmap)
    with pytest.raises(UsageError, match="product is of maps from 0 to 1"):
        camcli.heatmaps(Staged(1), noise(), layer_fusion="product", **options)


def answer_once(model: nn.Module, choice: Any, outputs: Any = None) -> ExplainResult:
    reading = measure_output(model, (3, 48, 64), None, outputs)
    request = ExplainRequest(("gradcam",), (LAYER,), reading=reading)
    return answer_request(model.eval(), noise(3), choice, request)


def test_probabilities_are_the_models_own() -> None:
    for end in (nn.Softmax(1), nn.Sigmoid()):
        model = nn.Sequential()
        net = Staged()
        model.add_module("net", net)
        model.add_module("end", end)
        reading = measure_output(model, (3, 48, 64))
        request = ExplainRequest(("gradcam",), ("net.last",), reading=reading)
        actual = answer_request(model.eval(), noise(3), TopKCategories(), request)
        torch.testing.assert_close(actual.probabilities, model(noise(3)).detach())
    assert answer_once(Staged(1), TopKCategories(), "logits").probabilities.shape == (3, 2)  # type: ignore[union-attr]


def test_a_probability_of_independent_classes_is_a_sigmoid() -> None:
    def maps(target: Any) -> Tensor:
        heatmap: Tensor = camcli.heatmaps(
            Staged(), noise(), target_layers=LAYER, targets=2, target=target, outputs="independent"
        )
        return heatmap

    p = Staged().eval()(noise()).sigmoid()[:, 2, None, None].detach()
    torch.testing.assert_close(maps("probability"), maps("logit") * p * (1 - p))
    torch.testing.assert_close(maps("log-probability"), maps("logit") * (1 - p))


def test_likely_classes_are_as_many_as_any_picture_has() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0], [-3.0, -2.0, -4.0]])
    assert LikelyCategories(0.5, 3, "sigmoid").pick(logits).tolist() == [[0, 2], [1, 0]]
    assert LikelyCategories(0.5, 1, "sigmoid").pick(logits).tolist() == [[0], [1]]
    assert LikelyCategories(0.99, 3, "sigmoid").pick(logits).tolist() == [[0], [1]]


class OneByOne(Staged):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("a picture at a time")
        return super().forward(x)


@pytest.mark.parametrize("name", ["gradcam", "scorecam", "occlusion"])
def test_a_model_of_one_picture_at_a_time_is_given_one(name: str) -> None:
    expected = camcli.heatmaps(Staged(), noise(), name)
    heatmap = camcli.heatmaps(OneByOne(), noise(), name)
    torch.testing.assert_close(heatmap, expected, rtol=1e-3, atol=1e-5)


def test_one_row_for_several_pictures_is_refused_in_a_sentence() -> None:
    class Bag(Staged):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean(0, keepdim=True)

    message = r"returned \[1, 5\] for 4 inputs, not a row for each, \[4, n\]"
    with pytest.raises(ModelError, match=message):
        camcli.heatmaps(Bag(), noise(4), target_layers=LAYER)
    torch.testing.assert_close(
        camcli.heatmaps(Bag(), noise(1), target_layers=LAYER),
        camcli.heatmaps(Staged(), noise(1), target_layers=LAYER),
    )


DISGUISES: list[Any] = [
    lambda m: m,
    nn.DataParallel,
    lambda m: m.train(),
    lambda m: m.requires_grad_(False),
    lambda m: m.double(),
]


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_end_makes_no_difference_in_any_disguise(disguise: Any, mode: Any) -> None:
    expected = camcli.heatmaps(Staged(), noise(), ["gradcam", "scorecam"], target_layers=LAYER)
    model = disguise(Ended(Staged(), nn.Softmax(1)))
    with mode():
        heatmap = camcli.heatmaps(model, noise(), ["gradcam", "scorecam"], target_layers="net.last")
    torch.testing.assert_close(heatmap, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"aug_smooth": True}, {"noise_smooth": 2}, {"eigen_smooth": True}, {"precision": "bf16"}],
)
def test_an_end_makes_no_difference_to_smoothing(options: dict[str, Any]) -> None:
    expected = camcli.heatmaps(Staged(), noise(), target_layers=LAYER, **options)
    heatmap = camcli.heatmaps(
        Ended(Staged(), nn.Sigmoid()), noise(), target_layers="net.last", **options
    )
    torch.testing.assert_close(heatmap, expected)


def test_saturated_probabilities_have_a_map_still() -> None:
    net = Staged(1)
    net.fc.weight.data.mul_(1e5)
    p = net.eval()(noise()).sigmoid()
    assert bool(((p == 0) | (p == 1)).all())
    heatmap = camcli.heatmaps(Ended(net, nn.Sigmoid()), noise(), target_layers="net.last")
    assert bool((heatmap.abs().amax((1, 2)) > 0).all())
