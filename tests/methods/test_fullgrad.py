"""FullGrad: by hand, against a slow replica, and complete wherever it should be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.layers import BatchNormAct2d, freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import vgg

import camcli
from camcli.engine.answer_request import answer_request
from camcli.engine.batch_context import BatchContext
from camcli.engine.evidence.fullgrad import _to_maps
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.targets import ContrastTarget, FixedCategories, make_target
from camcli.errors import MethodError
from camcli.records import FullGradients
from tests.networks import Staged, noise
from tests.slow import mark_slow
from tests.test_demo import PHOTO

Build = Callable[[], nn.Module]


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draws biases, statistics and heads anew, which are zeros and ones in new networks."""
    draw = torch.Generator().manual_seed(seed)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    with torch.no_grad():
        for name, tensor in tensors:
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
            elif name.endswith(("bias", "running_mean", "head.weight", "token")):
                tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.1)
    return module.eval().double()


def make_context(
    module: nn.Module, inputs: Tensor, categories: Any = 0, **options: Any
) -> BatchContext:
    chosen = torch.as_tensor(categories).expand(len(inputs))[:, None]
    return BatchContext(module, inputs, (), FixedCategories(chosen), graph=True, **options)


def decompose(module: nn.Module, inputs: Tensor, **options: Any) -> list[FullGradients]:
    full_gradients = make_context(module, inputs, **options).get("full_gradients")
    return [full_gradients(row) for row in range(len(inputs))]


def biases_of(module: nn.Module, inputs: Tensor) -> list[tuple[str, Tensor]]:
    actual = make_context(module, inputs).get("full_pass")(0).biases
    return [(bias.layer, bias.constant) for bias in actual]


# by hand


class One(nn.Module):
    """One channel 2x + 1, rectified, averaged, times 3 plus 5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 1, 1), nn.Linear(1, 1)
        with torch.no_grad():
            for layer, (weight, bias) in ((self.conv, (2, 1)), (self.fc, (3, 5))):
                layer.weight.fill_(weight)
                layer.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu_(self.conv(x)).mean((2, 3)))


def test_a_value_worked_out_by_hand() -> None:
    # 2x + 1 is 3, -3, 7, 1, of which the second is cut off: 3 * 11/4 + 5
    x = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]]]])
    (actual,) = decompose(One(), x, categories=1)
    assert actual.score.item() == 13.25
    # the gradient is 3/4 behind the convolution, and twice that at the input
    torch.testing.assert_close(actual.input_term, torch.tensor([[[1.5, 0.0], [4.5, 0.0]]]))
    (term,) = actual.bias_terms
    torch.testing.assert_close(term, torch.tensor([[[0.75, 0.0], [0.75, 0.75]]]))
    # 6 + 9/4, and the head's 5, which has no place
    assert actual.residual.item() == 0
    saliency = camcli.heatmaps(One(), x, "fullgrad", targets=1)
    expected = torch.tensor([[1 / 3 + 1, 0.0], [1 + 1, 0 + 1]])
    torch.testing.assert_close(saliency[0], expected)


# against a slow replica


def _stretch(term: Tensor) -> np.ndarray:
    values = np.abs(term.numpy())
    return (values - values.min()) / (values.max() - values.min())


def _enlarge(channel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation between the centres of cells, which reaches no farther than these."""
    h, w = channel.shape
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
        x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
        for a, b in product({int(y), ceil(y)}, {int(x), ceil(x)}):
            out[i, j] += max(1 - abs(y - a), 0) * max(1 - abs(x - b), 0) * channel[a, b]
    return out


def replica(model: Staged, picture: Tensor, category: int) -> tuple[np.ndarray, float]:
    """Adds every bias of `Staged` by itself, to see its gradient.  [3 H W] -> [H W], residual"""
    x = picture.double()[None].requires_grad_()
    added: list[Tensor] = []

    def plus(maps: Tensor, bias: Tensor) -> Tensor:
        spread = bias.detach()[None, :, None, None].expand_as(maps).clone().requires_grad_()
        added.append(spread)
        return maps + spread

    def staged_model(stage: nn.Sequential, maps: Tensor) -> Tensor:
        conv, norm = stage
        maps = plus(F.conv2d(maps, conv.weight, None, 2, 1), conv.bias)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return plus(maps * scale[:, None, None], norm.bias - norm.running_mean * scale)

    maps = staged_model(model.last, staged_model(model.middle, staged_model(model.stem, x)).relu())
    score = model.fc(maps.relu().mean((2, 3)))[0, category]
    gradients = torch.autograd.grad(score, [x, *added])
    terms = [(v * g)[0].detach() for v, g in zip((x, *added), gradients, strict=True)]
    out = np.zeros(picture.shape[1:])
    for term in terms:
        for channel in _stretch(term):
            out += _enlarge(channel, out.shape)
    explained = sum(float(term.sum()) for term in terms) + float(model.fc.bias.detach()[category])
    return out, float(score.detach()) - explained


