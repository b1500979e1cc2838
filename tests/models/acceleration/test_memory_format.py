"""How inputs and weights lie: channels last, and as they came where a network minds it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import camcli
import camcli.methods
from camcli.models.acceleration import PrepackCache, accelerate, memory_format
from camcli.models.acceleration.memory_format import accepts_channels_last, copy_to_model_format
from camcli.models.acceleration.onednn_conv import can_prepack
from camcli.models.load import load_model
from camcli.registry import METHODS
from tests.networks import Staged, network_for, noise

SIZE = (32, 32)


class Flattening(nn.Module):
    """Convolutions, then `.view`, as in LeNet, AlexNet and VGG."""

    def __init__(self, channels: int = 3, width: int = 6) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(channels, width, 5, 4)
            self.fc = nn.Linear(width * 49, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flat(F.relu(self.conv(x))))

    def flat(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


class ByNumber(Flattening):
    """It counts on the number of features, as torch's own tutorial does."""

    def flat(self, x: Tensor) -> Tensor:
        return x.view(-1, 294)


class Capsules(Flattening):
    """Capsules of six numbers, squashed to their length (arXiv:1710.09829 eq. 1)."""

    def flat(self, x: Tensor) -> Tensor:
        capsules = x.view(len(x), -1, 6)
        square = (capsules**2).sum(-1, keepdim=True)
        return (capsules * square.sqrt() / (1 + square)).view(len(x), -1)


class Groups(Flattening):
    """Groups of channels folded into the batch, as SGE does (arXiv:1905.09646)."""

    def flat(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        groups = x.view(b * 2, -1, h, w)
        gate = (groups * groups.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
        return (groups * gate.sigmoid()).view(b, c * h * w)


class ChannelShuffle(Flattening):
    """Channels shuffled among groups (arXiv:1707.01083), and flattened."""

    def flat(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h * w).transpose(1, 2).contiguous().view(b, -1)


class Strided(Flattening):
    """It reads its memory in the order in which it takes it to lie, and raises nothing."""

    def flat(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.as_strided((b, c * h * w), (c * h * w, 1))


class Asking(Flattening):
    """It goes another way for what is not contiguous."""

    def flat(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.is_contiguous() else -x.flatten(1)


class Insisting(Flattening):
    """It refuses inputs that are not contiguous, as custom kernels do."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.is_contiguous(), "x must be contiguous"
        return super().forward(x)


class StackedFrames(Flattening):
    """Two frames stacked as channels are taken apart by a view of the input itself."""

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        frames = F.relu(self.conv(x.view(b * 2, 3, h, w)))
        return self.fc(frames.flatten(1)).view(b, 2, -1).mean(1)


class Overwriting(Flattening):
    """It takes the mean off its input, in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5))


MINDING = [ByNumber, Flattening, Capsules, Groups, Strided, Asking, Insisting, Overwriting]


@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("network", [*MINDING, ChannelShuffle])
def test_a_network_is_explained_as_it_runs_by_itself(network: type[Flattening], b: int) -> None:
    model, inputs = network().eval(), noise(b, size=SIZE)
    before = inputs.clone()
    x = inputs - 0.5 if network is Overwriting else inputs
    maps = model.conv(x).detach().requires_grad_()
    model.fc(model.flat(F.relu(maps)))[:, 1].sum().backward()
    assert maps.grad is not None
    expected = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).detach()
    heatmap = camcli.heatmaps(model, inputs, targets=1, target_layers="conv")
    torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(camcli.activations(model, inputs, "conv")["conv"], maps.detach())
    assert accepts_channels_last(model, inputs) is (network is ChannelShuffle)
    # nobody writes into the caller's own
    assert torch.equal(inputs, before)


class Viewing(nn.Module):
    """Folds half of the channels into the batch, and takes them apart again."""

    def forward(self, x: Tensor) -> Tensor:
        return (2 * x.view(2 * len(x), -1, *x.shape[2:])).view(x.shape) / 2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_works_on_networks_that_view(name: str) -> None:
    plain, viewing, inputs = network_for(name), network_for(name), noise()
    viewing.stem.append(Viewing())
    for layers in (["last"], None):
        options: dict[str, Any] = {"targets": [[1, 3], [0, 2]], "target_layers": layers}
        expected = camcli.heatmaps(plain, inputs, name, **options)
        heatmap = camcli.heatmaps(viewing, inputs, name, **options)
        torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-5)
    assert not accepts_channels_last(viewing, inputs)


