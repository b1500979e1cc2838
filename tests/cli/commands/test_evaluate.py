"""`camviz evaluate`: how its results are printed."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from camcli.cli.commands import tune
from camcli.cli.commands.evaluate import make_tables
from camcli.pipeline.evaluation.metric_statistics import ContenderResult, MetricResult
from camcli.pipeline.tuning.search_report import HeldMetric
from camcli.registry import METRICS


def make_results(metrics: Sequence[str]) -> list[MetricResult]:
    rows = (
        ContenderResult("gradcamelementwise", False, 0.125, 0.1, 0.15),
        ContenderResult("randomcam", True, 0.25, 0.2, 0.3, 0.01),
    )
    return [
        MetricResult(name, METRICS[name].direction, 9, rows[0].name, rows, (), "useless")
        for name in metrics
    ]


@pytest.mark.parametrize("width", [30, 80, 200, 4000])
def test_every_metric_is_readable_at_every_width(width: int) -> None:
    names = list(METRICS)
    text = io.StringIO()
    tables = list(make_tables(make_results(names), width))
    for table in tables:
        Console(file=text, width=max(width, 60), highlight=False).print(table)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text.getvalue()
    assert [name for name in names if f"{name} " not in text.getvalue()] == []
    assert text.getvalue().count("[0.100, 0.150]") == len(names)
    assert text.getvalue().count("gradcamelementwise") == len(tables)
    assert (len(tables) == 1) == (width == 4000)
    if width >= 80:
        assert max(map(len, text.getvalue().splitlines())) <= width


@pytest.mark.parametrize("width", [30, 80, 200])
def test_what_a_choice_is_worth_is_readable_at_every_width(width: int) -> None:
    contenders = make_results(["deletion"])[0].contenders
    names = ["score", "pointing_game", "heat_inside", "pixel_ap", "box_iou"]
    held = [HeldMetric(name, "higher", contenders) for name in names]
    text = io.StringIO()
    for table in make_tables(held, width, tune._make_table):
        Console(file=text, width=max(width, 60), highlight=False).print(table)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text.getvalue()
    assert [name for name in names if f"{name} \N{UPWARDS ARROW}" not in text.getvalue()] == []
