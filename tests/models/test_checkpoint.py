import argparse
import collections
import os
import pathlib
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from camcli.errors import CheckpointError
from camcli.models.checkpoint import fitted, load_into, num_classes, read_checkpoint

State = dict[str, Tensor]


class Tiny(nn.Module):
    """Has the names of a ResNet: a stem, a stage whose names end like the stem's, a classifier."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(
            collections.OrderedDict(conv1=nn.Conv2d(4, 4, 3), bn1=nn.BatchNorm2d(4))
        )
        self.fc = nn.Linear(4, classes)


def state(seed: int = 0, classes: int = 5) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.tensor(7)
        for name, tensor in Tiny(classes).state_dict().items()
    }


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def saved(folder: Path, content: Any, name: str = "a.pth", **how: Any) -> Path:
    torch.save(content, folder / name, **how)
    return folder / name


def loaded(file: Path, model: nn.Module, *, strict: bool = True) -> tuple[str, ...]:
    return load_into(model, fitted(read_checkpoint(file), model), model="tiny", strict=strict)


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.ckpt", "a.pth.tar", "a"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read(tmp_path: Path, name: str, zipped: bool) -> None:
    file = saved(tmp_path, state(), name, _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(file).weights, state())


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    save_file(state(), tmp_path / name)
    assert same(read_checkpoint(tmp_path / name).weights, state())


@pytest.mark.parametrize("length", [0x3C20, 0x10480])
def test_safetensors_may_begin_like_another_kind_of_file(tmp_path: Path, length: int) -> None:
    # a file begins with the length of its header: these are read as " <" and as a pickle's start
    file = tmp_path / "a.safetensors"
    save_file(state(), file, metadata={"": ""})
    shorter = int.from_bytes(file.read_bytes()[:8], "little")
    save_file(state(), file, metadata={"": "x" * (length - shorter)})
    assert file.read_bytes()[:8] == length.to_bytes(8, "little")
    assert same(read_checkpoint(file).weights, state())


@pytest.mark.parametrize(
    ("nest", "note"),
    [
        (lambda s: {"state_dict": s}, "state_dict"),
        (lambda s: {"model": s, "epoch": 3}, "model"),
        (lambda s: {"model_state_dict": s, "loss": torch.tensor(1.0)}, "model_state_dict"),
        (lambda s: {"model": {"state_dict": s}}, "model.state_dict"),
        (lambda s: {"module": s}, "module"),
        (lambda s: {"net": s}, "net"),
        (lambda s: {"state_dict": state(1), "state_dict_ema": s}, "state_dict_ema"),
        (lambda s: {"model": state(1), "model_ema": s}, "model_ema"),
        (lambda s: {"state_dict": s, "state_dict_ema": None}, "state_dict"),
        # mmengine swaps the two when it saves: its state_dict is the average
        (lambda s: {"state_dict": s, "ema_state_dict": state(1)}, "state_dict"),
        (lambda s: {**s, "epoch": 3, "note": "x"}, ""),
    ],
)
def test_weights_are_found_where_training_scripts_put_them(
    tmp_path: Path, nest: Callable[[State], Any], note: str
) -> None:
    checkpoint = read_checkpoint(saved(tmp_path, nest(state())))
    assert same(checkpoint.weights, state())
    assert checkpoint.note == note


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "backbone.", "net.", "module._orig_mod.", "a.b.c."],
)
def test_the_prefixes_of_wrappers_are_stripped(tmp_path: Path, prefix: str) -> None:
    model = Tiny()
    file = saved(tmp_path, {prefix + name: tensor for name, tensor in state().items()})
    assert loaded(file, model) == ()
    assert same(model.state_dict(), state())


@pytest.mark.parametrize("outer", ["", "module."])
def test_an_openmmlab_trunk_and_its_head_are_put_together(tmp_path: Path, outer: str) -> None:
    content = {
        outer + ("head." if name.startswith("fc.") else "backbone.") + name: tensor
        for name, tensor in state().items()
    }
    content["data_preprocessor.mean"] = torch.zeros(3)
    model = Tiny()
    (note,) = loaded(saved(tmp_path, {"state_dict": content}), model)
    assert same(model.state_dict(), state())
    assert "left aside data_preprocessor.mean" in note


def test_a_model_whose_own_names_have_a_prefix_keeps_it(tmp_path: Path) -> None:
    model = nn.ModuleDict({"backbone": Tiny()})
    content = {f"module.backbone.{name}": tensor for name, tensor in state().items()}
    assert loaded(saved(tmp_path, content), model) == ()
    assert same(model["backbone"].state_dict(), state())


def test_a_stage_never_stands_in_for_a_missing_stem(tmp_path: Path) -> None:
    content = {f"model.{k}": v for k, v in state().items() if not k.startswith("conv1.")}
    with pytest.raises(CheckpointError, match=r"missing: conv1\.weight, conv1\.bias"):
        loaded(saved(tmp_path, content), Tiny())


def test_the_number_of_classes_is_read_off_the_classifier(tmp_path: Path) -> None:
    content = {f"module.{k}": v for k, v in state(classes=9).items()}
    found = fitted(read_checkpoint(saved(tmp_path, content)), Tiny())
    assert num_classes(found.weights, ("head", "fc")) == 9
    assert num_classes(found.weights, ("head",)) is None


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    content = state(classes=9) | {"extra.weight": torch.zeros(1)}
    del content["bn1.bias"], content["bn1.num_batches_tracked"]
    file = saved(tmp_path, content)
    with pytest.raises(CheckpointError) as caught:
        loaded(file, Tiny())
    text = str(caught.value)
    assert "'tiny'" in text
    assert "missing: bn1.bias\n" in text
    assert "unexpected: extra.weight\n" in text
    assert "fc.weight [9, 4] where the model has [5, 4]" in text
    assert "--no-strict" in text
    assert "another architecture" not in text


def test_without_strict_what_fits_is_loaded_and_the_rest_is_said(tmp_path: Path) -> None:
    model = Tiny()
    before = model.fc.weight.clone()
    notes = loaded(saved(tmp_path, state(classes=9)), model, strict=False)
    assert torch.equal(model.conv1.weight, state()["conv1.weight"])
    assert torch.equal(model.fc.weight, before)
    assert any("fc.weight" in note for note in notes)


def test_long_lists_of_names_end_in_a_count(tmp_path: Path) -> None:
    content = {k: v for k, v in state().items() if k.startswith("fc.")}
    with pytest.raises(CheckpointError, match="and 7 more"):
        loaded(saved(tmp_path, content), Tiny())


@pytest.mark.parametrize("strict", [True, False])
def test_another_architecture_is_called_so(tmp_path: Path, strict: bool) -> None:
    file = saved(tmp_path, {"arch": "vit_x", "state_dict": {"blocks.0.w": torch.zeros(2)}})
    told = r"(?s)another architecture .*'vit_x'.* 0 of the 16.*with --model\.$"
    with pytest.raises(CheckpointError, match=told):
        loaded(file, Tiny(), strict=strict)


def test_a_converter_is_asked_only_where_it_helps(tmp_path: Path) -> None:
    def renamed(weights: State, module: nn.Module) -> State:
        assert isinstance(module, Tiny)
        return {name.replace("stem", "conv1"): tensor for name, tensor in weights.items()}

    def broken(*_: object) -> State:
        raise KeyError("head")

    other = {name.replace("conv1", "stem"): tensor for name, tensor in state().items()}
    converted = fitted(read_checkpoint(saved(tmp_path, other)), Tiny(), renamed)
    assert same(converted.weights, state())
    plain = read_checkpoint(saved(tmp_path, state(), "b.pth"))
    assert same(fitted(plain, Tiny(), broken).weights, state())
    assert same(fitted(read_checkpoint(tmp_path / "a.pth"), Tiny(), broken).weights, other)


@pytest.mark.parametrize(
    "beside",
    [
        {"arch": "resnet18"},
        {"args": argparse.Namespace(model="resnet18", out=pathlib.PurePosixPath("a"))},
        {"args": {"arch": "resnet18"}},
    ],
)
def test_the_architecture_is_read_where_the_file_names_it(
    tmp_path: Path, beside: dict[str, Any]
) -> None:
    file = saved(tmp_path, {"state_dict": state(), **beside})
    assert read_checkpoint(file).arch == "resnet18"


def foreign(monkeypatch: pytest.MonkeyPatch, module: str, name: str, base: type = object) -> type:
    """Makes a class that pickles as another package's, until the patch is undone."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    made = type(name, (base,), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


