"""Values as JSON can hold them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from camcli.records import Box, Concept, Record, Statistics
from camcli.utils.jsonable import encode_json, to_jsonable


@dataclass(frozen=True)
class Inner:
    path: Path = Path("a/b")
    values: tuple[float, ...] = (1.0, float("nan"), float("inf"))


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    several: dict[int, Any] = field(default_factory=lambda: {1: [Inner()], 2: None, 3: True})


def test_dataclasses_become_objects_at_any_depth() -> None:
    inner = {"path": "a/b", "values": [1.0, None, None]}
    assert to_jsonable(Outer()) == {"inner": inner, "several": {"1": [inner], "2": None, "3": True}}


def test_numbers_of_numpy_are_held_like_others() -> None:
    assert to_jsonable([np.float64("nan"), np.float64(2)]) == [None, 2.0]


def test_a_record_is_what_dataclasses_make_of_it() -> None:
    record = Record(
        "a.jpg",
        view=Box(0, 0, 4, 3),
        statistics=Statistics(1.0, 2.0, 0.5, (0.1, 0.2)),
        concepts=(Concept("#ffffff", (1, 2)),),
        options={"masks": 8},
    )
    assert (
        json.dumps(to_jsonable(record))
        == json.dumps(asdict(record))
        == json.dumps(to_jsonable(vars(record)))
    )


VALUES = [
    Outer(),
    {"a": Path("b"), 1: (1.5, None, True), "é": MappingProxyType({"x": Inner()})},
    {"deep": [{"far": float("nan")}], "near": 2},
    [float("-inf"), np.float64(0.25)],
    {Path("key"): "value"},
    "\u2028",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_line_is_the_same_whichever_way_it_is_encoded(value: Any) -> None:
    assert encode_json(value) == json.dumps(to_jsonable(value))


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError):
        encode_json({"a": object()})
