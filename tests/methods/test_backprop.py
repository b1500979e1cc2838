"""Guided backprop and guided Grad-CAM: by hand, against a slow replica, and in every spelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import activations, activations_me
from torch import Tensor, nn
from torch.nn import functional as F

import camcli
from camcli.engine.answer_request import answer_request
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.targets import parse_targets
from camcli.errors import MethodError
from camcli.methods.postprocessing import enlarge
from camcli.registry import METHODS, depends_on_category, depends_on_layer
from tests.networks import Pooled, Staged, noise


def pixels(
    model: nn.Module, inputs: Tensor, method: str = "guidedbackprop", category: int = 0
) -> Tensor:
    """The detail itself, which `heatmaps` leaves out.  [b 3 H W]"""
    request = ExplainRequest((method,), ("last",))
    actual = answer_request(model, inputs, parse_targets(category, len(inputs)), request).details
    return actual[method, "last" if depends_on_layer(method) else "", "pixels"][:, 0]


class TwoLayers(nn.Module):
    """Two rectified 1x1 layers of two channels, and a sum over channels and places.

    The second has its weights in rows: [1 -1], [-2 1].
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1, 1))
            self.last.weight.copy_(torch.tensor([[1.0, -1.0], [-2.0, 3.0]]).view(2, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.last(self.first(x).relu()).relu()
        return torch.stack([hidden.sum((1, 2, 3)), -hidden[:, 1].sum((1, 2))], 1)


def test_guided_backprop_by_hand() -> None:
    # at 1: 2 and 3 -> -1 and 5, of which only the second goes on; it hands back -2 and 3, of which
    # the negative one is stopped: 3 * 3 instead of 3 * 3 - 2 * 2; at -1 nothing goes on at all
    inputs = torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)
    actual = pixels(TwoLayers(), inputs)
    torch.testing.assert_close(actual, torch.tensor([9.0, 0.0]).view(1, 1, 1, 2))
    # what speaks against the second class is not told: its gradient is negative from the start
    assert not pixels(TwoLayers(), inputs, category=1).any()
    against = camcli.heatmaps(
        TwoLayers(), inputs, "guidedbackprop", targets=1, target="counterfactual"
    )
    torch.testing.assert_close(against, torch.tensor([9.0, 0.0]).view(1, 1, 2))


def test_guided_gradcam_by_hand() -> None:
    # at the layer (-1, 5) and (0, 0), with gradients (0, 1) and (0, 0): channels weigh 0 and 1/2
    inputs = torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)
    expected = torch.tensor([9.0 * 2.5, 0.0])
    torch.testing.assert_close(
        pixels(TwoLayers(), inputs, "guidedgradcam"), expected.view(1, 1, 1, 2)
    )
    heatmap = camcli.heatmaps(TwoLayers(), inputs, "guidedgradcam", target_layers="last", targets=0)
    torch.testing.assert_close(heatmap, expected.view(1, 1, 2))


def test_the_map_is_the_largest_size_over_the_colours() -> None:
    gradients = torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1)
    actual = METHODS["guidedbackprop"].function(gradients)
    assert actual.map.flatten().tolist() == [3.0]
    assert torch.equal(actual.details["pixels"], gradients)


def test_what_speaks_against_the_class_at_the_layer_counts_nothing() -> None:
    shape = (1, 2, 2, 2)
    activations = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [0.0, 0.0]]])[None]
    gradients = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(shape)
    pixels = torch.ones(1, 3, 4, 4)
    actual = METHODS["guidedgradcam"].function(activations, gradients, pixels)
    # rectified before it is enlarged: the corner of -3 takes nothing from what lies beside it
    heat = enlarge(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), (4, 4))
    torch.testing.assert_close(actual.map, heat[None])
    assert actual.map[0, 0, 1] == 0.75


# a slow replica from the paper: a rectifier with a backward pass of its own

Rectifier = Callable[[Tensor], Tensor]


def as_in_the_paper(rectifier: Rectifier) -> Rectifier:
    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return rectifier(x.clone()).detach()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                (slope,) = torch.autograd.grad(rectifier(x.clone()).sum(), x)
            return slope * torch.where(gradient > 0, gradient, 0.0)

    return Guided.apply


class Rectified(Staged):
    """`Staged` with a rectifier of one's choice, a shortcut around one of them, and no other."""

    def __init__(self, rectifier: Rectifier) -> None:
        super().__init__()
        self.rectifier = rectifier

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectifier(self.middle(self.rectifier(self.stem(x))))
        x = self.last(x + self.rectifier(x - 0.3))
        return self.fc(self.pool(self.rectifier(x)).flatten(1))


