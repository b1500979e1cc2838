"""What an evaluation draws: charts of its numbers, and pictures on which methods disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camcli.cli.app import main
from camcli.pipeline.evaluation import figures
from camcli.pipeline.evaluation.evaluation import Contender, PictureScores
from camcli.pipeline.evaluation.figures import draw_charts, draw_disagreements
from camcli.pipeline.evaluation.map_metrics import ScoreCurve
from camcli.pipeline.evaluation.metric_statistics import Collected
from camcli.records import Source
from camcli.render.sheet_layout import GAP, LINE, WIDE_GAP, plan_grid
from tests.pipeline.evaluation.test_evaluation_run import evaluate, make_pictures

NAMES = (Contender("gradcam"), Contender("randomcam", True))


def scores(number: int, agreement: float | None = None, **given: Any) -> PictureScores:
    curve = ScoreCurve((0.0, 1.0), np.array([[0.8, 0.1 * number], [0.8, 0.4]]))
    return PictureScores(
        Source(Path(f"{number}.png")), 0, "red", 0.8, NAMES, {"deletion": np.array([0.1, 0.2])},
        curves={"deletion": curve}, agreement=agreement, number=number, **given,
    )  # fmt: skip


def test_curves_are_means_with_the_normal_interval() -> None:
    collected = Collected()
    for number in range(5):
        collected.add(scores(number))
    (curve,) = collected.average_curves()
    assert curve.name == "deletion" and curve.pictures == 5 and curve.shares == (0, 1)
    last = 0.1 * np.arange(5)
    np.testing.assert_allclose(curve.means, [[0.8, last.mean()], [0.8, 0.4]])
    margin = 1.959964 * last.std(ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(curve.margins, [[0, margin], [0, 0]], atol=1e-8)
    alone = Collected()
    alone.add(scores(1))
    assert (alone.average_curves()[0].margins == 0).all()


def test_those_disagree_most_whose_maps_agree_least() -> None:
    collected = Collected()
    for number, agreement in enumerate([0.9, None, -0.2, 0.5, -0.2]):
        collected.add(scores(number, agreement))
    collected.add(PictureScores(Source(Path("x")), error="torn"))
    # cells of grids are no pictures of their own
    collected.add(scores(7, -1.0, grid=0))
    assert [cell.number for cell in collected.find_disagreements(3)] == [2, 4, 3]
    assert collected.find_disagreements(0) == []


def test_charts_are_named_after_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = Collected()
    for number in range(2):
        collected.add(scores(number))
    results, curves = collected.summarise(("deletion",)), collected.average_curves()
    written = draw_charts(tmp_path / "evaluation-2", results, curves)
    assert [path.name for path in written] == [
        f"evaluation-2-{kind}.{suffix}" for kind in ("bars", "curves") for suffix in ("png", "svg")
    ]
    assert all(path.stat().st_size for path in written)
    assert len(draw_charts(tmp_path / "no-curves", results, ())) == 2
    monkeypatch.setattr(figures, "can_draw_charts", lambda: False)
    assert draw_charts(tmp_path / "none", results, curves) == []


def test_the_sheet_has_a_row_a_picture_and_a_column_a_method(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "in", 4)
    run, _, _ = evaluate(
        folder, tmp_path / "out", metrics=("complexity",), method=("gradcam", "layercam", "fem")
    )
    cells = run.collected.find_disagreements(3)
    assert len(cells) == 3
    path, failures = draw_disagreements(run.evaluation, cells, tmp_path / "sheet.png")
    assert path == tmp_path / "sheet.png" and failures == []
    sheet = np.asarray(Image.open(path).convert("RGB"))
    # the picture and three methods; randomcam, which nobody asked for, is not among them
    grid = plan_grid(4)
    high, edge = 2 * LINE + grid.cell, grid.cell
    assert sheet.shape[:2] == (3 * high + 2 * WIDE_GAP + 2 * GAP, grid.width)
    for row, cell in enumerate(cells):
        top = GAP + row * (high + WIDE_GAP) + 2 * LINE
        original = grid.fit(np.asarray(Image.open(cell.source.path).convert("RGB")))
        np.testing.assert_array_equal(sheet[top : top + edge, GAP : GAP + edge], original)
    # one that has vanished is told, and the others are drawn
    cells[1].source.path.unlink()
    path, failures = draw_disagreements(run.evaluation, cells, tmp_path / "again.png")
    assert path and len(failures) == 1 and cells[1].source.path.name in failures[0]
    assert np.asarray(Image.open(path)).shape[0] == 2 * high + WIDE_GAP + 2 * GAP
    for cell in (cells[0], cells[2]):
        cell.source.path.unlink()
    assert draw_disagreements(run.evaluation, cells, tmp_path / "no.png")[0] is None


def list_leaves(value: Any) -> list[Any]:
    """Returns a JSON value's keys, numbers and texts in their order."""
    if isinstance(value, dict):
        return [leaf for pair in value.items() for part in pair for leaf in list_leaves(part)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in list_leaves(part)]
    return [value]


@pytest.mark.usefixtures("small_embedded")
def test_the_command_goes_on_shares_out_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = make_pictures(tmp_path / "in", 2, ("red", "green")), tmp_path / "out"
    typed = ["evaluate", str(folder), "--img-size", "64", "--device", "cpu", "--metrics"]
    typed += ["average_drop", "--method", "gradcam,eigencam", "--save-path", str(out)]
    assert main([*typed, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [Path(p).name for p in printed["figures"]] == [
        "evaluation-bars.png", "evaluation-bars.svg", "evaluation-disagreements.png",
    ]  # fmt: skip
    assert main([*typed, "--resume", "-j", "1", "--no-plots", "--disagreements", "0", "-q"]) == 0
    printed_paths = capsys.readouterr().out.splitlines()
    assert [Path(p).name for p in printed_paths] == [
        "evaluation.csv", "evaluation.jsonl", "evaluation.json",
    ]  # fmt: skip
    assert main([*typed, "--disagreements", "-1"]) == 2
    assert "takes a whole number from 0" in capsys.readouterr().err
    assert main([*typed, "--resume", "--seed", "1"]) == 2
    assert "has seed 0 (now 1)" in capsys.readouterr().err
    monkeypatch.setattr(figures, "can_draw_charts", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    shared = [*typed[:-1], str(tmp_path / "shared")]
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        assert main(shared) == 0
        assert f"rank {rank} of 2: 1 of 2 pictures" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")
    assert main(["merge", str(tmp_path / "shared")]) == 0
    assert "evaluation.json: 2 pictures measured" in capsys.readouterr().out
    # pictures that pass by themselves may round otherwise than beside others
    merged, alone = (
        list_leaves(json.loads((place / "evaluation.json").read_text()))
        for place in (tmp_path / "shared", out)
    )
    for one, other in zip(merged, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    # without matplotlib all else is written, and it is said what to install
    assert main([*shared, "--resume"]) == 0
    assert "pip install 'camviz[figures]'" in capsys.readouterr().err
    assert (tmp_path / "shared" / "evaluation-disagreements.png").exists()
