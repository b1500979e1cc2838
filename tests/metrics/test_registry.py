"""The registry refuses metrics that ask for what nobody declared, when a module is imported."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from torch import Tensor

import camcli.metrics
from camcli.registry import METRIC_INPUTS, METRICS, Count, Metric, Option, metric


@pytest.fixture
def register_metric() -> object:
    """Takes a metric away that a test has added."""
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


def _register(function: object, name: str = "test", passes: Count = 0, **facts: object) -> Metric:
    metric(
        name,
        family="faithfulness",
        direction=facts.get("direction", "higher"),  # type: ignore[arg-type]
        range=facts.get("range", (0, 1)),  # type: ignore[arg-type]
        paper="arXiv:0000.00000",
        passes=passes,
    )(function)  # type: ignore[type-var]
    return METRICS[name]


def _area(maps: Tensor, mask: Tensor, *, steps: int = 4) -> Tensor:
    """Says nothing."""
    return maps.mean((1, 2)) * mask.sum() * steps


@pytest.mark.usefixtures("register_metric")
def test_a_metric_carries_its_facts() -> None:
    made = _register(_area, passes=lambda steps: 2 * steps + 1)
    assert made.inputs == ("maps", "mask") and made.needs == ("a mask",)
    assert made.options == (Option("steps", int, 4),)
    assert made.count_passes() == 9 and made.count_passes(steps=10) == 21
    assert made.count_explanations() == 0
    assert made.summary == "Says nothing."


@pytest.mark.usefixtures("register_metric")
def test_what_is_not_declared_fails_at_once() -> None:
    def wrong(map: Tensor) -> Tensor:  # noqa: A002
        return map

    with pytest.raises(TypeError, match="'map', which is neither"):
        _register(wrong)
    with pytest.raises(TypeError, match="'step', which is neither"):
        _register(_area, passes=lambda step: step)
    with pytest.raises(TypeError, match="empty range"):
        _register(_area, range=(1, 1))
    assert "test" not in METRICS


@pytest.mark.usefixtures("register_metric")
def test_a_name_is_taken_once() -> None:
    _register(_area)
    with pytest.raises(TypeError, match="both named 'test'"):
        _register(_area)


def test_numbers_with_commas_are_an_option() -> None:
    option = Option("shares", tuple, (0.1, 0.5))
    assert option.read("0.2, 0.4") == (0.2, 0.4) and option.read([1, 2]) == (1.0, 2.0)
    for wrong in ("0.2,x", "0.1,nan", 3, [True]):
        with pytest.raises(ValueError, match=r"."):
            option.read(wrong)


def test_every_module_of_metrics_is_imported_with_the_package() -> None:
    folder = Path(camcli.metrics.__file__).parent
    registering = {p.stem for p in folder.glob("*.py") if "@metric(" in p.read_text()}
    assert registering <= set(vars(camcli.metrics))


@pytest.mark.parametrize("made", METRICS.values(), ids=lambda m: m.name)
def test_every_metric_says_where_it_comes_from(made: Metric) -> None:
    assert re.match(r"(arXiv:\d{4}\.\d{4,5}|10\.\d+/.+|https://.+)$", made.paper)
    assert made.summary.endswith((".", "]")) and set(made.inputs) <= set(METRIC_INPUTS)
    shape = "[b]" if made.conclude is None else "[b "
    assert shape in inspect.getdoc(made.function), "say what shape comes back"
    assert made.count_passes() >= 0 and made.count_explanations() >= 0
