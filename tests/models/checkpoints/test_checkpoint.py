import argparse
import collections
import os
import pathlib
import pickle
import re
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from camcli.errors import CheckpointError
from camcli.models.checkpoints.checkpoint import read_checkpoint
from tests.models.tiny import State, same, save_state, state


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.ckpt", "a.pth.tar", "a"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read(tmp_path: Path, name: str, zipped: bool) -> None:
    file = save_state(tmp_path, state(), name, _use_new_zipfile_serialization=zipped)
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
    checkpoint = read_checkpoint(save_state(tmp_path, nest(state())))
    assert same(checkpoint.weights, state())
    assert checkpoint.note == note


@pytest.mark.parametrize(
    "neighbour",
    [
        {"arch": "resnet18"},
        {"args": argparse.Namespace(model="resnet18", out=pathlib.PurePosixPath("a"))},
        {"args": {"arch": "resnet18"}},
    ],
)
def test_the_architecture_is_read_where_the_file_names_it(
    tmp_path: Path, neighbour: dict[str, Any]
) -> None:
    file = save_state(tmp_path, {"state_dict": state(), **neighbour})
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
    neighbour: dict[str, Any] = {
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
        neighbour["message_hub"] = {"log_scalars": {"train/loss": buffer}}
        config = foreign(patch, "mmengine.config.config", "ConfigDict", dict)(a=1)
        neighbour["cfg"] = config
        node = foreign(patch, "yacs.config", "CfgNode", dict)({"LR": 0.1})
        node.__dict__["__immutable__"] = True
        neighbour["yacs"] = node
        listed = foreign(patch, "omegaconf.listconfig", "ListConfig")()
        listed.__dict__.update(_content=[1, 2], _type=Any)
        neighbour["omega"] = listed
        file = save_state(tmp_path, {"state_dict": state(), **neighbour})
    assert same(read_checkpoint(file).weights, state())


def test_a_reference_to_a_method_is_inert_too(tmp_path: Path) -> None:
    class MethodAsGetattr:
        def __reduce__(self) -> Any:
            return getattr, (argparse.Namespace, "mean")

    file = save_state(tmp_path, {"state_dict": state(), "statistic": MethodAsGetattr()})
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
    file = save_state(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"{name}'.* never run"):
        read_checkpoint(file)
    assert not marker.exists()


def test_what_getattr_reaches_cannot_be_called(tmp_path: Path) -> None:
    file = save_state(tmp_path, {"state_dict": state(), "x": Runs(Reached())})
    with pytest.raises(CheckpointError):
        read_checkpoint(file)


def test_a_whole_model_is_refused_with_the_way_to_save_its_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Linear.*model\.state_dict\(\)"):
        read_checkpoint(save_state(tmp_path, nn.Linear(2, 2)))


def test_the_stand_ins_are_gone_afterwards(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(save_state(tmp_path, state()))
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
    file = save_state(tmp_path, state(), _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(file)


def test_files_that_are_not_there_or_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no checkpoint '.*gone\.pth'"):
        read_checkpoint(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match=r"a folder with none of model\.safetensors, "):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2), "holds a tensor"),
        ([torch.zeros(2)], "holds a list"),
        ({}, "holds no weights\\. Save"),
        ({"epoch": 3, "optimizer": {"state": {}}}, "no weights, only 'epoch', 'optimizer'"),
    ],
)
def test_content_without_weights(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save_state(tmp_path, content))


def test_a_torchscript_program_is_called_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(tmp_path / "a.pt")


def pack(folder: Path, pickled: bytes, more: dict[str, bytes] | None = None, **how: Any) -> Path:
    """Makes an archive as torch.save does, of any bytes."""
    with zipfile.ZipFile(folder / "a.pth", "w", **how) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3\n")
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return folder / "a.pth"


