"""`camviz models`: what is printed, and that a reader may leave early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants as hub

from camcli.cli.printer import UNLIMITED
from camcli.models import catalogue
from tests.checkout import ROOT
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def rows(text: str) -> list[list[str]]:
    return [line.replace("to download", "to-download").split() for line in text.splitlines()]


def test_the_table(run: Run) -> None:
    result = run("models", "test_resnet*")
    assert (result.code, result.err) == (0, "")
    titles, *models = rows(result.out)
    assert titles == ["name", "from", "input", "classes", "parameters", "weights"]
    assert models == [
        ["test_resnet.r160_in1k", "timm", "160x160", "1000", "469,688", "to-download"]
    ]


def test_every_model_has_its_row(run: Run) -> None:
    _, *models = rows(run("models").out)
    entries = catalogue.find_models()
    assert [row[0] for row in models] == [entry.name for entry in entries]
    for row, entry in zip(models, entries, strict=True):
        assert row[3:5] == [f"{entry.classes or '-'}", f"{entry.parameters:,}"]
        assert row[5] == entry.weights.replace(" ", "-")


def test_nothing_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = run("models", "vit_so400m").out
    monkeypatch.setenv("COLUMNS", "20")
    assert run("models", "vit_so400m").out == wide
    assert max(map(len, wide.splitlines())) < UNLIMITED


def test_the_hubs_models_on_this_machine_are_listed(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--me--mine"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    config = {"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}
    (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(config))
    _, *models = rows(run("models", "hf").out)
    assert models == [["hf:me/mine", "transformers", "-", "2", "-", "to-download"]]
    nothing = run("models", "hf:you")
    assert nothing.code == 2
    assert "-m hf:ORG/NAME fetches one" in " ".join(nothing.err.split())


def test_json_is_one_object_a_model(run: Run) -> None:
    lines = run("models", "torchvision/resnet50", "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "name": f"torchvision/resnet50.IMAGENET1K_{version}",
            "library": "torchvision",
            "input_size": [224, 224],
            "classes": 1000,
            "parameters": 25_557_032,
            "weights": "to download",
        }
        for version in ("V1", "V2")
    ]


def test_only_what_is_here(run: Run) -> None:
    assert [row[0] for row in rows(run("models", "--here").out)] == ["name", "embedded"]
    result = run("models", "test_resnet", "--here")
    assert (result.code, result.out) == (0, "")
    assert result.err == "camviz: 1 found, none with its weights on this machine\n"


def test_what_cannot_be_counted_has_a_dash(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = catalogue.CatalogueEntry("new_net", "timm", (64, 96), 0, None, "none")
    monkeypatch.setattr(catalogue, "find_models", lambda _: [entry])
    assert rows(run("models").out)[1:] == [["new_net", "timm", "64x96", "-", "-", "none"]]


def test_a_name_that_is_not_there(run: Run) -> None:
    result = run("models", "resnt50")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("camviz: Unknown model 'resnt50'. Closest: 'resnet50'")


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"({sys.executable} -m camcli models; echo code $? >&2) | head -1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split()[:3] == ["name", "from", "input"]
    # 0 where the pipe holds it all
    assert done.stderr in ("code 1\n", "code 0\n")
