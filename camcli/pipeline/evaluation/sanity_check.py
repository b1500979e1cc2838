"""Sanity checks on pictures: whether maps depend on weights, class and place, with verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor

from camcli.config import Options
from camcli.engine.sanity import (
    SIMILARITIES,
    Order,
    compare_classes,
    compare_views,
    randomize_step_by_step,
)
from camcli.errors import ImageError, UnknownName, UsageError
from camcli.pipeline.evaluation.evaluation import read_picture, score_classes
from camcli.pipeline.picture_api import group_items
from camcli.pipeline.plan import Plan
from camcli.pipeline.writing.output_writer import describe_failure
from camcli.records import Source
from camcli.registry import ALL, depends_on_category

# limits of the rank correlation for the verdicts
SAME, OTHER, FOLLOWS = 0.9, 0.5, 0.5
STEPS = 8


@dataclass(frozen=True)
class StepResult:
    """Mean similarities of a method's maps after a number of layers got fresh weights."""

    layer: str
    randomized: int
    similarities: Mapping[str, float]


@dataclass(frozen=True)
class MethodSanity:
    """The results of one method: the cascade, another class, flips and shifts, and the verdicts.

    Values are means over the pictures, NaN if all maps were constant.  `other_class` is empty for a
    method without a class.
    """

    method: str
    steps: tuple[StepResult, ...]
    other_class: Mapping[str, float]
    views: Mapping[str, float]
    verdict: tuple[str, ...]


@dataclass
class SanityReport:
    """The methods' results, the number of pictures, and the pictures that failed."""

    order: Order
    pictures: int = 0
    methods: tuple[MethodSanity, ...] = ()
    failed: list[Mapping[str, str]] = field(default_factory=list)


def check_sanity(
    plan: Plan,
    options: Options,
    sources: Sequence[Source],
    *,
    order: Order = "cascading",
    steps: int | None = STEPS,
) -> SanityReport:
    """Checks pictures, with one batch in memory at a time.

    The explained class is the predicted one or that of the options; the other class is the
    likeliest of all others.  `order` and `steps` are those of `randomize_step_by_step`.  Raises
    UsageError if no picture can be read, and for combined methods.
    """
    if plan.request.combined:
        # without randomcam, which the plan adds
        parts = ",".join(replace(plan.request, methods=()).all_methods)
        raise UsageError(
            f"Sanity checks single methods, and {plan.request.combined[0].name!r} is made of "
            f"several: give --method {parts}."
        )
    report = SanityReport(order)
    asked = (*options.method, *(plan.request.methods if ALL in options.method else ()))
    methods = [method for method in plan.request.methods if method in asked]
    means = _Means()
    layers: list[tuple[str, int]] = []
    for batch in group_items(_read_all(plan, options, sources, report), plan.batch_size):
        inputs = torch.stack([view for view, _ in batch]).to(plan.classifier.device)
        report.pictures += len(batch)
        targets, others = _choose_classes(plan, inputs, [named for _, named in batch])
        given = _heatmap_options(options, plan)
        module = plan.classifier.module
        cascade = randomize_step_by_step(
            module, inputs, methods, targets, order=order, steps=steps, **given
        )
        for number, step in enumerate(cascade):
            if number == len(layers):
                layers.append((step.layer, step.randomized))
            for method in methods:
                means.add((method, number), step.similarities[method])
        asking = [method for method in methods if depends_on_category(method)]
        if asking:
            compared = compare_classes(module, inputs, asking, targets, others, **given)
            for method in asking:
                means.add((method, "class"), compared[method])
        views = compare_views(module, inputs, methods, targets, **given)
        for method in methods:
            means.add((method, "views"), views[method])
    if not report.pictures:
        why = "\n".join(failure["error"] for failure in report.failed)
        raise UsageError(f"No picture could be checked:\n{why}")
    report.methods = tuple(_conclude(method, layers, means, order) for method in methods)
    return report


def _read_all(
    plan: Plan, options: Options, sources: Sequence[Source], report: SanityReport
) -> Iterator[tuple[Tensor, int | None]]:
    for source in sources:
        try:
            prepared = read_picture(source, plan, options)
        except (ImageError, MemoryError, UnknownName) as error:
            why = describe_failure(error, source.path)
            report.failed.append({"picture": str(source), "error": why})
        else:
            yield prepared.view.inputs, prepared.category