def test_a_slow_replica() -> None:
    model, inputs = randomise(Staged()), noise(2, size=(20, 28))
    heatmap = camcli.heatmaps(model, inputs, "fullgrad", targets=[3, 1])
    for row, category in enumerate((3, 1)):
        expected, residual = replica(model, inputs[row], category)
        assert residual == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(heatmap[row], expected, rtol=1e-5)


# complete: the input and the biases make up the score


PIECEWISE_LINEAR: dict[str, Build] = {
    "embedded": lambda: camcli.load_model(device="cpu").module,
    "torchvision resnet18": partial(torchvision.models.resnet18, num_classes=9),
    # without its two large layers
    "torchvision vgg11_bn": lambda: nn.Sequential(
        vgg.make_layers(vgg.cfgs["A"], batch_norm=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 9),
    ),
    # ReLU6, whose upper piece is flat
    "torchvision mobilenet_v2": partial(torchvision.models.mobilenet_v2, num_classes=9),
    "torchvision densenet": partial(
        torchvision.models.DenseNet, 8, (2, 2), 8, num_classes=9, memory_efficient=True
    ),
    "timm test_resnet": partial(timm.create_model, "test_resnet", num_classes=9),
    # BatchNormAct2d, with activations in place
    "timm densenet121": partial(timm.create_model, "densenet121", num_classes=9),
    "timm frozen": lambda: freeze_batch_norm_2d(timm.create_model("test_resnet", num_classes=9)),
    "shared": lambda: SharedConvolution(),
    "normalising": lambda: Normalising(),
}
INPUTS = F.interpolate(noise(2, size=(8, 8)), (64, 64), mode="bilinear").double()


class SharedConvolution(nn.Module):
    """Uses one convolution three times, and writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.fc = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.mul_(2))
        for _ in range(3):
            x = F.leaky_relu_(self.again(x))
        return self.fc(x.amax((2, 3)))


class Normalising(SharedConvolution):
    """Normalises pictures itself, with numbers and with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(1 - 2 * (x - self.mean)) + 3


LARGE = ("embedded", "torchvision vgg11_bn", "torchvision resnet18", "timm densenet121")


@pytest.mark.parametrize("name", mark_slow(PIECEWISE_LINEAR, LARGE))
def test_it_is_complete_for_piecewise_linear_networks(name: str) -> None:
    torch.manual_seed(0)
    module = randomise(PIECEWISE_LINEAR[name]())
    logits = module(INPUTS.clone())
    for row, actual in enumerate(decompose(module, INPUTS, categories=2)):
        assert actual.score.item() == pytest.approx(logits[row, 2].item(), rel=1e-6)
        assert abs(actual.residual) <= 1e-6 * abs(actual.score)
        # the biases are needed for it
        assert abs(actual.score - actual.input_term.sum()) > 0.01 * abs(actual.score)


@pytest.mark.parametrize(
    ("build", "count"),
    [
        # the norms, and the head
        (partial(timm.create_model, "densenet121", num_classes=9), 121 + 1),
        (partial(torchvision.models.resnet18, num_classes=9), 20 + 1),
        # convolution, class and position tokens, norm and head; in each block two norms and four
        # linear layers, of which torch hides one inside its attention
        (partial(torchvision.models.VisionTransformer, 64, 16, 2, 2, 32, 64), 5 + 2 * 6),
        # queries' and values' biases are put together, and positions have a bias of their own
        (
            partial(
                timm.create_model,
                "beit_base_patch16_224",
                img_size=64,
                embed_dim=32,
                depth=2,
                num_heads=2,
            ),
            4 + 2 * 7,
        ),
    ],
    ids=["densenet", "resnet", "torchvision ViT", "BEiT"],
)
def test_every_bias_is_met(build: Build, count: int) -> None:
    assert len(biases_of(randomise(build()), INPUTS)) == count


def test_all_of_shared_layers_calls_count() -> None:
    assert [layer for layer, _ in biases_of(SharedConvolution(), noise())] == [
        "stem",
        *["again"] * 3,
        "fc",
    ]


def test_the_bias_of_batch_norm_is_that_of_what_it_does_to_its_input() -> None:
    norm = BatchNormAct2d(3)
    randomise(nn.Sequential(norm))
    actual = dict(
        biases_of(nn.Sequential(norm, nn.AvgPool2d(4), nn.Flatten()), INPUTS[..., :4, :4])
    )
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(actual["0"][0, :, 0, 0], norm.bias - scale * norm.running_mean)


# each operation alone: what it puts out is its slope times its input, and its bias

