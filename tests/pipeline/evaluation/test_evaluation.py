"""`camviz evaluate`: methods and maps that know nothing, measured, compared, written."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.errors import AnnotationError, UnknownName, UsageError
from camcli.media.annotations import FORMATS, Annotations, Instance, PictureAnnotations
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline.evaluation import evaluation
from camcli.pipeline.evaluation.evaluation import (
    RANDOM,
    Contender,
    Evaluation,
    PictureScores,
    Truth,
    choose_metrics,
    know_truth,
    plan_evaluation,
)
from camcli.pipeline.evaluation.metric_statistics import (
    Collected,
    describe_verdict,
    summarise_metric,
)
from camcli.pipeline.evaluation.seen_objects import see_boxes, see_mask
from camcli.records import Box, Preprocessing, Source
from camcli.registry import METRICS

EDGE, CELL = 40, 10


class Redness(nn.Module):
    """Class 0 where a cell is red, class 1 where one is green; three classes more are never."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(CELL)
        self.layer = nn.Conv2d(3, 4, 1, bias=False)
        self.seen = 0
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.weight[0, 0] = self.layer.weight[1, 1] = 1

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        cells: Tensor = self.layer(self.pool(x))
        return 2 * cells.sum((2, 3))


@pytest.fixture
def classifier() -> Classifier:
    size = (EDGE, EDGE)
    preprocessing = Preprocessing(size, size, mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash")
    labels = ("red", "green", "no", "none")
    return Classifier(Redness().eval(), "red", "timm", preprocessing, labels, "by hand", 4)


def picture(row: int, column: int, channel: int = 0) -> NDArray[np.uint8]:
    pixels = np.zeros((EDGE, EDGE, 3), np.uint8)
    pixels[CELL * row : CELL * (row + 1), CELL * column : CELL * (column + 1), channel] = 255
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    place.mkdir()
    for number in range(4):
        Image.fromarray(picture(number, number)).save(place / f"{number}.png")
    return place


def annotate(*names: str, label: str = "red") -> Annotations:
    boxes = [Box(CELL * n, CELL * n, CELL * n + CELL, CELL * n + CELL) for n in range(len(names))]
    pictures = [
        PictureAnnotations(name, (Instance(label, box),), (EDGE, EDGE))
        for name, box in zip(names, boxes, strict=True)
    ]
    return Annotations(tuple(pictures), (label,))


NAMES = ("0.png", "1.png", "2.png", "3.png")


def measure(
    classifier: Classifier,
    folder: Path,
    metrics: tuple[str, ...],
    truth: Annotations | None = None,
    **given: Any,
) -> list[PictureScores]:
    options = from_keywords(target_layers="layer", **given)
    sources = find_sources([folder])
    plan = plan_evaluation(classifier, options)
    if truth is None:
        return list(Evaluation(plan, options, metrics).measure(sources))
    known = know_truth(truth, sources, classifier)
    return list(Evaluation(plan, options, metrics, known).measure(sources))


def test_a_true_map_hits_and_what_knows_nothing_has_its_share(
    classifier: Classifier, folder: Path
) -> None:
    metrics = ("pointing_game", "heat_inside", "pixel_ap", "box_iou")
    scores = measure(classifier, folder, metrics, annotate(*NAMES), method=("gradcam", "layercam"))
    assert [s.category for s in scores] == [0] * 4 and not any(s.error for s in scores)
    names = [c.name for c in scores[0].contenders]
    assert names == ["gradcam", "layercam", RANDOM, "gaussian", "edges", "uniform"]
    assert [c.is_baseline for c in scores[0].contenders] == [False] * 2 + [True] * 4
    for s in scores:
        values = {m: dict(zip(names, v.tolist(), strict=True)) for m, v in s.values.items()}
        assert values["pointing_game"]["gradcam"] == 1
        assert values["pixel_ap"]["gradcam"] > 0.9 > values["pixel_ap"]["gaussian"]
        # one cell of sixteen
        assert values["heat_inside"]["uniform"] == pytest.approx(1 / 16)
        assert values["pointing_game"]["uniform"] == pytest.approx(1 / 16)
        assert values["box_iou"]["uniform"] == pytest.approx(1 / 16)


def test_metrics_of_altered_pictures_share_their_batches(
    classifier: Classifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    score = evaluation.score_classes

    def note_batch(plan: Any, images: Tensor) -> Tensor:
        batches.append(len(images))
        return score(plan, images)

    monkeypatch.setattr(evaluation, "score_classes", note_batch)
    metrics = ("deletion", "insertion", "increase_in_confidence", "average_drop")
    alone = measure(classifier, folder / "1.png", metrics[:1])
    passed = sum(batches)
    batches.clear()
    (together,) = measure(classifier, folder / "1.png", metrics)
    np.testing.assert_allclose(together.values["deletion"], alone[0].values["deletion"], atol=1e-6)
    # the picture once, for each of five maps 27 points of a curve between its ends, and the far end
    # of all curves once; the same of an insertion, and two masked pictures of each map
    assert passed == 1 + 5 * 27 + 1
    assert sum(batches) == 1 + 2 * (5 * 27 + 1) + 2 * 5
    # no batch but the last is less than full
    assert set(batches[:-1]) == {32}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_measured(classifier: Classifier, folder: Path, name: str) -> None:
    (scores,) = measure(
        classifier, folder / "2.png", (name,), Annotations(annotate(*NAMES).pictures[2:3], ("red",))
    )
    assert not scores.error
    low, high = METRICS[name].range
    if METRICS[name].of_grids:
        # not of single pictures
        assert not scores.values
        return
    if METRICS[name].conclude:
        assert scores.kept[name].shape == (5, 3, 255) and scores.kept[name].dtype == bool
        return
    values = scores.values[name]
    assert values.shape == (5,)
    finite = values[np.isfinite(values)]
    assert len(finite) and finite.min() >= low - 1e-6 and finite.max() <= high + 1e-6


def test_the_annotated_class_is_explained_and_not_the_predicted_one(
    classifier: Classifier, folder: Path
) -> None:
    truth = annotate(*NAMES, label="Green")
    assert [s.label for s in measure(classifier, folder, ("deletion",), truth)] == ["green"] * 4
    # names that are no classes count for what is predicted
    sources = find_sources([folder])
    known = know_truth(annotate(*NAMES, label="thing"), sources, classifier)
    assert "none of the annotated classes ('thing') is a class of the model" in known.notes[-1]
    scores = measure(classifier, folder, ("pointing_game",), annotate(*NAMES, label="thing"))
    assert [s.label for s in scores] == ["red"] * 4
    assert all("pointing_game" in s.values for s in scores)
    # meanings say it
    known = know_truth(annotate(*NAMES, label="thing"), sources, classifier, {"thing": [1]})
    assert known.classes.categories == {"thing": (1,)}
    with pytest.raises(
        UsageError, match=r"None of the annotated classes \('thing'\) is in the label"
    ):
        know_truth(annotate(*NAMES, label="thing"), sources, classifier, {"other": [1]})
    with pytest.raises(AnnotationError, match="None of the 4 pictures is annotated"):
        know_truth(annotate("x.png"), sources, classifier)


def test_more_pictures_have_the_same_annotations_and_other_meanings_have_not(
    classifier: Classifier, folder: Path
) -> None:
    known = annotate("0.png").pictures + annotate("1.png", label="green").pictures
    annotations, sources = Annotations(known, ("red", "green")), find_sources([folder])

    def digest(count: int, meanings: dict[str, list[int]] | None = None) -> str:
        return know_truth(annotations, sources[:count], classifier, meanings).digest

    # the second picture brings a class of its own, and an evaluation goes on with it
    assert digest(1) == digest(2)
    assert len({digest(2), digest(2, {"red": [1]}), digest(2, {"red": [2]})}) == 3


def test_what_is_bad_is_told_and_the_rest_is_measured(classifier: Classifier, folder: Path) -> None:
    (folder / "1.png").write_bytes(b"torn")
    truth = Annotations(annotate(*NAMES).pictures[:3], ("red",))
    scores = measure(classifier, folder, ("deletion", "pointing_game"), truth, batch_size=2)
    assert ["1.png" in s.error for s in scores] == [False, True, False, False]
    assert [sorted(s.values) for s in scores] == [
        ["deletion", "pointing_game"], [], ["deletion", "pointing_game"], ["deletion"],
    ]  # fmt: skip
    # a class of which the picture has no object
    scores = measure(
        classifier, folder, ("deletion", "pointing_game"), truth, target_category="green"
    )
    assert "the network sees no object of 'green'" in scores[0].notes
    assert sorted(scores[0].values) == ["deletion"]


@pytest.mark.usefixtures("small_embedded")
def test_labels_alone_choose_the_class_and_leave_out_what_needs_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, label in enumerate(("tabby", "espresso")):
        place = tmp_path / "in" / label
        place.mkdir(parents=True)
        Image.fromarray(picture(number, 1)).save(place / f"{number}.png")
    given = ["evaluate", str(tmp_path / "in"), "--boxes", str(tmp_path / "in"), "--img-size", "64"]
    given += ["--no-plots", "--disagreements", "0", "--save-path", str(tmp_path / "out")]
    assert main([*given, "--metrics", "pointing_game,complexity,box_iou"]) == 0
    printed = capsys.readouterr()
    left_out = (
        "left out with --boxes that have no box or mask of these pictures: pointing_game, box"
    )
    assert left_out in printed.err and "sees no object" not in printed.err
    assert "complexity" in printed.out and "pointing_game" not in printed.out
    with (tmp_path / "out" / "evaluation.csv").open(newline="") as file:
        labels = {Path(row["picture"]).name: row["label"] for row in csv.DictReader(file)}
    assert "tabby" in labels["0.png"] and labels["1.png"] == "espresso"
    assert main([*given, "--metrics", "pointing_game"]) == 2
    assert "pointing_game needs boxes or masks of the pictures' objects" in capsys.readouterr().err
    # nor is there anything to rank by
    assert main(["tune", *given[1:6], "--img-size", "64"]) == 2
    assert "tune needs 3 or more" in capsys.readouterr().err
    Image.fromarray(picture(2, 2)).save(tmp_path / "in" / "tabby" / "2.png")
    assert main(["tune", *given[1:4], "--img-size", "64", "--save-path", str(tmp_path)]) == 2
    assert "has no box or mask of these pictures to rank by" in capsys.readouterr().err


def test_a_label_beside_boxes_of_other_pictures_is_told() -> None:
    known = PictureAnnotations("a.png", (Instance("red"),))
    truth = Truth({Path("a.png"): known})
    assert not truth.has_objects
    prepared = SimpleNamespace(picture=SimpleNamespace(source=SimpleNamespace(path=Path("a.png"))))
    objects, notes = truth.see_objects(prepared, 0, "red")  # type: ignore[arg-type]
    assert objects == {} and notes == ("its annotations are labels alone, without a box or a mask",)


def test_what_is_not_evaluated(classifier: Classifier) -> None:
    assert choose_metrics((), has_objects=True)[0][:3] == ("deletion", "insertion", "road")
    kept, left = choose_metrics(("all",), has_objects=False)
    assert "pointing_game" not in kept and "left out without --boxes: " in left
    with pytest.raises(UsageError, match=r"pixel_ap needs boxes .* measured without --boxes"):
        choose_metrics(("pixel_ap",), has_objects=False)
    with pytest.raises(UnknownName, match="Closest: 'deletion'"):
        choose_metrics(("deletions",), has_objects=False)
    for given in ({"top_k": 2}, {"target_category": "red,green"}):
        with pytest.raises(UsageError, match="One class a picture is evaluated"):
            plan_evaluation(classifier, from_keywords(target_layers="layer", **given))
    reading = replace(classifier.reading, meaning="value")
    with pytest.raises(UsageError, match="no probability of a class"):
        plan_evaluation(replace(classifier, reading=reading), from_keywords())


def test_a_network_sees_boxes_and_masks_through_its_view() -> None:
    # the middle 20 x 20 of a picture of 40 x 60, seen by a network of 10 x 10
    view, size = Box(20, 10, 40, 30), (10, 10)
    boxes = np.array([[20, 10, 30, 20], [0, 0, 24, 60], [50, 0, 60, 10]], float)
    # the second is cut at the view's edges, the third is outside
    assert see_boxes(boxes, view, size).tolist() == [[0, 0, 5, 5], [0, 0, 2, 10]]
    mask = np.zeros((40, 60), bool)
    mask[10:20, 20:30] = True
    seen = see_mask(mask, view, size)
    assert seen[:5, :5].all() and seen.sum() == 25
    # padding shows what is outside the picture
    assert (
        see_mask(np.ones((4, 4), bool), Box(-4, 0, 8, 4), (2, 6)).tolist()
        == [[False, False, True, True, False, False]] * 2
    )


def contenders(*names: str) -> tuple[Contender, ...]:
    return tuple(Contender(n, n in (RANDOM, "uniform")) for n in names)


def test_differences_are_told_from_noise() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((40, 1))
    noise = 0.05 * rng.standard_normal((40, 4))
    # lower is better; a and b are alike
    values = base + np.array([0.0, 0.0, 0.5, 0.6]) + noise
    result = summarise_metric("deletion", contenders("a", "b", "c", RANDOM), values)
    assert result is not None and result.best in ("a", "b") and result.verdict == "useful"
    rows = {row.name: row for row in result.contenders}
    assert rows["c"].p is not None and rows["c"].p < 0.001 and not rows["c"].is_noise
    assert rows[({"a", "b"} - {result.best}).pop()].is_noise
    assert rows[result.best].p is None and set(result.better) == {"a", "b", "c"}
    low, high = rows["a"].low, rows["a"].high
    assert low is not None and high is not None and low < rows["a"].mean < high


def test_a_metric_on_which_random_is_as_good_is_useless_and_few_pictures_tell_nothing() -> None:
    values = np.random.default_rng(1).random((40, 3))
    known = contenders("a", "b", RANDOM)
    result = summarise_metric("insertion", known, values)
    assert result is not None and result.verdict == "useless" and result.better == ()
    assert "useless here: no method beats random maps" in describe_verdict(result)
    # worse than random beyond noise is no use either
    worse = summarise_metric("insertion", known, values + np.array([0, 0, 5]))
    assert worse is not None and worse.verdict == "useless" and worse.best == RANDOM
    assert f"{RANDOM} is best" in describe_verdict(worse)
    assert f"of the methods {worse.best_method} is" in describe_verdict(worse)
    # of five pictures not even five wins are beyond noise
    few = summarise_metric("insertion", known, np.array([[1.0, 1.0, 0.0]] * 5))
    assert few is not None and few.verdict == "untold"
    assert "too few pictures" in describe_verdict(few)


def test_one_picture_has_no_interval_and_pictures_without_all_values_are_left_out() -> None:
    known = contenders("a", RANDOM)
    one = summarise_metric("insertion", known, np.array([[0.5, 0.25], [np.nan, 0.5]]))
    assert one is not None and one.pictures == 1 and one.contenders[0].mean == 0.5
    assert one.contenders[0].low is None and one.contenders[1].p is None
    assert "one picture has no interval" in describe_verdict(one)
    assert summarise_metric("insertion", known, np.full((2, 2), np.nan)) is None
    collected = Collected()
    collected.add(PictureScores(Source(Path("a")), error="torn"))
    assert collected.summarise(("insertion",)) == ()


def test_the_command_writes_rows_and_prints_what_they_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, out = tmp_path / "in", tmp_path / "out"
    place.mkdir()
    known = []
    for number in range(2):
        Image.fromarray(picture(number, 1)).save(place / f"{number}.png")
        box = Box(10, 10 * number, 20, 10 * number + 10)
        known.append(PictureAnnotations(f"{number}.png", (Instance("red", box),), (EDGE, EDGE)))
    (place / "torn.png").write_bytes(b"")
    write = FORMATS["coco"].write
    assert write is not None
    write(known, tmp_path / "boxes.json")
    typed = ["evaluate", str(place), "--img-size", "64", "--device", "cpu", "--save-path", str(out)]
    typed += ["--boxes", str(tmp_path / "boxes.json"), "--metrics", "heat_inside,complexity"]
    assert main([*typed, "--method", "gradcam,eigencam"]) == 1
    printed = capsys.readouterr()
    assert "heat_inside \N{UPWARDS ARROW}" in printed.out
    assert "complexity \N{DOWNWARDS ARROW}" in printed.out
    assert "(gaussian)" in printed.out and "torn.png" in printed.err
    assert "none of the annotated classes ('red') is a class of the model" in printed.err
    with (out / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # pictures, maps and metrics
    assert len(rows) == 2 * 6 * 2
    assert {row["method"] for row in rows if row["is_baseline"] == "True"} == {
        RANDOM, "gaussian", "edges", "uniform",
    }  # fmt: skip
    lines = (out / "evaluation.jsonl").read_text().splitlines()
    assert len(lines) == len(rows) and json.loads(lines[0])["metric"] == rows[0]["metric"]
    summary = json.loads((out / "evaluation.json").read_text())
    assert summary["failed"][0]["picture"].endswith("torn.png")
    mean = np.mean([float(r["value"]) for r in rows if r["method"] == "gradcam"
                    and r["metric"] == "complexity"])  # fmt: skip
    (complexity,) = [m for m in summary["metrics"] if m["metric"] == "complexity"]
    assert complexity["contenders"][0]["mean"] == pytest.approx(mean)
    # an earlier evaluation stays
    assert main([*typed, "--json", "--layers", "auto"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert Path(printed["files"][0]).name == "evaluation-2.csv"
    assert main(["evaluate"]) == 2
    assert main(["evaluate", str(place), "--box-names", "names.txt"]) == 2
    assert "--box-names is about the objects of --boxes" in capsys.readouterr().err
    assert main([*typed, "--layers", "features", "--target-layers", "features"]) == 2
    assert "give one of them" in capsys.readouterr().err
