"""Explains the same classes of the same pictures by two models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from camcli.engine.targets import FixedCategories
from camcli.errors import UsageError
from camcli.models.load import Classifier
from camcli.models.state import hash_weights
from camcli.pipeline.comparison.map_comparison import compare_maps
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.plan import Plan
from camcli.pipeline.stages import PreparedPicture, explain_batch, prepare
from camcli.records import Record

# if the stronger map is so many times the weaker one, one scale hardly shows the weaker one
MANY_TIMES = 4.0


def compare_plans(plan: Plan, other: Plan, *, own_scales: bool = False) -> Plan:
    """Returns a plan that explains pictures by the model of another plan as well.

    Raises UsageError for models of other classes.
    """
    _check_classes(plan.classifier, other.classifier)
    weights = hash_weights(other.classifier.module)
    return replace(plan, other=other, other_weights=weights, own_scales=own_scales)


def _check_classes(one: Classifier, other: Classifier) -> None:
    counts = one.num_categories, other.num_categories
    if counts[0] != counts[1]:
        raise UsageError(
            f"--compare takes two models of the same classes: {one.name!r} has {counts[0]}, and "
            f"{other.name!r} {counts[1]}."
        )
    if one.labels and other.labels and tuple(one.labels) != tuple(other.labels):
        differing = next(pair for pair in zip(one.labels, other.labels) if pair[0] != pair[1])  # noqa: B905
        raise UsageError(
            f"--compare takes two models of the same classes: {one.name!r} has {differing[0]!r} "
            f"where {other.name!r} has {differing[1]!r}."
        )
    if one.reading.is_value != other.reading.is_value:
        raise UsageError("--compare takes two models of classes, or two of values.")


def explain_by_both(batch: Sequence[PreparedPicture], plan: Plan) -> Iterator[list[Explanation]]:
    """Explains pictures by both models: yields the two maps and their difference, in turn.

    Both models explain the classes that the first one explains.
    """
    assert plan.other is not None
    first = list(explain_batch(batch, plan))
    choice = _find_choice(first)
    again = [prepare(p.picture, plan.other) for p in batch]
    second = explain_batch(again, plan.other, choice)
    for ones, found in zip(first, second, strict=True):
        weights = plan.other_weights
        others = [replace(e, record=replace(e.record, weights=weights)) for e in found]
        yield list(_compare_picture(ones, others, own_scales=plan.own_scales))


def _find_choice(explained: Sequence[Sequence[Explanation]]) -> FixedCategories | None:
    """Returns the explained classes of each picture [b k]; None if no class was asked for."""
    rows = [list(dict.fromkeys(e.category for e in some if e.record.target)) for some in explained]
    if not all(rows) or any(category is None for row in rows for category in row):
        return None
    return FixedCategories(torch.tensor(rows))


def _compare_picture(
    ones: Sequence[Explanation], others: Sequence[Explanation], *, own_scales: bool
) -> Iterator[Explanation]:
    by_key = dict(_list_keys(others))
    for key, one in _list_keys(ones):
        other = by_key.pop(key, None)
        if other is None or not (_is_comparable(one) and _is_comparable(other)):
            yield from (e for e in (one, other) if e)
            continue
        first, second, difference = compare_maps(one, other, own_scales=own_scales)
        yield from (first, replace(second, record=_warn_of_scale(first, second)), difference)
    yield from by_key.values()


def _is_comparable(explanation: Explanation) -> bool:
    """Tells whether a map's values are drawn and finite."""
    # concepts have no scale, and single pixels are drawn on grey
    draws_values = not explanation.concepts and "pixels" not in explanation.details
    return draws_values and bool(np.isfinite(explanation.heatmap).all())


def _list_keys(
    explanations: Sequence[Explanation],
) -> Iterator[tuple[tuple[str, int | None, int], Explanation]]:
    """Yields the key of a map, by which the other model's map is found: method, class, place."""
    seen: Counter[tuple[str, int | None]] = Counter()
    for explanation in explanations:
        key = explanation.method, explanation.category if explanation.record.target else None
        yield (*key, seen[key]), explanation
        seen[key] += 1


def _warn_of_scale(first: Explanation, second: Explanation) -> Record:
    """Warns if one map is so much weaker that one scale hardly shows it."""
    record = second.record
    if second.scale is None:
        return record
    sizes = [max(abs(e.record.minimum or 0), e.record.maximum or 0) for e in (first, second)]
    weak, strong = sorted(sizes)
    if not 0 < MANY_TIMES * weak < strong:
        return record
    weaker = (first if sizes[0] == weak else second).record.model
    why = (
        f"on one scale the map of {weaker} is {strong / weak:.3g} times weaker: --scale image "
        "draws each by its own maximum"
    )
    return replace(record, warnings=(*record.warnings, why))
