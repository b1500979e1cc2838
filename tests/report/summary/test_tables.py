"""What a table, a CSV file and JSON say of a summary."""

from __future__ import annotations

import csv
import io
import json

import pytest

from camcli.errors import UnknownName
from camcli.report.summary import (
    SORT_KEYS,
    sort_summaries,
    summarise_classes,
    to_csv,
    to_object,
    to_row,
)
from tests.report.made_runs import made, spot, stored

SUMMARIES = summarise_classes(
    [
        stored(made("a.png", spot(0, 0), label="=1+1", category=0, probability=0.2)),
        stored(made("b.png", spot(3, 3), label="dog", category=1, probability=0.9)),
        stored(made("c.png", spot(3, 1), label="Ant", category=2, probability=None)),
    ],
    with_clusters=False,
)


@pytest.mark.parametrize(
    ("column", "first"),
    [("class", "=1+1"), ("probability", "dog"), ("border", "=1+1"), ("centre", "dog")],
)
def test_a_table_is_sorted_by_a_column(column: str, first: str) -> None:
    assert sort_summaries(SUMMARIES, column)[0].label == first


@pytest.mark.parametrize("column", SORT_KEYS)
def test_every_column_sorts_all_rows(column: str) -> None:
    assert len(sort_summaries(SUMMARIES, column.upper())) == len(SUMMARIES)


def test_what_has_no_probability_stands_last() -> None:
    assert sort_summaries(SUMMARIES, "probability")[-1].label == "Ant"


def test_an_unknown_column_names_all() -> None:
    with pytest.raises(UnknownName, match=r"bordr.*border"):
        sort_summaries(SUMMARIES, "bordr")


def test_csv_runs_nothing_in_a_spreadsheet() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(SUMMARIES))))
    assert {row["class"] for row in rows} == {"'=1+1", "dog", "Ant"}
    assert list(rows[0]) == list(to_row(SUMMARIES[0]))
    assert to_csv([]) == ""


def test_an_object_is_json_with_the_mean_map() -> None:
    values = json.loads(json.dumps(to_object(SUMMARIES[1])))
    assert len(values["mean_map"]) == 7 and len(values["mean_map"][0]) == 7
    # relative to even heat
    assert sum(map(sum, values["mean_map"])) / 49 == pytest.approx(1, abs=1e-3)
    assert values["places"]["frame"] == values["border"]
    assert values["hangs_on"] == [] and values["clusters"] == []
