"""Pickles that would leave a mark if they ran, in every place where camviz reads a model's files.

They run on whatever versions are installed: `.ci/lowest` has the oldest that are allowed.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

import camcli
from camcli.cli.app import main
from camcli.errors import CamvizError
from camcli.models.checkpoints.pickle_survey import check_published


class Marks:
    """A pickle that makes a file when it is read as Python reads them."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marker")


def weights() -> dict[str, Any]:
    return dict(timm.create_model("test_resnet", num_classes=3).state_dict())


def in_archive(content: Any, file: Path) -> None:
    torch.save(content, file)


def in_old_format(content: Any, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def bare(protocol: int) -> Callable[[Any, Path], None]:
    return lambda content, file: file.write_bytes(pickle.dumps(content, protocol))  # type: ignore[return-value]


def as_numpy(content: Any, file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.array([content], dtype=object), allow_pickle=True)


def as_numpys(content: Any, file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, weights=np.array([content], dtype=object))


def as_program(content: Any, file: Path) -> None:
    """Writes TorchScript whose pickles are hostile, too."""
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, old in members.items():
            archive.writestr(name, pickle.dumps(content, 2) if name.endswith(".pkl") else old)


FORMATS: dict[str, Callable[[Any, Path], None]] = {
    "archive": in_archive,
    "old": in_old_format,
    "bare2": bare(2),
    "bare4": bare(4),
    "npy": as_numpy,
    "npz": as_numpys,
    "program": as_program,
}
PLACES: dict[str, Callable[[Marks], Any]] = {
    "alone": lambda marks: marks,
    "weight": lambda marks: {**weights(), "fc.weight": marks},
    "beside": lambda marks: {"state_dict": weights(), "extra": marks},
    "arguments": lambda marks: {"state_dict": weights(), "args": argparse.Namespace(model=marks)},
    "optimizer": lambda marks: {"model": weights(), "optimizer": {"state": {0: {"step": marks}}}},
    "key": lambda marks: {"state_dict": weights(), "keys": {(marks,): 1}},
}


def test_the_mark_is_made_where_pickles_run(marks: Marks) -> None:
    pickle.loads(pickle.dumps(marks))
    assert marks.marker.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMATS)
def test_no_checkpoint_leaves_a_mark(tmp_path: Path, marks: Marks, form: str, place: str) -> None:
    for name in ("a.pth", "a.pth.tar", "a.safetensors"):
        FORMATS[form](PLACES[place](marks), tmp_path / name)
        for model in ("embedded", "timm/test_resnet"):
            with pytest.raises(CamvizError, match=re.escape(str(tmp_path / name))):
                camcli.load_model(model, checkpoint=tmp_path / name, strict=False, device="cpu")
    assert not marks.marker.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
def test_nor_does_a_folder_or_a_class_map(tmp_path: Path, marks: Marks, form: str) -> None:
    config = {"architecture": "test_resnet", "num_classes": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("pytorch_model.bin", "model.safetensors"):
        FORMATS[form](PLACES["beside"](marks), tmp_path / name)
        for model in (f"local-dir:{tmp_path}", str(tmp_path)):
            with pytest.raises(CamvizError):
                camcli.load_model(model, device="cpu")
        with pytest.raises(CamvizError):
            camcli.load_model("embedded", class_map=tmp_path / name, device="cpu")
        (tmp_path / name).unlink()
    assert not marks.marker.exists()


@pytest.mark.parametrize(
    "file", ["model.safetensors", "A.SAFETENSORS", "pytorch_model.bin", "a.pth", "a.pth.tar"]
)
def test_timm_is_given_no_folder_with_code_in_it(
    tmp_path: Path, marks: Marks, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet"}))
    in_archive(PLACES["beside"](marks), tmp_path / file)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    with pytest.raises(CamvizError, match="cannot build"):
        camcli.load_model(f"local-dir:{tmp_path}", device="cpu")
    assert not marks.marker.exists()


@pytest.mark.parametrize("suffix", ["", ".pth", ".pyth", ".torch", ".PT", ".safetensors"])
@pytest.mark.parametrize("form", ["archive", "old"])
def test_a_published_file_is_looked_at_whatever_its_name(
    tmp_path: Path, marks: Marks, form: str, suffix: str
) -> None:
    file = tmp_path / f"weights{suffix}"
    FORMATS[form](PLACES["beside"](marks), file)
    with pytest.raises((pickle.UnpicklingError, SafetensorError)):
        check_published(file)
    assert not marks.marker.exists()


@pytest.mark.parametrize("name", ["a.pyth", "a.safetensors", "a.npz"])
def test_a_published_file_without_code_passes(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "a.npz":
        np.savez(file, weights=np.ones(3))
    else:
        (torch.save if name == "a.pyth" else save_file)({"weights": torch.ones(3)}, file)
    check_published(file)


@pytest.mark.usefixtures("caches")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["timm/resnet18.tv_in1k", "torchvision/resnet18"])
def test_nor_do_cached_weights_of_the_libraries(
    tmp_path: Path, marks: Marks, form: str, name: str
) -> None:
    if name.startswith("timm/"):
        folder = tmp_path / "hub" / "models--timm--resnet18.tv_in1k"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        file = folder / "snapshots" / ("0" * 40) / "pytorch_model.bin"
    else:
        url = torchvision.models.get_model_weights("resnet18").DEFAULT.url
        file = tmp_path / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[form](PLACES["beside"](marks), file)
    with pytest.raises(CamvizError):
        camcli.load_model(name, device="cpu")
    assert not marks.marker.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
def test_nor_does_the_command_or_a_preset(
    tmp_path: Path, marks: Marks, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    file, preset = tmp_path / "a.pth", tmp_path / "preset.toml"
    FORMATS[form](PLACES["arguments"](marks), file)
    preset.write_text(f'checkpoint = "{file}"\n')
    picture, out = str(tmp_path / "a.png"), ["--save-path", str(tmp_path / "out")]
    ways = (["--checkpoint", str(file)], ["--config", str(preset)], ["--config", str(file)])
    for options in ways:
        assert main([picture, *out, *options]) == 2
    assert not marks.marker.exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
def test_nor_does_what_a_run_left(tmp_path: Path, marks: Marks, form: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    for name in ("manifest.jsonl", "run.json", ".camviz/journal.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        FORMATS[form](marks, out / name)
    main([str(tmp_path / "a.png"), "--save-path", str(out), "--resume"])
    main(["verify", str(out)])
    assert not marks.marker.exists()
