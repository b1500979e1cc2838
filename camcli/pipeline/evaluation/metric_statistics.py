"""Statistics of the measured values of many pictures: means, intervals, and what is noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camcli.metrics.bootstrap import bootstrap_conclusion, bootstrap_interval
from camcli.metrics.significance import adjust_holm, permute_pairs, permute_signs, smallest_p
from camcli.pipeline.evaluation.evaluation import RANDOM, Contender, PictureScores
from camcli.pipeline.evaluation.grid_game import Cell
from camcli.registry import METRICS

SIGNIFICANT = 0.05
NAMED = 8  # contenders that a verdict names
NORMAL = 1.959964  # standard deviations on each side that hold 95 % of a normal distribution

Verdict = Literal["useful", "useless", "untold"]


@dataclass(frozen=True)
class ContenderResult:
    """A contender's mean, its 95 % interval, and the p value of its difference from the reference.

    The reference is the best contender, unless another one is given.  `p` is corrected for the
    number of comparisons.  It is None for the reference itself, and for a single picture, which has
    no interval either.  The mean is NaN where no picture gives a value, as the rank correlation of
    a constant map.
    """

    name: str
    is_baseline: bool
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def is_noise(self) -> bool:
        """Whether the difference from the reference may be noise."""
        return self.p is not None and self.p >= SIGNIFICANT

    @property
    def has_value(self) -> bool:
        """Whether any picture gives a value."""
        return math.isfinite(self.mean)


@dataclass(frozen=True)
class MetricResult:
    """A metric's results for the contenders, on a number of pictures.

    `verdict` is `useful` if methods (named in `better`) beat random maps beyond noise, `useless` if
    none does, and `untold` if there are too few pictures to tell.
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
        """The best method, or the best contender if there are only baseline maps."""
        valued = [row for row in self.contenders if row.has_value]
        rows = [row for row in valued if not row.is_baseline] or valued
        sign = METRICS[self.metric].sign
        return max(rows, key=lambda row: sign * row.mean).name


@dataclass(frozen=True)
class CurveResult:
    """Contenders' mean scores [contenders p] of all pictures, over the share of altered pixels.

    `margins` are the distances from a mean to both ends of its normal 95 % interval; zero for a
    single picture.
    """

    name: str
    shares: tuple[float, ...]
    pictures: int
    contenders: tuple[Contender, ...]
    means: NDArray[np.float64]
    margins: NDArray[np.float64]


@dataclass
class _CurveSums:
    shares: tuple[float, ...]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    count: int = 0

    def add(self, scores: NDArray[np.float64]) -> None:
        self.total = self.total + scores
        self.squares = self.squares + scores**2
        self.count += 1

    def conclude(self, name: str, contenders: tuple[Contender, ...]) -> CurveResult:
        means = self.total / self.count
        spread = (self.squares - self.count * means**2) / max(1, self.count - 1)
        margins = NORMAL * np.sqrt(np.maximum(spread, 0) / self.count)
        margins = margins if self.count > 1 else np.zeros_like(means)
        return CurveResult(name, self.shares, self.count, contenders, means, margins)