def _prelu() -> nn.Module:
    return nn.PReLU(init=0.2)


SPELLINGS: dict[str, Rectifier] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.clamp": lambda x: x.clamp(min=0),
    "Tensor.clamp_min": lambda x: x.clamp_min(0),
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "nn.LeakyReLU": nn.LeakyReLU(0.1),
    "nn.LeakyReLU in place": nn.LeakyReLU(0.1, inplace=True),
    "nn.PReLU": _prelu(),
    "nn.RReLU": nn.RReLU().eval(),
    "nn.ELU": nn.ELU(),
    "nn.ELU in place": nn.ELU(inplace=True),
    "nn.SELU": nn.SELU(),
    "nn.CELU": nn.CELU(),
    "nn.CELU in place": nn.CELU(inplace=True),
    "nn.GELU": nn.GELU(),
    "F.gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "nn.SiLU": nn.SiLU(),
    "nn.SiLU in place": nn.SiLU(inplace=True),
    "nn.Mish": nn.Mish(),
    "nn.Hardswish": nn.Hardswish(),
    "nn.Softplus": nn.Softplus(),
    "timm's QuickGELU": activations.QuickGELU(),
    "timm's Swish": activations.Swish(),
    "timm's Swish in place": activations.Swish(inplace=True),
    "timm's HardMish": activations.HardMish(),
    "timm's SwishMe": activations_me.SwishMe(),
    "timm's MishMe": activations_me.MishMe(),
    "timm's HardSwishMe": activations_me.HardSwishMe(),
    "timm's HardMishMe": activations_me.HardMishMe(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_slow_replica_for_every_rectifier(spelling: str) -> None:
    rectifier = SPELLINGS[spelling]
    inputs = noise().requires_grad_()
    slow = Rectified(as_in_the_paper(rectifier)).eval()
    (expected,) = torch.autograd.grad(slow(inputs)[:, 2].sum(), inputs)
    (plain,) = torch.autograd.grad(Rectified(rectifier).eval()(inputs)[:, 2].sum(), inputs)
    actual = pixels(Rectified(rectifier), inputs.detach(), category=2)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
    assert (plain - expected).abs().max() > 0.1 * expected.abs().max()


def test_every_class_is_followed_back_through_the_same_pass() -> None:
    model, passes = Staged(), []
    # what is measured of a model once is measured now
    camcli.heatmaps(model, noise())
    model.stem.register_forward_hook(lambda *_: passes.append(1))
    heatmap = camcli.heatmaps(model, noise(), "guidedbackprop", targets=[[0, 1, 0], [2, 3, 2]])
    assert len(passes) == 1  # the guided one gives the logits, too
    assert torch.equal(heatmap[:, 0], heatmap[:, 2])
    for slot, targets in enumerate([[0, 2], [1, 3]]):
        alone = camcli.heatmaps(model, noise(), "guidedbackprop", targets=targets)
        torch.testing.assert_close(heatmap[:, slot], alone)


@pytest.mark.parametrize(
    ("method", "pictures", "passes"),
    [
        (["guidedbackprop"], 1, 1),
        (["guidedbackprop"], 2, 1),
        (["fullgrad"], 1, 1),
        # several pass one by one, and only the last of these passes is kept
        (["fullgrad"], 2, 3),
        (["guidedbackprop", "fullgrad"], 1, 2),
        (["guidedgradcam"], 1, 2),
        (["gradcam", "guidedbackprop", "fullgrad"], 1, 3),
        (["gradcam"], 2, 1),
    ],
)
def test_no_pass_runs_for_the_logits_alone(method: list[str], pictures: int, passes: int) -> None:
    model, seen = Staged().eval(), []
    inputs = noise(pictures)
    # what is measured of a model once is measured now
    camcli.heatmaps(model, inputs, method)
    handle = model.stem.register_forward_hook(lambda *_: seen.append(1))
    predicted = camcli.heatmaps(model, inputs, method)
    assert len(seen) == passes
    handle.remove()
    with torch.no_grad():
        classes = model(inputs).argmax(1).tolist()
    named = camcli.heatmaps(model, inputs, method, targets=classes)
    for name in method:
        torch.testing.assert_close(predicted[name], named[name])


@pytest.mark.parametrize(
    "other",
    [
        torch.tanh,
        torch.sigmoid,
        F.hardtanh,
        F.hardsigmoid,
        lambda x: x.clamp(-1),
        lambda x: x.clamp(0, 2),
    ],
)
def test_what_does_not_rectify_is_left_alone_and_refused_alone(other: Rectifier) -> None:
    class Both(Staged):
        def forward(self, x: Tensor) -> Tensor:
            x = self.last(other(self.middle(torch.relu(self.stem(x)))))
            return self.fc(self.pool(x).flatten(1))

    class Paper(Both):
        def forward(self, x: Tensor) -> Tensor:
            x = self.last(other(self.middle(as_in_the_paper(torch.relu)(self.stem(x)))))
            return self.fc(self.pool(x).flatten(1))

    inputs = noise().requires_grad_()
    (expected,) = torch.autograd.grad(Paper().eval()(inputs)[:, 1].sum(), inputs)
    torch.testing.assert_close(pixels(Both(), inputs.detach(), category=1), expected)
    with pytest.raises(MethodError, match="none was found in this Rectified"):
        camcli.heatmaps(Rectified(other), noise(), "guidedbackprop")


def test_models_that_cannot_be_guided_say_so() -> None:
    class Counted(Staged):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    for method in ("guidedbackprop", "guidedgradcam"):
        with pytest.raises(MethodError, match="none was found in this Pooled"):
            camcli.heatmaps(Pooled(), noise(1, 1), method, target_layers="features")
    with pytest.raises(MethodError, match="No gradient reaches the pixels"):
        camcli.heatmaps(Counted(), noise(), "guidedbackprop", targets=1)
    with pytest.raises(MethodError, match="guidedgradcam shows more than a map for each layer"):
        camcli.heatmaps(Staged(), noise(), "guidedgradcam", target_layers=["middle", "last"])


def test_guided_backprop_looks_at_no_layer() -> None:
    assert not depends_on_layer("guidedbackprop") and depends_on_layer("guidedgradcam")
    assert all(map(depends_on_category, ("guidedbackprop", "guidedgradcam")))
    heatmap = camcli.heatmaps(Staged(), noise(), "guidedbackprop", target_layers=["middle", "last"])
    torch.testing.assert_close(heatmap, camcli.heatmaps(Staged(), noise(), "guidedbackprop"))
    assert heatmap.shape == (2, 48, 64)


def test_a_model_may_write_into_its_input() -> None:
    class Writing(Staged):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2.0))

    inputs = noise()
    heatmap = camcli.heatmaps(Writing(), inputs, "guidedbackprop", targets=0)
    assert torch.equal(inputs, noise())
    expected = 2 * camcli.heatmaps(Staged(), 2 * inputs, "guidedbackprop", targets=0)
    torch.testing.assert_close(heatmap, expected)