WEIGHT, C = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([2.0])
BIAS = torch.tensor([1.0, -2.0, 3.0, 0.5])
MEAN, VAR = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.5, 1.5, 2.0])
EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "conv2d": lambda x: F.conv2d(x, WEIGHT, BIAS),
    "conv2d keyword": lambda x: F.conv2d(x, WEIGHT, bias=BIAS, padding="same"),
    "conv1d": lambda x: F.conv1d(x.flatten(2), WEIGHT.flatten(2), BIAS),
    "conv3d": lambda x: F.conv3d(x[..., None], WEIGHT[..., None], BIAS),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, WEIGHT.transpose(0, 1), BIAS),
    "linear": lambda x: F.linear(x, torch.ones(4, 8), BIAS),
    "batch_norm": lambda x: F.batch_norm(x, MEAN, VAR, BIAS[:3], MEAN),
    "batch_norm without weights": lambda x: F.batch_norm(x, MEAN, VAR),
    "instance_norm": lambda x: F.instance_norm(x, MEAN, VAR, VAR, BIAS[:3], use_input_stats=False),
    "x + c": lambda x: x + C,
    "c + x": lambda x: C + x,
    "1 + x": lambda x: 1 + x,
    "x += c": lambda x: x.clone().__iadd__(C),
    "x.add_": lambda x: x.clone().add_(C, alpha=3),
    "torch.add": lambda x: torch.add(x, C),
    "keyword": lambda x: torch.add(x, other=C),
    "x - c": lambda x: x - C,
    "c - x": lambda x: C - x,
    "1 - x": lambda x: 1 - x,
    "x -= c": lambda x: x.clone().__isub__(C),
    "rsub": lambda x: torch.rsub(x, C),
    "addcmul": lambda x: torch.addcmul(C, C, x),
    "addmm": lambda x: torch.addmm(BIAS[:1], x.flatten(1), torch.ones(192, 1)),
    "cat": lambda x: torch.cat([C.expand(1, 1, 8, 8), x], dim=1),
    "relu6": lambda x: F.relu6(5 * x),
    "relu6 in place": lambda x: nn.ReLU6(inplace=True)(5 * x),
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "clamp": lambda x: (4 * x).clamp(-1, 2),
    "without any": lambda x: torch.cat([x + x, x]).relu() * 2,
}


