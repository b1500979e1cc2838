"""Runs of models whose outputs are values, or independent classes, to records, files and lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camcli
import camcli.engine.answer_request as engine
from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.errors import UsageError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.models.outputs.interpretation import measure_output
from camcli.pipeline import make_plan, run_sources
from camcli.records import Preprocessing
from tests.networks import Staged

SIZE = (48, 64)


def classifier_of(module: nn.Module, outputs: Any = None) -> Classifier:
    reading = measure_output(module.eval(), (3, *SIZE), None, outputs)
    preprocessing = Preprocessing(SIZE, SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    return Classifier(
        module=module,
        name="own",
        origin="python",
        preprocessing=preprocessing,
        labels=None,
        weights="by hand",
        num_classes=reading.width or 0,
        reading=reading,
    )


@pytest.fixture
def picture() -> Image.Image:
    draw = np.random.default_rng(0)
    return Image.fromarray(draw.integers(0, 256, (*SIZE, 3), np.uint8))


def test_a_value_is_in_the_record_and_the_map_has_its_sign(picture: Image.Image) -> None:
    classifier = classifier_of(Staged(1))
    (explanation,) = camcli.explain(classifier, picture, target_layers="last")
    inputs = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        value = float(classifier.module((inputs - 0.5) / 0.25))
    assert explanation.value == pytest.approx(value, abs=1e-5)
    assert (explanation.category, explanation.label, explanation.probability) == (
        None,
        "value",
        None,
    )
    assert (explanation.record.target, explanation.record.rank) == ("value", None)
    (turned,) = camcli.explain(classifier, picture, target_layers="last", target="counterfactual")
    np.testing.assert_allclose(turned.heatmap, -explanation.heatmap, rtol=1e-3, atol=1e-7)
    # neither is empty, and what is red in one is blue in the other
    assert not explanation.warnings
    assert not turned.warnings
    red, blue = (e.overlay(1.0).astype(int)[..., 0] > 150 for e in (explanation, turned))
    assert (red != blue).mean() > 0.1
    (classless,) = camcli.explain(classifier, picture, "eigencam", target_layers="last")
    assert (classless.is_signed, classless.record.target) == (False, "")


def test_what_asks_for_classes_makes_a_logit_of_a_number(picture: Image.Image) -> None:
    classifier = classifier_of(Staged(1))
    assert "taken for a value" in make_plan(classifier, from_keywords()).warnings[0]
    for asked in ({"target_category": ["yes"]}, {"target": "probability"}):
        made = make_plan(classifier, from_keywords(**asked))
        assert (made.warnings, made.classifier.labels) == ((), ("no", "yes"))
    (explanation,) = camcli.explain(classifier, picture, target_category="1", target_layers="last")
    assert (explanation.label, explanation.value) == ("yes", None)
    for wrong in ({"top_k": 2}, {"threshold": 0.5}):
        with pytest.raises(UsageError, match="are values and not classes"):
            make_plan(classifier, from_keywords(**wrong))


def test_of_several_values_some_are_chosen(picture: Image.Image) -> None:
    classifier = classifier_of(Staged(4), "value")
    with pytest.raises(UsageError, match="puts out 4 values: say with --target-category which"):
        make_plan(classifier, from_keywords())
    options = {"target_category": ["0", "3"], "target_layers": "last"}
    explanations = list(camcli.explain(classifier, picture, **options))
    assert [(e.category, e.label) for e in explanations] == [(0, "value 0"), (3, "value 3")]
    named = replace(classifier, labels=("age", "dose", "angle", "size"))
    (angle,) = camcli.explain(named, picture, target_category="angle", target_layers="last")
    assert (angle.category, angle.label) == (2, "angle")


class Independent(nn.Module):
    def __init__(self, *bias: float) -> None:
        super().__init__()
        self.net = Staged(len(bias))
        self.net.fc.bias.data = torch.tensor(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).sigmoid()


def test_independent_classes_may_be_several_at_once(picture: Image.Image) -> None:
    classifier = classifier_of(Independent(3.0, -6.0, 6.0))
    dark = Image.new("RGB", picture.size)
    options: dict[str, Any] = {"target_layers": "net.last", "batch_size": 2}
    both = list(camcli.explain(classifier, [picture, dark], threshold=0.5, **options))
    assert [e.category for e in both] == [2, 0, 2, 0]
    assert all(e.probability is not None and e.probability > 0.9 for e in both)
    assert sum(e.probability or 0 for e in both) > 3.5
    (none,) = camcli.explain(classifier, picture, threshold=0.999999, **options)
    assert none.category == 2
    assert (
        none.warnings[-1]
        == "no class has a probability of 0.999999 or more: this is the likeliest one"
    )
    (one,) = camcli.explain(classifier, picture, threshold=0.5, top_k=1, **options)
    assert one.category == 2
    with pytest.raises(UsageError, match="each choose the classes"):
        make_plan(classifier, from_keywords(threshold=0.5, target_category=["1"]))


def test_pictures_of_a_batch_have_their_own_classes(picture: Image.Image) -> None:
    net = Independent(0.0, 0.0, 0.0)
    classifier = classifier_of(net)
    pictures = [picture, Image.new("RGB", picture.size), Image.new("RGB", picture.size, "white")]
    options: dict[str, Any] = {"target_layers": "net.last", "threshold": 0.5}
    together = list(camcli.explain(classifier, pictures, batch_size=3, **options))
    alone = [e for p in pictures for e in camcli.explain(classifier, p, **options)]
    assert [e.category for e in together] == [e.category for e in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.heatmap, other.heatmap, rtol=1e-3, atol=1e-6)


def test_a_video_has_no_threshold(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[picture])
    options = from_keywords(
        threshold=0.5, every=1, target_layers="net.last", save_path=str(tmp_path / "out")
    )
    sources = find_sources([tmp_path / "a.gif"])
    with pytest.raises(
        UsageError, match="--threshold may find another number of classes in each frame"
    ):
        list(run_sources(classifier_of(Independent(0.0, 0.0)), sources, options))


def test_what_memory_runs_out_for_is_joined_although_classes_differ_in_number(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = classifier_of(Independent(0.0, 0.0, 0.0))
    pictures = [picture, Image.new("RGB", picture.size), Image.new("RGB", picture.size, "white")]
    options: dict[str, Any] = {"target_layers": "net.last", "threshold": 0.5, "batch_size": 3}
    expected = [e.category for e in camcli.explain(classifier, pictures, **options)]
    plain = engine.run_in_chunks
    monkeypatch.setattr(engine, "run_in_chunks", lambda run, count, _: plain(run, count, 1))
    assert [e.category for e in camcli.explain(classifier, pictures, **options)] == expected


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, bias=-20.0, end=None):
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
        self.fc = nn.Linear(8, 1)
        nn.init.constant_(self.fc.bias, bias)
        self.end = end or nn.Identity()

    def forward(self, x):
        return self.end(self.fc(self.stage(x).mean((2, 3))))

def age():
    return Net()

def ill():
    return Net(-1.5, nn.Sigmoid())
"""