# opcodes of protocol 2, as `pickletools.dis` shows them
ATTACKS = {
    "global and reduce": b"\x80\x02cos\nsystem\nX\x09\0\0\0touch RAN\x85R.",
    "inst": b"\x80\x02(X\x09\0\0\0touch RANios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\nX\x09\0\0\0touch RANo.",
    "newobj": b"\x80\x02csubprocess\nPopen\nX\x09\0\0\0touch RAN\x85\x81.",
    "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch RAN\x85R.",
    "extension registry": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02X\x09\0\0\0touch RANQ.",
    "getattr of a module": b"\x80\x02cbuiltins\ngetattr\ncos\npath\nX\x02\0\0\0os\x86R.",
    "a name with dots": b"\x80\x02ctorch\nserialization.os.system\nX\x09\0\0\0touch RAN\x85R.",
    "import": b"\x80\x02cbuiltins\n__import__\nX\x02\0\0\0os\x85R.",
    "hub": b"\x80\x02ctorch.hub\nload\nX\x03\0\0\0a/bX\x01\0\0\0c\x86R.",
    "torch's own loader": b"\x80\x02ctorch\nload\nX\x01\0\0\0a\x85R.",
    "setstate of a module": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}b.",
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_no_opcode_runs_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.pth"
    if kind == "zip":
        pack(tmp_path, ATTACKS[attack])
    elif kind == "legacy":
        whole = save_state(tmp_path, {}, _use_new_zipfile_serialization=False).read_bytes()
        file.write_bytes(whole.replace(b"\x80\x02}q\x00.", ATTACKS[attack]))
        assert ATTACKS[attack] in file.read_bytes()
    else:
        file.write_bytes(ATTACKS[attack])
    with pytest.raises(CheckpointError):
        read_checkpoint(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_no_path_in_an_archive_leaves_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ("../../evil", "../evil", str(tmp_path / "evil"), "a/data/../../../evil")
    file = pack(inside, pickle.dumps({}, protocol=2), dict.fromkeys(names, b"x"))
    with pytest.raises(CheckpointError):
        read_checkpoint(file)
    with tarfile.open(inside / "b.pth", "w") as archive:
        for name in ("storages", "tensors", "pickle", *names):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(CheckpointError):
        read_checkpoint(inside / "b.pth")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.pth", "b.pth", "inside"]


@pytest.mark.parametrize(
    ("pickled", "more"),
    [(bytes(2**24), {}), (pickle.dumps({}, protocol=2), {"a/data/0": bytes(2**24)})],
)
def test_an_archive_that_would_fill_the_memory_is_refused(
    tmp_path: Path, pickled: bytes, more: dict[str, bytes]
) -> None:
    file = pack(tmp_path, pickled, more, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"bytes and unpacks to 16,777"):
        read_checkpoint(file)


def test_an_archive_that_somebody_packed_again_is_read(tmp_path: Path) -> None:
    file = save_state(tmp_path, state())
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert same(read_checkpoint(file).weights, state())


class Reduced:
    """Pickles as what it is told."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def test_a_dictionary_whose_methods_were_replaced_is_read_all_the_same(tmp_path: Path) -> None:
    other = dict.fromkeys(("get", "items", "keys", "values", "__iter__", "__class__"), 1)
    weights = Reduced(collections.OrderedDict, (list(state().items()),), other)
    args = Reduced(collections.OrderedDict, ([("model", "resnet18"), ("crop_pct", 1)],), other)
    for content in (weights, {"state_dict": weights, "args": args}):
        checkpoint = read_checkpoint(save_state(tmp_path, content))
        assert same(checkpoint.weights, state())
    assert checkpoint.arch == "resnet18"


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.zeros(3, device="meta"), "a shape without numbers"),
        (torch.eye(3).to_sparse(), "a sparse tensor"),
        (torch.zeros(3, dtype=torch.complex64), "numbers of type torch.complex64"),
    ],
)
def test_weights_that_no_model_can_hold(tmp_path: Path, weight: torch.Tensor, words: str) -> None:
    with pytest.raises(CheckpointError, match=f"holds 'w' as {words}"):
        read_checkpoint(save_state(tmp_path, {"w": weight}))


def test_deep_nesting_ends(tmp_path: Path) -> None:
    content: Any = state()
    for _ in range(100):
        content = {"state_dict": content}
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(save_state(tmp_path, content))
    lists = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(pack(tmp_path, lists))
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert read_checkpoint(save_state(tmp_path, state())).arch is None
    (tmp_path / "a.index.json").write_text('{"weight_map": ' + "[" * 100_000)
    with pytest.raises(CheckpointError, match="no index"):
        read_checkpoint(tmp_path / "a.index.json")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..", ".", "/etc/passwd", "a\\u0000b", "\\ud800", "x" * 300, "pipe"],
)
def test_an_index_names_files_beside_it_alone(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / "model.safetensors.index.json"
    file.write_text(f'{{"weight_map": {{"w": "{name}"}}}}')
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))) as caught:
        read_checkpoint(file)
    assert "'/etc/passwd'" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":1}',
        b'{"w":' + b"[" * 10_000,
        b'{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}',
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
        b'{"w":{"dtype":"PY","shape":[2],"data_offsets":[0,8]}}',
    ],
)
@pytest.mark.parametrize("length", [None, 2**62, 10**8, 2])
def test_hostile_headers_of_safetensors(tmp_path: Path, header: bytes, length: int | None) -> None:
    message = len(header) if length is None else length
    file = tmp_path / "a.safetensors"
    file.write_bytes(message.to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError):
        read_checkpoint(file)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path / "pipe.pth", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="it is no ordinary file"):
            read_checkpoint(path)
    with pytest.raises(CheckpointError, match="File name too long"):
        read_checkpoint(tmp_path / ("x" * 300))
