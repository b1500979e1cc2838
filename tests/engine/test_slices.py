"""Frames and slices that are folded into the batch: a map of each, as of each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.layer_selection import find_default_layer, find_doubts
from camcli.errors import CamvizWarning, LayerError, MethodError
from camcli.models.inspection.spatial_order import measure_places
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
        actual = super().forward(quarters.reshape(-1, c, h // 2, w // 2))
        return actual.view(b, 4, -1).mean(1)


class Crossed(Staged):
    """Slices that stand beside each other before they are folded, t first."""

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        grey = x.transpose(0, 1).reshape(t * b, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        return super().forward(grey).view(t, b, -1).mean(0)


class Clip(Slices):
    """The features of 16 frames stand in a row, and are joined by a convolution along it."""

    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Conv1d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        x = x.reshape(b * t, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        x = self.last(torch.relu(self.middle(self.stem(x)))).relu().mean((2, 3))
        return self.fc(self.along(x.view(b, t, -1).mT).mean(2))


class Shuffled(Slices):
    """Each slice is turned over, pixel by pixel, before a network sees it."""

    def forward(self, x: Tensor) -> Tensor:
        order = torch.randperm(48 * 64, generator=torch.Generator().manual_seed(0))
        return super().forward(x.flatten(2)[:, :, order].view_as(x))


class ShuffledBag(OneBag):
    """Takes one picture at a time, and turns its slices over."""

    def forward(self, x: Tensor) -> Tensor:
        order = torch.randperm(48 * 64, generator=torch.Generator().manual_seed(0))
        return super().forward(x.flatten(2)[:, :, order].view_as(x))


class ShuffledTokens(Slices):
    """The last maps of each slice become tokens in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        grey = x.reshape(b * t, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        maps = self.last(torch.relu_(self.middle(self.stem(grey))))
        order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
        tokens = self.tokens(maps.flatten(2).mT[:, order])
        return self.fc(torch.relu(tokens).mean(1)).view(b, t, -1).mean(1)


class Shifted(Slices):
    """Some channels are moved on to the next frame, as in TSM (arXiv:1811.08383)."""

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        grey = x.reshape(b * t, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        moved, kept = self.stem(grey).view(b, t, 8, 24, 32).split([2, 6], 2)
        x = torch.cat([moved.roll(1, 1), kept], 2).flatten(0, 1)
        x = torch.relu(self.last(torch.relu(self.middle(x))))
        return self.fc(self.pool(x).flatten(1)).view(b, t, -1).mean(1)


class Corners(Slices):
    """Only a corner of each slice's features counts."""

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        grey = x.reshape(b * t, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        x = self.last(torch.relu_(self.middle(self.stem(grey))))[..., :2, :2]
        return self.fc(self.pool(x).flatten(1)).view(b, t, -1).mean(1)


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "layercam", "xgradcam", "eigencam"])
def test_each_slice_has_the_map_that_it_has_alone(name: str) -> None:
    inputs = noise(2, T)
    options: dict[str, Any] = {"target_layers": "last", "targets": 2}
    heatmap = camcli.heatmaps(Slices(), inputs, name, **options)
    assert heatmap.shape == (2, T, 6, 8)
    share = 1 if name == "eigencam" else 1 / T
    for row in range(2):
        alone = inputs[row][:, None].expand(-1, 3, -1, -1).contiguous()
        expected = camcli.heatmaps(Staged(), alone, name, **options) * share
        torch.testing.assert_close(heatmap[row], expected, rtol=1e-3, atol=1e-6)
        single = camcli.heatmaps(Slices(), inputs[row : row + 1], name, **options)
        torch.testing.assert_close(single[0], heatmap[row], rtol=1e-3, atol=1e-6)


def test_slices_of_a_model_that_takes_one_picture_at_a_time() -> None:
    inputs, model = noise(2, T), OneBag().eval()
    heatmap = camcli.heatmaps(model, inputs, target_layers="last", targets=2)
    assert heatmap.shape == (2, T, 6, 8)
    for row in range(2):
        slices = inputs[row][:, None].expand(-1, 3, -1, -1)
        seen = model.last(torch.relu(model.middle(model.stem(slices)))).detach().requires_grad_()
        logits = model.fc(model.pool(torch.relu(seen)).flatten(1).amax(0))
        (gradients,) = torch.autograd.grad(logits[2], seen)
        expected = (gradients.mean((2, 3), keepdim=True) * seen).sum(1).detach()
        torch.testing.assert_close(heatmap[row], expected, rtol=1e-3, atol=1e-6)


def test_frames_of_three_channels_and_several_targets() -> None:
    inputs = noise(2, 3 * T)
    heatmap = camcli.heatmaps(Frames(), inputs, target_layers="last", targets=[[1, 3]] * 2)
    assert heatmap.shape == (2, 2, T, 6, 8)
    frames = inputs.view(2 * T, 3, 48, 64)
    for slot, category in enumerate((1, 3)):
        expected = camcli.heatmaps(Staged(), frames, target_layers="last", targets=category) / T
        torch.testing.assert_close(heatmap[:, slot].flatten(0, 1), expected, rtol=1e-3, atol=1e-6)


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
    with pytest.raises(LayerError, match="windows, heads or joined frames are folded"):
        camcli.heatmaps(model, inputs, target_layers="last")


@pytest.mark.parametrize(("kind", "channels"), [(Slices, T), (Frames, 3 * T), (OneBag, T)])
def test_the_layer_of_slices_is_found(kind: type[Staged], channels: int) -> None:
    inputs, model = noise(2, channels), kind().eval()
    default = find_default_layer(model, (channels, 48, 64))
    assert default.name == "last"
    assert default.reason == (
        "the last 6x8 grid of each of the picture's 4 slices on which the score depends everywhere"
    )
    assert not default.doubt
    actual = camcli.heatmaps(model, inputs, targets=2)
    named = camcli.heatmaps(model, inputs, targets=2, target_layers="last")
    assert actual.shape == (2, T, 6, 8)
    torch.testing.assert_close(actual, named, rtol=0, atol=0)


def test_tokens_of_frames_are_found_in_front_of_what_joins_the_frames() -> None:
    inputs, model = noise(2, 16), Clip().eval()
    # 16 frames in a row look like a grid of 4x4 tokens, and are none
    assert find_default_layer(model, (16, 48, 64)).name == "last"
    assert camcli.heatmaps(model, inputs, targets=2).shape == (2, 16, 6, 8)


def test_slices_that_a_network_turns_over_are_no_places() -> None:
    with pytest.raises(LayerError, match="cells that are no places of the picture"):
        camcli.heatmaps(Shuffled().eval(), noise(1, T))


@pytest.mark.parametrize("kind", [Shuffled, ShuffledBag])
def test_a_named_layer_of_slices_without_places_is_warned_of(kind: type[Staged]) -> None:
    model = kind().eval()
    with pytest.warns(CamvizWarning, match="6x8 cells of layer 'last' are no places"):
        heatmap = camcli.heatmaps(model, noise(2, T), target_layers="last", targets=2)
    assert heatmap.shape == (2, T, 6, 8)
    assert "'stem'" in find_doubts(model, (T, 48, 64), ["stem"], "stem")["stem"]


@pytest.mark.parametrize(("kind", "channels"), [(Slices, T), (Frames, 3 * T), (OneBag, T)])
def test_a_named_layer_of_sound_slices_is_measured_and_not_in_doubt(
    kind: type[Staged], channels: int
) -> None:
    layers = ["stem", "middle", "last"]
    places = measure_places(kind().eval(), (channels, 48, 64), layers)
    assert {name: seen.layout.grid for name, seen in places.items()} == {
        "stem": (24, 32),
        "middle": (12, 16),
        "last": (6, 8),
    }
    for name, seen in places.items():
        assert seen.clarity > 0.6
        assert not seen.doubt(name)


def test_tokens_of_slices_that_stand_in_another_order_are_put_in_order() -> None:
    model, inputs = ShuffledTokens().eval(), noise(2, T)
    heatmap = camcli.heatmaps(model, inputs, target_layers="tokens", targets=2)
    plain = camcli.heatmaps(Slices().eval(), inputs, target_layers="last", targets=2)
    torch.testing.assert_close(heatmap, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "channels"), [(Windows, 3), (Crossed, T)])