def test_frames_may_be_taken_apart_by_a_view_of_the_input() -> None:
    model, inputs = StackedFrames().eval(), noise(2, 6, SIZE)
    heatmap = camcli.heatmaps(
        model, inputs, "occlusion", targets=1, set={"window": 16, "stride": 16}
    )
    whole = model(inputs)[:, 1]
    hidden = inputs.clone()
    hidden[:, :, :16, 16:] = 0
    drop = (whole - model(hidden)[:, 1]).detach()
    assert heatmap.shape == (2, 2, 2)
    torch.testing.assert_close(heatmap[:, 0, 1], drop, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", [Staged, ChannelShuffle])
def test_a_network_that_does_not_mind_runs_on_channels_last(
    made: Callable[[], nn.Module],
) -> None:
    model, seen = made(), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    camcli.heatmaps(
        model, noise(size=SIZE), target_layers="conv" if made is ChannelShuffle else "last"
    )
    assert seen[-1] is False


def test_a_picture_keeps_its_format_where_copies_of_weights_cost_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.Conv2d(64, 128, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    # kernels of one pixel lie alike in both formats
    monkeypatch.setattr(memory_format, "MOST_COPIED", 64 * 128 * 9 // 2)

    def is_last(b: int) -> bool:
        return not copy_to_model_format(model, noise(b, size=SIZE)).is_contiguous()

    assert [is_last(b) for b in (1, 2, 3)] == [False, True, True]
    with torch.no_grad(), accelerate(model, PrepackCache()):
        assert is_last(1) == can_prepack(model[1])
    plain = camcli.heatmaps(model, noise(1, size=SIZE), target_layers="1", target_category=0)
    model.to(memory_format=torch.channels_last)
    assert is_last(1)
    laid_out = camcli.heatmaps(model, noise(1, size=SIZE), target_layers="1", target_category=0)
    torch.testing.assert_close(plain, laid_out, rtol=1e-4, atol=1e-5)


def test_it_is_measured_once_for_a_model_of_the_same_parts_and_inputs_of_a_shape() -> None:
    model, passes = Staged().eval(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(3):
        assert accepts_channels_last(model, noise(2))
    # what works with several works with one of them
    assert accepts_channels_last(model, noise(1))
    assert len(passes) == 2
    assert accepts_channels_last(model, noise(2, size=(32, 32)))
    assert len(passes) == 4
    model.pool = nn.Sequential(nn.AdaptiveAvgPool2d(3), Viewed(), nn.AdaptiveAvgPool2d(1))
    assert not accepts_channels_last(model, noise(2))


class Viewed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1).view(x.shape)


def test_a_single_picture_does_not_answer_for_several() -> None:
    model = StackedFrames().eval()
    assert accepts_channels_last(model, noise(1, 6, SIZE))
    assert not accepts_channels_last(model, noise(2, 6, SIZE))
    assert not accepts_channels_last(model, noise(1, 6, SIZE))


@pytest.mark.parametrize("most", [0, memory_format.MOST_COPIED])
def test_a_network_that_wants_channels_last_gets_them(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(memory_format, "MOST_COPIED", most)

    class Fast(Flattening):
        def forward(self, x: Tensor) -> Tensor:
            assert x.is_contiguous(memory_format=torch.channels_last)
            return self.fc(F.relu(self.conv(x)).flatten(1))

    assert camcli.heatmaps(Fast(), noise(size=SIZE), target_layers="conv").shape == (2, 7, 7)


def test_a_network_that_runs_in_no_format_raises_its_own_error() -> None:
    class Wrong(Flattening):
        def flat(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), 7)

    model = Wrong()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"shape '\[2, 7\]' is invalid"):
            camcli.heatmaps(model, noise(size=SIZE), target_layers="conv")


def test_outputs_are_compared_whatever_holds_them() -> None:
    class OutputsInDictionary(Strided):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return {"losses": [None, (logits.detach() * 0,)], "logits": logits}

    model = OutputsInDictionary().eval()
    assert not accepts_channels_last(model, noise(size=SIZE))
    heatmap = camcli.heatmaps(
        model, noise(size=SIZE), targets=1, target_layers="conv", output_key="logits"
    )
    expected = camcli.heatmaps(Strided().eval(), noise(size=SIZE), targets=1, target_layers="conv")
    torch.testing.assert_close(heatmap, expected)


def test_the_callers_random_state_and_mode_stay() -> None:
    model = Flattening().train()
    before = torch.get_rng_state()
    copy_to_model_format(model, noise(size=SIZE))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 5, 4), nn.BatchNorm2d(6)
        self.fc = nn.Linear(294, 4)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().FLAT)
"""


@pytest.mark.parametrize(("flat", "last"), [("view(-1, 294)", False), ("flatten(1)", True)])
@pytest.mark.parametrize("b", [1, 3])
def test_weights_of_ones_own_models_are_laid_out_only_where_that_changes_nothing(
    flat: str, last: bool, b: int, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(CODE.replace("FLAT", flat))
    classifier = load_model(f"{tmp_path}/net.py:Net", img_size=32, device="cpu")
    weight = classifier.module.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is last
    inputs = noise(b, size=SIZE)
    assert accepts_channels_last(classifier.module, inputs) is last
    explanations = camcli.explain(classifier, list(inputs.sigmoid()), method="scorecam")
    assert [e.heatmap.shape for e in explanations] == [(7, 7)] * b


def test_a_loaded_librarys_model_is_not_measured() -> None:
    classifier, passes = load_model("timm/test_resnet", pretrained=False, device="cpu"), []
    classifier.module.register_forward_hook(lambda *_: passes.append(1))
    assert accepts_channels_last(classifier.module, noise(2))
    assert not passes
    classifier.module.fc = nn.Sequential(classifier.module.fc)
    assert accepts_channels_last(classifier.module, noise(2))
    assert len(passes) == 2
