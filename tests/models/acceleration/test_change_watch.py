"""A watch sees what was changed, whichever way somebody did it."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from camcli.models.acceleration.change_watch import AttributeWatch, TensorWatch, can_watch

WAYS: dict[str, Callable[[nn.Parameter], object]] = {
    "in place": lambda p: p.detach().mul_(2),
    "through data": lambda p: p.data.mul_(2),
    "one filter through data": lambda p: p.data[3].zero_(),
    "a channel through data": lambda p: p.data[:, 2].zero_(),
    "a tap through data": lambda p: p.data[..., 1, 2].zero_(),
    "other data": lambda p: setattr(p, "data", p.data.clone()),
    "inference mode": lambda p: _scale_in_inference_mode(p),
    "numpy": lambda p: p.detach().numpy().__imul__(2),
    "fused SGD": lambda p: _step(p, torch.optim.SGD),
    "fused AdamW": lambda p: _step(p, torch.optim.AdamW),
}


def _scale_in_inference_mode(parameter: nn.Parameter) -> None:
    with torch.inference_mode():
        parameter.mul_(2)


def _step(parameter: nn.Parameter, optimizer: Any) -> None:
    parameter.grad = torch.ones_like(parameter)
    optimizer([parameter], lr=0.1, fused=True).step()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_way_to_write_into_a_weight_is_seen(name: str, layout: torch.memory_format) -> None:
    weight = nn.Parameter(torch.randn(5, 4, 3, 3).contiguous(memory_format=layout))
    watch = TensorWatch([None, weight])
    assert watch.is_unchanged([None, weight]) and watch.is_unchanged([None, weight])
    WAYS[name](weight)
    assert not watch.is_unchanged([None, weight])
    assert TensorWatch([weight]).is_unchanged([weight])


def test_all_of_a_vector_is_compared() -> None:
    moments, weight = torch.zeros(6), torch.ones(2, 2, 1, 1)
    watch = TensorWatch([moments, weight])
    for i in range(6):
        moments.data[i] = 1
        assert not watch.is_unchanged([moments, weight])
        moments.data[i] = 0
    assert watch.is_unchanged([moments, weight])


def test_moments_that_a_pass_in_training_mode_moved_are_seen() -> None:
    norm = nn.BatchNorm2d(4)
    watch = TensorWatch([norm.running_mean, norm.running_var])
    norm(torch.randn(2, 4, 3, 3))
    assert not watch.is_unchanged([norm.running_mean, norm.running_var])


def test_another_tensor_of_the_same_numbers_is_another_one() -> None:
    weight, setting = torch.ones(3, 2), 1e-5
    watch = TensorWatch([weight], [setting])
    assert watch.is_unchanged([weight], [setting])
    assert not watch.is_unchanged([weight.clone()], [setting])
    assert not watch.is_unchanged([weight], [1e-3])
    assert not watch.is_unchanged([None], [setting])


def test_what_is_no_plain_tensor_is_not_watched() -> None:
    with torch.inference_mode():
        without_version = torch.ones(2)
    refused: list[Tensor] = [
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, device="meta"),
        torch.ones(2).to_sparse(),
        torch.tensor(1.0),
        torch.ones(0, 2),
        without_version,
    ]
    assert not any(map(can_watch, refused))
    assert all(map(can_watch, [None, torch.ones(2), nn.Parameter(torch.ones(2, 1))]))


class Switched(nn.Module):
    """A layer of somebody's own, with attributes of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.is_on, self.sizes, self.options = True, [1, (2, 3)], {"deep": [1]}
        self.way: Any = lambda x: x
        self.kept = torch.zeros(3)
        self.inner = nn.ReLU()


SWITCHES: dict[str, Callable[[Switched], object]] = {
    "flag": lambda m: setattr(m, "is_on", False),
    "one for true": lambda m: setattr(m, "is_on", 1),
    "list": lambda m: m.sizes.append(4),
    "dictionary": lambda m: m.options["deep"].append(2),
    "function": lambda m: setattr(m, "way", lambda x: x),
    "tensor": lambda m: setattr(m, "kept", torch.zeros(3)),
    "another": lambda m: setattr(m, "more", None),
    "one less": lambda m: delattr(m, "kept"),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_each_attribute_of_somebodys_layer_counts(name: str) -> None:
    layer = Switched()
    watch = AttributeWatch([nn.ReLU(), layer])
    assert watch.is_unchanged([nn.ReLU(), layer])
    layer.train(not layer.training)
    assert watch.is_unchanged([nn.ReLU(), layer])
    SWITCHES[name](layer)
    assert not watch.is_unchanged([nn.ReLU(), layer])


def test_a_layer_of_a_library_is_trusted() -> None:
    layer = nn.Dropout(0.1)
    watch = AttributeWatch([layer])
    layer.p = 0.2
    assert watch.is_unchanged([layer])


def test_a_watch_keeps_no_layer_alive() -> None:
    layer = Switched()
    layer.itself = [layer]
    layer.way = layer.forward
    watch, reference = AttributeWatch([layer]), ref(layer)
    other = copy.copy(layer)
    del layer, other
    gc.collect()
    assert reference() is None and watch is not None