def test_what_is_folded_and_no_slices_is_said_to_be_none(kind: type[Staged], channels: int) -> None:
    message = (
        r"such as 'last\.1' \[4, .*, which are no frames or slices .* --method occlusion or rise"
    )
    model, inputs = kind().eval(), noise(2, channels)
    with pytest.raises(LayerError, match=message):
        camcli.heatmaps(model, inputs)
    # the advice holds
    assert camcli.heatmaps(model, inputs, "occlusion").shape[0] == 2


def test_where_no_slice_is_seen_everywhere_it_is_said_which_layers_can_be_named() -> None:
    message = r"depends on none of them everywhere. Name one with .*, such as 'last\.1', 'last\.0'"
    model, inputs = Corners().eval(), noise(2, T)
    with pytest.raises(LayerError, match=message):
        camcli.heatmaps(model, inputs)
    assert camcli.heatmaps(model, inputs, target_layers="last.1").shape == (2, T, 6, 8)


def test_slices_that_have_met_are_distinguished_from_those_that_have_not() -> None:
    message = r"each row of 'last' looks at several of them\. Name one with .* such as 'stem\.1'"
    model, inputs = Shifted().eval(), noise(2, T)
    with pytest.raises(LayerError, match=message):
        camcli.heatmaps(model, inputs)
    assert camcli.heatmaps(model, inputs, target_layers="stem.1").shape == (2, T, 24, 32)


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
    (explanation,) = camcli.explain(classifier, torch.rand(3, 48, 64), target_layers="last")
    assert explanation.heatmap.shape == (6, 8)
    assert explanation.warnings[0] == "the mean of the maps of a picture's 4 slices"