def test_what_training_scripts_leave_beside_the_weights_is_inert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: dict[str, Any] = {
        "args": argparse.Namespace(lr=0.1),
        "folder": pathlib.Path("runs"),
        "best": np.float64(0.5),
        "history": np.arange(3),
        "strings": np.array(["a", None], dtype=object),
        "counts": collections.defaultdict(list, {"a": [1]}),
        "queue": collections.deque([1, 2], maxlen=3),
        "version": torch.torch_version.TorchVersion("2.0"),
    }
    with monkeypatch.context() as patch:
        buffer = foreign(patch, "mmengine.logging.history_buffer", "HistoryBuffer")()
        buffer.__dict__.update(_log_history=np.zeros(2))
        beside["message_hub"] = {"log_scalars": {"train/loss": buffer}}
        config = foreign(patch, "mmengine.config.config", "ConfigDict", dict)(a=1)
        beside["cfg"] = config
        node = foreign(patch, "yacs.config", "CfgNode", dict)({"LR": 0.1})
        node.__dict__["__immutable__"] = True
        beside["yacs"] = node
        listed = foreign(patch, "omegaconf.listconfig", "ListConfig")()
        listed.__dict__.update(_content=[1, 2], _type=Any)
        beside["omega"] = listed
        file = saved(tmp_path, {"state_dict": state(), **beside})
    assert same(read_checkpoint(file).weights, state())