def test_the_command_says_a_value_and_a_probability_once(
    picture: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("valued.py").write_text(NETS)
    picture.save("a.png")
    picture.save("b.png")
    typed = ["a.png", "b.png", "--img-size", "48", "--json"]

    def collect_warnings(name: str, *more: str) -> tuple[list[dict[str, Any]], str]:
        assert main([*typed, "-m", f"valued.py:{name}", *more]) == 0
        out, err = capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()], err

    lines, err = collect_warnings("age")
    assert err.count("taken for a value") == 1
    value = lines[0]["value"]
    assert value == pytest.approx(-20, abs=2)
    assert (lines[0]["category"], lines[0]["label"]) == (None, "value")
    assert lines[0]["outputs"][0].endswith(f"a_gradcam_value-{value:.4g}.png")
    lines, err = collect_warnings("ill")
    assert err.count("ends in a sigmoid") == 1
    assert lines[0]["label"] == "no"
    assert lines[0]["probability"] == pytest.approx(0.8, abs=0.15)
    lines, err = collect_warnings("age", "--outputs", "logits")
    assert "taken for" not in err
    assert (lines[0]["label"], lines[0]["value"]) == ("no", None)
    # one scale for a run of values is symmetric
    lines, _ = collect_warnings("age", "--scale", "run", "--save-path", "scaled")
    most = max(max(line["maximum"], -line["minimum"]) for line in lines)
    assert [line["scale"] for line in lines] == [[0.0, pytest.approx(most)]] * 2
