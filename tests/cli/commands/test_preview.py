"""`--preview-model` shows the true layers of a model."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Run


def test_a_tree_of_layers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    result = run("--preview-model", "-m", "test_resnet")
    assert (result.code, result.err) == (0, "")
    lines = {line.strip("│├└─ ").split("  ")[0]: line for line in result.out.splitlines()}
    assert "1x96x5x5" in lines["layer4"] and "grid 5x5" in lines["layer4"]
    assert lines["layer4"].endswith("target  <- default")
    assert "target" not in lines["fc"] and "grid" not in lines["fc"]
    assert lines["layer4.0"].startswith("│   └── ")
    assert result.out.count("<- default") == 1
    assert result.out.splitlines()[0].startswith("default: layer4, the last 5x5 grid")


def test_a_depth_shows_the_upper_levels_and_the_default_layer(run: Run) -> None:
    shown = run("--preview-model", "-m", "test_vit", "--depth", "1")
    first, model, *tree = shown.out.splitlines()
    assert first.startswith("default: blocks.5.norm1, the last 10x10 grid")
    assert model.startswith("test_vit  input 160x160")
    names = [line.strip("│├└─ ").split("  ")[0] for line in tree]
    nested = [name for name in names if "." in name]
    assert nested == ["blocks.5", "blocks.5.norm1"] and "blocks" in names and "head" in names
    data = json.loads(run("--preview-model", "-m", "test_vit", "--depth", "2", "--json").out)
    named = [layer["name"] for layer in data["layers"]]
    assert "blocks.0" in named and "blocks.0.attn" not in named and "blocks.5.norm1" in named


@pytest.mark.parametrize("depth", ["0", "-1", "two"])
def test_a_depth_is_a_number_from_1(run: Run, depth: str) -> None:
    result = run("--preview-model", "--depth", depth)
    assert (result.code, result.out) == (2, "")
    assert f"--depth {depth}: takes a whole number from 1." in result.err
    result = run("cat.jpg", "--depth", "2")
    assert result.code == 2 and "--depth is for --preview-model" in result.err


def test_the_same_as_data(run: Run) -> None:
    result = run("--preview_model", "-m", "test_vit", "--json")
    (line,) = result.out.splitlines()
    data = json.loads(line)
    layers = {layer["name"]: layer for layer in data["layers"]}
    norm = layers["blocks.5.norm1"]
    assert (data["model"], data["input_size"]) == ("test_vit", [160, 160])
    assert data["default"]["name"] == "blocks.5.norm1" and data["default"]["reason"]
    assert (norm["type"], norm["shape"]) == ("LayerNorm", [1, 101, 64])
    assert (norm["grid"], norm["layout"], norm["parameters"]) == ([10, 10], "tokens", 128)
    assert norm["is_target"] and norm["is_default"]
    # behind the last attention the patches have no say
    assert not layers["norm"]["is_target"]
    assert layers["head"]["grid"] is None


def test_it_is_shown_for_the_input_size_that_was_asked_for(run: Run) -> None:
    result = run("--preview-model", "-m", "test_resnet", "--img-size", "64x96", "--json")
    data = json.loads(result.out)
    assert data["input_size"] == [64, 96]
    assert next(x for x in data["layers"] if x["name"] == "layer4")["grid"] == [2, 3]


def test_layers_that_run_several_times_are_reported(run: Run) -> None:
    lines = run(
        "--preview-model", "-m", "torchvision/resnet18", "--img-size", "64"
    ).out.splitlines()
    (relu,) = (line for line in lines if "layer4.1.relu" in line)
    assert "called 2x" in relu
    assert "called" not in next(line for line in lines if "layer4.1.conv1" in line)


def test_the_default_model_has_a_preview(run: Run) -> None:
    result = run("--preview-model")
    assert (result.code, result.err) == (0, "")
    assert "<- default" in result.out


def test_an_unknown_model_has_none(run: Run) -> None:
    result = run("--preview-model", "-m", "resnt50")
    assert (result.code, result.out) == (2, "")
    assert "'resnet50'" in result.err
