"""Small files that ask for much memory: refused before it is taken, with what was given."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import camcli
from camcli.errors import CamvizError, CheckpointError, ModelError
from camcli.models import memory_bound
from camcli.models.checkpoints import pickle_survey
from camcli.models.checkpoints.checkpoint import read_checkpoint

MEGA = 2**20
MANY = 10_000_000


class ReducedCall:
    """Pickles as a call."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class Storage:
    """Pickles as numbers of a file: how many there are to be, and of which kind."""

    def __init__(self, count: int, kind: Any = torch.FloatStorage, key: str = "0") -> None:
        self.pid = ("storage", kind, key, "cpu", count)


class Pickler(pickle._Pickler):
    """Torch's protocol: storages stand outside of the pickle."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


def archive(folder: Path, content: Any, stored: bytes = bytes(4)) -> Path:
    """Writes an archive as torch.save does, of whatever is claimed."""
    pickled = content
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        Pickler(buffer, 2).dump(content)
        pickled = buffer.getvalue()
    with zipfile.ZipFile(folder / "a.pth", "w") as file:
        file.writestr("a/data.pkl", pickled)
        file.writestr("a/byteorder", "little")
        file.writestr("a/version", "3\n")
        file.writestr("a/data/0", stored)
    return folder / "a.pth"


def tensor(storage: Storage, shape: tuple[int, ...], stride: tuple[int, ...]) -> ReducedCall:
    arguments = (storage, 0, shape, stride, False, OrderedDict())
    return ReducedCall(torch._utils._rebuild_tensor_v2, arguments)


def make_call(name: bytes, opcode: bytes) -> bytes:
    """Pickles {"w": name(10**8)}."""
    return b"\x80\x02}X\1\0\0\0wc" + name + b"\nJ\x00\xe1\xf5\x05\x85" + opcode + b"s."


HEAD = {"fc.weight": tensor(Storage(1), (MANY, 2048), (0, 0))}
REPEATED = [ReducedCall(list, (shared,)) for shared in [list(range(1000))] for _ in range(500)]
CLAIMS = {
    "a head of one number": (HEAD, r"tensor of shape \[10000000, 2048\] is made of 1 stored"),
    "a shape beyond the storage": (
        {"w": tensor(Storage(1), (MANY * 10,), (1,))},
        r"tensor of shape \[100000000\] is made of 1 stored",
    ),
    "a storage beyond the file's": (
        {"w": tensor(Storage(2), (2,), (1,))},
        "storage '0' takes 8, of which it has 4",
    ),
    "a storage that is not there": (
        {"w": tensor(Storage(1, key="1"), (1,), (1,))},
        "storage '1' takes 4, of which it has 0",
    ),
    "a storage of less than nothing": (
        {"w": tensor(Storage(-2), (2,), (1,))},
        "storage '0' takes -8",
    ),
    "bytes": ({"w": ReducedCall(bytearray, (MANY,))}, "calls .*bytearray"),
    "a tensor of a size": (make_call(b"torch\nTensor", b"R"), r"calls torch\.Tensor"),
    "a tensor of a size, as an object": (
        make_call(b"torch\nFloatTensor", b"\x81"),
        r"calls torch\.FloatTensor",
    ),
    "a storage of a size": (
        make_call(b"torch.storage\nUntypedStorage", b"R"),
        r"calls torch\.storage\.UntypedStorage",
    ),
    "a call inside a call": (
        {
            "w": ReducedCall(
                torch._tensor._rebuild_from_type_v2,
                (torch.FloatTensor, torch.Tensor, (MANY,), {}),
            )
        },
        r"calls torch\.FloatTensor",
    ),
    "copies": ({"w": REPEATED}, "copies the same content again and again"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_small_file_that_asks_for_much_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    content, words = CLAIMS[claim]
    file = archive(tmp_path, content)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(file)
    assert f"{file.stat().st_size:,} bytes" in str(caught.value)
    assert "Save the weights anew with torch.save(" in str(caught.value)


def test_so_is_one_of_the_old_format(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    torch.save({"w": torch.ones(1).expand(1000)}, file, _use_new_zipfile_serialization=False)
    assert read_checkpoint(file).weights["w"].shape == (1000,)
    content = file.read_bytes()
    # BININT2 1000, where the shape stands
    assert content.count(b"M\xe8\x03") == 1
    file.write_bytes(content.replace(b"M\xe8\x03", b"J\x00\xe1\xf5\x05"))
    with pytest.raises(CheckpointError, match=r"shape \[100000000\] is made of 1 stored"):
        read_checkpoint(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_people_save_is_read(tmp_path: Path, zipped: bool) -> None:
    shared = torch.randn(4, 5)
    tagged = nn.Parameter(torch.randn(3))
    tagged.tag = "kept beside the numbers"  # type: ignore[attr-defined]
    saved: dict[str, Any] = {
        "tied.0": shared,
        "tied.1": shared.t(),
        "part": shared[1:3],
        "positions": torch.arange(100).expand(1, -1),
        "mask": torch.ones(1, 1, 1).expand(3, 224, 224),
        "half": torch.randn(4).bfloat16(),
        # torch cannot read these in its old format
        **({"eight": torch.randn(4).to(torch.float8_e4m3fn)} if zipped else {}),
        "none": torch.empty(0, 5),
        "parameter": tagged,
    }
    neighbour = {"bytes": bytearray(b"abc" * 100), "text": "a" * 1000, "epochs": list(range(1000))}
    torch.save(
        {"state_dict": saved, **neighbour, "optimizer": {"state": [torch.ones(2)]}},
        tmp_path / "a.pth",
        _use_new_zipfile_serialization=zipped,
    )
    weights = read_checkpoint(tmp_path / "a.pth").weights
    assert weights.keys() == saved.keys()
    assert all(torch.equal(weights[name].float(), saved[name].float()) for name in saved)


def test_repeated_numbers_are_counted_over_all_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_survey, "MOST_REPEATED", 1000)
    weights = {name: torch.ones(1).expand(400) for name in "abc"}
    torch.save({"a": weights["a"], "b": weights["b"]}, tmp_path / "a.pth")
    assert len(read_checkpoint(tmp_path / "a.pth").weights) == 2
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"shape \[400\]"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("survives", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\0\0\0"])
def test_the_survey_asks_no_registry_of_code(tmp_path: Path, survives: bytes) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(archive(tmp_path, b"\x80\x02" + survives + b"."))


def test_a_safetensors_file_holds_what_its_header_says(tmp_path: Path) -> None:
    header = json.dumps(
        {"fc.weight": {"dtype": "F32", "shape": [MANY, 2048], "data_offsets": [0, 4]}}
    ).encode()
    file = tmp_path / "a.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(file)


# --- what a model asks for ---


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leaves so many bytes to models."""
    return lambda size: monkeypatch.setattr(memory_bound, "measure_free_memory", lambda: size)


