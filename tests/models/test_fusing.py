"""Fused attention gives what the written one gave, where nobody looks, and is off again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import set_fused_attn
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from torch import Tensor, nn
from torch.nn import functional as F

import camcli
import camcli.engine.run  # fills the registries
from camcli.errors import MethodError
from camcli.models.families import FUSABLE
from camcli.models.fusing import SWITCH, Fused, is_fusable
from camcli.models.hastening import hastened, is_hastened
from camcli.registry import METHODS
from tests.networks import noise


def _swin() -> SwinTransformer:
    """Two stages, of a block without and one with shifted windows each: of 4, and of 2 cells."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SwinTransformer(
            img_size=32, patch_size=4, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(1, 2),
            num_classes=5,
        ).eval()  # fmt: skip
        # biases are so small at first that leaving them out would hardly be seen
        for layer in _attentions(model):
            nn.init.normal_(layer.relative_position_bias_table)
    return model


def _attentions(model: nn.Module) -> list[WindowAttention]:
    return [layer for layer in model.modules() if isinstance(layer, WindowAttention)]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
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
    batch: int, fused: list[tuple[int, ...]]
) -> None:
    model, inputs = _swin(), noise(batch, 3, (32, 32))
    with torch.no_grad():
        wanted = model(inputs)
        assert not fused
        with hastened(model, None):
            torch.testing.assert_close(model(inputs), wanted)
    # four windows of 4 x 4 cells at the first stage, one at the second
    assert fused == [(4 * batch, 1, 16, 8)] * 2 + [(batch, 2, 16, 8)] * 2


@pytest.mark.parametrize("name", METHODS)
def test_maps_are_those_of_the_model_as_it_was_written(
    name: str, monkeypatch: pytest.MonkeyPatch, fused: list[tuple[int, ...]]
) -> None:
    model, inputs = _swin(), noise(2, 3, (32, 32))
    with monkeypatch.context() as patch:
        patch.setattr("camcli.models.hastening.is_fusable", lambda _: False)
        try:
            wanted = camcli.heatmaps(model, inputs, name)
        except MethodError:
            # it reads attention, which it cannot where that looks through windows
            wanted = None
    if wanted is None:
        with pytest.raises(MethodError, match="windows"):
            camcli.heatmaps(model, inputs, name)
        return
    assert not fused
    # components of few cells magnify what is rounded
    tolerance = {"rtol": 1e-3, "atol": 1e-4 * float(wanted.abs().max())}
    torch.testing.assert_close(camcli.heatmaps(model, inputs, name), wanted, **tolerance)


def test_what_comes_before_the_layer_is_fused_and_what_is_recorded_is_not(
    fused: list[tuple[int, ...]],
) -> None:
    model = _swin()
    camcli.heatmaps(model, noise(1, 3, (32, 32)), target_layers="layers.1.blocks.0.norm2")
    assert [heads for _, heads, *_ in fused] == [1, 1, 2]


@pytest.mark.parametrize("part", FUSABLE["WindowAttention"])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_where_somebody_looks_at_what_is_passed_by_it_is_there(
    part: str, hook: str, fused: list[tuple[int, ...]]
) -> None:
    model, seen = _swin(), []
    looked_at = _attentions(model)[0]
    with (
        getattr(looked_at.get_submodule(part), hook)(lambda *args: seen.append(args)),
        torch.no_grad(),
        hastened(model, None),
    ):
        model(noise(1, 3, (32, 32)))
    assert len(seen) == 1
    assert len(fused) == 3


@pytest.mark.parametrize("part", FUSABLE["WindowAttention"])
def test_where_something_stands_in_for_what_is_passed_by_it_does(
    part: str, fused: list[tuple[int, ...]]
) -> None:
    model = _swin()
    with torch.no_grad(), hastened(model, None):
        vars(_attentions(model)[0].get_submodule(part))["forward"] = torch.zeros_like
        model(noise(1, 3, (32, 32)))
    assert len(fused) == 3


def test_a_layer_that_is_passed_by_can_be_a_target() -> None:
    found = camcli.activations(_swin(), noise(2, 3, (32, 32)), "layers.1.blocks.1.norm1")
    assert found["layers.1.blocks.1.norm1"].shape == (2, 16, 4, 4)


def test_half_precision_and_autocast_stay_as_they_were(fused: list[tuple[int, ...]]) -> None:
    model, inputs = _swin(), noise(1, 3, (32, 32))
    with torch.no_grad(), hastened(model, None):
        with torch.autocast("cpu", torch.bfloat16):
            model(inputs)
        model.to(torch.bfloat16)(inputs.to(torch.bfloat16))
    assert not fused


def test_nothing_is_done_where_a_program_switched_it_off() -> None:
    set_fused_attn(False)
    try:
        model = _swin()
        with hastened(model, None):
            assert not any(map(is_hastened, _attentions(model)))
    finally:
        set_fused_attn(True)


class _Elsewhere(nn.Module):
    """Has the name of timm's, and its switch."""

    fused_attn = False


_Elsewhere.__name__ = "WindowAttention"


def test_other_attention_is_left_alone() -> None:
    on, other = _attentions(_swin())[0], _Elsewhere()
    other.fused_attn = False
    assert is_fusable(on)
    vars(on)[SWITCH] = True
    assert not is_fusable(on)
    assert not is_fusable(other)


def test_the_switch_is_off_again_whatever_happens() -> None:
    model = _swin()
    layer = _attentions(model)[0]
    fused = Fused(layer)
    with torch.no_grad():
        with pytest.raises(RuntimeError):
            fused(torch.randn(4, 16, 9))
        with pytest.raises(TypeError):
            fused()
        fused(torch.randn(4, 16, 8))
    assert vars(layer)[SWITCH] is False


def test_the_table_names_what_timm_has() -> None:
    layer = _attentions(_swin())[0]
    assert list(FUSABLE) == [type(layer).__name__]
    assert set(FUSABLE["WindowAttention"]) <= set(dict(layer.named_children()))
