"""Norms are folded into convolutions where nobody can tell, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers import BatchNormAct2d
from timm.layers import Conv2dSame as TimmsSame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from camcli.engine.answer_request import answer_request
from camcli.engine.evidence import rescoring
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.targets import TopKCategories
from camcli.models.acceleration import conv_bn_folding, onednn_conv
from camcli.models.acceleration.conv_bn_folding import ConvBnFolding, find_foldable
from camcli.models.acceleration.faster_forwards import accelerate
from camcli.models.acceleration.onednn_conv import OPERATORS, is_prepacking_supported
from camcli.models.acceleration.prepack_cache import PrepackCache
from camcli.models.same_padding import Conv2dSame as OwnSame
from camcli.models.state.forward_patching import patch_forward
from camcli.registry import METHODS, collect_evidence
from tests.networks import network_for, noise
from tests.slow import mark_slow

SCORED = [name for name in METHODS if "score" in collect_evidence([METHODS[name]])]
LAST = torch.channels_last
supported = pytest.mark.skipif(
    not is_prepacking_supported(OPERATORS), reason="a processor where it was not tried"
)


class Net(nn.Module):
    """A convolution, a norm and a ReLU; what it does with them is given."""

    def __init__(self, way: Callable[[Net, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.way, self.kept = way, None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.again = nn.Conv2d(3, 4, 1)
            self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
            for name, part in parts.items():
                setattr(self, name, copy.deepcopy(part))
            _train(self)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x).flatten(1)


def _train(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.3, 3)
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)


def _straight(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.norm(net.conv(x)))


def _keep_hook(net: Net, x: Tensor) -> Tensor:
    net.kept = net.conv(x)
    return net.relu(net.norm(net.kept))


def _keep_normed(net: Net, x: Tensor) -> Tensor:
    net.kept = net.norm(net.conv(x))
    return net.relu(net.kept)


def _look_at(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    return net.relu(net.norm(y)) + y.mean()


def _look_through_data(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    seen = y.data
    return net.relu(net.norm(y)) + seen.mean()


def _view(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.norm(net.conv(x).view(len(x), 4, *x.shape[2:])))


def _residual(net: Net, x: Tensor) -> Tensor:
    y = net.norm(net.conv(x))
    y += net.again(x)
    return net.relu(y)


def _skip_relu(net: Net, x: Tensor) -> Tensor:
    y = net.norm(net.conv(x))
    return net.relu(y) + y


def _before_the_relu(net: Net, x: Tensor) -> Tensor:
    y = net.norm(net.conv(x))
    z = y * 2
    return net.relu(y) + z


def _square(net: Net, x: Tensor) -> Tensor:
    y = net.norm(net.conv(x))
    return net.relu(y * y)


def _square_first(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    return net.relu(net.norm(y * y))


def _behind_the_relu(net: Net, x: Tensor) -> Tensor:
    y = net.relu(net.norm(net.conv(x)))
    return y + y.mean()


def _rectify_first(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.relu(net.conv(x)))


def _twice(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)) + net.norm(net.conv(x + 1))


def _norm_of_two(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.norm(net.conv(x))) + net.relu(net.norm(net.again(x)))


def _function(net: Net, x: Tensor) -> Tensor:
    return F.relu(F.batch_norm(net.conv(x), net.norm.running_mean, net.norm.running_var))


def _relu_function(net: Net, x: Tensor) -> Tensor:
    return F.relu(net.norm(net.conv(x)))


def _norm_twice(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.norm(net.norm(net.conv(x))))


class _Doubling(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class _Shifting(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


IN_PLACE = {"relu": nn.ReLU(inplace=True)}
# what it does, with which parts, and what of it is folded
WAYS: dict[str, tuple[Callable[[Net, Tensor], Tensor], dict[str, nn.Module], str]] = {
    "straight": (_straight, {}, "conv norm relu"),
    "in place": (_straight, IN_PLACE, "conv norm relu"),
    "with a bias": (_straight, {"conv": nn.Conv2d(3, 4, 3)}, "conv norm relu"),
    "in groups": (
        _straight,
        {"conv": nn.Conv2d(3, 6, 3, groups=3), "norm": nn.BatchNorm2d(6)},
        "conv norm relu",
    ),
    "depthwise": (
        _straight,
        {"conv": nn.Conv2d(3, 3, 3, groups=3), "norm": nn.BatchNorm2d(3)},
        "conv norm relu",
    ),
    "without scale": (_straight, {"norm": nn.BatchNorm2d(4, affine=False)}, "conv norm relu"),
    "batch's own": (_straight, {"norm": nn.BatchNorm2d(4, track_running_stats=False)}, ""),
    "another activation": (_straight, {"relu": nn.SiLU()}, "conv norm"),
    "bounded": (_straight, {"relu": nn.ReLU6()}, "conv norm relu"),
    "bounded in place": (_straight, {"relu": nn.ReLU6(inplace=True)}, "conv norm relu"),
    "bounded elsewhere": (_straight, {"relu": nn.Hardtanh(-1, 1)}, "conv norm"),
    "timm's": (_straight, {"norm": BatchNormAct2d(4), "relu": nn.Identity()}, "conv norm norm.act"),
    "timm's SiLU": (_straight, {"norm": BatchNormAct2d(4, act_layer="silu")}, "conv norm"),
    "timm's without": (_straight, {"norm": BatchNormAct2d(4, apply_act=False)}, "conv norm relu"),
    "kept": (_keep_hook, {}, ""),
    "normed is kept": (_keep_normed, {}, "conv norm"),
    "normed is kept, in place": (_keep_normed, IN_PLACE, "conv norm relu"),
    "looked at": (_look_at, {}, ""),
    "looked at through data": (_look_through_data, {}, ""),
    "viewed": (_view, {}, ""),
    "residual": (_residual, {}, "conv norm"),
    "residual in place": (_residual, IN_PLACE, "conv norm"),
    "skipping the relu": (_skip_relu, {}, "conv norm"),
    "skipping the relu in place": (_skip_relu, IN_PLACE, "conv norm relu"),
    "before the relu": (_before_the_relu, {}, "conv norm"),
    "before the relu in place": (_before_the_relu, IN_PLACE, "conv norm"),
    "behind the relu": (_behind_the_relu, {}, "conv norm relu"),
    "squared": (_square, {}, "conv norm"),
    "squared first": (_square_first, {}, ""),
    "rectified first": (_rectify_first, {}, ""),
    "rectified first in place": (_rectify_first, IN_PLACE, ""),
    "twice": (_twice, {}, ""),
    "norm of two": (_norm_of_two, {}, "again conv norm relu"),
    "norm of two in place": (_norm_of_two, IN_PLACE, "again conv norm relu"),
    "function": (_function, {}, ""),
    "relu function": (_relu_function, {}, "conv norm"),
    "normed twice": (_norm_twice, {}, "conv norm"),
    "convolution of its own": (_straight, {"conv": _Doubling(3, 4, 1)}, ""),
    "norm of its own": (_straight, {"norm": _Shifting(4)}, ""),
    "padded by reflection": (
        _straight,
        {"conv": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")},
        "",
    ),
}


def _count_folded(model: nn.Module, folding: ConvBnFolding) -> str:
    return " ".join(
        sorted(name for name, layer in model.named_modules() if layer in folding.layers)
    )


def _inputs(b: int = 2) -> Tensor:
    return noise(b, 3, (9, 11)).contiguous(memory_format=LAST)


@pytest.mark.parametrize("name", WAYS)
def test_what_nobody_can_tell_is_folded(name: str) -> None:
    way, parts, expected = WAYS[name]
    net, inputs = Net(way, **parts), _inputs()
    folding = find_foldable(net, inputs[:1])
    assert _count_folded(net, folding) == expected
    with torch.no_grad():
        plain = net(inputs)
        torch.testing.assert_close(folding.run_folded(lambda: net(inputs)), plain)
        # its own again
        assert torch.equal(net(inputs), plain)
    assert not any("forward" in vars(layer) for layer in net.modules())


@pytest.mark.parametrize("fewest", [0, 2**30], ids=["in oneDNN's operation", "in torch's"])
@pytest.mark.parametrize("recorded", [False, True])
def test_what_is_bounded_at_6_stays_so(
    fewest: int, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn_conv, "FEWEST_OUTPUTS", fewest)
    net, inputs = Net(_straight, relu=nn.ReLU6(inplace=True)), 20 * _inputs()
    folding = find_foldable(net, inputs[:1])
    inputs = inputs.contiguous(memory_format=LAST)
    with torch.set_grad_enabled(recorded):
        actual = folding.run_folded(lambda: net(inputs))
    assert actual.amin() == 0
    assert actual.amax() == 6
    torch.testing.assert_close(actual, net(inputs))


def _make_same(c_in: int, c_out: int, size: int, stride: int, groups: int, own: bool) -> nn.Conv2d:
    if own:
        return OwnSame(c_in, c_out, size, stride, groups=groups, bias=False)
    return TimmsSame(c_in, c_out, size, stride, groups=groups, bias=False)


@pytest.mark.parametrize("own", [True, False], ids=["embedded", "timm's"])
@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (5, 2), (5, 3), (2, 2), (4, 1)])
def test_what_pads_as_tensorflow_does_is_folded_with_its_padding(
    own: bool, depthwise: bool, size: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn_conv, "FEWEST_OUTPUTS", 0)
    monkeypatch.setattr(onednn_conv, "FEWEST_DEPTHWISE", 0)
    c_out, groups = (3, 3) if depthwise else (4, 1)
    norm, relu = nn.BatchNorm2d(c_out), nn.ReLU6(inplace=True)
    conv = _make_same(3, c_out, size, stride, groups, own)
    net = Net(_straight, conv=conv, norm=norm, relu=relu)
    folding = find_foldable(net, _inputs(1))
    assert _count_folded(net, folding) == "conv norm relu"
    # each side odd or even: the same weights are asked for with another padding
    for shape in ((12, 8), (12, 8), (13, 8), (12, 9), (13, 9), (12, 8)):
        inputs = noise(2, 3, shape).contiguous(memory_format=LAST)
        for recorded in (False, True):
            with torch.set_grad_enabled(recorded):
                actual = folding.run_folded(lambda: net(inputs))  # noqa: B023
            torch.testing.assert_close(actual, net(inputs))
    assert folding.layers


@supported
@pytest.mark.parametrize(
    ("outputs", "depthwise", "packs"),
    [
        (2**19, False, True),
        (2**19 - 2**10, False, False),
        (2**15, True, True),
        (2**14, True, False),
    ],
)
def test_small_weights_are_prepacked_for_large_outputs(
    outputs: int, depthwise: bool, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = 3 if depthwise else 4
    conv = nn.Conv2d(3, c, 1, groups=c if depthwise else 1)
    net = Net(_straight, conv=conv, norm=nn.BatchNorm2d(c))
    side = 2**5
    inputs = noise(-(-outputs // (c * side * 2)), 3, (side, 2)).contiguous(memory_format=LAST)
    seen: list[int] = []
    convolve = conv_bn_folding.convolve

    def count(*args: Any) -> Tensor:
        seen.append(len(args[1]))
        return convolve(*args)

    monkeypatch.setattr(conv_bn_folding, "convolve", count)
    folding = find_foldable(net, inputs[:1])
    seen.clear()
    with torch.no_grad():
        actual = folding.run_folded(lambda: net(inputs))
        torch.testing.assert_close(actual, net(inputs))
    assert seen == ([len(inputs)] if packs else [])


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=["last", "contiguous"])
@pytest.mark.parametrize("enabled", [True, False], ids=["oneDNN", "without"])
def test_of_each_shape_and_layout(
    layout: torch.memory_format, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
    net = Net(_straight)
    folding = find_foldable(net, _inputs(1))
    assert folding.layers
    with torch.no_grad():
        for shape in ((2, 9, 11), (2, 9, 11), (5, 9, 11), (1, 20, 8), (2, 9, 11)):
            inputs = noise(shape[0], 3, shape[1:]).contiguous(memory_format=layout)
            actual = folding.run_folded(lambda: net(inputs))  # noqa: B023
            torch.testing.assert_close(actual, net(inputs))


@pytest.mark.parametrize("name", ["conv", "norm", "relu"])
def test_what_somebody_hooks_is_not_folded(name: str) -> None:
    net, seen = Net(_straight), []
    with getattr(net, name).register_forward_hook(lambda _, __, output: seen.append(output)):
        folding = find_foldable(net, _inputs(1))
    # nor what is in front of it
    assert _count_folded(net, folding) == {"conv": "", "norm": "", "relu": "conv norm"}[name]
    with getattr(net, name).register_forward_pre_hook(lambda *_: None):
        assert _count_folded(net, find_foldable(net, _inputs(1))) == _count_folded(net, folding)
    with register_module_forward_hook(lambda *_: None):
        assert not find_foldable(net, _inputs(1)).layers


def test_where_something_stands_in_for_a_layer_nothing_is_folded() -> None:
    # a compiled block runs as it was written where something stands in for what is inside
    net = Net(_straight)
    with patch_forward(net.again, torch.relu):
        assert not find_foldable(net, _inputs(1)).layers
    with accelerate(net, PrepackCache()):
        assert _count_folded(net, find_foldable(net, _inputs(1))) == "conv norm relu"


@pytest.mark.parametrize("name", ["conv", "norm", "relu"])
def test_a_layer_with_a_forward_of_its_own_is_not_folded(name: str) -> None:
    net = Net(_straight)
    layer = getattr(net, name)

    def almost(layer: nn.Module, x: Tensor) -> Tensor:
        # less than a dry run would see
        actual: Tensor = type(layer).forward(layer, x)
        return actual * (1 + 1e-6)

    layer.forward = MethodType(almost, layer)
    with accelerate(net, PrepackCache()):
        folding = find_foldable(net, _inputs(1))
        assert _count_folded(net, folding) == {"conv": "", "norm": "", "relu": "conv norm"}[name]
    assert layer.forward.__func__ is almost


def test_in_half_precision_nothing_is_folded() -> None:
    net = Net(_straight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not find_foldable(net, _inputs(1)).layers
    assert not find_foldable(net.to(torch.bfloat16), _inputs(1).to(torch.bfloat16)).layers


def test_a_model_that_returns_no_tensor_is_not_folded() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(x), x

    assert not find_foldable(Two(_straight), _inputs(1)).layers


def test_what_is_not_finite_is_not_folded() -> None:
    net = Net(_straight)
    with torch.no_grad():
        net.norm.running_var[1] = -1
    assert not find_foldable(net, _inputs(1)).layers


def test_a_pass_that_goes_another_way_is_run_as_it_was_written() -> None:
    def by_batch(net: Net, x: Tensor) -> Tensor:
        y = net.conv(x)
        return net.relu(net.norm(y)) if len(x) < 3 else y

    net = Net(by_batch)
    folding = find_foldable(net, _inputs(1))
    with torch.no_grad():
        for b, left in ((2, True), (3, False), (2, False)):
            actual = folding.run_folded(lambda: net(_inputs(b)))  # noqa: B023
            torch.testing.assert_close(actual, net(_inputs(b)))
            assert bool(folding.layers) == left and not folding.waiting


def test_an_error_leaves_the_model_as_it_was() -> None:
    net = Net(_straight)
    folding = find_foldable(net, _inputs(1))

    def full() -> Tensor:
        net.conv(_inputs(1))
        raise MemoryError

    with torch.no_grad(), pytest.raises(MemoryError):
        folding.run_folded(full)
    assert not folding.waiting and folding.layers
    assert not any("forward" in vars(layer) for layer in net.modules())


def test_the_model_is_left_as_it_was() -> None:
    net = Net(_straight).train()
    before = copy.deepcopy(net.state_dict())
    actual = find_foldable(net, _inputs(1))
    assert actual.layers and net.training and net.conv.weight.requires_grad
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", SCORED)
def test_methods_that_alter_pictures_give_what_they_gave(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, request = network_for(name), ExplainRequest((name,), ("last",))
    _train(network)
    used: list[ConvBnFolding] = []

    def note(module: nn.Module, inputs: Tensor) -> ConvBnFolding:
        used.append(find_foldable(module, inputs))
        return used[-1]

    monkeypatch.setattr(rescoring, "FEWEST_FOLDED", 1)
    monkeypatch.setattr(rescoring, "find_foldable", note)
    folded = answer_request(network, noise(), TopKCategories(2), request)
    monkeypatch.setattr(rescoring, "find_foldable", lambda *_: ConvBnFolding(()))
    plain = answer_request(network, noise(), TopKCategories(2), request)
    for layer, maps in plain.maps[name].items():
        torch.testing.assert_close(folded.maps[name][layer], maps, rtol=1e-3, atol=1e-5)
    # once for the whole batch, and for all categories
    assert [len(folding.layers) for folding in used] == [6]


NETWORKS = {
    "resnet18": 20,
    "resnet50d": 55,
    "efficientnet_b0": 49,
    "mobilenetv3_small_100": 34,
    "regnetx_002": 44,
    "vgg11_bn": 8,
    "densenet121": 59,
    "vit_tiny_patch16_224": 0,
    "convnext_atto": 0,
}


# building the linear layers of one takes longer than all of the others together
LARGE = {"vgg11_bn", "resnet50d", "efficientnet_b0", "densenet121"}


@pytest.mark.parametrize("name", mark_slow(NETWORKS, LARGE))
def test_timms_networks(name: str) -> None:
    torch.manual_seed(0)
    _check(timm.create_model(name, pretrained=False).eval(), NETWORKS[name])


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "googlenet"])
def test_torchvisions_networks(name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    _check(model, {"mobilenet_v3_small": 34, "shufflenet_v2_x0_5": 56, "googlenet": 57}[name])


def _check(model: nn.Module, expected: int) -> None:
    # vision transformers take their own size alone
    size = getattr(getattr(model, "patch_embed", None), "img_size", (96, 96))
    inputs = noise(2, 3, size).contiguous(memory_format=LAST)
    folding = find_foldable(model, inputs[:1])
    assert sum(isinstance(layer, nn.Conv2d) for layer in folding.layers) == expected
    with torch.no_grad():
        plain = model(inputs)
        actual = folding.run_folded(lambda: model(inputs))
    torch.testing.assert_close(actual, plain, rtol=1e-3, atol=float(1e-5 * plain.abs().max()))