def load(name: str, **options: Any) -> camcli.Classifier:
    return camcli.load_model(name, device="cpu", **{"pretrained": False, **options})


@pytest.mark.parametrize(
    ("name", "options", "given"),
    [
        ("timm/test_resnet", {"num_classes": MANY}, "num_classes=10000000"),
        ("torchvision/squeezenet1_1", {"num_classes": MANY}, "num_classes=10000000"),
        ("embedded", {"num_classes": MANY}, "num_classes=10000000"),
        ("timm/test_resnet", {"model_kwargs": {"in_chans": 900_000}}, "in_chans=900000"),
        ("torchvision/squeezenet1_1", {"model_kwargs": {"in_chans": 900_000}}, "in_chans=900000"),
        ("timm/test_vit", {"model_kwargs": {"embed_dim": 2**18}}, "embed_dim=262144"),
        ("timm/test_vit", {"model_kwargs": {"mlp_ratio": 1e9}}, "mlp_ratio=1000000000.0"),
        ("timm/test_vit", {"img_size": 32_000}, r"img_size=\(32000, 32000\)"),
    ],
)
def test_a_model_that_asks_for_more_than_there_is(
    name: str, options: dict[str, Any], given: str, little: Callable[[int], None]
) -> None:
    little(100 * MEGA)
    words = rf"{given} asks for [\d,.]+ GB of memory or more, and 0\.1 GB can be given here\. Take"
    with pytest.raises(ModelError, match=words):
        load(name, **options)


def test_what_fits_is_built(little: Callable[[int], None]) -> None:
    little(100 * MEGA)
    assert load("timm/test_resnet", num_classes=7).num_classes == 7
    assert load("timm/test_vit", img_size=192, model_kwargs={"depth": 2}).num_classes == 1000


def test_memory_that_was_given_back_is_not_counted(little: Callable[[int], None]) -> None:
    little(10 * MEGA)
    with memory_bound.limit_memory("It", "Less."):
        for _ in range(10):
            torch.ones(MEGA)
        kept = torch.ones(MEGA)
    with (
        pytest.raises(ModelError, match=r"^It asks for .* Less\.$"),
        memory_bound.limit_memory("It", "Less."),
    ):
        _ = [kept, *(kept + number for number in range(10))]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(MANY, MANY),
        lambda: torch.arange(10**12),
        lambda: torch.ones(MANY, 1) - torch.ones(1, MANY),
        lambda: torch.ones(2).repeat(10**12),
        lambda: nn.functional.interpolate(torch.ones(1, 1, 2, 2), size=(10**6, 10**6)),
        lambda: nn.functional.pad(torch.ones(1, 2), (0, 10**12)),
    ],
)
def test_sizes_are_reported_before_anything_is_made(
    make: Callable[[], Tensor], little: Callable[[int], None]
) -> None:
    little(100 * MEGA)
    with pytest.raises(ModelError, match="asks for"), memory_bound.limit_memory("It", "Less."):
        make()


