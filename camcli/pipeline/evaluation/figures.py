"""Draws results: bars, curves, pictures where methods disagree most, and sanity checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from camcli.errors import CamvizError
from camcli.media.pictures.write import write_picture
from camcli.pipeline import stages
from camcli.pipeline.evaluation.evaluation import RANDOM, Evaluation, read_picture
from camcli.pipeline.evaluation.grid_game import Cell
from camcli.pipeline.evaluation.metric_statistics import CurveResult, MetricResult
from camcli.pipeline.evaluation.sanity_check import (
    OTHER,
    SAME,
    MethodSanity,
    SanityReport,
    list_similarities,
)
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.picture_api import group_items
from camcli.pipeline.plan import Plan
from camcli.pipeline.stages import PreparedPicture
from camcli.registry import ALL
from camcli.render import sheet_layout
from camcli.render.charts import (
    HOW_TO_INSTALL,
    Bar,
    BarPanel,
    Line,
    LinePanel,
    StepPanel,
    can_draw_charts,
    draw_bars,
    draw_curves,
    draw_steps,
    save_chart,
    write_chart,
)
from camcli.render.sheet_painting import draw_sheet

DISAGREEMENTS = 8
NO_CHARTS = (
    f"no bars and curves are drawn, which need matplotlib ({HOW_TO_INSTALL}); --no-plots leaves "
    "them out"
)
# the labels of a curve's axis and of the curve, by its name
CURVES = {
    "insertion": ("share of the pixels shown, hottest first", "Insertion"),
    "deletion": ("share of the pixels removed, hottest first", "Deletion"),
    "road_most": ("share of the pixels imputed, hottest first", "ROAD, most relevant first"),
    "road_least": ("share of the pixels imputed, coldest first", "ROAD, least relevant first"),
}
SIMILARITY_TITLES = {"ssim": "SSIM", "rank": "Rank correlation", "hog": "HOG similarity"}


def draw_charts(
    stem: Path, results: Sequence[MetricResult], curves: Sequence[CurveResult]
) -> list[Path]:
    """Writes bars of the metrics, and curves, as PNG and SVG; nothing without matplotlib.

    Raises OutputError if a file cannot be written.
    """
    if not can_draw_charts():
        return []
    written: list[Path] = []
    if results:
        panels = [_make_bars(result) for result in results]
        written += save_chart(draw_bars(panels), stem.with_name(f"{stem.name}-bars"))
    if curves:
        lines = [_make_lines(curve) for curve in curves]
        written += save_chart(draw_curves(lines), stem.with_name(f"{stem.name}-curves"))
    return written


def _make_bars(result: MetricResult) -> BarPanel:
    bars = [
        Bar(row.name, row.mean, row.low, row.high, row.is_baseline, row.name == result.best)
        for row in result.contenders
        if row.has_value
    ]
    axis = f"{result.direction} is better, n = {result.pictures}"
    return BarPanel(result.metric, axis, bars)


def _make_lines(curve: CurveResult) -> LinePanel:
    x_axis, title = CURVES.get(curve.name, ("share of the pixels", curve.name))
    rows = zip(curve.contenders, curve.means.tolist(), curve.margins.tolist(), strict=True)
    lines = [Line(c.name, means, margins, c.is_baseline) for c, means, margins in rows]
    y_axis = f"mean probability, n = {curve.pictures}"
    return LinePanel(title, x_axis, y_axis, curve.shares, lines, most=1)


def draw_sanity(report: SanityReport, path: Path) -> None:
    """Draws how alike maps are after each step of fresh weights, a panel a similarity.

    A cascade begins with the trained weights.  Raises OutputError if the file cannot be written.
    """
    is_cascade = report.order == "cascading"
    panels = []
    for name in list_similarities():
        lines = [
            Line(m.method, _list_values(m, name, is_cascade=is_cascade), ()) for m in report.methods
        ]
        steps = [step.layer or "(model)" for step in report.methods[0].steps]
        panels.append(
            StepPanel(
                SIMILARITY_TITLES.get(name, name),
                f"with the trained map, n = {report.pictures}",
                ["trained", *steps] if is_cascade else steps,
                lines,
                (SAME, OTHER) if name == "rank" else (),
            )
        )
    write_chart(draw_steps(panels), path)


def _list_values(result: MethodSanity, similarity: str, *, is_cascade: bool) -> list[float]:
    values = [step.similarities[similarity] for step in result.steps]
    return [1.0, *values] if is_cascade else values


def draw_disagreements(
    evaluation: Evaluation, cells: Sequence[Cell], path: Path
) -> tuple[Path | None, list[str]]:
    """Draws a row for each picture, with the maps of all methods; returns what failed, too.

    The pictures are explained again, since no map of the evaluation is kept; one batch and the
    small overlays are in memory.  Nothing is drawn if no picture can be read any more.  Raises
    OutputError if the file cannot be written.
    """
    rows: list[list[sheet_layout.Cell | None]] = []
    failures: list[str] = []
    plan = _drop_random(evaluation)
    grid: sheet_layout.Grid | None = None
    for group in group_items(cells, plan.batch_size):
        prepared = list(_read(evaluation, group, failures))
        if not prepared:
            continue
        chosen = [p for _, p in prepared]
        for (cell, p), explanations in zip(
            prepared, stages.explain_batch(chosen, plan), strict=True
        ):
            probability = "" if cell.probability is None else f"{cell.probability:.2f}"
            captions = (
                sheet_layout.Line(cell.label, probability),
                sheet_layout.Line("", f"agreement {cell.agreement:.2f}"),
            )
            grid = grid or sheet_layout.plan_grid(1 + len(explanations))
            # reduced at once, since all of them are in memory
            original = sheet_layout.Cell(grid.fit(p.picture.canvas), captions)
            maps = [
                sheet_layout.Cell(grid.fit(e.overlay()), (sheet_layout.Line(_name(e, plan)),))
                for e in explanations
            ]
            rows.append([original, *maps])
    if grid is None:
        return None, failures
    write_picture(draw_sheet(rows, grid), path)
    return path, failures


def _drop_random(evaluation: Evaluation) -> Plan:
    """Returns the plan without random maps, unless they were asked for by name."""
    plan, asked = evaluation.plan, evaluation.options.method
    names = [n for n in plan.request.names if n != RANDOM or (RANDOM in asked and ALL not in asked)]
    return replace(plan, request=plan.request.select(names))


def _read(
    evaluation: Evaluation, cells: Sequence[Cell], failures: list[str]
) -> Iterator[tuple[Cell, PreparedPicture]]:
    for cell in cells:
        try:
            prepared = read_picture(cell.source, evaluation.plan, evaluation.options)
        except (CamvizError, MemoryError) as error:
            failures.append(f"{cell.source}: {error}")
        else:
            yield cell, replace(prepared, category=cell.category)


def _name(explanation: Explanation, plan: Plan) -> str:
    """Returns the name of a map's method, with its layer if there are several."""
    apart = plan.request.layer_fusion == "none" and len(plan.request.layers) > 1
    layers = explanation.map.layers
    return f"{explanation.method} {layers[0]}" if apart and layers else explanation.method
