"""No weights are drawn that a checkpoint replaces; those that it lacks are as they always are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from camcli.models import from_timm
from camcli.models.checkpoints.blank_weights import build_blank, draw_what_is_missing
from camcli.models.load import load_model
from camcli.models.model_spec import BuiltModel, ModelSpec

NAMES = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_nfnet"]


def build(request: ModelSpec) -> BuiltModel:
    torch.manual_seed(0)
    return from_timm.build(request)


class Draws(TorchDispatchMode):
    """Counts the tensors that are filled with random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += func in (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_not_random_is_there(name: str) -> None:
    request = ModelSpec(name, False)
    with torch.random.fork_rng():
        plain, blank = build(request).module, build_blank(build, request).module
        torch.manual_seed(1)
        another = from_timm.build(request).module
    state, other = plain.state_dict(), another.state_dict()
    assert state.keys() == blank.state_dict().keys()
    fixed = [n for n, w in state.items() if torch.equal(w, other[n])]
    assert 0 < len(fixed) < len(state)
    assert all(torch.equal(blank.state_dict()[n], state[n]) for n in fixed)
    buffers = dict(plain.named_buffers())
    assert all(torch.equal(b, buffers[n]) for n, b in blank.named_buffers() if n not in state)


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/squeezenet1_1"])
def test_nothing_is_drawn_for_a_whole_checkpoint(tmp_path: Path, name: str) -> None:
    library = torchvision.models.get_model if "/" in name else timm.create_model
    with torch.random.fork_rng(), Draws() as draws:
        model = library(name.rpartition("/")[2], num_classes=3)
    assert draws.count
    torch.save(model.state_dict(), tmp_path / "a.pth")
    with Draws() as draws:
        classifier = load_model(name, checkpoint=tmp_path / "a.pth", device="cpu")
    assert not draws.count
    weights = classifier.module.state_dict()
    assert all(torch.equal(w, weights[n]) for n, w in model.state_dict().items())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_what_a_checkpoint_lacks_is_random_and_always_the_same(tmp_path: Path, name: str) -> None:
    with torch.random.fork_rng():
        weights = timm.create_model(name, num_classes=3).state_dict()
    head = [n for n in weights if n.startswith(("fc.", "head."))]
    torch.save({n: w for n, w in weights.items() if n not in head}, tmp_path / "a.pth")
    first, second = (
        load_model(name, checkpoint=tmp_path / "a.pth", strict=False, device="cpu").module
        for _ in range(2)
    )
    for n, w in first.state_dict().items():
        assert torch.equal(w, second.state_dict()[n])
        assert n in head or torch.equal(w, weights[n])
    (weight,) = (w for n, w in first.state_dict().items() if n in head and w.ndim == 2)
    assert 0 < float(weight.std()) < 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_drawn_is_no_number(name: str) -> None:
    with torch.random.fork_rng():
        blank = build_blank(build, ModelSpec(name, False)).module
    assert any(weight.isnan().any() for weight in blank.parameters())
    assert not any(buffer.isnan().any() for buffer in blank.buffers())


def test_a_models_own_weights_are_none_of_a_checkpoint() -> None:
    request = ModelSpec("test_resnet", False)
    with torch.random.fork_rng():
        blank = build_blank(build, request)
        own = blank.module.state_dict()
        assert draw_what_is_missing(blank, own).module is not blank.module
        copies = {n: w.clone() for n, w in own.items()}
        assert draw_what_is_missing(blank, copies).module is blank.module
        del copies["fc.bias"]
        plain = draw_what_is_missing(blank, copies)
    assert plain.rebuild is None
    expected = build(request).module.state_dict()
    assert all(torch.equal(w, expected[n]) for n, w in plain.module.state_dict().items())


class Noisy(nn.Module):
    """It has a random buffer that it does not store, or one that is made of random numbers."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        drawn = torch.zeros(4).normal_()
        noise = drawn if scale == 1 else scale * drawn
        self.register_buffer("noise", noise, persistent=False)


@pytest.mark.parametrize("scale", [1, 0.5])
def test_what_is_random_and_not_stored_is_drawn(scale: float) -> None:
    def build_noisy(request: ModelSpec) -> BuiltModel:
        preprocessing = from_timm.build(ModelSpec("test_resnet", False)).preprocessing
        return BuiltModel(Noisy(scale), preprocessing, 2, request.name, ())

    with torch.random.fork_rng():
        built = build_blank(build_noisy, ModelSpec("noisy", False))
    assert built.rebuild is None
    assert float(built.module.get_buffer("noise").std()) > 0