@dataclass
class Collected:
    """The values of all pictures so far: 8 bytes for each picture, metric and contender.

    A metric of the whole data set takes 96 bytes instead; of curves only sums are kept.
    """

    seed: int = 0
    contenders: tuple[Contender, ...] = ()
    cells: list[Cell] = field(default_factory=list)
    _values: dict[str, list[tuple[int, NDArray[Any]]]] = field(default_factory=dict)
    _width: dict[str, int] = field(default_factory=dict)
    _curves: dict[str, _CurveSums] = field(default_factory=dict)

    def add(self, scores: PictureScores) -> None:
        """Adds a picture's values."""
        if scores.error:
            return
        self.contenders = self.contenders or scores.contenders
        for metric, values in scores.values.items():
            self._values.setdefault(metric, []).append((scores.number, values))
        for metric, kept in scores.kept.items():
            self._width[metric] = kept.shape[-1]
            packed = np.packbits(kept, axis=-1)
            self._values.setdefault(metric, []).append((scores.number, packed))
        for name, curve in scores.curves.items():
            zeros = np.zeros_like(curve.scores)
            sums = self._curves.setdefault(name, _CurveSums(curve.shares, zeros, zeros))
            sums.add(curve.scores)
        if scores.grid is None and scores.category is not None:
            self.cells.append(
                Cell(
                    scores.source,
                    scores.category,
                    scores.label,
                    scores.probability,
                    scores.number,
                    scores.agreement,
                )
            )

    def summarise(self, metrics: Sequence[str]) -> tuple[MetricResult, ...]:
        """Returns the result of each metric that was measured on at least one picture."""
        results = (
            summarise_metric(name, self.contenders, self._stack(name), self.seed)
            for name in metrics
            if self._values.get(name)
        )
        return tuple(result for result in results if result is not None)

    def _stack(self, metric: str) -> NDArray[Any]:
        """Stacks the values in the order of the pictures, whichever process measured them."""
        rows = sorted(self._values[metric], key=lambda row: row[0])
        values = np.stack([values for _, values in rows])
        width = self._width.get(metric)
        return values if width is None else np.unpackbits(values, axis=-1, count=width)

    def average_curves(self) -> tuple[CurveResult, ...]:
        """Returns the mean curves of all metrics that have curves."""
        return tuple(sums.conclude(n, self.contenders) for n, sums in self._curves.items())

    def find_disagreements(self, most: int) -> list[Cell]:
        """Returns the pictures on which the methods' maps agree least, the worst first."""
        known = [cell for cell in self.cells if cell.agreement is not None]
        return sorted(known, key=lambda cell: (cell.agreement, cell.number))[:most]


def summarise_metric(
    name: str, contenders: Sequence[Contender], values: NDArray[Any], seed: int = 0
) -> MetricResult | None:
    """Compares contenders on the pictures where all have a value; None if there is no such picture.

    Contenders without a value on any picture are left out of it.  values [pictures contenders], for
    a metric of the whole data set [pictures contenders ...]
    """
    everyone = contenders
    known = np.isfinite(values).all(tuple(range(2, values.ndim)))
    valued = known.any(0)
    contenders = [one for one, has_value in zip(everyone, valued, strict=True) if has_value]
    values = values[:, valued][known[:, valued].all(1)]
    if not contenders or not len(values):
        return None
    statistic, sign = Statistic.of(name), METRICS[name].sign
    means = statistic.conclude(values.mean(0, dtype=np.float64))
    best = int((sign * means).argmax())
    rows = compare_contenders(contenders, values, best, seed, statistic)
    better, verdict = _compare_with_random(statistic, contenders, values, sign)
    direction = METRICS[name].direction
    by_contender = dict(zip(contenders, rows, strict=True))
    results = tuple(
        by_contender.get(one) or ContenderResult(one.name, one.is_baseline, math.nan)
        for one in everyone
    )
    best_name = contenders[best].name
    return MetricResult(name, direction, len(values), best_name, results, better, verdict)


def compare_contenders(
    contenders: Sequence[Contender],
    values: NDArray[Any],
    reference: int,
    seed: int = 0,
    statistic: Statistic | None = None,
) -> tuple[ContenderResult, ...]:
    """Compares contenders with the one at index `reference`, where all have a finite value.

    values [pictures contenders], or [pictures contenders ...] for a statistic that is not a mean
    """
    statistic = statistic or Statistic(None)
    others = [place for place in range(len(contenders)) if place != reference]
    several = len(values) > 1
    p_values = (
        adjust_holm([statistic.test(values[:, reference], values[:, place]) for place in others])
        if several
        else []
    )
    p_by_place = dict(zip(others, p_values, strict=False))
    means = statistic.conclude(values.mean(0, dtype=np.float64))
    rows = []
    for place, contender in enumerate(contenders):
        low, high = statistic.draw(values[:, place], seed) if several else (None, None)
        mean, p = float(means[place]), p_by_place.get(place)
        rows.append(ContenderResult(contender.name, contender.is_baseline, mean, low, high, p))
    return tuple(rows)


