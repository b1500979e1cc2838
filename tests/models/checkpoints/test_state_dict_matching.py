"""Weights find their place in a model, and what does not fit is named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from camcli.errors import CheckpointError
from camcli.models.checkpoints.checkpoint import read_checkpoint
from camcli.models.checkpoints.classes_and_channels import read_num_classes
from camcli.models.checkpoints.state_dict_matching import fit_checkpoint
from tests.models.tiny import State, Tiny, load_state, same, save_state, state


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "backbone.", "net.", "module._orig_mod.", "a.b.c."],
)
def test_the_prefixes_of_wrappers_are_stripped(tmp_path: Path, prefix: str) -> None:
    model = Tiny()
    file = save_state(tmp_path, {prefix + name: tensor for name, tensor in state().items()})
    assert load_state(file, model) == ()
    assert same(model.state_dict(), state())


def test_a_line_end_in_a_name_stays_in_the_messages_line(tmp_path: Path) -> None:
    file = save_state(tmp_path, {**state(), "a\nb\x1b[31m": torch.zeros(1)})
    with pytest.raises(CheckpointError) as raised:
        load_state(file, Tiny())
    assert "\n  unexpected: a\\nb\\x1b[31m\n" in str(raised.value)


@pytest.mark.parametrize("outer", ["", "module."])
def test_an_openmmlab_backbone_and_its_head_are_put_together(tmp_path: Path, outer: str) -> None:
    content = {
        outer + ("head." if name.startswith("fc.") else "backbone.") + name: tensor
        for name, tensor in state().items()
    }
    content["data_preprocessor.mean"] = torch.zeros(3)
    model = Tiny()
    (note,) = load_state(save_state(tmp_path, {"state_dict": content}), model)
    assert same(model.state_dict(), state())
    assert "left aside data_preprocessor.mean" in note


def test_a_model_whose_own_names_have_a_prefix_keeps_it(tmp_path: Path) -> None:
    model = nn.ModuleDict({"backbone": Tiny()})
    content = {f"module.backbone.{name}": tensor for name, tensor in state().items()}
    assert load_state(save_state(tmp_path, content), model) == ()
    assert same(model["backbone"].state_dict(), state())


def test_a_stage_never_stands_in_for_a_missing_stem(tmp_path: Path) -> None:
    content = {f"model.{k}": v for k, v in state().items() if not k.startswith("conv1.")}
    with pytest.raises(CheckpointError, match=r"missing: conv1\.weight, conv1\.bias"):
        load_state(save_state(tmp_path, content), Tiny())


def test_the_number_of_classes_is_read_off_the_classifier(tmp_path: Path) -> None:
    content = {f"module.{k}": v for k, v in state(classes=9).items()}
    actual = fit_checkpoint(read_checkpoint(save_state(tmp_path, content)), Tiny())
    assert read_num_classes(actual.weights, ("head", "fc")) == 9
    assert read_num_classes(actual.weights, ("head",)) is None


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    content = state(classes=9) | {"extra.weight": torch.zeros(1)}
    del content["bn1.bias"], content["bn1.num_batches_tracked"]
    file = save_state(tmp_path, content)
    with pytest.raises(CheckpointError) as caught:
        load_state(file, Tiny())
    text = str(caught.value)
    assert "'tiny'" in text
    assert "missing: bn1.bias\n" in text
    assert "unexpected: extra.weight\n" in text
    assert "fc.weight [9, 4] where the model has [5, 4]" in text
    assert "It has 9 classes" in text
    assert "--no-strict" not in text
    assert "another architecture" not in text


def test_without_strict_what_fits_is_loaded_and_the_rest_is_said(tmp_path: Path) -> None:
    model = Tiny()
    before = model.fc.weight.clone()
    notes = load_state(save_state(tmp_path, state(classes=9)), model, strict=False)
    assert torch.equal(model.conv1.weight, state()["conv1.weight"])
    assert torch.equal(model.fc.weight, before)
    assert any("fc.weight" in note for note in notes)


def test_long_lists_of_names_end_in_a_count(tmp_path: Path) -> None:
    content = {k: v for k, v in state().items() if k.startswith("fc.")}
    with pytest.raises(CheckpointError, match="and 7 more"):
        load_state(save_state(tmp_path, content), Tiny())


@pytest.mark.parametrize("strict", [True, False])
def test_another_architecture_is_called_so(tmp_path: Path, strict: bool) -> None:
    file = save_state(tmp_path, {"arch": "vit_x", "state_dict": {"blocks.0.w": torch.zeros(2)}})
    message = r"(?s)another architecture .*'vit_x'.* 0 of the 16.*--model FILE\.py:FUNCTION\.$"
    with pytest.raises(CheckpointError, match=message):
        load_state(file, Tiny(), strict=strict)


def test_a_converter_is_asked_only_where_it_helps(tmp_path: Path) -> None:
    def rename_keys(weights: State, module: nn.Module) -> State:
        assert isinstance(module, Tiny)
        return {name.replace("stem", "conv1"): tensor for name, tensor in weights.items()}

    def broken(*_: object) -> State:
        raise KeyError("head")

    other = {name.replace("conv1", "stem"): tensor for name, tensor in state().items()}
    converted = fit_checkpoint(read_checkpoint(save_state(tmp_path, other)), Tiny(), rename_keys)
    assert same(converted.weights, state())
    plain = read_checkpoint(save_state(tmp_path, state(), "b.pth"))
    assert same(fit_checkpoint(plain, Tiny(), broken).weights, state())
    assert same(fit_checkpoint(read_checkpoint(tmp_path / "a.pth"), Tiny(), broken).weights, other)
