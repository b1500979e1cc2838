"""Passes that are folded between calls give what they gave, whatever somebody changes meanwhile."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from threading import Thread
from typing import Any
from weakref import ref

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import camcli
from camcli.engine.hooks import record
from camcli.models.acceleration import lasting_folding, onednn_conv
from camcli.models.acceleration.lasting_folding import WHOLE_MODEL
from camcli.models.acceleration.prepack_cache import PrepackCache, find_prepack_cache
from tests.networks import noise
from tests.slow import mark_slow

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def _from_the_second_pass_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has models folded at their second pass, as if all calls stood in one block."""
    cache = PrepackCache()
    monkeypatch.setattr(lasting_folding, "FEWEST_PICTURES", 1)
    monkeypatch.setattr(lasting_folding, "find_prepack_cache", lambda _: cache)
    monkeypatch.setattr(onednn_conv, "FEWEST", 0)


def _count_folded(model: nn.Module) -> list[int]:
    """Counts the chains that are folded in passes of each kind, in their order."""
    memory = lasting_folding._memories.of(model).get(WHOLE_MODEL)
    return [len(passes.chains or ()) for passes in memory.passes.values()] if memory else []


def _train(model: nn.Module) -> nn.Module:
    """Gives norms moments as training does, away from 0 and 1."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
    return model.eval()


def _explain(model: nn.Module, inputs: Tensor, layer: str, method: str = "gradcam") -> Tensor:
    maps: Tensor = camcli.heatmaps(model, inputs, method, target_layers=layer, targets=1)
    return maps


def _explain_plain(model: nn.Module, inputs: Tensor, layer: str, method: str = "gradcam") -> Tensor:
    # the first pass of a model is never folded
    return _explain(copy.deepcopy(model), inputs, layer, method)


def _assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert float((actual - expected).abs().max()) <= tolerance * float(expected.abs().max())


NETWORKS = {
    "resnet18": ("layer4", 20),
    "resnet18 in the middle": ("layer2", 20),
    "mobilenetv3_small_100": ("blocks", 34),
    "tf_efficientnet_lite0": ("bn2", 49),
    "tf_efficientnet_lite0 in the middle": ("blocks.4", 49),
    "regnetx_002": ("s4", 44),
    "densenet121": ("features", 59),
    "convnext_atto": ("stages", 0),
}


# an inverted bottleneck, plain and dense blocks once more
LARGE = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite0 in the middle",
    "regnetx_002",
    "densenet121",
)


@pytest.mark.parametrize("name", mark_slow(NETWORKS, LARGE))
def test_maps_of_timms_networks_stay_the_same(name: str) -> None:
    layer, expected = NETWORKS[name]
    torch.manual_seed(0)
    model = _train(timm.create_model(name.split()[0], pretrained=False))
    inputs = noise(2, 3, (64, 64))
    plain = [_explain_plain(model, inputs, layer, method) for method in ("gradcam", "eigencam")]
    for _ in range(3):
        _assert_close(_explain(model, inputs, layer), plain[0])
    # components are as exact as their squares
    _assert_close(_explain(model, inputs, layer, "eigencam"), plain[1], 1e-4)
    _assert_close(_explain(model, inputs, layer, "eigencam"), plain[1], 1e-4)
    assert _count_folded(model) == [expected, expected]
    assert not any("forward" in vars(layer) for layer in model.modules())


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [("mobilenet_v2", "features", 52), ("shufflenet_v2_x0_5", "conv5", 56)],
)
def test_maps_of_torchvisions_networks_stay_the_same(name: str, layer: str, expected: int) -> None:
    torch.manual_seed(0)
    model, inputs = _train(torchvision.models.get_model(name, weights=None)), noise(2, 3, (64, 64))
    plain = _explain_plain(model, inputs, layer)
    for _ in range(3):
        _assert_close(_explain(model, inputs, layer), plain)
    assert _count_folded(model) == [expected]


class Net(nn.Module):
    """Three convolutions with norms; what it does with the first of them is given."""

    def __init__(self, way: Callable[[Net, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.way, self.flag = way or _straight, False
            self.conv, self.norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
            self.relu = nn.ReLU(inplace=True)
            self.again, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
            self.last, self.norm3 = nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)
            self.end = nn.SiLU()
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)
            _train(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.end(self.norm3(self.last(self.way(self, x))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _straight(net: Net, x: Tensor) -> Tensor:
    x = net.relu(net.norm(net.conv(x)))
    return nn.functional.silu(net.norm2(net.again(x)))


def _use_twice(net: Net, x: Tensor) -> Tensor:
    x = net.relu(net.norm(net.conv(x)))
    x = nn.functional.silu(net.norm2(net.again(x)))
    return net.norm2(net.again(x))


def _flagged(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    z = net.relu(net.norm(y))
    if net.flag:
        z = z + y.mean()
    return nn.functional.silu(net.norm2(net.again(z)))


def _large_batches(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    y = net.relu(net.norm(y) if len(x) < 3 else y)
    return nn.functional.silu(net.norm2(net.again(y)))


INPUTS = noise(2, 3, (12, 13))


def _fold(net: nn.Module, layer: str = "again") -> None:
    for _ in range(3):
        _explain(net, INPUTS, layer)


def _assert_right(net: nn.Module, layer: str = "again", inputs: Tensor = INPUTS) -> None:
    """Asserts that some calls in a row give what the model gives as it is now, unfolded."""
    expected = _explain_plain(net, inputs, layer)
    for _ in range(3):
        _assert_close(_explain(net, inputs, layer), expected)


def test_a_pass_that_looks_at_no_layer_is_folded_whole() -> None:
    # as those that score altered pictures do
    torch.manual_seed(0)
    model = _train(timm.create_model("mobilenetv3_small_100", pretrained=False))
    inputs = noise(2, 3, (64, 64))
    with torch.no_grad():
        expected = model(inputs)
    for _ in range(3):
        _assert_close(record(model, inputs, (), graph=False).logits, expected)
    assert _count_folded(model) == [34]


def test_what_is_watched_is_not_folded() -> None:
    # at a convolution, at what is behind its norm, and at nothing that is folded
    for layer, expected in {"again": 2, "relu": 3, "last": 2, "end": 3, "norm": 3}.items():
        net = Net()
        _assert_right(net, layer)
        assert _count_folded(net) == [expected]


def test_a_layer_that_is_used_twice_is_not_folded() -> None:
    net = Net(_use_twice)
    _assert_right(net, "last")
    assert _count_folded(net) == [1]


def test_convolutions_that_share_their_weight_are_folded_each_with_its_norm() -> None:
    net = Net()
    net.last = nn.Conv2d(6, 6, 3)
    net.norm3, net.fc = _train(nn.BatchNorm2d(6)), nn.Linear(6, 4)
    net.last.weight = net.again.weight
    _assert_right(net, "end")
    assert _count_folded(net) == [3]
    with torch.no_grad():
        net.again.weight.mul_(-1)
    _assert_right(net, "end")


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrized_convolution_is_not_folded(make: Callable[[nn.Module], Any]) -> None:
    net = Net()
    make(net.conv)
    _assert_right(net.eval(), "end")
    assert _count_folded(net) == [2]
    # one that becomes so later
    net = Net()
    _fold(net, "end")
    make(net.conv)
    _assert_right(net.eval(), "end")
    assert _count_folded(net) == [2]


def test_a_norm_that_stays_in_training_mode_is_not_folded() -> None:
    class Stubborn(nn.BatchNorm2d):
        def train(self, _: bool = True) -> Stubborn:
            return super().train()

    net = Net()
    net.norm = Stubborn(6)
    _explain(net, INPUTS, "end")
    before = net.norm.running_mean.clone()
    _fold(net, "end")
    assert _count_folded(net) == [2] and not torch.equal(net.norm.running_mean, before)


@pytest.mark.parametrize("place", ["conv", "norm", "relu"])
def test_a_hook_sees_what_it_would_see(place: str) -> None:
    net, seen = Net(), []
    _fold(net, "end")
    net.get_submodule(place).register_forward_hook(
        lambda _, __, output: seen.append(output.clone())
    )
    _explain(net, INPUTS, "end")
    with torch.no_grad():
        net(INPUTS.contiguous(memory_format=LAST))
    assert torch.equal(seen[-2], seen[-1])


def test_a_hook_of_all_modules_sees_what_it_would_see() -> None:
    net, seen = Net(), []

    def look(layer: nn.Module, _: Any, output: Tensor) -> None:
        if layer is net.conv:
            seen.append(output.clone())

    _fold(net, "end")
    with nn.modules.module.register_module_forward_hook(look):
        _explain(net, INPUTS, "end")
        with torch.no_grad():
            net(INPUTS.contiguous(memory_format=LAST))
    assert torch.equal(seen[-2], seen[-1])


def _step(net: Net) -> None:
    net.train()
    net(INPUTS).square().sum().backward()
    torch.optim.AdamW(net.parameters(), lr=0.1, fused=True).step()
    net.eval()


def _step_in_evaluation_mode(net: Net) -> None:
    net(INPUTS).square().sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1, fused=True).step()


def _load(net: Net) -> None:
    net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()})


def _move_moments(net: Net) -> None:
    with torch.no_grad():
        net.train()(INPUTS)
    net.eval()


CHANGES: dict[str, Callable[[Net], object]] = {
    "in place": lambda net: net.conv.weight.detach().mul_(2),
    "through data": lambda net: net.conv.weight.data.mul_(2),
    "other data": lambda net: setattr(net.again.weight, "data", net.again.weight.data * 2),
    "another parameter": lambda net: setattr(
        net.conv, "weight", nn.Parameter(net.conv.weight.detach() * 2)
    ),
    "a bias": lambda net: net.again.bias.data.add_(1),
    "loaded": _load,
    "a step": _step,
    "a step in evaluation mode": _step_in_evaluation_mode,
    "moments moved": _move_moments,
    "other moments": lambda net: setattr(net.norm, "running_mean", torch.ones(6)),
    "scale": lambda net: net.norm2.weight.data.mul_(3),
    "eps": lambda net: setattr(net.norm, "eps", 1.0),
    "another norm": lambda net: setattr(net, "norm", nn.BatchNorm2d(6).eval()),
    "stride": lambda net: setattr(net.conv, "stride", (2, 2)),
    "padding": lambda net: setattr(net.again, "padding", (2, 2)),
    "in half and back": lambda net: net.to(torch.bfloat16).float(),
    "no scale": lambda net: net.norm.register_parameter("weight", None),
}


@pytest.mark.parametrize("layer", ["relu", "end"])
@pytest.mark.parametrize("name", CHANGES)
def test_each_change_between_two_calls_is_noticed(name: str, layer: str) -> None:
    net = Net()
    _fold(net, layer)
    before = _explain(net, INPUTS, layer)
    CHANGES[name](net)
    _assert_right(net, layer)
    assert not torch.equal(_explain(net, INPUTS, layer), before)
    assert _count_folded(net)[-1] >= 2


def test_weights_that_come_and_go_are_noticed_at_each_layer() -> None:
    # an average of weights is put in for an evaluation, and the weights again behind it
    net = Net()
    own, average = net.conv.weight.data, net.conv.weight.data * 2
    for layer in ("end", "again"):
        _fold(net, layer)
    for _ in range(3):
        for weights in (average, own):
            net.conv.weight.data = weights
            for layer in ("end", "again"):
                _assert_close(_explain(net, INPUTS, layer), _explain_plain(net, INPUTS, layer))
                _assert_close(_explain(net, INPUTS, layer), _explain_plain(net, INPUTS, layer))


def test_a_flag_that_sends_a_pass_another_way_is_noticed() -> None:
    net = Net(_flagged)
    _assert_right(net, "last")
    assert _count_folded(net) == [2]
    net.flag = True
    _assert_right(net, "last")
    assert _count_folded(net) == [1]


def test_a_batch_that_goes_another_way_is_run_as_it_was_written() -> None:
    net = Net(_large_batches)
    _assert_right(net, "last")
    assert _count_folded(net) == [2]
    _assert_right(net, "last", noise(4, 3, (12, 13)))
    _assert_right(net, "last")


def test_batches_and_sizes_in_any_order() -> None:
    net = Net()
    for b, size in ((1, 12), (3, 12), (3, 12), (1, 12), (2, 15), (1, 12), (2, 15)):
        _assert_right(net, "end", noise(b, 3, (size, size)))


def test_a_method_with_and_one_without_gradients_in_turns() -> None:
    net = Net()
    plain = {m: _explain_plain(net, INPUTS, "relu", m) for m in ("gradcam", "eigencam", "layercam")}
    for _ in range(3):
        for method, expected in plain.items():
            _assert_close(_explain(net, INPUTS, "relu", method), expected, 1e-4)


def test_a_model_that_checkpoints_is_right() -> None:
    class Saving(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.norm(self.conv(x)))
            y: Tensor = checkpoint(lambda x: self.norm2(self.again(x)), x, use_reentrant=False)
            logits: Tensor = self.fc(self.pool(self.end(self.norm3(self.last(y)))).flatten(1))
            return logits

    _assert_right(Saving(), "norm")


def test_nothing_is_folded_for_a_few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_folding, "FEWEST_PICTURES", 5)
    net = Net()
    for expected in (0, 0, 0, 3, 3):
        _explain(net, INPUTS, "end")
        assert _count_folded(net) == [expected]


@pytest.fixture
def _in_real_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_folding, "find_prepack_cache", find_prepack_cache)


needs_prepacking = pytest.mark.skipif(
    not onednn_conv.is_prepacking_supported(onednn_conv.OPERATORS), reason="oneDNN has no such"
)


@needs_prepacking
@pytest.mark.usefixtures("_in_real_blocks")
def test_in_a_block_the_second_pass_is_folded_and_outside_of_it_none() -> None:
    net = Net()
    expected = _explain_plain(net, INPUTS, "end")
    with camcli.packed(net):
        for _ in range(3):
            _assert_close(_explain(net, INPUTS, "end"), expected)
        assert _count_folded(net) == [3]
    for _ in range(3):
        assert torch.equal(_explain(net, INPUTS, "end"), expected)
    assert _count_folded(net) == []


@needs_prepacking
@pytest.mark.usefixtures("_in_real_blocks")
def test_what_no_watch_sees_counts_outside_of_a_block_and_in_the_next_one() -> None:
    net = Net()
    with camcli.packed(net):
        before = [_explain(net, INPUTS, "end") for _ in range(3)][-1]
    # one number inside a filter, by a way that moves no version
    net.again.weight.data[3, 2, 1, 1] += 5
    expected = _explain_plain(net, INPUTS, "end")
    assert not torch.allclose(before, expected, rtol=0.01)
    _assert_close(_explain(net, INPUTS, "end"), expected)
    with camcli.packed(net):
        for _ in range(3):
            _assert_close(_explain(net, INPUTS, "end"), expected)


def test_in_half_precision_nothing_is_folded() -> None:
    net = Net()
    _fold(net)
    camcli.heatmaps(net, INPUTS, target_layers="again", targets=1, precision="bf16")
    half = net.to(torch.bfloat16)
    for _ in range(3):
        _explain(half, INPUTS, "again")
    assert _count_folded(half) == [2]
    _assert_right(net.float())


def test_an_error_leaves_the_model_as_it_was() -> None:
    class Breaking(nn.Module):
        is_broken = False

        def forward(self, x: Tensor) -> Tensor:
            if Breaking.is_broken:
                raise MemoryError
            return x

    net = Net()
    net.pool = nn.Sequential(Breaking(), net.pool)
    _fold(net)
    Breaking.is_broken = True
    with pytest.raises(MemoryError):
        _explain(net, INPUTS[:1], "again")
    assert not any("forward" in vars(layer) for layer in net.modules())
    Breaking.is_broken = False
    _assert_right(net)


def test_a_pass_in_another_thread_is_as_the_model_was_written() -> None:
    outputs: list[Tensor] = []

    class Beside(nn.Module):
        is_alone = True

        def forward(self, x: Tensor) -> Tensor:
            if Beside.is_alone:
                return x
            Beside.is_alone = True
            thread = Thread(target=lambda: outputs.append(net(inputs).detach()))
            thread.start()
            thread.join()
            return x

    net, inputs = Net(), INPUTS.contiguous(memory_format=LAST)
    net.relu = nn.Sequential(Beside(), net.relu)
    expected = net(inputs).detach()
    _fold(net, "end")
    assert _count_folded(net) == [3]
    Beside.is_alone = False
    _explain(net, INPUTS, "end")
    assert torch.equal(outputs[0], expected)


def test_the_model_is_left_as_it_was() -> None:
    net = Net().train()
    before, random_state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    _fold(net, "end")
    assert all(layer.training for layer in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    # nothing of it goes with a copy
    assert set(vars(copy.deepcopy(net.conv))) == set(vars(nn.Conv2d(1, 1, 1)))


def test_a_folded_model_is_not_kept_alive() -> None:
    net = Net()
    _fold(net, "end")
    assert _count_folded(net) == [3]
    # what refers to the whole model from inside
    net.conv.whole = [net]
    reference = ref(net)
    del net
    gc.collect()
    assert reference() is None
