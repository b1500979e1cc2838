"""What the measured values of many pictures say: means, intervals, and what is noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from camcli.metrics.bootstrap import bootstrap_interval
from camcli.metrics.paired_test import adjust_holm, permute_signs, smallest_p
from camcli.pipeline.evaluation import RANDOM, Contender, PictureScores
from camcli.registry import METRICS

SIGNIFICANT = 0.05

Verdict = Literal["useful", "useless", "untold"]


@dataclass(frozen=True)
class ContenderResult:
    """A contender's mean, its 95 % interval, and whether another one is better beyond noise.

    `p` is that of the difference from the best, or whichever all are compared with, corrected for
    their number; None for that one itself, and for a single picture, which has no interval either.
    """

    name: str
    is_baseline: bool
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def is_noise(self) -> bool:
        """Whether its difference may be noise."""
        return self.p is not None and self.p >= SIGNIFICANT


@dataclass(frozen=True)
class MetricResult:
    """What a metric says of the contenders on so many pictures.

    `verdict`: `useful` where a method beats random maps beyond noise, by name in `better`;
    `useless` where none does; `untold` where the pictures are too few to say so.
    """

    metric: str
    direction: str
    pictures: int
    best: str
    contenders: tuple[ContenderResult, ...]
    better: tuple[str, ...]
    verdict: Verdict

    @property
    def best_method(self) -> str:
        """The best of those that are no baselines, or of all where there is none."""
        rows = [row for row in self.contenders if not row.is_baseline] or list(self.contenders)
        sign = 1 if self.direction == "higher" else -1
        return max(rows, key=lambda row: sign * row.mean).name


@dataclass
class Collected:
    """The values of all pictures so far: 8 bytes for each metric and contender of one."""

    seed: int = 0
    contenders: tuple[Contender, ...] = ()
    values: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, scores: PictureScores) -> None:
        """Takes a picture's values in."""
        self.contenders = self.contenders or scores.contenders
        for metric, values in scores.values.items():
            self.values.setdefault(metric, []).append(values)

    def summarise(self, metrics: Sequence[str]) -> tuple[MetricResult, ...]:
        """Returns what each metric says that was measured on any picture."""
        results = (
            summarise_metric(name, self.contenders, np.stack(self.values[name]), self.seed)
            for name in metrics
            if self.values.get(name)
        )
        return tuple(result for result in results if result is not None)


def summarise_metric(
    name: str, contenders: Sequence[Contender], values: NDArray[np.float64], seed: int = 0
) -> MetricResult | None:
    """Compares contenders on the pictures where all have a value, None where there is none.

    values [pictures contenders]
    """
    values = values[np.isfinite(values).all(1)]
    if not len(values):
        return None
    sign = 1 if METRICS[name].direction == "higher" else -1
    means = values.mean(0)
    best = int((sign * means).argmax())
    rows = compare_contenders(contenders, values, best, seed)
    better, verdict = _compare_with_random(contenders, sign * values)
    direction = METRICS[name].direction
    return MetricResult(name, direction, len(values), contenders[best].name, rows, better, verdict)


def compare_contenders(
    contenders: Sequence[Contender], values: NDArray[np.float64], reference: int, seed: int = 0
) -> tuple[ContenderResult, ...]:
    """Compares contenders with the one at a place, on pictures where all have a finite value.

    values [pictures contenders]
    """
    others = [place for place in range(len(contenders)) if place != reference]
    several = len(values) > 1
    differences = (values[:, reference] - values[:, place] for place in others)
    p_values = dict(zip(others, _correct(differences) if several else [], strict=False))
    rows = []
    for place, contender in enumerate(contenders):
        low, high = (
            bootstrap_interval(torch.from_numpy(values[:, place].copy()), seed=seed)
            if several
            else (None, None)
        )
        mean, p = float(values[:, place].mean()), p_values.get(place)
        rows.append(ContenderResult(contender.name, contender.is_baseline, mean, low, high, p))
    return tuple(rows)


def _correct(differences: Iterable[NDArray[np.float64]]) -> list[float]:
    return adjust_holm([permute_signs(torch.from_numpy(d.copy())) for d in differences])


def _compare_with_random(
    contenders: Sequence[Contender], goodness: NDArray[np.float64]
) -> tuple[tuple[str, ...], Verdict]:
    """Returns the methods that beat random maps beyond noise, and what that says of the metric."""
    names = [contender.name for contender in contenders]
    methods = [place for place, contender in enumerate(contenders) if not contender.is_baseline]
    # at several layers there are as many random maps
    randoms = [p for p, n in enumerate(names) if n == RANDOM or n.startswith(f"{RANDOM} ")]
    if not methods or not randoms:
        return (), "untold"
    chance = goodness[:, randoms].mean(1)
    differences = {place: goodness[:, place] - chance for place in methods}
    p_values = _correct(differences.values())
    better = tuple(
        names[place]
        for (place, difference), p in zip(differences.items(), p_values, strict=True)
        if difference.mean() > 0 and p < SIGNIFICANT
    )
    if better:
        return better, "useful"
    too_few = smallest_p(len(goodness)) * len(methods) >= SIGNIFICANT
    return (), "untold" if too_few else "useless"


def describe_verdict(result: MetricResult) -> str:
    """Says in words what a metric is worth on these pictures, and which differences are noise."""
    if result.pictures == 1:
        return f"{result.metric}: one picture has no interval, and no difference can be told noise"
    near = [row.name for row in result.contenders if row.is_noise]
    noise = f"; its difference from {', '.join(near)} is noise" if near else ""
    text = f"{result.metric}: {result.best} is best on {result.pictures} pictures{noise}"
    if result.best != result.best_method:
        text += f"; of the methods {result.best_method} is"
    if result.verdict == "useless":
        return f"{text}; useless here: no method beats random maps beyond noise"
    if result.verdict == "untold":
        return f"{text}; too few pictures to tell whether any method beats random maps"
    return text


def to_plain(results: Iterable[MetricResult]) -> list[Mapping[str, object]]:
    """Returns the results as JSON holds them."""
    return [
        {
            **{key: value for key, value in vars(result).items() if key != "contenders"},
            "contenders": [
                {**vars(row), "is_best": row.name == result.best, "is_noise": row.is_noise}
                for row in result.contenders
            ],
        }
        for result in results
    ]
