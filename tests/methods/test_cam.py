"""CAM of heads behind pooling and in front of it, linear layers and convolutions of 1x1."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import camcli
from camcli.errors import MethodError
from tests.networks import Pooled, noise

WEIGHT, BIAS = torch.tensor([[3.0, -1.0], [1.0, 2.0]]), torch.tensor([0.5, -4.0])


def head(kind: type[nn.Linear | nn.Conv2d] = nn.Conv2d) -> nn.Linear | nn.Conv2d:
    layer = nn.Conv2d(2, 2, 1) if kind is nn.Conv2d else nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(WEIGHT.view_as(layer.weight))
        layer.bias.copy_(BIAS)
    return layer


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def pool() -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


BEHIND: dict[str, Callable[[], list[nn.Module]]] = {
    "linear": lambda: [pool(), nn.Flatten(), head(nn.Linear)],
    "convolution": lambda: [pool(), head(), nn.Flatten()],
}
IN_FRONT: dict[str, Callable[[], list[nn.Module]]] = {
    "rectified": lambda: [nn.Dropout(), head(), nn.ReLU(inplace=True), pool(), nn.Flatten()],
    "plain": lambda: [head(), pool(), nn.Flatten()],
    "mean": lambda: [head(), Mean()],
}


def network(layers: list[nn.Module]) -> nn.Sequential:
    """Two channels, x and 2x, and then a head."""
    return nn.Sequential(Pooled().features, *layers).eval()


@pytest.mark.parametrize("kind", BEHIND)
def test_behind_pooling_it_is_the_linear_layers_weights(kind: str) -> None:
    model, x = network(BEHIND[kind]()), noise(2, 1, (6, 8))
    for category, factor in ((0, 3 * 1 - 1 * 2), (1, 1 * 1 + 2 * 2)):
        heatmap = camcli.heatmaps(model, x, "cam", targets=category)
        torch.testing.assert_close(heatmap, factor * x[:, 0])
        # Grad-CAM's weights are these, shared among the places
        gradcam = camcli.heatmaps(model, x, targets=category)
        torch.testing.assert_close(heatmap, gradcam * 48)


@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("kind", IN_FRONT)
def test_in_front_of_pooling_it_is_the_convolutions_output(kind: str, layer: str | None) -> None:
    model, x = network(IN_FRONT[kind]()), noise(2, 1, (6, 8))
    for category, expected in ((0, x + 0.5), (1, 5 * x - 4)):
        heatmap = camcli.heatmaps(model, x, "cam", targets=category, target_layers=layer)
        torch.testing.assert_close(heatmap, expected[:, 0], rtol=1e-5, atol=1e-5)
        # what is drawn of it is what the logit is the mean of
        drawn = heatmap.relu() if kind == "rectified" else heatmap
        torch.testing.assert_close(drawn.mean((1, 2)), model(x)[:, category])
    if kind != "rectified":
        gradcam = camcli.heatmaps(model, x, targets=0, target_layers=layer)
        torch.testing.assert_close(gradcam * 48, x[:, 0])


def test_at_the_class_maps_themselves_it_is_the_classs() -> None:
    model, x = network(IN_FRONT["rectified"]()), noise(2, 1, (6, 8))
    for layer, expected in (("2", 5 * x - 4), ("3", (5 * x - 4).relu())):
        heatmap = camcli.heatmaps(model, x, "cam", targets=1, target_layers=layer)
        torch.testing.assert_close(heatmap, expected[:, 0], rtol=1e-5, atol=1e-5)


def test_a_contrast_compares_the_class_maps() -> None:
    model, x = network(IN_FRONT["plain"]()), noise(2, 1, (6, 8))
    heatmap = camcli.heatmaps(model, x, "cam", targets=1, contrast=0, contrast_strength=0.5)
    torch.testing.assert_close(heatmap, ((5 * x - 4) - 0.5 * (x + 0.5))[:, 0], rtol=1e-4, atol=1e-5)


REFUSED: dict[str, Callable[[], list[nn.Module]]] = {
    "greatest": lambda: [head(), nn.AdaptiveMaxPool2d(1), nn.Flatten()],
    "greatest behind": lambda: [nn.AdaptiveMaxPool2d(1), head(), nn.Flatten()],
    "bent": lambda: [head(), pool(), nn.Flatten(), nn.Tanh()],
    "more": lambda: [nn.ReLU(), head(), pool(), nn.Flatten()],
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_such_head_is_refused(kind: str) -> None:
    with pytest.raises(MethodError, match="there is more between '0' and the logits"):
        camcli.heatmaps(network(REFUSED[kind]()), noise(2, 1), "cam", target_layers="0")


def test_squeezenets_map_is_its_last_convolutions() -> None:
    model = torchvision.models.squeezenet1_1(num_classes=5).eval()
    nn.init.normal_(model.classifier[1].bias)
    inputs = noise(2, size=(64, 96))
    expected = model.classifier[1](model.features(inputs))[:, 3].detach()
    heatmap = camcli.heatmaps(model, inputs, "cam", targets=3)
    torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-5)


def test_a_head_of_timms_that_is_a_convolution_behind_pooling() -> None:
    model = timm.create_model("resnetv2_18", num_classes=5).eval()
    assert isinstance(model.head.fc, nn.Conv2d)
    nn.init.normal_(model.head.fc.weight)
    inputs = noise(2, size=(64, 96))
    features = model.forward_features(inputs)
    expected = torch.einsum("c,bchw->bhw", model.head.fc.weight[3, :, 0, 0], features).detach()
    heatmap = camcli.heatmaps(model, inputs, "cam", targets=3)
    torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-4)
    gradcam = camcli.heatmaps(model, inputs, targets=3)
    torch.testing.assert_close(heatmap, gradcam * 6, rtol=1e-4, atol=1e-4)
