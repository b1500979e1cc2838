"""Fused attention gives what the written one gave, where nobody looks, and is off again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm.models.swin_transformer as timms
import torch
import torchvision.models.swin_transformer as torchvisions
from timm.layers import set_fused_attn
from torch import Tensor, nn
from torch.nn import functional as F

import camcli
import camcli.engine.api  # fills the registries
from camcli.errors import MethodError
from camcli.models.acceleration.faster_forwards import accelerate, is_accelerated
from camcli.models.acceleration.fused_attention import SWITCH, FusedAttention, make_fused_attention
from camcli.models.acceleration.fused_window_attention import WINDOWS, FusedWindowAttention
from camcli.models.inspection.quirks import FUSABLE
from camcli.registry import METHODS
from tests.networks import noise

SHAPE = {"embed_dim": 8, "num_heads": (1, 2), "num_classes": 5}
KINDS = (timms.WindowAttention, torchvisions.ShiftedWindowAttention)


def _timms() -> nn.Module:
    """Two stages of two blocks, the second of the first with shifted windows."""
    return timms.SwinTransformer(img_size=32, patch_size=4, window_size=4, depths=(2, 2), **SHAPE)


def _torchvisions(window: tuple[int, int] = (4, 4)) -> nn.Module:
    return torchvisions.SwinTransformer(
        patch_size=[4, 4], window_size=list(window), depths=[2, 2], **SHAPE
    )


SWINS: dict[str, Callable[[], nn.Module]] = {"timm": _timms, "torchvision": _torchvisions}


def _draw(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
        # biases are so small at first that leaving them out would hardly be seen
        for layer in _attentions(model):
            nn.init.normal_(layer.relative_position_bias_table)
    return model


def _attentions(model: nn.Module) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, KINDS)]


@pytest.fixture(params=SWINS)
def swin(request: pytest.FixtureRequest) -> nn.Module:
    return _draw(SWINS[request.param])


@pytest.fixture
def timms_swin() -> nn.Module:
    return _draw(_timms)


@pytest.fixture
def attend(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Notes the shape of what attends, each time that it is fused."""
    noted: list[tuple[int, ...]] = []
    plain = F.scaled_dot_product_attention

    def note(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noted.append(tuple(query.shape))
        return plain(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", note)
    return noted


@pytest.mark.parametrize("batch", [1, 3])
def test_logits_are_those_of_the_model_as_it_was_written(
    batch: int, swin: nn.Module, attend: list[tuple[int, ...]]
) -> None:
    inputs = noise(batch, 3, (32, 32))
    with torch.no_grad():
        expected = swin(inputs)
        assert not attend
        with accelerate(swin, None):
            torch.testing.assert_close(swin(inputs), expected)
    # four windows of 4 x 4 cells at the first stage, one at the second
    assert attend == [(4 * batch, 1, 16, 8)] * 2 + [(batch, 2, 16, 8)] * 2


@pytest.mark.parametrize("size", [(32, 32), (36, 28), (8, 40), (12, 12)])
@pytest.mark.parametrize("window", [(4, 4), (3, 3), (3, 2), (7, 7), (1, 1)])
def test_windows_of_each_size_are_padded_and_shifted_as_they_were(
    window: tuple[int, int], size: tuple[int, int], attend: list[tuple[int, ...]]
) -> None:
    model, inputs = _draw(lambda: _torchvisions(window)), noise(2, 3, size)
    with torch.no_grad():
        expected = model(inputs)
        with accelerate(model, None):
            torch.testing.assert_close(model(inputs), expected)
    assert len(attend) == 4


@pytest.mark.parametrize("name", METHODS)
def test_maps_are_those_of_the_model_as_it_was_written(
    name: str,
    swin: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    attend: list[tuple[int, ...]],
) -> None:
    inputs = noise(2, 3, (32, 32))
    with monkeypatch.context() as patch:
        patch.setattr(
            "camcli.models.acceleration.faster_forwards.make_fused_attention", lambda _: None
        )
        expected = _map_or_refusal(swin, inputs, name)
    assert not attend
    actual = _map_or_refusal(swin, inputs, name)
    if isinstance(expected, str):
        assert actual == expected
        return
    # components of few cells magnify what is rounded
    tolerance = {"rtol": 1e-3, "atol": 1e-4 * float(expected.abs().max())}
    torch.testing.assert_close(actual, expected, **tolerance)


def _map_or_refusal(model: nn.Module, inputs: Tensor, name: str) -> Tensor | str:
    """Returns what a method shows, or says why not: what reads attention does not in windows."""
    try:
        heatmap: Tensor = camcli.heatmaps(model, inputs, name)
    except MethodError as error:
        return str(error)
    return heatmap


@pytest.mark.parametrize(
    ("kind", "layer"), [("timm", "layers.1.blocks.0.norm2"), ("torchvision", "features.3.0.norm2")]
)
def test_what_comes_before_the_layer_is_fused_and_what_is_recorded_is_not(
    kind: str, layer: str, attend: list[tuple[int, ...]]
) -> None:
    model, inputs = _draw(SWINS[kind]), noise(1, 3, (32, 32))
    # what is measured of a model once is measured now
    camcli.heatmaps(model, inputs, target_layers=layer)
    attend.clear()
    camcli.heatmaps(model, inputs, target_layers=layer)
    assert [heads for _, heads, *_ in attend] == [1, 1, 2]


@pytest.mark.parametrize("part", FUSABLE["WindowAttention"])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_where_somebody_looks_at_what_is_passed_by_it_is_there(
    part: str, hook: str, timms_swin: nn.Module, attend: list[tuple[int, ...]]
) -> None:
    seen: list[Any] = []
    looked_at = _attentions(timms_swin)[0]
    with (
        getattr(looked_at.get_submodule(part), hook)(lambda *args: seen.append(args)),
        torch.no_grad(),
        accelerate(timms_swin, None),
    ):
        timms_swin(noise(1, 3, (32, 32)))
    assert len(seen) == 1
    assert len(attend) == 3


@pytest.mark.parametrize("part", FUSABLE["WindowAttention"])
def test_where_something_stands_in_for_what_is_passed_by_it_does(
    part: str, timms_swin: nn.Module, attend: list[tuple[int, ...]]
) -> None:
    with torch.no_grad(), accelerate(timms_swin, None):
        vars(_attentions(timms_swin)[0].get_submodule(part))["forward"] = torch.zeros_like
        timms_swin(noise(1, 3, (32, 32)))
    assert len(attend) == 3


def test_hooks_that_nobody_called_stay_silent() -> None:
    model, seen = _draw(_torchvisions), []
    for layer in _attentions(model):
        layer.qkv.register_forward_hook(lambda *args: seen.append(args))
    with torch.no_grad():
        model(noise(1, 3, (32, 32)))
        with accelerate(model, None):
            model(noise(1, 3, (32, 32)))
    assert not seen


def test_half_precision_and_autocast_stay_as_they_were(
    swin: nn.Module, attend: list[tuple[int, ...]]
) -> None:
    inputs = noise(1, 3, (32, 32))
    with torch.no_grad(), accelerate(swin, None):
        with torch.autocast("cpu", torch.bfloat16):
            swin(inputs)
        swin.to(torch.bfloat16)(inputs.to(torch.bfloat16))
    assert not attend


def test_what_is_trained_drops_what_it_dropped(attend: list[tuple[int, ...]]) -> None:
    model = _draw(_torchvisions).train()
    with torch.no_grad(), accelerate(model, None):
        model(noise(1, 3, (32, 32)))
    assert not attend


def test_nothing_is_done_where_a_program_switched_it_off() -> None:
    set_fused_attn(False)
    try:
        model = _draw(_timms)
        with accelerate(model, None):
            assert not any(map(is_accelerated, _attentions(model)))
    finally:
        set_fused_attn(True)


@pytest.mark.parametrize("name", [*FUSABLE, WINDOWS])
def test_attention_of_others_by_the_same_name_is_left_alone(name: str) -> None:
    layer = type(name, (nn.Module,), {})()
    setattr(layer, SWITCH, False)
    assert make_fused_attention(layer) is None


def test_what_is_fused_already_and_what_came_later_are_left_alone(timms_swin: nn.Module) -> None:
    layer = _attentions(timms_swin)[0]
    assert isinstance(make_fused_attention(layer), FusedAttention)
    vars(layer)[SWITCH] = True
    assert make_fused_attention(layer) is None
    # the second version compares directions, and has a class of its own
    later = torchvisions.ShiftedWindowAttentionV2(8, [4, 4], [0, 0], 1)
    assert make_fused_attention(later) is None
    assert isinstance(
        make_fused_attention(_attentions(_draw(_torchvisions))[0]), FusedWindowAttention
    )


def test_the_switch_is_off_again_whatever_happens(timms_swin: nn.Module) -> None:
    layer = _attentions(timms_swin)[0]
    stand_in = FusedAttention(layer)
    with torch.no_grad():
        with pytest.raises(RuntimeError):
            stand_in(torch.randn(4, 16, 9))
        with pytest.raises(TypeError):
            stand_in()
        stand_in(torch.randn(4, 16, 8))
    assert vars(layer)[SWITCH] is False


def test_the_table_names_what_timm_has(timms_swin: nn.Module) -> None:
    layer = _attentions(timms_swin)[0]
    assert list(FUSABLE) == [type(layer).__name__]
    assert set(FUSABLE["WindowAttention"]) <= set(dict(layer.named_children()))
