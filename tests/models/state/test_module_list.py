"""A model's modules are looked through once for all that a call does, and anew in the next one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.models.state import ModelParts, model_lock, module_list
from camcli.models.state.model_lock import call_on_model, lock_model, locks_model
from camcli.models.state.module_list import keep_notes, list_modules, note_once
from tests.networks import Staged, noise


def test_it_lists_each_module_once() -> None:
    shared = nn.ReLU()
    model = nn.Sequential(shared, nn.Sequential(shared, nn.Tanh()))
    model.register_module("none", None)
    assert set(list_modules(model)) == set(model.modules())
    assert len(list_modules(model)) == 4


def test_in_a_call_it_is_asked_once() -> None:
    model = nn.Sequential(nn.ReLU())
    with call_on_model(model):
        first = list_modules(model)
        assert list_modules(model) is first
        with keep_notes(model):
            assert list_modules(model) is first
    assert list_modules(model) is not first


def test_between_two_calls_parts_may_be_swapped() -> None:
    model = nn.Sequential(nn.ReLU())
    listed: list[list[nn.Module]] = []
    note = locks_model(lambda module: listed.append(list_modules(module)))
    # the user's own lock is no call
    with lock_model(model):
        note(model)
        model[0] = nn.Tanh()
        note(model)
        with call_on_model(model):
            listed.append(list_modules(model))
    assert [type(layers[1]) for layers in listed] == [nn.ReLU, nn.Tanh, nn.Tanh]


def test_a_call_in_another_models_call_begins_anew() -> None:
    outer, inner = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())
    with call_on_model(outer):
        for kind in (nn.Tanh, nn.ELU):
            inner[0] = kind()
            with call_on_model(inner):
                assert type(list_modules(inner)[1]) is kind
            with keep_notes(inner):
                assert type(list_modules(inner)[1]) is kind
        assert type(list_modules(outer)[1]) is nn.ReLU


def test_an_error_is_not_noted() -> None:
    model, asked = nn.ReLU(), []

    def fail(module: nn.Module) -> None:
        asked.append(module)
        raise ValueError("asked")

    with keep_notes(model):
        for _ in range(2):
            with pytest.raises(ValueError, match="asked"):
                note_once(fail, model)
    assert asked == [model, model]


def test_a_call_walks_over_a_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, walked = Staged(), []
    walk = module_list.look_through

    def note(module: nn.Module) -> ModelParts:
        walked.append(module)
        return walk(module)

    camcli.heatmaps(model, noise())
    for room in (module_list, model_lock):
        monkeypatch.setattr(room, "look_through", note)
    camcli.heatmaps(model, noise())
    assert walked == [model]


def test_a_swapped_head_is_explained_at_the_next_call() -> None:
    model, inputs = Staged().eval(), noise()
    camcli.heatmaps(model, inputs, targets=1)
    model.fc = nn.Linear(16, 2)
    with torch.no_grad():
        model.fc.weight.copy_(-torch.ones(2, 16))
    expected: Tensor = camcli.heatmaps(model, inputs, "gradcam", target_layers="last", targets=1)
    other = Staged().eval()
    other.fc = model.fc
    actual = camcli.heatmaps(other, inputs, "gradcam", target_layers="last", targets=1)
    torch.testing.assert_close(expected, actual)
