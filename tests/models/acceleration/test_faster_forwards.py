"""A model that is hastened gives the same maps, and is put back."""

from __future__ import annotations

import copy
from math import inf

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import camcli
import camcli.engine.api  # fills the registries
from camcli.models.acceleration import onednn_conv, onednn_linear
from camcli.models.acceleration.faster_forwards import accelerate, is_accelerated
from camcli.models.acceleration.onednn_conv import is_prepacking_supported
from camcli.models.acceleration.onednn_linear import OPERATORS
from camcli.models.acceleration.prepack_cache import PrepackCache
from camcli.models.state.forward_patching import patch_forward
from camcli.registry import METHODS, collect_evidence
from camcli.utils.cpu import find_processor_maker
from tests.networks import network_for, noise

supported = pytest.mark.skipif(not is_prepacking_supported(OPERATORS), reason="a build without it")


@pytest.fixture(autouse=True)
def _on_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has even the smallest products taken, whoever made the processor."""
    monkeypatch.setattr(onednn_linear, "TESTED_PROCESSORS", {find_processor_maker(): ("", inf)})
    monkeypatch.setattr(onednn_linear, "FEWEST", 0)
    monkeypatch.setattr(onednn_conv, "FEWEST", 0)


def _small_transformer() -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5
        ).eval()


def _are_back(model: nn.Module) -> bool:
    return not any("forward" in vars(layer) for layer in model.modules())


@supported
@pytest.mark.parametrize("name", METHODS)
def test_maps_are_those_of_the_model_as_it_was_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, inputs = network_for(name), noise()
    options = {"target_layers": "last", "targets": [[1]] * len(inputs)}
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        expected = camcli.heatmaps(network, inputs, name, **options)
    before = copy.deepcopy(network.state_dict())
    # components of few cells magnify what is rounded
    tolerance = {"rtol": 1e-3, "atol": 1e-4 * float(expected.abs().max())}
    heatmap = [camcli.heatmaps(network, inputs, name, **options)]
    with camcli.packed(network):
        heatmap += [camcli.heatmaps(network, inputs, name, **options) for _ in range(3)]
        assert not _are_back(network)
    for maps in heatmap:
        torch.testing.assert_close(maps, expected, **tolerance)
    assert _are_back(network)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@supported
@pytest.mark.parametrize(
    "name", [n for n in METHODS if "attention" in collect_evidence([METHODS[n]])]
)
def test_attention_is_that_of_the_model_as_it_was_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = _small_transformer(), noise(2, 3, (32, 32))
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        expected = camcli.heatmaps(model, inputs, name)
    with camcli.packed(model):
        for _ in range(3):
            torch.testing.assert_close(camcli.heatmaps(model, inputs, name), expected)


@supported
def test_a_single_call_lays_nothing_out_and_a_block_does() -> None:
    model, inputs = _small_transformer(), noise(2, 3, (32, 32))
    kept: list[PrepackCache | None] = []

    def look(layer: nn.Module, _: object) -> None:
        kept.append(vars(layer)["forward"].prepack_cache if is_accelerated(layer) else None)

    with model.blocks[0].mlp.fc1.register_forward_pre_hook(look):
        camcli.heatmaps(model, inputs)
        assert set(kept) == {None}
        kept.clear()
        with camcli.packed(model):
            for _ in range(3):
                camcli.heatmaps(model, inputs)
    prepack_cache = kept[0]
    assert prepack_cache is not None and all(other is prepack_cache for other in kept)
    layers = [layer for layer, seen in prepack_cache.entries.items() if seen.prepacked is not None]
    assert model.blocks[0].mlp.fc1 in layers and model.patch_embed.proj in layers


@supported
def test_weights_that_are_set_in_a_block_count() -> None:
    model, inputs = _small_transformer(), noise(2, 3, (32, 32))
    state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    with camcli.packed(model):
        for _ in range(3):
            before = camcli.heatmaps(model, inputs)
        model.load_state_dict(state)
        heatmap = camcli.heatmaps(model, inputs)
    assert not torch.allclose(heatmap, before, rtol=0.1)
    torch.testing.assert_close(heatmap, camcli.heatmaps(model, inputs))


@supported
def test_an_error_puts_the_layers_back() -> None:
    model = _small_transformer()
    with pytest.raises(ZeroDivisionError), camcli.packed(model):
        raise ZeroDivisionError
    assert _are_back(model)


@supported
def test_a_block_in_a_block_changes_nothing() -> None:
    model = _small_transformer()
    with camcli.packed(model):
        outer = [vars(layer).get("forward") for layer in model.modules()]
        with camcli.packed(model):
            assert [vars(layer).get("forward") for layer in model.modules()] == outer
        assert [vars(layer).get("forward") for layer in model.modules()] == outer
    assert _are_back(model)


class _Chosen(nn.Module):
    """Sets its `forward` to one of its methods, as FasterNet's layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 5)
        self.forward = self.forward_once

    def forward_once(self, x: Tensor) -> Tensor:
        return self.linear(x)


@supported
def test_a_method_of_a_layers_own_is_no_stand_in() -> None:
    model = nn.Sequential(_Chosen(), nn.Linear(5, 5))
    chosen, inputs = model[0].forward, torch.randn(3, 7)
    with torch.no_grad():
        expected = model(inputs)
        with accelerate(model, None):
            assert is_accelerated(model[0].linear) and is_accelerated(model[1])
            torch.testing.assert_close(model(inputs), expected)
    assert model[0].forward is chosen
    with patch_forward(model[1], torch.relu), accelerate(model, None):
        assert not is_accelerated(model[0].linear)
        assert vars(model[1])["forward"] is torch.relu