def test_a_reference_to_a_method_is_inert_too(tmp_path: Path) -> None:
    class Statistic:
        def __reduce__(self) -> Any:
            return getattr, (argparse.Namespace, "mean")

    file = saved(tmp_path, {"state_dict": state(), "statistic": Statistic()})
    assert same(read_checkpoint(file).weights, state())


class Runs:
    """A pickle that would write a file when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


class Reached:
    """A pickle that would reach a function by getattr, and call it."""

    def __call__(self) -> None: ...

    def __reduce__(self) -> Any:
        return getattr, (argparse.Namespace, "mro")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "eval"), (pickle.loads, "loads"), (os.remove, "remove")],
)
def test_code_in_a_checkpoint_never_runs(
    tmp_path: Path, function: Callable[..., Any], name: str, zipped: bool
) -> None:
    marker = tmp_path / "ran"
    argument = f"open({str(marker)!r}, 'w')" if function is eval else f"touch {marker}"
    content = {"state_dict": state(), "x": Runs(function, argument)}
    file = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"{name}'.* never run"):
        read_checkpoint(file)
    assert not marker.exists()


def test_what_getattr_reaches_cannot_be_called(tmp_path: Path) -> None:
    file = saved(tmp_path, {"state_dict": state(), "x": Runs(Reached())})
    with pytest.raises(CheckpointError):
        read_checkpoint(file)


def test_a_whole_model_is_refused_with_the_way_to_save_its_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Linear.*model\.state_dict\(\)"):
        read_checkpoint(saved(tmp_path, nn.Linear(2, 2)))


def test_the_stand_ins_are_gone_afterwards(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(saved(tmp_path, state()))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a checkpoint", r"no checkpoint at all\. camviz reads"),
        (b"hello world", r"no checkpoint at all\. camviz reads"),
        (b"\x80\x02}q\x00.", "no checkpoint at all"),
        (b"<!doctype html><title>Sign in</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken", "damaged"),
        (pickle.dumps({"a": 1}, protocol=4), "a Python pickle.*never run"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(file)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, zipped: bool, share: float) -> None:
    file = saved(tmp_path, state(), _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(file)


def test_files_that_are_not_there_or_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint '.*gone\.pth'"):
        read_checkpoint(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match="local-dir:"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2), "holds a tensor"),
        ([torch.zeros(2)], "holds a list"),
        ({}, "no weights, only nothing"),
        ({"epoch": 3, "optimizer": {"state": {}}}, "no weights, only 'epoch', 'optimizer'"),
    ],
)
def test_content_without_weights(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved(tmp_path, content))


def test_a_torchscript_program_is_called_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(tmp_path / "a.pt")
