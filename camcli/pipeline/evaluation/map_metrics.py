"""Measures one picture's maps by all metrics together: values, curves, and agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import camcli.metrics  # noqa: F401  (fills the registry)
from camcli.metrics.perturbation import PassPlan, score_altered
from camcli.metrics.sanity.rank_correlation import correlate, rank
from camcli.registry import METRICS

DIGITS = 6  # digits that are kept of a curve's points


@dataclass(frozen=True)
class ScoreCurve:
    """The contenders' scores [contenders p] over the shares [p] of altered pixels."""

    shares: tuple[float, ...]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredMaps:
    """The metrics of one picture's maps: values [contenders ...], and curves by name."""

    values: Mapping[str, NDArray[np.float64]]
    curves: Mapping[str, ScoreCurve]


def measure_all(
    metrics: Sequence[str], inputs: Mapping[str, Any], batch_size: int, **plan_options: Any
) -> MeasuredMaps:
    """Measures maps; metrics that alter pictures share batches and the pass of the unaltered one.

    `plan_options` are options of the metrics that alter pictures, such as `steps`.
    """
    plans: dict[str, PassPlan] = {}
    values: dict[str, Tensor] = {}
    curves: dict[str, ScoreCurve] = {}
    for name in metrics:
        metric = METRICS[name]
        if metric.plan:
            given = [inputs[key] for key in metric.inputs if key != "score"]
            plans[name] = metric.plan(*given, **plan_options)
    if plans:
        whole, scores = score_altered(plans, inputs["image"], inputs["score"], batch_size)
        for name, plan in plans.items():
            values[name] = plan.conclude(whole, scores[name])
            for mark, curve in plan.trace(whole, scores[name]).items() if plan.trace else ():
                drawn = curve.scores.double().cpu().numpy().round(DIGITS)
                shares = tuple(round(share, DIGITS) for share in curve.shares)
                curves[f"{name}_{mark}" if mark else name] = ScoreCurve(shares, drawn)
    for name in metrics:
        if name not in plans:
            metric = METRICS[name]
            values[name] = metric.function(*(inputs[key] for key in metric.inputs))
    numbers = {name: values[name].double().cpu().numpy() for name in metrics}
    return MeasuredMaps({n: np.where(np.isfinite(v), v, nan) for n, v in numbers.items()}, curves)


def compute_agreement(maps: Tensor) -> float | None:
    """Returns the mean rank correlation of all pairs of maps; constant maps are left out.  [b H W]

    Returns None if there are fewer than two maps.
    """
    ranks = [rank(one.flatten()) for one in maps]
    pairs = [float(correlate(one, other)) for one, other in combinations(ranks, 2)]
    known = [value for value in pairs if isfinite(value)]
    return round(sum(known) / len(known), DIGITS) if known else None
