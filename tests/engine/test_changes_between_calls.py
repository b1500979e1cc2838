"""Whatever is done to a model between two calls, the second one answers for the model as it is.

What a call remembers of a model is held against a copy that nobody has asked before.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import camcli
from tests.networks import Straight, noise

Change = Callable[[nn.Module], object]
PICTURE = noise(1)


class _Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _double(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    return 2 * output


def _turn_gradient(_: nn.Module, __: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.flip(1))


def _turn_logit_gradient(_: nn.Module, gradients: Any) -> Any:
    return tuple(gradient.flip(1) for gradient in gradients)


def _reverse(self: nn.Conv2d, x: Tensor) -> Tensor:
    return self._conv_forward(x.flip(1), self.weight, self.bias)


def _skip_norm(self: Straight, x: Tensor) -> Tensor:
    return self.fc(self.pool(self.last(self.middle(self.stem[0](x)))).flatten(1))


@torch.no_grad()
def _in_place(weight: Tensor) -> None:
    weight.mul_(-1)
    weight[0].add_(0.3)


def _write(tensor: Tensor) -> None:
    tensor.detach().numpy()[:, :7] = 0.7


def _load(model: nn.Module, *, assign: bool) -> None:
    model.load_state_dict(Straight(seed=7).state_dict(), assign=assign)


def _train_a_step(model: nn.Module) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    model(noise(3)).square().sum().backward()
    optimizer.step()
    model.eval()


def _under_inference(model: Any) -> None:
    with torch.inference_mode():
        model.fc.weight = nn.Parameter(model.fc.weight * -1, requires_grad=False)
        model.last[1].register_buffer("running_mean", model.last[1].running_mean + 0.5)


def _compile_nothing(model: Any) -> None:
    model.last = nn.Sequential(*reversed(model.last), nn.Conv2d(12, 16, 1))
    model.last[1] = nn.Conv2d(12, 12, 3, 2, 1)
    model.last[0] = nn.BatchNorm2d(12)


CHANGES: dict[str, Change] = {
    "nothing": lambda m: m,
    "another head": lambda m: setattr(m, "fc", nn.Linear(16, 3)),
    "a head with one logit more": lambda m: setattr(m, "fc", nn.Linear(16, 6, bias=False)),
    "a head behind a norm": lambda m: setattr(
        m, "fc", nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 5), nn.Softplus())
    ),
    "another layer": lambda m: m.middle.__setitem__(0, nn.Conv2d(8, 12, 5, 2, 2)),
    "another target layer": lambda m: setattr(m, "last", deepcopy(m.last).append(nn.Tanh())),
    "another order": _compile_nothing,
    "a layer less": lambda m: m.stem.__delitem__(1),
    "a layer more": lambda m: m.stem.append(nn.Tanh()),
    "a layer more, past torch": lambda m: m.stem._modules.update(late=nn.Tanh()),
    "no norm": lambda m: m.middle.__setitem__(1, nn.Identity()),
    "a hook": lambda m: m.middle.register_forward_hook(_double),
    "a hook in front": lambda m: m.last.register_forward_pre_hook(lambda _, x: (-x[0],)),
    "a hook on the target layer": lambda m: m.last.register_forward_hook(_double),
    "a hook on the logits": lambda m: m.fc.register_forward_hook(_double),
    "a hook on the way back": lambda m: m.fc.register_full_backward_hook(
        lambda _, into, __: tuple(gradient.flip(1) for gradient in into)
    ),
    "a hook on the logits' gradient": lambda m: m.fc.register_forward_hook(_turn_gradient),
    "a hook in front of the way back": lambda m: m.fc.register_full_backward_pre_hook(
        _turn_logit_gradient
    ),
    "training mode": lambda m: m.train(),
    "training mode of a layer": lambda m: m.middle[1].train(),
    "a step of training": _train_a_step,
    "weights in place": lambda m: _in_place(m.middle[0].weight),
    "the head in place": lambda m: _in_place(m.fc.weight),
    "weights by data": lambda m: m.last[0].weight.data.neg_(),
    "the head by data": lambda m: m.fc.weight.data[:, :7].neg_(),
    "other data": lambda m: setattr(m.fc.weight, "data", m.fc.weight.data.flip(0)),
    "weights by NumPy": lambda m: _write(m.fc.weight),
    "another bias": lambda m: m.fc.bias.data.copy_(torch.arange(5.0)),
    "another parameter": lambda m: setattr(m.fc, "weight", nn.Parameter(-m.fc.weight.detach())),
    "a parameter past torch": lambda m: m.fc._parameters.update(
        weight=nn.Parameter(-m.fc.weight.detach())
    ),
    "no bias": lambda m: setattr(m.fc, "bias", None),
    "a state": lambda m: _load(m, assign=False),
    "a state that is assigned": lambda m: _load(m, assign=True),
    "frozen": lambda m: m.requires_grad_(False),
    "a frozen head": lambda m: m.fc.requires_grad_(False),
    "float64": lambda m: m.double(),
    "bfloat16": lambda m: m.bfloat16(),
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
    "a buffer in place": lambda m: m.last[1].running_mean.add_(0.5),
    "a buffer by data": lambda m: m.stem[1].running_var.data.mul_(3),
    "another buffer": lambda m: setattr(m.stem[1], "running_mean", torch.full((8,), 0.4)),
    "tensors of inference mode": _under_inference,
    "another forward": lambda m: setattr(m.middle[0], "forward", MethodType(_reverse, m.middle[0])),
    "another forward of the model": lambda m: setattr(m, "forward", MethodType(_skip_norm, m)),
    "another class": lambda m: setattr(m.last[0], "__class__", _Circular),
    "an attribute": lambda m: setattr(m.last[1], "eps", 0.5),
    "another stride": lambda m: setattr(m.last[0], "stride", (1, 1)),
    "a parametrization": lambda m: parametrize.register_parametrization(
        m.middle[0], "weight", _Halved()
    ),
}
# what a block is not made to see (`camviz help speed`)
UNSEEN_IN_A_BLOCK = {"another stride", "another class"}


class _Circular(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(1, 3))


def _answer(model: nn.Module, **options: Any) -> dict[str, Tensor]:
    maps: dict[str, Tensor] = camcli.heatmaps(model, PICTURE, ["gradcam", "layercam"], **options)
    return maps


def _assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    for method, maps in expected.items():
        assert actual[method].shape == maps.shape
        most = float(maps.abs().max())
        torch.testing.assert_close(actual[method], maps, rtol=0, atol=share * most)


def _note_state(model: nn.Module) -> list[Any]:
    weights = [(id(p), p.requires_grad, id(p.grad)) for p in model.parameters()]
    modes = [(m.training, sorted(vars(m)), len(m._forward_hooks)) for m in model.modules()]
    return [weights, modes, [value.clone() for value in model.state_dict().values()]]


@pytest.mark.parametrize("layers", [None, "last", "middle"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_model_is_explained_as_it_is(name: str, layers: str | None) -> None:
    model = Straight().eval()
    before = _answer(model, target_layers=layers)
    torch.manual_seed(3)
    CHANGES[name](model)
    fresh, state = deepcopy(model), _note_state(model)
    actual = _answer(model, target_layers=layers)
    # numbers that a copy has at other addresses are summed up in another order
    _assert_same(actual, _answer(fresh, target_layers=layers), 1e-2 if name == "bfloat16" else 1e-5)
    assert _note_state(model)[:2] == state[:2]
    torch.testing.assert_close(_note_state(model)[2], state[2], rtol=0, atol=0)
    if name == "nothing":
        _assert_same(actual, before, 0)


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - UNSEEN_IN_A_BLOCK))
def test_a_model_that_is_changed_in_a_block_is_explained_as_it_is(name: str) -> None:
    model = Straight().eval()
    fresh = deepcopy(model)
    with camcli.packed(model):
        for _ in range(3):
            _answer(model, target_layers="last")
        torch.manual_seed(3)
        CHANGES[name](model)
        answers = [_answer(model, target_layers="last") for _ in range(3)]
    torch.manual_seed(3)
    CHANGES[name](fresh)
    expected = _answer(fresh, target_layers="last")
    for actual in answers:
        _assert_same(actual, expected, 1e-2 if name == "bfloat16" else 1e-3)


def test_each_change_but_the_harmless_ones_changes_the_map() -> None:
    """So that a stale answer would be seen."""
    harmless = {
        "nothing", "training mode", "frozen", "a frozen head", "float64", "bfloat16",
        "channels last", "another bias", "no bias", "training mode of a layer",
    }  # fmt: skip
    for name in CHANGES.keys() - harmless:
        model = Straight().eval()
        before = _answer(model, target_layers="last", target_category=1)
        torch.manual_seed(3)
        CHANGES[name](model)
        after = _answer(model, target_layers="last", target_category=1)
        changed = [
            before[m].shape != after[m].shape or not torch.allclose(before[m], after[m], rtol=1e-3)
            for m in before
        ]
        assert any(changed), name