def test_without_a_word_of_the_system_there_is_a_plain_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_bound, "measure_free_memory", lambda: None)
    with pytest.raises(ModelError, match=r"and 68\.7 GB can be given"):
        load("timm/test_resnet", num_classes=10**9)


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), memory_bound.limit_memory("It", "Less."):
        _ = 1 / 0


@pytest.mark.parametrize("name", ["depth", "embed_dim"])
def test_numbers_that_no_model_has(name: str) -> None:
    with pytest.raises(ModelError, match=rf"given {name}=10,000,000, and takes .* 1,048,576"):
        load("timm/test_vit", model_kwargs={name: MANY})
    with pytest.raises(ModelError, match=rf"given {name}=10,000,000"):
        load("timm/test_vit", model_kwargs={name: [[3, {"a": -MANY}]]})


def test_a_model_of_too_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bound, "MOST_TENSORS", 200)
    with pytest.raises(ModelError, match="with depth=1000 is made of more than 200 tensors"):
        load("timm/test_vit", model_kwargs={"depth": 1000})


def test_an_input_that_would_take_too_much_is_reported_before_a_pass(
    little: Callable[[int], None],
) -> None:
    little(100 * MEGA)
    words = r"'test_resnet' with pictures of 8000x8000 and 3 channels asks for .* smaller --img"
    with pytest.raises(ModelError, match=words):
        load("timm/test_resnet", img_size=8000)
    with pytest.raises(ModelError, match="edges of up to 32,768 pixels, not 100,000x100,000"):
        load("timm/test_resnet", img_size=100_000)


def state_of(num_classes: int) -> dict[str, Tensor]:
    module = load("timm/test_resnet", num_classes=num_classes).module
    return {name: weight.contiguous() for name, weight in module.state_dict().items()}


def folder_of(path: Path, **config: Any) -> str:
    """Makes a folder as timm saves them, with what its config.json says."""
    save_file(state_of(3), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"architecture": "test_resnet", **config}))
    return f"local-dir:{path}"


def test_what_a_folder_says_is_bounded_too(tmp_path: Path, little: Callable[[int], None]) -> None:
    name = folder_of(tmp_path, num_classes=3)
    assert load(name, pretrained=True).num_classes == 3
    little(100 * MEGA)
    for config in (
        {"num_classes": MANY},
        {"model_args": {"in_chans": MANY}, "pretrained_cfg": {"num_classes": 3}},
        {"num_classes": 3, "pretrained_cfg": {"num_classes": 3, "input_size": [3, 30000, 30000]}},
    ):
        name = folder_of(tmp_path, **config)
        with pytest.raises(ModelError, match="asks for"):
            load(name, pretrained=True)


def test_what_a_checkpoint_says_is_bounded_too(
    tmp_path: Path, little: Callable[[int], None]
) -> None:
    weights = state_of(3)
    file, args = tmp_path / "a.pth", {"model": "test_resnet", "crop_pct": 0.9}
    little(100 * MEGA)
    for noted, words in (
        ({"model_kwargs": {"in_chans": 900_000}}, "in_chans=900000 asks for"),
        ({"model_kwargs": {"in_chans": MANY}}, "given in_chans=10,000,000"),
        ({"input_size": (3, 8000, 8000)}, "8000x8000 and 3 channels asks for"),
        ({"input_size": (3, MANY, MANY)}, "edges of up to 32,768"),
    ):
        torch.save({"state_dict": weights, "args": {**args, **noted}}, file)
        with pytest.raises(ModelError, match=words):
            load("embedded", checkpoint=file)


@pytest.mark.parametrize("features", [0, 1])
def test_rows_without_numbers_are_no_classes(
    tmp_path: Path, features: int, little: Callable[[int], None]
) -> None:
    weights = state_of(3)
    rows = MANY if features == 0 else 100_000
    weights["fc.weight"] = torch.empty(rows, features, dtype=torch.uint8)
    save_file(weights, tmp_path / "a.safetensors")
    little(1000 * MEGA)
    with pytest.raises(CamvizError, match=re.escape(f"fc.weight [{rows}, {features}]")):
        load("timm/test_resnet", checkpoint=tmp_path / "a.safetensors")
