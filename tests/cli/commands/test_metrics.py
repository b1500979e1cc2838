"""`camviz metrics`: what the registry says of each metric."""

from __future__ import annotations

import json

import pytest

from camcli.cli.app import main
from camcli.registry import METRICS


def test_all_metrics_are_listed_with_what_the_registry_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["metrics"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert main(["metrics", "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in objects] == list(METRICS)
    for one in objects:
        metric, line = METRICS[one["name"]], lines[one["name"]]
        assert one["direction"] in line and one["paper"] in line and one["family"] in line
        assert (one["passes"], one["needs"]) == (metric.count_passes(), list(metric.needs))
        assert all(need in line for need in one["needs"])
    assert {one["range"][1] for one in objects if one["name"] == "infidelity"} == {None}


@pytest.mark.parametrize("name", ["road", "POINTING-GAME"])
def test_one_metric_is_shown_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", name]) == 0
    shown = capsys.readouterr().out
    metric = METRICS[name.lower().replace("-", "_")]
    for text in (metric.summary, metric.paper, *(option.name for option in metric.options)):
        assert text in shown
    boxes = " --boxes FILE" if metric.needs else ""
    assert f"camviz evaluate IMAGE...{boxes} --metrics {metric.name}" in shown
    assert main(["metrics", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == metric.name


def test_a_name_that_nobody_knows_has_a_closest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "insertoin"]) == 2
    assert "Closest: 'insertion'. All: camviz metrics" in capsys.readouterr().err
