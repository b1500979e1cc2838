"""The handbook's page says of each faithfulness metric what the registry says."""

from __future__ import annotations

from pathlib import Path

import pytest

import camcli
import camcli.metrics
from camcli.registry import METRICS, Metric

PAGE = (Path(camcli.__file__).parent / "docs" / "metrics.md").read_text()
FAITHFUL = [m for m in METRICS.values() if m.family == "faithfulness"]


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
