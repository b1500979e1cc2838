"""Which map stands where, and below which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camcli.pipeline.sheets.arrangement import Arrangement, arrange
from camcli.pipeline.sheets.items import SheetItem, make_record_bar
from camcli.records import Record


def item(source: str = "a/cat.jpg", **facts: Any) -> SheetItem:
    defaults: dict[str, Any] = {
        "model": "resnet50", "method": "gradcam", "layers": ("layer4",), "category": 3,
        "label": "tabby, tabby cat", "probability": 0.5, "target": "logit", "minimum": 0.0,
        "maximum": 1.0,
    }  # fmt: skip
    record = Record(source, **{**defaults, **facts})
    pixels = np.zeros((4, 6, 3), np.uint8)
    bar = make_record_bar(record, "jet", 0.5)
    return SheetItem(source, record, lambda: pixels, lambda: pixels, bar)


def read(sheet: Arrangement) -> list[list[str]]:
    """Returns the captions of each row's cells."""
    return [
        ["; ".join(f"{line.words} {line.tail}".strip() for line in c.captions) if c else "-"]
        for row in sheet.list_rows()
        for c in row
    ]


def table(sheet: Arrangement) -> list[list[str]]:
    rows, cells = [], [text for (text,) in read(sheet)]
    for row in sheet.rows:
        rows.append([cells.pop(0) for _ in range(len(row) + 1)])
    return rows


def test_pictures_by_methods() -> None:
    sheet = arrange(
        [item(source, method=m, maximum=n) for source in ("a/cat.jpg", "b/dog.jpg")
         for n, m in enumerate(("gradcam", "layercam"), start=1)]
    )  # fmt: skip
    assert sheet.axis == "method"
    assert table(sheet) == [
        ["cat.jpg; tabby 50.0%", "gradcam", "layercam"],
        ["dog.jpg; tabby 50.0%", "gradcam", "layercam"],
    ]
    assert sheet.notes == ("resnet50, at layer4",)
    assert sheet.bar is None


def test_pictures_by_classes_have_no_common_columns() -> None:
    sheet = arrange(
        [item(source, category=c, label=f"class {c}", probability=c / 10)
         for source, classes in (("cat.jpg", (5, 2)), ("dog.jpg", (7,))) for c in classes]
    )  # fmt: skip
    assert table(sheet) == [
        ["cat.jpg", "class 5 50.0%", "class 2 20.0%"],
        ["dog.jpg", "class 7 70.0%"],
    ]
    assert sheet.notes == ("resnet50, gradcam at layer4",)


def test_pictures_by_layers_leave_a_gap_where_there_is_no_map() -> None:
    sheet = arrange(
        [item(layers=("layer3",)), item(layers=("layer4",)), item("dog.jpg", layers=("layer4",))]
    )
    assert table(sheet) == [
        ["cat.jpg; tabby 50.0%", "layer3", "layer4"],
        ["dog.jpg; tabby 50.0%", "-", "layer4"],
    ]


def test_what_makes_no_column_makes_rows() -> None:
    items = [
        item(method=m, category=c, label=str(c), layers=(layer,))
        for c in (1, 2)
        for m in ("gradcam", "layercam")
        for layer in ("layer3", "layer4")
    ]
    assert table(arrange(items)) == [
        [f"cat.jpg; {c} 50.0%; {m}", "layer3", "layer4"]
        for c in (1, 2)
        for m in ("gradcam", "layercam")
    ]


def test_a_method_that_asks_no_class_stands_in_the_row_of_each() -> None:
    classless = item(method="eigencam", target="", category=1, label="1")
    items = [item(category=1, label="1"), classless, item(category=2, label="2")]
    sheet = arrange(items)
    assert table(sheet) == [
        ["cat.jpg; 1 50.0%", "gradcam", "eigencam"],
        ["cat.jpg; 2 50.0%", "gradcam", "eigencam"],
    ]
    assert sheet.rows[0][1] is sheet.rows[1][1] is classless


def test_methods_with_layers_of_their_own_stand_in_one_row() -> None:
    items = [item(method="best", layers=("layer3", "layer4")), item(layers=("layer4",))]
    assert table(arrange(items)) == [["cat.jpg; tabby 50.0%", "best", "gradcam"]]


def test_two_models_stand_side_by_side() -> None:
    items = [
        item(model="resnet50"),
        item(model="vit", layers=("blocks.11",), probability=0.25),
        item(model="resnet50 - vit", layers=(), compared_with="vit", minimum=-0.5, scale=(0, 1)),
    ]
    sheet = arrange(items)
    assert table(sheet) == [["cat.jpg; tabby 50.0%", "resnet50; 50.0%", "vit; 25.0%", "difference"]]
    ((_, _, _, difference),) = sheet.list_rows()
    assert difference and difference.bar and difference.bar.low == -1
    assert sheet.notes == ("gradcam",)


def test_one_bar_stands_for_all_maps_of_one_scale() -> None:
    items = [item(method=m, scale=(0.0, 2.0)) for m in ("gradcam", "layercam")]
    sheet = arrange(items)
    assert sheet.bar and (sheet.bar.low, sheet.bar.high) == (0.0, 2.0)
    assert all(cell is None or cell.bar is None for row in sheet.list_rows() for cell in row)
    alone = arrange(items[:1])
    (row,) = alone.list_rows()
    assert alone.bar is None and row[1] and row[1].bar


@pytest.mark.parametrize(
    ("facts", "ends"),
    [
        ({"minimum": 0.2, "maximum": 3.0}, (0.2, 3.0)),
        ({"minimum": -2.0, "maximum": 3.0}, (0.0, 3.0)),
        ({"minimum": -5.0, "maximum": 3.0, "value": 7.0}, (-5.0, 5.0)),
        ({"minimum": -5.0, "maximum": 3.0, "value": 7.0, "target": ""}, (0.0, 3.0)),
        ({"minimum": 0.0, "maximum": 3.0, "scale": (0.5, 9.0)}, (0.5, 9.0)),
    ],
)
def test_a_bars_ends_are_the_maps_range(facts: Any, ends: tuple[float, float]) -> None:
    ((_, cell),) = arrange([item(**facts)]).list_rows()
    assert cell and cell.bar and (cell.bar.low, cell.bar.high) == ends


def test_an_empty_map_says_so_and_has_no_bar() -> None:
    sheet = arrange([item(minimum=-1.0, maximum=0.0), item(method="layercam")])
    ((_, empty, full),) = sheet.list_rows()
    assert empty and full and empty.bar is None and full.bar
    assert empty.captions[0].tail == "(empty)" and not full.captions[0].tail


def test_a_value_takes_the_place_of_a_probability() -> None:
    items = [item(category=None, label="age", probability=None, value=37.25)]
    assert table(arrange(items)) == [["cat.jpg; age 37.25", "gradcam"]]
