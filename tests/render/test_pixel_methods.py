"""The picture of single pixels beside the overlay, in files and from Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import camcli
from camcli.config import from_keywords
from camcli.errors import MethodError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import run_sources
from camcli.records import Record
from tests.networks import Staged, noise
from tests.outputs import outputs
from tests.test_demo import PHOTO

METHODS = ["guidedbackprop", "guidedgradcam"]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return camcli.load_model(device="cpu", fit="squash")


def _run(classifier: Classifier, save_path: Path, **options: Any) -> list[Record]:
    options = {"save_path": save_path, **options}
    return list(run_sources(classifier, find_sources([PHOTO]), from_keywords(**options)))


def _read(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def test_the_pixels_stand_beside_the_overlay(classifier: Classifier, tmp_path: Path) -> None:
    options: dict[str, Any] = {"target_category": ["tabby", "espresso"]}
    records = _run(classifier, tmp_path, method=["gradcam", *METHODS], save_map="npy", **options)
    explained = list(camcli.explain(classifier, PHOTO, METHODS, **options))
    message = [record for record in records if record.method != "gradcam"]
    for record, actual in zip(message, explained, strict=True):
        overlay, pixels, raw = record.outputs
        assert (pixels, raw) == (f"{overlay}.pixels.png", f"{overlay}.npy")
        assert _read(pixels).shape == (*classifier.preprocessing.size, 3)
        np.testing.assert_array_equal(_read(pixels), actual.pixels())
        np.testing.assert_allclose(
            np.load(raw), np.abs(actual.details["pixels"]).max(0), rtol=1e-4, atol=1e-7
        )
        assert actual.details["pixels"].dtype == np.float32
    assert [record.layers for record in message] == [(), ("features",)] * 2
    assert len(outputs(tmp_path)) == sum(len(record.outputs) for record in records) == 16


def test_pixels_follow_the_class(classifier: Classifier) -> None:
    cat, cup = camcli.explain(
        classifier, PHOTO, "guidedgradcam", target_category=["tabby", "espresso"]
    )
    # the cat is on the left of the picture, the cup on its right
    for actual, half in ((cat, np.s_[:, :112]), (cup, np.s_[:, 112:])):
        assert actual.heatmap[half].sum() > 0.8 * actual.heatmap.sum()
        drawn = np.abs(actual.pixels().astype(int) - 128)
        assert drawn[half].sum() > 0.8 * drawn.sum()


def test_pixels_beside_one_file(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "one.webp"
    (record,) = _run(classifier, path, method="guidedbackprop")
    assert record.outputs == (str(path), f"{path}.pixels.png")
    assert {str(file) for file in outputs(tmp_path)} == set(record.outputs)


def test_a_method_without_pixels_says_which_have_some(classifier: Classifier) -> None:
    (explanation,) = camcli.explain(classifier, PHOTO)
    with pytest.raises(MethodError, match=r"gradcam gives a map.*guidedbackprop and guidedgradcam"):
        explanation.pixels()


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_inputs_of_other_channels_than_three(
    classifier: Classifier, tmp_path: Path, channels: int
) -> None:
    module = Staged()
    module.stem[0] = torch.nn.Conv2d(channels, 8, 3, 2, 1)
    maps = camcli.heatmaps(module, noise(1, channels), METHODS, target_layers="last", targets=2)
    assert [m.shape for m in maps.values()] == [(1, 48, 64)] * 2
    if channels == 1:
        preprocessing = replace(classifier.preprocessing, mean=(0.5,), std=(0.2,))
        grey = replace(
            classifier,
            module=module.eval(),
            preprocessing=preprocessing,
            labels=None,
            num_classes=5,
            in_chans=1,
        )
        for record in _run(grey, tmp_path, method=METHODS, target_category=2):
            drawn = _read(record.outputs[1])
            assert (drawn == drawn[..., :1]).all() and drawn.std() > 5
