"""Predictions are right or wrong by what is known of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camcli.errors import AnnotationError
from camcli.report.known_classes import judge, read_known_classes
from tests.report.made_runs import Made, made, spot, stored


def one(name: str, **fields: Any) -> Made:
    return made(name, spot(1, 1), **fields)


def judged(labels: str, *items: Made) -> list[bool | None]:
    heatmaps = [stored(item) for item in items]
    return judge(heatmaps, read_known_classes(labels, heatmaps))


@pytest.mark.parametrize(
    ("folder", "right"),
    [("tabby", True), ("Tabby_Cat", True), ("1", True), ("dog", False), ("tab", False)],
)
def test_a_folders_name_is_held_against_the_classs_names(folder: str, right: bool) -> None:
    assert judged("folders", one(f"in/{folder}/a.png")) == [right]


def test_without_labels_nothing_is_known() -> None:
    heatmaps = [stored(one("tabby/a.png"))]
    assert judge(heatmaps, read_known_classes(None, heatmaps)) == [None]


@pytest.mark.parametrize("header", ["", "path,label\n", "label,file\n"])
def test_a_table_of_paths_and_labels(tmp_path: Path, header: str) -> None:
    table = tmp_path / "labels.csv"
    lines = [("a.png", "tabby"), ("b.png", "dog")]
    turned = header.startswith("label")
    table.write_text(header + "".join(f"{b},{a}\n" if turned else f"{a},{b}\n" for a, b in lines))
    assert judged(str(table), one("a.png"), one("b.png"), one("c.png")) == [True, False, None]


def test_a_picture_may_show_several_classes(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.png,dog\na.png,tabby\n")
    assert judged(str(table), one("a.png")) == [True]


def test_annotations_of_boxes_have_labels(tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text("path,label,xmin,ymin,xmax,ymax\na.png,tabby,1,1,5,5\n")
    assert judged(str(table), one("a.png")) == [True]


def test_the_prediction_counts_and_not_the_explained_class() -> None:
    second = one("dog/a.png", rank=2, label="dog", category=2)
    first = one("dog/a.png")
    assert judged("folders", first, second) == [False, False]
    # nobody recorded the prediction: the known class is not it, another one may be
    assert judged("folders", second) == [False]
    assert judged("folders", one("dog/a.png", rank=2)) == [None]
    likeliest = {"top_categories": (5, 1), "top_labels": ("dog", "tabby")}
    assert judged("folders", one("dog/a.png", rank=2, **likeliest)) == [True]


@pytest.mark.parametrize("text", ["", "path,label\na.png\n", "x.png,dog\n"])
def test_what_does_not_fit_is_said(tmp_path: Path, text: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(AnnotationError):
        judged(str(table), one("a.png"))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    for name in ("none.csv", "none"):
        with pytest.raises(AnnotationError):
            judged(str(tmp_path / name), one("a.png"))