def test_methods_that_ask_no_class_give_such_a_model_one_picture_at_a_time_too() -> None:
    inputs, model = noise(2, T), OneBag().eval()
    actual = camcli.heatmaps(model, inputs, "eigencam")
    assert actual.shape == (2, T, 6, 8)
    (activations,) = camcli.activations(model, inputs).values()
    assert activations.shape == (2, T, 16, 6, 8)
    for row in range(2):
        single = inputs[row : row + 1]
        torch.testing.assert_close(camcli.heatmaps(model, single, "eigencam")[0], actual[row])
        (alone,) = camcli.activations(model, single).values()
        torch.testing.assert_close(alone, activations[row : row + 1])


def test_activations_of_slices_stand_by_picture_and_slice_as_heatmaps_do() -> None:
    inputs, layers = noise(2, T), ["middle", "last"]
    actual = camcli.activations(Slices().eval(), inputs, layers)
    alone = inputs.flatten(0, 1)[:, None].expand(-1, 3, -1, -1).contiguous()
    expected = camcli.activations(Staged().eval(), alone, layers)
    assert [maps.shape for maps in actual.values()] == [(2, T, 12, 12, 16), (2, T, 16, 6, 8)]
    for layer in layers:
        torch.testing.assert_close(actual[layer].flatten(0, 1), expected[layer])


def test_what_a_model_says_of_a_picture_that_it_takes_not_even_alone_is_its_own() -> None:
    class Refusing(Staged):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"pictures of 7 channels, please, not {x.shape[1]}")

    with pytest.raises(ValueError, match="7 channels"):
        camcli.heatmaps(Refusing().eval(), noise(2), "eigencam", target_layers="last")