@pytest.mark.parametrize("target", ["logit", "probability", "rest", "counterfactual", "contrast"])
def test_the_target_is_followed(target: Any) -> None:
    slow = Rectified(as_in_the_paper(torch.relu)).eval()
    inputs = noise().requires_grad_()
    logits = slow(inputs)
    scores = {
        "logit": logits[:, 3],
        "probability": logits.softmax(1)[:, 3],
        "rest": logits[:, 3] + logits.log_softmax(1)[:, 3],
        "counterfactual": -logits[:, 3],
        "contrast": logits[:, 3] - logits[:, 1],
    }[target]
    options = {"contrast": 1, "contrast_strength": 1.0} if target == "contrast" else {}
    (expected,) = torch.autograd.grad(scores.sum(), inputs)
    heatmap = camcli.heatmaps(
        Rectified(torch.relu), noise(), "guidedbackprop", targets=3, target=target, **options
    )
    torch.testing.assert_close(heatmap, expected.abs().amax(1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_byobnet"])
def test_timms_models_are_guided(name: str) -> None:
    model = timm.create_model(name, num_classes=4)
    inputs = noise(1, 3, (160, 160))
    guided = camcli.heatmaps(model, inputs, "guidedbackprop", targets=1)
    leaf = inputs.clone().requires_grad_()
    (plain,) = torch.autograd.grad(model.eval()(leaf)[:, 1].sum(), leaf)
    both = torch.stack([guided.flatten(), plain.abs().amax(1).flatten()])
    assert guided.isfinite().all() and guided.any()
    assert torch.corrcoef(both)[0, 1] < 0.99
