"""`camviz summary`: the table, JSON and CSV, and what is wrong input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.report.made_runs import made, spot, write_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    items = [made(f"a{n}.png", spot(3, 3), label="tabby, tabby cat") for n in range(8)]
    items += [
        made(f"b{n}.png", spot(6, 6), label="[red]ox", category=2, probability=0.9)
        for n in range(8)
    ]
    return write_run(tmp_path, items)


def test_the_striking_class_is_named_in_words_and_stands_first(run: Run, out: Path) -> None:
    result = run("summary", str(out))
    lines = result.out.splitlines()
    assert result.code == 0
    assert lines[0].startswith("[red]ox (gradcam): ") and "lower right corner" in lines[0]
    rows = [line.split() for line in lines if line.startswith(("1 ", "2 "))]
    assert rows[0][:3] == ["2", "[red]ox", "8"] and rows[1][:3] == ["1", "tabby", "8"]
    # what all rows share, and what says nothing, is left out
    assert "method" not in lines[-3] and "empty" not in lines[-3]


@pytest.mark.parametrize(("column", "first"), [("probability", "2"), ("centre", "1")])
def test_it_is_sorted_by_a_column(run: Run, out: Path, column: str, first: str) -> None:
    lines = run("summary", str(out), "--sort", column).out.splitlines()
    assert next(line for line in lines if line.startswith(("1 ", "2 "))).startswith(first)


def test_json_is_an_object_a_class(run: Run, out: Path) -> None:
    lines = run("summary", str(out), "--json").out.splitlines()
    first, second = map(json.loads, lines)
    assert first["hangs_on"][0]["place"] == "lower right corner" and second["hangs_on"] == []
    assert first["pictures"] == 8 and len(first["mean_map"]) == 7


def test_csv_is_a_line_a_class(run: Run, out: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("summary", str(out), "--csv").out)))
    assert [row["category"] for row in rows] == ["2", "1"]
    assert rows[0]["hangs_on"].startswith("lower right corner")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["none"], "There is no folder 'none'"),
        (["none", "--sort", "bordr"], "Unknown column to sort by 'bordr'"),
        (["none", "--json", "--csv"], "give one of them"),
    ],
)
def test_wrong_input_says_what_to_name(run: Run, typed: list[str], said: str) -> None:
    result = run("summary", *typed)
    assert result.code == 2 and said in result.err and result.out == ""


def test_a_run_without_heat_is_said(run: Run, tmp_path: Path) -> None:
    out = write_run(tmp_path, [made("a.png", np.zeros((7, 7), np.float32))])
    result = run("summary", str(out))
    assert result.code == 2 and "holds no raw map with heat" in result.err


def test_a_missing_scikit_learn_is_named(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camcli.report.summary.clusters.importlib.util.find_spec", lambda _: None)
    result = run("summary", str(out))
    assert result.code == 0 and "pip install 'camviz[summary]'" in result.err
