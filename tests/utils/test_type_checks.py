"""Values of a file beside the types that a dataclass declares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from camcli.records import Box, FileStamp, PackedMap, Record, Statistics
from camcli.utils.type_checks import check_fields

WHOLE = Record(
    "a.jpg",
    frame=3,
    time=0.5,
    picture_size=(4, 3),
    view=Box(0, 0, 3, 4),
    layers=("layer4",),
    options={"masks": 8, "deep": [None]},
    statistics=Statistics(1.0, 2, 0.5, (0.5, 0.5)),
    map=PackedMap((1, 2), 0.0, 1.0, "AAA="),
    alpha="auto",
    files={"b.jpg": FileStamp(3, "00000000")},
)


@pytest.mark.parametrize("record", [WHOLE, Record(""), replace(WHOLE, alpha=None)])
def test_what_is_of_its_type_passes(record: Record) -> None:
    check_fields(record)


def test_a_number_may_be_one_that_json_cannot_hold() -> None:
    check_fields(replace(WHOLE, statistics=Statistics(None, None, 0.5, None)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", 1), ("frame", 1.5), ("frame", True), ("time", "1"), ("time", 10**400),
        ("picture_size", (1, 2, 3)), ("picture_size", [1, 2]), ("view", {"left": 0}),
        ("view", Box(0, 0, None, "4")), ("layers", ("a", 1)), ("layers", "a"), ("options", []),
        ("options", {1: 2}), ("map", PackedMap((1,), 0, 1)), ("alpha", ()),  # type: ignore[arg-type]
        ("files", {"a": 1}), ("category", {}), ("warnings", None),
    ],
)  # fmt: skip
def test_what_is_not_is_named(name: str, value: Any) -> None:
    inner = {"view": "bottom", "map": "shape"} if not isinstance(value, dict) else {}
    with pytest.raises(TypeError, match=f"^{inner.get(name, name)} is "):
        check_fields(replace(WHOLE, **{name: value}))
