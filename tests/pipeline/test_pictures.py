"""Pictures as people have them, from the file to what is written and said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

import camcli
from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import run_sources
from camcli.records import Preprocessing, Record
from tests.media.pictures import profiles
from tests.networks import Staged

P3 = profiles.display_p3()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(
        module=Staged().eval(),
        name="handmade",
        origin="timm",
        preprocessing=Preprocessing((32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3, fit="squash"),
        labels=None,
        weights="by hand",
        num_classes=5,
    )


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    blocks = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    return blocks.repeat(16, 0).repeat(16, 1)


def _run(classifier: Classifier, path: Path, save_path: Path, **options: Any) -> list[Record]:
    chosen = from_keywords(save_path=save_path, workers=1, **options)
    return list(run_sources(classifier, find_sources([path]), chosen))


def _profile(path: str) -> bytes | None:
    with Image.open(path) as image:
        return image.info.get("icc_profile")


@pytest.mark.parametrize("options", [{}, {"scale": "run"}, {"method": "eigencam"}])
def test_an_overlay_keeps_the_profile_and_without_heat_the_picture(
    classifier: Classifier, tmp_path: Path, pixels: NDArray[np.uint8], options: dict[str, Any]
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=P3)
    (record,) = _run(classifier, tmp_path / "a.png", tmp_path / "out", alpha=0, **options)
    assert _profile(record.outputs[0]) == P3
    with Image.open(record.outputs[0]) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_a_picture_of_grey_with_a_profile_is_drawn_as_it_looks(
    classifier: Classifier, tmp_path: Path
) -> None:
    Image.new("L", (32, 32), 128).save(tmp_path / "a.png", icc_profile=profiles.grey(1.0))
    for options in ({}, {"scale": "run"}):
        out = tmp_path / f"out{len(options)}"
        (record,) = _run(classifier, tmp_path / "a.png", out, alpha=0, **options)
        with Image.open(record.outputs[0]) as image:
            assert abs(int(np.asarray(image)[16, 16, 0]) - 188) <= 1


def test_a_sheet_and_a_saved_explanation_keep_the_profile(
    classifier: Classifier, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=P3)
    records = _run(classifier, tmp_path / "a.png", tmp_path / "out", method="all", set=QUICK)
    assert {_profile(record.sheet) for record in records} == {P3}
    (explanation,) = camcli.explain(classifier, tmp_path / "a.png")
    assert _profile(str(explanation.save(tmp_path / "saved.tif"))) == P3


# few passes, for what is drawn does not matter here
QUICK = {"masks": 8, "samples": 1, "max_channels": 2, "window": 16, "stride": 16}


def test_the_same_scene_is_the_same_to_the_network_however_deep_it_is_stored(
    classifier: Classifier, tmp_path: Path
) -> None:
    share = np.random.default_rng(0).random((48, 48))
    share[0, 0] = 1
    stored = {
        "8.png": (share * 255).round().astype(np.uint8),
        "16.png": (share * 65_535).round().astype(np.uint16),
        "12in16.png": (share * 4095).round().astype(np.uint16),
        "reflectance.tif": (share * 10_000).round().astype(np.uint16),
        "signed.tif": (share * 4095).round().astype(np.int16),
        "hounsfield.tif": ((share * 4095).round() - 1024).astype(np.int16),
        "32.tif": (share * (2**32 - 1)).round().astype(np.uint32),
        "float.tif": share.astype(np.float32),
        "float10000.tif": (share * 10_000).astype(np.float32),
    }
    for name, values in stored.items():
        if name.endswith(".tif"):
            tifffile.imwrite(tmp_path / name, values)
        else:
            Image.fromarray(values).save(tmp_path / name)
    explanations = {name: next(camcli.explain(classifier, tmp_path / name)) for name in stored}
    for name, explanation in explanations.items():
        np.testing.assert_allclose(explanation.heatmap, explanations["8.png"].heatmap, atol=0.01)
        is_plain = name in ("8.png", "16.png", "32.tif", "float.tif")
        assert len(explanation.warnings) == (not is_plain), name


@pytest.fixture
def collect_notes(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    yield lambda: capsys.readouterr().err


def test_the_command_says_what_was_stretched_and_what_was_left_out(
    tmp_path: Path, collect_notes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "raw.nef").touch()
    values = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "in" / "scan.png")
    code = tmp_path / "net.py"
    code.write_text("from tests.networks import Staged\n")
    monkeypatch.chdir(tmp_path)
    command = ["in", "-m", f"{code}:Staged", "--img-size", "32", "--save-path", "out"]
    assert main(command) == 0
    heard = collect_notes()
    assert "Left out: 1 .nef (not read: convert them)." in heard
    assert "its values reach from 0 to 4095 and are taken for 12 bits" in heard
