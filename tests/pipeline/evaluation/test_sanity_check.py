"""`camviz sanity`: verdicts in words, by maps that are known to depend on something or nothing."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from camcli.cli.app import main
from camcli.cli.commands import sanity
from camcli.config import from_keywords
from camcli.errors import UsageError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline.evaluation import figures
from camcli.pipeline.evaluation.evaluation import plan_evaluation
from camcli.pipeline.evaluation.sanity_check import (
    SanityReport,
    StepResult,
    _judge_class,
    _judge_view,
    _judge_weights,
    check_sanity,
)
from camcli.records import Preprocessing
from camcli.render.charts import StepPanel
from tests.networks import Staged


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    size = (32, 32)
    preprocessing = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    module = Staged(4).eval()
    return Classifier(module, "small", "timm", preprocessing, ("a", "b", "c", "d"), "by hand", 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place, rng = tmp_path / "in", np.random.default_rng(0)
    place.mkdir()
    for number in range(3):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return place


def check(classifier: Classifier, place: Path, **given: Any) -> SanityReport:
    asked = {name: given.pop(name) for name in ("order", "steps") if name in given}
    options = from_keywords(**given)
    plan = plan_evaluation(classifier, options)
    return check_sanity(plan, options, find_sources([place]), **asked)


def test_maps_of_a_network_depend_on_its_weights(classifier: Classifier, folder: Path) -> None:
    before = {k: v.clone() for k, v in classifier.module.state_dict().items()}
    report = check(classifier, folder, method=("gradcam", "eigencam"), batch_size=2, steps=None)
    assert (report.pictures, report.failed) == (3, [])
    grad, eigen = report.methods
    assert [step.randomized for step in grad.steps] == list(range(1, 8))
    assert grad.steps[0].layer == "fc" and set(grad.other_class) == {"ssim", "rank", "hog"}
    assert any("weights: depends on them" in line for line in grad.verdict)
    # what reads the layer alone is the same whatever stands behind it, and for each class
    assert eigen.steps[0].similarities["rank"] == pytest.approx(1)
    assert eigen.other_class == {} and "class: the method uses no class" in eigen.verdict[1]
    assert set(grad.views) == {"flip", "shift"}
    after = classifier.module.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_batches_make_no_difference(classifier: Classifier, folder: Path) -> None:
    one, other = (check(classifier, folder, batch_size=size, steps=2) for size in (1, 3))
    # a gradient on the border of two of the bins of HOG falls into either
    for first, second in zip(one.methods[0].steps, other.methods[0].steps, strict=True):
        assert first.similarities == pytest.approx(second.similarities, abs=0.01, nan_ok=True)
    assert one.methods[0].views == pytest.approx(other.methods[0].views, abs=0.01, nan_ok=True)


def test_each_layer_by_itself_and_a_bad_picture(classifier: Classifier, folder: Path) -> None:
    (folder / "torn.png").write_bytes(b"")
    report = check(classifier, folder, order="independent", steps=3, target_category="c")
    assert [step.randomized for step in report.methods[0].steps] == [1, 1, 1]
    assert report.pictures == 3 and report.failed[0]["picture"].endswith("torn.png")
    with pytest.raises(UsageError, match=r"No picture could be checked:\n.*torn.png"):
        check(classifier, folder / "torn.png")


def steps(*ranks: float) -> list[StepResult]:
    return [StepResult(f"l{n}", n + 1, {"rank": rank}) for n, rank in enumerate(ranks)]


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ((1.0, 0.95), "DOES NOT DEPEND on them (rank correlation 0.95 with fresh weights in all"),
        ((0.3, 0.6), "depends on them in part (rank correlation 0.60"),
        ((0.8, 0.4, -0.1), "below 0.5; from l1 on"),
        ((0.8, nan), "depends on them in part (rank correlation 0.80"),
        ((nan,), "the maps are constant"),
    ],
)
def test_the_verdict_on_weights(ranks: tuple[float, ...], words: str) -> None:
    assert words in _judge_weights(steps(*ranks), "cascading")


def test_the_other_verdicts() -> None:
    # of single layers the one that counts most
    single = _judge_weights(steps(0.9, 0.2, 0.7), "independent")
    assert "(rank correlation 0.20 with fresh weights in l1), below 0.5" in single
    assert "HARDLY TELLS classes apart" in _judge_class({"rank": 0.9})
    assert "class: tells classes apart" in _judge_class({"rank": 0.89})
    assert "constant" in _judge_class({"rank": nan}) and "constant" in _judge_view("flip", nan)
    assert _judge_view("flip", 0.5).startswith("flip: maps follow the picture")
    assert "DO NOT follow" in _judge_view("shift", 0.49)


def test_the_command(
    classifier: Classifier,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sanity, "load", lambda *_, **__: classifier)
    typed = ["sanity", str(folder), "--steps", "2", "-m", "small"]
    assert main([*typed, "--method", "gradcam,layercam"]) == 0
    printed = capsys.readouterr().out
    assert "gradcam:" in printed and "layercam:" in printed and "randomcam" not in printed
    assert "weights: " in printed and "flip: maps" in printed
    assert main([*typed, "--json", "--order", "Independent"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["order"], report["pictures"]) == ("small", "independent", 3)
    assert [len(method["steps"]) for method in report["methods"]] == [2]
    assert report["figures"] == []
    for wrong in (
        ["--plot", "x.jpg"],
        ["--steps", "0"],
        ["--steps", "some"],
        ["--order", "sideways"],
    ):
        assert main([*typed, *wrong]) == 2
        assert "takes" in capsys.readouterr().err
    assert main(["sanity"]) == 2
    (folder / "torn.png").write_bytes(b"")
    assert main([*typed]) == 1
    assert "torn.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("order", "steps"),
    [("cascading", ["trained", "fc", "stem.0"]), ("independent", ["fc", "stem.0"])],
)
def test_the_plot_has_what_the_table_says(
    classifier: Classifier,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    order: str,
    steps: list[str],
) -> None:
    monkeypatch.setattr(sanity, "load", lambda *_, **__: classifier)
    drawn: list[StepPanel] = []
    draw = figures.draw_steps
    monkeypatch.setattr(figures, "draw_steps", lambda panels: drawn.extend(panels) or draw(panels))
    plot = tmp_path / "deep" / "sanity.svg"
    typed = ["sanity", str(folder), "--steps", "2", "-m", "small", "--order", order, "--json"]
    assert main([*typed, "--method", "gradcam,eigencam", "--plot", str(plot)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["figures"] == [str(plot)] and plot.read_bytes().startswith(b"<?xml")
    assert [panel.title for panel in drawn] == ["SSIM", "Rank correlation", "HOG similarity"]
    assert drawn[1].limits == (0.9, 0.5) and list(drawn[0].steps) == steps
    for panel, name in zip(drawn, ("ssim", "rank", "hog"), strict=True):
        for line, method in zip(panel.lines, report["methods"], strict=True):
            assert line.name == method["method"]
            values = [step["similarities"][name] for step in method["steps"]]
            expected = [1.0, *values] if order == "cascading" else values
            assert list(line.values) == pytest.approx(expected, nan_ok=True)
    # nothing is overwritten, and that is said before anything is loaded
    monkeypatch.setattr(sanity, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert main([*typed, "--plot", str(plot)]) == 2
    assert "exists already" in capsys.readouterr().err
