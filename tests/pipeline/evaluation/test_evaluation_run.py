"""An evaluation from its first picture to its summary: going on, shares, grids, threads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from camcli.config import from_keywords
from camcli.errors import UsageError
from camcli.media.annotations import Annotations, Instance, PictureAnnotations
from camcli.media.sources.listing import find_sources
from camcli.methods.postprocessing import min_max
from camcli.metrics.localization.max_box_accuracy import max_box_accuracy, threshold_overlaps
from camcli.metrics.sanity.rank_correlation import rank_correlation
from camcli.models.load import Classifier
from camcli.pipeline.distributed.sharding import take_share
from camcli.pipeline.evaluation.evaluation import (
    Contender,
    Evaluation,
    PictureScores,
    Truth,
    know_truth,
    plan_evaluation,
)
from camcli.pipeline.evaluation.evaluation_run import EvaluationRun, describe_run
from camcli.pipeline.evaluation.files import EvaluationFiles
from camcli.pipeline.evaluation.grid_game import Cell, choose_grids
from camcli.pipeline.evaluation.map_metrics import compute_agreement
from camcli.pipeline.evaluation.metric_statistics import Collected
from camcli.pipeline.evaluation.rows import list_rows, read_rows
from camcli.pipeline.evaluation.shard_merge import merge_evaluations
from camcli.pipeline.workers.read_ahead import read_ahead
from camcli.pipeline.workers.worker_pool import WorkerPool, start_workers
from camcli.records import Box, Preprocessing, Source
from camcli.registry import METRICS
from tests.checkout import ROOT

EDGE, CELL = 40, 10
METRICS_ASKED = ("insertion", "average_drop", "pointing_game")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


class ColourNetwork(nn.Module):
    """Looks for red, green, blue and yellow cells; yellow is made of red and green."""

    def __init__(self, *, any_size: bool = True) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(CELL)
        self.layer = nn.Conv2d(3, 4, 1, bias=False)
        self.any_size, self.seen, self.edge = any_size, 0, EDGE
        weights = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [0.6, 0.6, -1]]
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor(weights, dtype=torch.float32)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        if not self.any_size and x.shape[-1] != self.edge:
            raise ValueError("another size")
        self.seen += len(x)
        cells: Tensor = self.layer(self.pool(x)).relu()
        return 2 * cells.sum((2, 3))


def make_classifier(*, any_size: bool = True) -> Classifier:
    size = (EDGE, EDGE)
    preprocessing = Preprocessing(size, size, mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash")
    module = ColourNetwork(any_size=any_size).eval()
    return Classifier(module, "colours", "timm", preprocessing, tuple(COLOURS), "by hand", 4)


def make_pictures(place: Path, count: int = 5, colours: tuple[str, ...] = ("red",)) -> Path:
    place.mkdir()
    for n in range(count):
        pixels = np.zeros((EDGE, EDGE, 3), np.uint8)
        row, column = n % 3, (n + 1) % 4
        pixels[CELL * row : CELL * (row + 2), CELL * column : CELL * (column + 1)] = COLOURS[
            colours[n % len(colours)]
        ]
        Image.fromarray(pixels).save(place / f"{n}.png")
    return place


def annotate(count: int = 5) -> Annotations:
    pictures = []
    for n in range(count):
        left, top = CELL * ((n + 1) % 4), CELL * (n % 3)
        box = Box(left, top, left + CELL, top + 2 * CELL)
        pictures.append(PictureAnnotations(f"{n}.png", (Instance("red", box),), (EDGE, EDGE)))
    return Annotations(tuple(pictures), ("red",))


def evaluate(
    folder: Path,
    out: Path,
    *,
    most: int | None = None,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    metrics: tuple[str, ...] = METRICS_ASKED,
    truth: Annotations | None = None,
    classifier: Classifier | None = None,
    threads: int = 0,
    **given: Any,
) -> tuple[EvaluationRun, list[PictureScores], list[str]]:
    """Evaluates, breaking off behind so many pictures; returns what was measured and noted."""
    classifier = classifier or make_classifier()
    given = {"method": ("gradcam", "eigencam"), "target_layers": "layer", "batch_size": 2} | given
    options = from_keywords(**given)
    sources = find_sources([folder])
    known = know_truth(truth, sources, classifier) if truth else Truth()
    evaluation = Evaluation(plan_evaluation(classifier, options), options, metrics, known)
    share = take_share(sources, shard) if shard else sources
    notes: list[str] = []
    run = describe_run(evaluation, shard)
    with (
        EvaluationFiles(out, run, resume=resume) as files,
        start_workers(threads) as pool,
    ):
        evaluating = EvaluationRun(evaluation, share, files, shard, notes.append)
        with closing(evaluating.carry_out(pool)) as coming:
            measured = list(islice(coming, most))
        if most is None:
            files.finish(evaluating.summarise()[1])
    return evaluating, measured, notes


def test_who_was_killed_and_goes_on_says_what_one_says_that_ran_through(tmp_path: Path) -> None:
    folder, truth = make_pictures(tmp_path / "in"), annotate()
    (folder / "1.png").write_bytes(b"torn")
    through, _, _ = evaluate(folder, tmp_path / "a", truth=truth)
    out = tmp_path / "b"
    evaluate(folder, out, truth=truth, most=3)
    assert not (out / "evaluation.json").exists()
    rows = (out / "evaluation.jsonl").read_bytes()
    # of the next picture some rows were written, and one of them in part
    more = rows.splitlines(keepends=True)[0].replace(b'"id": "', b'"id": "f')
    (out / "evaluation.jsonl").write_bytes(rows + more + more[:100])
    with (out / "evaluation.csv").open("a") as table:
        table.write("torn")
    classifier = make_classifier()
    again, measured, _ = evaluate(folder, out, truth=truth, resume=True, classifier=classifier)
    # what failed is tried again
    assert [s.source.path.name for s in measured] == ["1.png", "3.png", "4.png"]
    assert again.skipped == 2 and len(again.failures) == len(through.failures) == 1
    for name in ("evaluation.json", "evaluation.jsonl", "evaluation.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (out / name).read_bytes(), name
    assert sorted(p.name for p in out.iterdir()) == [
        "evaluation.csv", "evaluation.json", "evaluation.jsonl",
    ]  # fmt: skip
    # once more nothing is left to do
    seen = classifier.module.seen
    _, measured, _ = evaluate(folder, out, truth=truth, resume=True, classifier=classifier)
    assert [bool(s.error) for s in measured] == [True]
    assert (tmp_path / "a" / "evaluation.json").read_bytes() == (
        out / "evaluation.json"
    ).read_bytes()
    # planning looks at the model, pictures do not
    assert classifier.module.seen - seen < 10


def test_other_options_are_refused_and_without_resume_it_begins_anew(tmp_path: Path) -> None:
    folder, out = make_pictures(tmp_path / "in", 2), tmp_path / "out"
    # nothing is there to go on with
    evaluate(folder, out, resume=True, metrics=("average_drop",))
    with pytest.raises(UsageError, match=r"has seed 0 \(now 1\). Give the same options"):
        evaluate(folder, out, resume=True, metrics=("average_drop",), seed=1)
    with pytest.raises(UsageError, match=r"has metrics .*insertion"):
        evaluate(folder, out, resume=True, metrics=("insertion",))
    truth = annotate(2)
    with pytest.raises(UsageError, match="has annotations"):
        evaluate(folder, out, resume=True, metrics=("average_drop",), truth=truth)
    # how fast it goes is another matter
    _, measured, _ = evaluate(folder, out, resume=True, metrics=("average_drop",), batch_size=1)
    assert measured == []
    evaluate(folder, out, metrics=("average_drop",), seed=1)
    assert (out / "evaluation-2.json").exists()
    # of two, the one with these options goes on
    _, measured, _ = evaluate(folder, out, resume=True, metrics=("average_drop",))
    assert measured == [] and not (out / "evaluation-3.json").exists()
    lines = (out / "evaluation.jsonl").read_bytes().splitlines(keepends=True)
    (out / "evaluation.jsonl").write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    with pytest.raises(UsageError, match=r"Line 2 of .* is not a row of an evaluation"):
        evaluate(folder, out, resume=True, metrics=("average_drop",))


@pytest.mark.parametrize("alone", [False, True])
def test_shares_become_what_one_process_says(tmp_path: Path, alone: bool) -> None:
    folder, truth = make_pictures(tmp_path / "in"), annotate()
    (folder / "2.png").write_bytes(b"torn")
    evaluate(folder, tmp_path / "a", truth=truth)
    out = tmp_path / "b"
    evaluate(folder, out, truth=truth, shard=(1, 2))
    evaluate(folder, out, truth=truth, shard=(0, 2), most=1)
    with pytest.raises(UsageError, match=r"not finished: evaluation.rank-0000-of-0002.jsonl"):
        merge_evaluations(out)
    if alone:
        # one process takes over what all of them did
        _, measured, _ = evaluate(folder, out, truth=truth, resume=True)
        assert [s.source.path.name for s in measured] == ["2.png", "4.png"]
    else:
        evaluate(folder, out, truth=truth, shard=(0, 2), resume=True)
        (merged,) = merge_evaluations(out)
        assert merged.summary == out / "evaluation.json"
        assert (merged.pictures, merged.failed) == (4, 1)
        assert merge_evaluations(out) == []
    assert (tmp_path / "a" / "evaluation.json").read_bytes() == (
        out / "evaluation.json"
    ).read_bytes()
    assert not list(out.glob("*rank*")) and not (out / ".camviz").exists()
    rows = [sorted((d / "evaluation.csv").read_text().splitlines()) for d in (tmp_path / "a", out)]
    assert rows[0] == rows[1]


def test_an_incomplete_evaluation_is_joined_and_goes_on(tmp_path: Path) -> None:
    folder, out = make_pictures(tmp_path / "in"), tmp_path / "out"
    evaluate(folder, out, shard=(1, 2), metrics=("average_drop",))
    with pytest.raises(UsageError, match="missing of 2: rank 0"):
        merge_evaluations(out)
    (merged,) = merge_evaluations(out, incomplete=True)
    assert merged.pictures == 2 and not (out / "evaluation.json").exists()
    # with another number of processes, as well
    for rank in range(3):
        evaluate(folder, out, shard=(rank, 3), resume=True, metrics=("average_drop",))
    (merged,) = merge_evaluations(out)
    assert merged.pictures == 5
    evaluate(folder, tmp_path / "a", metrics=("average_drop",))
    assert (tmp_path / "a" / "evaluation.json").read_bytes() == (
        out / "evaluation.json"
    ).read_bytes()


def test_threads_that_read_change_nothing(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in")
    (folder / "3.png").write_bytes(b"torn")
    _, alone, _ = evaluate(folder, tmp_path / "a", metrics=("average_drop",))
    _, in_threads, _ = evaluate(folder, tmp_path / "b", metrics=("average_drop",), threads=2)
    assert [s.source.path.name for s in in_threads] == [f"{n}.png" for n in range(5)]
    assert [bool(s.error) for s in in_threads] == [False, False, False, True, False]
    for one, other in zip(alone, in_threads, strict=True):
        for metric, values in one.values.items():
            np.testing.assert_array_equal(values, other.values[metric])


def test_what_is_read_ahead_is_bounded_and_in_order() -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        return number * number

    coming = read_ahead(iter(range(100)), read, WorkerPool(0), 3)
    assert next(coming) == (0, 0) and begun == [0, 1, 2]
    assert list(coming)[-1] == (99, 99**2)


# --- rows


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    folder, truth = make_pictures(tmp_path / "in", 1), annotate(1)
    metrics = ("deletion", "road", "pointing_game", "max_box_accuracy")
    _, measured, _ = evaluate(folder, tmp_path / "out", truth=truth, metrics=metrics)
    read = dict(read_rows(tmp_path / "out" / "evaluation.jsonl"))
    for scores, back in zip(measured, read.values(), strict=True):
        assert back.contenders == scores.contenders and back.agreement == scores.agreement
        assert back.label == "red" and back.number == scores.number
        for metric, values in scores.values.items():
            np.testing.assert_array_equal(back.values[metric], values)
        assert list(back.curves) == ["deletion", "road_most", "road_least"]
        for name, curve in scores.curves.items():
            assert back.curves[name].shares == curve.shares
            np.testing.assert_array_equal(back.curves[name].scores, curve.scores)
        np.testing.assert_array_equal(
            back.kept["max_box_accuracy"], scores.kept["max_box_accuracy"]
        )


def test_curves_have_the_area_that_the_metric_says(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 1)
    _, (scores,), _ = evaluate(folder, tmp_path / "out", metrics=("deletion", "insertion", "road"))
    for metric in ("deletion", "insertion"):
        curve = scores.curves[metric]
        assert curve.shares[0] == 0 and curve.shares[-1] == 1
        area = (curve.scores[:, 1:-1].sum(1) + (curve.scores[:, 0] + curve.scores[:, -1]) / 2) / (
            len(curve.shares) - 1
        )
        np.testing.assert_allclose(area, scores.values[metric], atol=1e-5)
    whole = scores.curves["deletion"].scores[:, 0]
    np.testing.assert_allclose(scores.curves["insertion"].scores[:, -1], whole, atol=1e-6)
    most, least = scores.curves["road_most"].scores, scores.curves["road_least"].scores
    np.testing.assert_allclose(most[:, 0], whole, atol=1e-6)
    np.testing.assert_allclose(
        (least[:, 1:].mean(1) - most[:, 1:].mean(1)) / 2, scores.values["road"], atol=1e-5
    )


def test_agreement_is_the_mean_rank_correlation_of_maps() -> None:
    maps = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
    pairs = [(0, 1), (0, 2), (1, 2)]
    mean = np.mean([float(rank_correlation(maps[i, None], maps[j, None])) for i, j in pairs])
    assert compute_agreement(maps) == pytest.approx(mean, abs=1e-6)
    # a constant map says nothing, and one method agrees with nobody
    constant = maps.clone()
    constant[2] = 0
    alone = float(rank_correlation(maps[0, None], maps[1, None]))
    assert compute_agreement(constant) == pytest.approx(alone, abs=1e-6)
    assert compute_agreement(maps[:1]) is None


# --- metrics of a whole data set


def test_max_box_accuracy_is_that_of_all_pictures_together(tmp_path: Path) -> None:
    folder, truth = make_pictures(tmp_path / "in", 3), annotate(3)
    run, measured, _ = evaluate(
        folder, tmp_path / "out", truth=truth, metrics=("max_box_accuracy",), method=("gradcam",)
    )
    results, summary = run.summarise()
    (result,) = [r for r in results if r.metric == "max_box_accuracy"]
    assert result.pictures == 3 and result.contenders[0].name == "gradcam"
    # the uniform map: the box of the whole picture, whatever the threshold; no IoU is reached
    assert {row.name: row.mean for row in result.contenders}["uniform"] == 0
    reach = np.stack([s.kept["max_box_accuracy"] for s in measured])
    by_hand = reach.mean(0).max(-1).mean(-1)
    assert [row.mean for row in result.contenders] == pytest.approx(by_hand.tolist())
    for row in result.contenders:
        assert row.low is not None and row.high is not None
        assert row.low <= row.mean <= row.high + 1e-9
    assert summary["metrics"][0]["metric"] == "max_box_accuracy"


def test_max_box_accuracy_of_random_maps_is_the_authors() -> None:
    draw = torch.Generator().manual_seed(0)
    boxes = [torch.tensor([[2.0, 2.0, 9.0, 12.0]]), torch.tensor([[4.0, 0.0, 14.0, 9.0]])] * 2
    pictures, overlaps = [], []
    for n, box in enumerate(boxes):
        maps = torch.rand(2, 4, 4, generator=draw)
        maps = torch.nn.functional.interpolate(maps[None], (16, 16), mode="bilinear")[0]
        maps = min_max(maps)
        overlaps.append(threshold_overlaps(maps, box))
        kept = METRICS["max_box_accuracy"].function(maps, box).numpy()
        contenders = (Contender("a"), Contender("b"))
        pictures.append(
            PictureScores(
                Source(Path(f"{n}")), 0, contenders=contenders, kept={"max_box_accuracy": kept}
            )
        )
    collected = Collected()
    for scores in pictures:
        collected.add(scores)
    (result,) = collected.summarise(("max_box_accuracy",))
    for place, row in enumerate(result.contenders):
        theirs = max_box_accuracy(torch.stack([o[place] for o in overlaps]))
        assert row.mean == pytest.approx(theirs.value)
    # rows keep it as runs
    for scores in pictures:
        (row, _) = list_rows(scores, "0")
        assert row.more["of"] == 255 and all(len(runs) < 128 for runs in row.more["reached"])


# --- grids


def test_grids_are_of_different_classes_and_use_each_picture_once() -> None:
    counts = {0: 7, 1: 5, 2: 4, 3: 3, 4: 1}
    categories = [c for c, n in counts.items() for _ in range(n)]
    cells = [Cell(Source(Path(str(n))), c, "", 0.5, n) for n, c in enumerate(categories)]
    grids = choose_grids(cells, seed=3)
    # twenty pictures, and at each time those of the classes that have most of them left
    assert len(grids) == 4
    used = [cell.number for grid in grids for cell in grid]
    assert len(set(used)) == len(used) == 16
    assert all(len({cell.category for cell in grid}) == 4 for grid in grids)
    assert choose_grids(cells[::-1], seed=3) == grids != choose_grids(cells, seed=4)
    assert choose_grids([c for c in cells if c.category < 3], seed=0) == []


@pytest.mark.parametrize("any_size", [True, False])
def test_heat_counts_in_its_own_cell(tmp_path: Path, any_size: bool) -> None:
    folder = make_pictures(tmp_path / "in", 9, tuple(COLOURS))
    classifier = make_classifier(any_size=any_size)
    run, measured, notes = evaluate(
        folder, tmp_path / "out", metrics=("grid_pointing_game",), classifier=classifier
    )
    assert "2 grids of 2 x 2 pictures" in notes[-1] and "--seed 0" in notes[-1]
    assert ("full size" in notes[-1]) == any_size
    values = [s for s in measured if s.grid is not None]
    assert len(values) == 8 and {s.grid for s in values} == {0, 1}
    names = [c.name for c in values[0].contenders]
    for scores in values:
        shares = dict(zip(names, scores.values["grid_pointing_game"].tolist(), strict=True))
        assert shares["uniform"] == pytest.approx(0.25, abs=1e-6)
        if any_size and scores.label in ("red", "green", "blue"):
            # the others' channels are zero there; a map that is enlarged reaches over the edge
            assert shares["gradcam"] > 0.75
    results, summary = run.summarise()
    assert results[0].metric == "grid_pointing_game" and results[0].pictures == 8
    eigencam = [v.values["grid_pointing_game"][1] for v in values if v.grid == 0]
    # a method that asks no class has one map for all cells
    assert sum(eigencam) == pytest.approx(1, abs=1e-5)
    assert json.loads(json.dumps(summary["metrics"]))[0]["pictures"] == 8


def test_grids_that_were_measured_are_not_again(
    tmp_path: Path,
) -> None:
    folder = make_pictures(tmp_path / "in", 9, tuple(COLOURS))
    metrics = ("average_drop", "grid_pointing_game")
    evaluate(folder, tmp_path / "a", metrics=metrics)
    out = tmp_path / "b"
    # the first grid is whole, and of the second one picture
    evaluate(folder, out, metrics=metrics, most=9 + 5)
    _, measured, _ = evaluate(folder, out, metrics=metrics, resume=True)
    assert [s.grid for s in measured] == [1, 1, 1, 1]
    for name in ("evaluation.json", "evaluation.jsonl", "evaluation.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (out / name).read_bytes(), name


def test_a_network_of_an_odd_size_alone_has_no_grid(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 4, tuple(COLOURS))
    classifier, size = make_classifier(any_size=False), (EDGE + 1, EDGE + 1)
    classifier.module.edge = EDGE + 1
    preprocessing = replace(classifier.preprocessing, size=size, scale=size)
    classifier = replace(classifier, preprocessing=preprocessing)
    metrics = ("average_drop", "grid_pointing_game")
    run, _, notes = evaluate(folder, tmp_path / "out", metrics=metrics, classifier=classifier)
    assert notes == [
        "grid_pointing_game is left out: the network takes only 41 x 41 pixels, which cannot be "
        "split into 2 x 2 cells"
    ]
    assert [r.metric for r in run.summarise()[0]] == ["average_drop"]


def test_pictures_of_too_few_classes_have_no_grid(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 4, ("red", "green"))
    run, _, notes = evaluate(
        folder, tmp_path / "out", metrics=("average_drop", "grid_pointing_game")
    )
    assert notes == [
        "grid_pointing_game is left out: a grid needs 4 pictures of different classes, and the "
        "pictures have 2"
    ]
    assert [r.metric for r in run.summarise()[0]] == ["average_drop"]


@pytest.mark.slow  # starts Python once more; who goes on in process is tested above
def test_one_that_was_killed_leaves_nothing_behind_it(tmp_path: Path) -> None:
    folder, out = make_pictures(tmp_path / "in", 2), tmp_path / "out"
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.pipeline.evaluation.test_evaluation_run import evaluate\n"
        "import camcli.pipeline.evaluation.files as files\n"
        "add = files.EvaluationFiles.add\n"
        "def die(self, scores):\n"
        "    add(self, scores)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.EvaluationFiles.add = die\n"
        f"evaluate(Path({str(folder)!r}), Path({str(out)!r}), metrics=('average_drop',))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (out / ".camviz").exists() and not (out / "evaluation.json").exists()
    run, measured, _ = evaluate(folder, out, metrics=("average_drop",), resume=True)
    assert run.skipped == 1 and len(measured) == 1
    evaluate(folder, tmp_path / "a", metrics=("average_drop",))
    for name in ("evaluation.json", "evaluation.jsonl", "evaluation.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (out / name).read_bytes(), name
    assert not (out / ".camviz").exists()