@dataclass(frozen=True)
class Statistic:
    """The statistic of the pictures' values: their mean, or a number that is computed from it."""

    make: Callable[[Tensor], Tensor] | None

    @classmethod
    def of(cls, name: str) -> Statistic:
        """Returns a metric's statistic."""
        return cls(METRICS[name].conclude)

    def conclude(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Computes the contenders' values from their means [n ...].  -> [n]"""
        return means if self.make is None else self.make(torch.from_numpy(means)).numpy()

    def draw(self, values: NDArray[Any], seed: int) -> tuple[float, float]:
        """Returns a contender's interval.  [pictures ...] -> low, high"""
        drawn = torch.from_numpy(values.copy())
        if self.make is None:
            return bootstrap_interval(drawn, seed=seed)
        return bootstrap_conclusion(drawn, self.make, seed=seed)

    def test(self, one: NDArray[Any], other: NDArray[Any]) -> float:
        """Returns the p value of the difference of two contenders.  [pictures ...]"""
        if self.make is None:
            return permute_signs(torch.from_numpy(one - other))
        first, second = (torch.from_numpy(values.astype(np.float64)) for values in (one, other))
        return permute_pairs(first, second, self.make)


def _compare_with_random(
    statistic: Statistic, contenders: Sequence[Contender], values: NDArray[Any], sign: int
) -> tuple[tuple[str, ...], Verdict]:
    """Returns the methods that beat random maps beyond noise, and the verdict on the metric."""
    names = [contender.name for contender in contenders]
    methods = [place for place, contender in enumerate(contenders) if not contender.is_baseline]
    # there is a random map for each layer
    randoms = [p for p, n in enumerate(names) if n == RANDOM or n.startswith(f"{RANDOM} ")]
    if not methods or not randoms:
        return (), "untold"
    chance = values[:, randoms].mean(1, dtype=np.float64)
    of_chance = float(statistic.conclude(chance.mean(0)[None])[0])
    means = statistic.conclude(values.mean(0, dtype=np.float64))
    p_values = adjust_holm([statistic.test(values[:, place], chance) for place in methods])
    better = tuple(
        names[place]
        for place, p in zip(methods, p_values, strict=True)
        if sign * (means[place] - of_chance) > 0 and p < SIGNIFICANT
    )
    if better:
        return better, "useful"
    too_few = smallest_p(len(values)) * len(methods) >= SIGNIFICANT
    return (), "untold" if too_few else "useless"


def describe_verdict(result: MetricResult) -> str:
    """Says what a metric is worth on these pictures, and which differences are noise."""
    if result.pictures == 1:
        return (
            f"{result.metric}: one picture has no interval, so no difference can be told from noise"
        )
    near = [row.name for row in result.contenders if row.is_noise]
    noise = f"; its difference from {_name_contenders(near)} is noise" if near else ""
    text = f"{result.metric}: {result.best} is best on {result.pictures} pictures{noise}"
    if result.best != result.best_method:
        text += f"; of the methods {result.best_method} is"
    if result.verdict == "useless":
        return f"{text}; useless here: no method beats random maps beyond noise"
    if result.verdict == "untold":
        return f"{text}; too few pictures to tell whether any method beats random maps"
    return text


def _name_contenders(names: Sequence[str]) -> str:
    """Names some contenders; of many, for which the table has marks, the first ones."""
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def to_plain(results: Iterable[MetricResult]) -> list[Mapping[str, object]]:
    """Returns the results in the form of the JSON file."""
    return [
        {
            **{key: value for key, value in vars(result).items() if key != "contenders"},
            "contenders": [
                {
                    **vars(row),
                    "mean": row.mean if row.has_value else None,
                    "is_best": row.name == result.best,
                    "is_noise": row.is_noise,
                }
                for row in result.contenders
            ],
        }
        for result in results
    ]
