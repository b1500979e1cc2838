"""The handbook's pages say of each metric what the registry says."""

from __future__ import annotations

from pathlib import Path

import pytest

import camcli
import camcli.metrics
from camcli.registry import METRICS, Metric

DOCS = Path(camcli.__file__).parent / "docs"
PAGE, OTHER_PAGE = ((DOCS / name).read_text() for name in ("metrics.md", "annotations.md"))
FAITHFUL = [m for m in METRICS.values() if m.family == "faithfulness"]
OTHERS = [m for m in METRICS.values() if m.family != "faithfulness"]


@pytest.mark.parametrize("metric", FAITHFUL, ids=lambda m: m.name)
def test_a_metrics_row_is_as_in_the_registry(metric: Metric) -> None:
    low, high = metric.range
    cells = (
        f"`{metric.name}`",
        metric.direction,
        f"{low:g}, {high:g}",
        str(metric.count_passes()),
        str(metric.count_explanations()),
        metric.paper,
    )
    assert f"| {' | '.join(cells)} |" in PAGE


@pytest.mark.parametrize("metric", OTHERS, ids=lambda m: m.name)
def test_a_row_of_localisation_and_sanity_is_as_in_the_registry(metric: Metric) -> None:
    lines = (line for line in OTHER_PAGE.splitlines() if line.startswith("| "))
    named = (line for line in lines if f"`{metric.name}`" in line.split("|")[1])
    (row,) = (line for line in named if metric.paper in line)
    low, high = metric.range
    needs = ", ".join(metric.needs) or "nothing"
    assert row.endswith(f" | {low:g} to {high:g} | {needs} |")
