"""A model that no library has, as its user types it: T2T-ViT-14, written from its paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import camcli
from camcli.cli.app import main
from camcli.models.inspection.layout import Layout
from camcli.models.inspection.target_layers import measure_default_layer, survey_layers
from tests.checkout import ROOT
from tests.models.t2t import t2t_vit_14
from tests.test_demo import PHOTO
from tests.tools.corners import keeps_places, noise

NAME = "tests/models/t2t.py:t2t_vit_14"
# as vis_cam's documentation names it: the norm of the last block but one
VIS_CAM = ("--vit-like", "--target-layers", "blocks.-2.norm1")


@pytest.fixture
def explain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """Runs the command on the demo photo: its record, and the raw map."""
    monkeypatch.chdir(ROOT)

    def run(*typed: str) -> tuple[dict[str, Any], Any]:
        saved = ("--save-path", str(tmp_path), "--save-map", "npy", "--device", "cpu")
        code = main([str(PHOTO), "-m", NAME, "--json", *saved, *typed])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        record = json.loads(printed.out)
        return record, np.load(record["outputs"][1])

    return run


def test_it_is_the_papers_model() -> None:
    # table 2: 21.5 million parameters
    assert sum(p.numel() for p in t2t_vit_14().parameters()) == 21_465_422


def test_as_vis_cam_names_its_layer(explain: Any) -> None:
    small = ("--model-kwargs", "depth=3", "--img-size", "112")
    record, values = explain(*small, *VIS_CAM)
    assert record["model"] == NAME
    assert record["layers"] == ["blocks.1.norm1"]
    assert values.shape == (7, 7)
    assert values.any()
    _, same = explain(*small, *VIS_CAM, "--num-extra-tokens", "1")
    np.testing.assert_array_equal(same, values)


@pytest.mark.slow  # the whole model at its own size
def test_without_options(explain: Any) -> None:
    record, values = explain()
    # behind the norm in front of the last attention, the score depends on the class token alone
    assert record["layers"] == ["blocks.13.norm1"]
    assert "the last 14x14 grid on which the score depends everywhere" in record["layer_reason"]
    assert values.shape == (14, 14)
    assert values.any()
    assert record["warnings"] == []


def test_arguments_and_another_size(explain: Any) -> None:
    record, values = explain("--model-kwargs", "depth=2", "--img-size", "96x160")
    assert (record["layers"], values.shape) == (["blocks.1.norm1"], (6, 10))


@pytest.mark.parametrize("shape", [(3, 112, 112), (3, 96, 160)])
@pytest.mark.parametrize("layer", ["blocks.1.norm1", "blocks.0.norm1"])
def test_a_corner_of_the_picture_is_that_corner_of_the_map(
    shape: tuple[int, int, int], layer: str
) -> None:
    torch.manual_seed(0)
    module = t2t_vit_14(depth=2).eval()
    assert keeps_places(module, layer, shape)


def test_tokens_of_every_stage_have_their_grid() -> None:
    module = t2t_vit_14(depth=1).eval()
    layouts = {layer.name: layer.layout for layer in survey_layers(module, (3, 112, 112)).layers}
    for name, side in (("split1", 28), ("transformer1", 28), ("split2", 14), ("split3", 7)):
        assert layouts[f"tokens_to_token.{name}"] == Layout("tokens", (side, side))
    assert measure_default_layer(module, (3, 112, 112)).layout == Layout("tokens", (7, 7), 1)


def test_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    trained = t2t_vit_14(num_classes=3, depth=1).eval()
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "t2t.pth")
    options: dict[str, Any] = {"model_kwargs": {"depth": 1}, "img_size": 96, "device": "cpu"}
    classifier = camcli.load_model(NAME, checkpoint=tmp_path / "t2t.pth", **options)
    assert classifier.num_classes == 3
    with torch.no_grad():
        inputs = noise((3, 96, 96))
        torch.testing.assert_close(classifier.module(inputs), trained(inputs))