class Alone(nn.Module):
    """An operation, and a weighted sum of all that it puts out."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        out = self.operation(x).flatten()
        return (out * torch.arange(1.0, len(out) + 1)).mean()[None]


@pytest.mark.parametrize("name", EXACT)
def test_an_operations_bias_is_what_it_puts_out_besides_its_slope_times_its_input(
    name: str,
) -> None:
    module, x = Alone(EXACT[name]), noise(1, size=(8, 8))
    (actual,) = decompose(module, x)
    assert abs(actual.residual) < 1e-5 * abs(actual.score)
    assert (abs(actual.score - actual.input_term.sum()) < 1e-4) == (name == "without any")
    assert not any(constant.requires_grad for _, constant in biases_of(module, x))


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.GroupNorm(1, 3), nn.BatchNorm2d(3)])
def test_a_norm_that_looks_at_the_picture_has_its_own_bias_alone(norm: nn.Module) -> None:
    norm.running_mean = norm.running_var = None  # as without track_running_stats
    nn.init.normal_(norm.bias)
    ((_, actual),) = biases_of(Alone(norm), noise(1, size=(8, 8)))[:1]
    torch.testing.assert_close(actual.flatten().unique(), norm.bias.detach().unique())


def test_what_shuts_places_out_is_no_bias() -> None:
    mask = torch.zeros(8, 8)
    mask[:, 4:] = -torch.inf
    (actual,) = decompose(Alone(lambda x: (x + mask).softmax(-1)), noise(1, size=(8, 8)))
    assert actual.residual.isfinite()


# where it is not complete, it says so


def _attention_model() -> nn.Module:
    return timm.create_model("test_vit", num_classes=9, img_size=64)


@pytest.mark.parametrize(
    "build",
    [
        _attention_model,
        partial(timm.create_model, "test_convnext", num_classes=9),
        partial(torchvision.models.VisionTransformer, 64, 16, 2, 2, 32, 64, num_classes=9),
    ],
    ids=["ViT", "ConvNeXt", "torchvision ViT"],
)
def test_the_residual_is_the_score_less_input_and_biases(build: Build) -> None:
    torch.manual_seed(0)
    module, x = randomise(build()), INPUTS[:1].clone().requires_grad_()
    added = [
        tensor
        for name, tensor in module.named_parameters()
        if name.endswith(("bias", "token", "pos_embed", "pos_embedding"))
    ]
    score = module(x)[0, 2]
    gradients = torch.autograd.grad(score, [x, *added])
    terms = [(t * g).sum() for t, g in zip((x, *added), gradients, strict=True)]
    (actual,) = decompose(module, INPUTS[:1], categories=2)
    assert actual.residual.item() == pytest.approx((score - sum(terms)).item(), rel=1e-4)
    assert abs(actual.residual) > 0.01 * abs(score)


def test_a_record_has_the_residual_and_says_when_it_is_large() -> None:
    (explanation,) = camcli.explain(camcli.load_model(device="cpu"), PHOTO, "fullgrad")
    assert abs(explanation.record.residual) < 1e-4 * explanation.details["score"]
    assert explanation.record.residual == explanation.details["residual"]
    assert (explanation.warnings, explanation.record.layers) == ((), ())
    assert explanation.heatmap.shape == explanation.input_size
    vit = camcli.load_model("test_vit", pretrained=False, device="cpu")
    (explanation,) = camcli.explain(vit, PHOTO, "fullgrad")
    share = abs(explanation.record.residual) / abs(explanation.details["score"])
    assert share > 0.01
    assert any("input and biases contribute" in message for message in explanation.warnings)
    (other,) = camcli.explain(vit, PHOTO, "gradcam")
    assert other.record.residual is None


# targets and batches


def test_a_counterfactual_negates_and_a_contrast_is_complete() -> None:
    model, inputs = randomise(Staged()), noise().double()
    (plain, _), (negated, _) = (
        decompose(model, inputs, categories=1, target=target)
        for target in (None, make_target("counterfactual"))
    )
    torch.testing.assert_close(negated.score, -plain.score)
    for ours, theirs in zip(negated.bias_terms, plain.bias_terms, strict=True):
        torch.testing.assert_close(ours, -theirs)
    request = ExplainRequest(("fullgrad",), (), target=ContrastTarget())
    actual = answer_request(
        model, inputs, FixedCategories(torch.tensor([[1, 2], [3, 0]])), request
    ).details
    score, residual = (actual["fullgrad", "", name] for name in ("score", "residual"))
    assert score.shape == residual.shape == (2, 2)
    assert (residual.abs() <= 1e-6 * score.abs()).all()


def test_a_batch_is_told_apart_where_windows_or_sequences_mix_it() -> None:
    for build in (
        partial(torchvision.models.VisionTransformer, 64, 16, 2, 2, 32, 64),
        partial(
            timm.models.SwinTransformer,
            64,
            4,
            3,
            9,
            depths=(2, 1),
            embed_dim=24,
            num_heads=(2, 2),
            window_size=4,
        ),
    ):
        torch.manual_seed(0)
        module, inputs = randomise(build()), noise(2, size=(64, 64)).double()
        together = decompose(module, inputs)
        for row in range(2):
            (alone,) = decompose(module, inputs[row : row + 1])
            torch.testing.assert_close(vars(together[row]), vars(alone))


def test_tokens_are_laid_out_as_they_stand() -> None:
    hiera = timm.create_model(
        "hiera_tiny_224", img_size=(96, 64), embed_dim=24, num_heads=1, stages=(1, 1, 1, 1)
    ).eval()
    context = make_context(hiera, noise(1, size=(96, 64)))
    places = torch.arange(24.0 * 16).view(1, -1, 1)
    (actual,) = _to_maps(context, [("blocks.0.norm1", hiera.unroll(places))])
    assert torch.equal(actual.flatten(), places.flatten())
    # a class token has no place
    vit = make_context(_attention_model(), noise(1, size=(64, 64)))
    (actual,) = _to_maps(vit, [("blocks.0.norm1", torch.arange(17.0).view(1, -1, 1))])
    assert torch.equal(actual, torch.arange(1.0, 17).view(1, 4, 4))
    assert not [*_to_maps(vit, [("head", torch.zeros(1, 9))])]


def test_a_network_without_a_gradient_is_reported() -> None:
    model = Staged()
    model.stem.register_forward_hook(lambda _, __, maps: maps.detach())
    with pytest.raises(MethodError, match="No gradient reaches the input"):
        camcli.heatmaps(model, noise(), "fullgrad")


def test_what_overflows_is_not_passed_over() -> None:
    model, inputs = Staged(), noise()
    inputs[0, 0, 3, 4] = torch.inf
    heatmap = camcli.heatmaps(model, inputs, "fullgrad")
    assert heatmap[0].isnan().any()
    torch.testing.assert_close(heatmap[1:], camcli.heatmaps(model, inputs[1:], "fullgrad"))


def test_a_dead_layer_leaves_the_others() -> None:
    model = Staged()
    with torch.no_grad():
        model.last[1].weight.zero_()
        model.last[1].bias.fill_(-1)
    heatmap = camcli.heatmaps(model, noise(), "fullgrad")
    assert not heatmap.any()
    assert heatmap.isfinite().all()
