"""Frames and slices that are folded into the batch: a map of each, as of each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.errors import LayerError, MethodError
from camcli.models.load import Classifier
from camcli.records import Preprocessing
from tests.networks import Staged, noise

T = 4


class Slices(Staged):
    """Grey slices [b t H W], each through a plain network by itself, and their mean logits."""

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        grey = x.reshape(b * t, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        return super().forward(grey).view(b, t, -1).mean(1)


class Frames(Staged):
    """Colour frames [b t*3 H W]."""

    def forward(self, x: Tensor) -> Tensor:
        b = len(x)
        frames = x.reshape(-1, 3, *x.shape[2:])
        return super().forward(frames).view(b, len(frames) // b, -1).mean(1)


class OneBag(Staged):
    """Takes one picture at a time, whose channels are the rows of its batch, as MRNet does."""

    def forward(self, x: Tensor) -> Tensor:
        slices = x.squeeze(0)[:, None].expand(-1, 3, -1, -1)
        x = self.last(torch.relu_(self.middle(self.stem(slices))))
        return self.fc(self.pool(torch.relu_(x)).flatten(1).amax(0, keepdim=True))


class Windows(Staged):
    """Quarters of the picture are folded into the batch, as windows of attention are."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        quarters = x.view(b, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5)
        found = super().forward(quarters.reshape(-1, c, h // 2, w // 2))
        return found.view(b, 4, -1).mean(1)


class Crossed(Staged):
    """Slices that stand beside each other before they are folded, t first."""

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        grey = x.transpose(0, 1).reshape(t * b, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        return super().forward(grey).view(t, b, -1).mean(0)


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "layercam", "xgradcam", "eigencam"])
def test_each_slice_has_the_map_that_it_has_alone(name: str) -> None:
    inputs = noise(2, T)
    options: dict[str, Any] = {"target_layers": "last", "targets": 2}
    found = camcli.heatmaps(Slices(), inputs, name, **options)
    assert found.shape == (2, T, 6, 8)
    share = 1 if name == "eigencam" else 1 / T
    for row in range(2):
        alone = inputs[row][:, None].expand(-1, 3, -1, -1).contiguous()
        wanted = camcli.heatmaps(Staged(), alone, name, **options) * share
        torch.testing.assert_close(found[row], wanted, rtol=1e-3, atol=1e-6)
        single = camcli.heatmaps(Slices(), inputs[row : row + 1], name, **options)
        torch.testing.assert_close(single[0], found[row], rtol=1e-3, atol=1e-6)


def test_slices_of_a_model_that_takes_one_picture_at_a_time() -> None:
    inputs, model = noise(2, T), OneBag().eval()
    found = camcli.heatmaps(model, inputs, target_layers="last", targets=2)
    assert found.shape == (2, T, 6, 8)
    for row in range(2):
        slices = inputs[row][:, None].expand(-1, 3, -1, -1)
        seen = model.last(torch.relu(model.middle(model.stem(slices)))).detach().requires_grad_()
        logits = model.fc(model.pool(torch.relu(seen)).flatten(1).amax(0))
        (gradients,) = torch.autograd.grad(logits[2], seen)
        wanted = (gradients.mean((2, 3), keepdim=True) * seen).sum(1).detach()
        torch.testing.assert_close(found[row], wanted, rtol=1e-3, atol=1e-6)


def test_frames_of_three_channels_and_several_targets() -> None:
    inputs = noise(2, 3 * T)
    found = camcli.heatmaps(Frames(), inputs, target_layers="last", targets=[[1, 3]] * 2)
    assert found.shape == (2, 2, T, 6, 8)
    frames = inputs.view(2 * T, 3, 48, 64)
    for slot, category in enumerate((1, 3)):
        wanted = camcli.heatmaps(Staged(), frames, target_layers="last", targets=category) / T
        torch.testing.assert_close(found[:, slot].flatten(0, 1), wanted, rtol=1e-3, atol=1e-6)


def test_layers_of_slices_are_fused_slice_by_slice_and_smoothed() -> None:
    layers = ["middle", "last"]
    fused = camcli.heatmaps(Slices(), noise(2, T), target_layers=layers, aug_smooth=True)
    assert fused.shape == (2, T, 48, 64)


@pytest.mark.parametrize("name", ["scorecam", "ablationcam", "guidedgradcam", "dff"])
def test_a_method_that_goes_by_pictures_says_so(name: str) -> None:
    with pytest.raises(MethodError, match=f"4 slices of each picture, and {name} alters"):
        camcli.heatmaps(Slices(), noise(2, T), name, target_layers="last")


@pytest.mark.parametrize(("kind", "channels"), [(Windows, 3), (Windows, 4), (Crossed, T)])
def test_windows_are_no_slices(kind: type[Staged], channels: int) -> None:
    model = kind()
    if (kind, channels) == (Windows, 4):
        model.stem[0] = nn.Conv2d(4, 8, 3, 2, 1)
    inputs = noise(2, channels)
    with pytest.raises(LayerError, match="windows, heads, or frames that have met, are folded"):
        camcli.heatmaps(model, inputs, target_layers="last")


def test_without_a_named_layer_it_is_said_which_to_name() -> None:
    told = r"frames, slices or windows are folded .* such as 'last\.1' \[4, 16, 6, 8\]: name one"
    with pytest.raises(LayerError, match=told):
        camcli.heatmaps(Slices(), noise(2, T))


def test_a_picture_is_drawn_with_the_mean_of_its_slices() -> None:
    classifier = Classifier(
        module=Frames().eval(),
        name="frames",
        origin="python",
        preprocessing=Preprocessing((48, 64), (48, 64), (0.5,) * 12, (0.25,) * 12, fit="squash"),
        labels=None,
        weights="by hand",
        num_classes=5,
        in_chans=12,
    )
    (found,) = camcli.explain(classifier, torch.rand(3, 48, 64), target_layers="last")
    assert found.heatmap.shape == (6, 8)
    assert found.warnings[0] == "the mean of the maps of a picture's 4 slices"