def _choose_classes(
    plan: Plan, inputs: Tensor, named: Sequence[int | None]
) -> tuple[Tensor, Tensor]:
    """Returns each picture's explained class, and the likeliest other class.  [b], [b]"""
    probabilities = score_classes(plan, inputs)
    best = probabilities.argmax(1)
    chosen = plan.categories[0] if isinstance(plan.categories, tuple) else None
    targets = [
        int(best[row]) if (own := chosen if one is None else one) is None else own
        for row, one in enumerate(named)
    ]
    targets_ = torch.tensor(targets)
    rest = probabilities.cpu().scatter(1, targets_[:, None], -1)
    return targets_, rest.argmax(1)


def _heatmap_options(options: Options, plan: Plan) -> dict[str, Any]:
    """Returns the options of `camcli.heatmaps` that make the same maps as a run."""
    reading = plan.classifier.reading
    return {
        "target_layers": plan.request.layers or None,
        "target": options.target if "target" in options.model_fields_set else None,
        "layer_fusion": options.layer_fusion,
        "eigen_smooth": options.eigen_smooth,
        "vit_like": options.vit_like,
        "num_extra_tokens": options.num_extra_tokens,
        "seed": options.seed,
        "set": options.set,
        "output_key": reading.key,
        "outputs": options.outputs,
    }


@dataclass
class _Means:
    """Sums and counts of similarities; constant maps are left out."""

    sums: dict[tuple[object, ...], float] = field(default_factory=dict)
    counts: dict[tuple[object, ...], int] = field(default_factory=dict)

    def add(self, key: tuple[object, ...], values: Mapping[str, Tensor]) -> None:
        """Adds a batch's values [b], by name."""
        for name, tensor in values.items():
            finite = tensor[tensor.isfinite()].double()
            one = (*key, name)
            self.sums[one] = self.sums.get(one, 0.0) + float(finite.sum())
            self.counts[one] = self.counts.get(one, 0) + len(finite)

    def read(self, *key: object) -> dict[str, float]:
        """Returns the means by name, NaN if all maps were constant."""
        return {
            str(one[-1]): self.sums[one] / self.counts[one] if self.counts[one] else nan
            for one in self.sums
            if one[:-1] == key
        }


def _conclude(
    method: str, layers: Sequence[tuple[str, int]], means: _Means, order: Order
) -> MethodSanity:
    steps = tuple(
        StepResult(layer, count, means.read(method, number))
        for number, (layer, count) in enumerate(layers)
    )
    other, views = means.read(method, "class"), means.read(method, "views")
    verdict = (
        _judge_weights(steps, order),
        _judge_class(other),
        *(_judge_view(name, value) for name, value in views.items()),
    )
    return MethodSanity(method, steps, other, views, verdict)


def _judge_weights(steps: Sequence[StepResult], order: Order) -> str:
    """Says whether maps change with the weights, by rank correlation with the first maps."""
    known = [(step, step.similarities["rank"]) for step in steps]
    known = [(step, rank) for step, rank in known if isfinite(rank)]
    if not known:
        return "weights: the maps are constant, so nothing can be compared"
    # at the end of a cascade the whole network, else the layer that changes the map most
    step, rank = known[-1] if order == "cascading" else min(known, key=lambda pair: pair[1])
    by = "all layers tried" if order == "cascading" else step.layer or "the model itself"
    what = f"(rank correlation {rank:.2f} with fresh weights in {by})"
    if rank >= SAME:
        return f"weights: DOES NOT DEPEND on them {what}, at least {SAME}"
    if rank >= OTHER:
        return f"weights: depends on them in part {what}, between {OTHER} and {SAME}"
    first = next(s for s, r in known if r < OTHER)
    where = f"; from {first.layer} on" if order == "cascading" and first.layer else ""
    return f"weights: depends on them {what}, below {OTHER}{where}"


def _judge_class(other: Mapping[str, float]) -> str:
    if not other:
        return "class: the method uses no class, and shows the same for each"
    rank = other["rank"]
    if not isfinite(rank):
        return "class: a map is constant, so nothing can be compared"
    what = f"(rank correlation {rank:.2f} with the next likely class's map)"
    if rank >= SAME:
        return f"class: HARDLY TELLS classes apart {what}, at least {SAME}"
    return f"class: tells classes apart {what}, below {SAME}"


def _judge_view(name: str, rank: float) -> str:
    if not isfinite(rank):
        return f"{name}: a map is constant, so nothing can be compared"
    what = f"follow the picture (rank correlation {rank:.2f}"
    if rank >= FOLLOWS:
        return f"{name}: maps {what}, at least {FOLLOWS})"
    return f"{name}: maps DO NOT {what}, below {FOLLOWS})"


def list_similarities() -> tuple[str, ...]:
    """Returns the names of similarities, in the order of a table."""
    return tuple(SIMILARITIES)
