"""Makes explanations of the results of a pass, with everything that their records say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from camcli.engine.device.precision import choose_precision
from camcli.engine.explain_request import ExplainRequest, ExplainResult
from camcli.engine.targets import ContrastTarget
from camcli.models.inspection.target_layers import describe_last_use
from camcli.models.labels import label_name, shorten_label
from camcli.pipeline.explanation import Explanation, explain_empty
from camcli.pipeline.plan import Plan
from camcli.records import Concept, Heatmap, Picture, Record, View
from camcli.registry import METHODS, depends_on_layer, list_changed_options
from camcli.render.concepts import make_palette
from camcli.runs import describe_map, pack_map

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# as a share of the score; rounding alone stays below it
LARGEST_RESIDUAL = 0.01

CLASSES_OF_A_CONCEPT = 3
LIKELIEST = 5  # classes of a picture that its records list
SMALLEST_CONCEPT = 1e-6  # as a share of the strongest concept


@dataclass(frozen=True)
class BatchResults:
    """The result of a pass in main memory, and the seconds that each of its pictures took."""

    result: ExplainResult
    plan: Plan
    seconds: float

    def of(self, picture: Picture, view: View, row: int) -> Iterator[Explanation]:
        """Yields the explanations of a row's picture: each of its classes by each method."""
        for slot, category in enumerate(self._categories[row]):
            if slot and self._is_unlikely(row, slot):
                continue
            for method, layers in self.result.maps.items():
                if slot and not self.plan.request.asks_class(method):
                    continue  # one map for all classes, recorded under the predicted one
                facts, warnings = self._describe_class(method, row, slot, category)
                facts |= _describe_picture(picture, view) | self._of_all
                for name in layers:
                    facts |= {"method": method, "layers": self._layers(method, name)}
                    values = self.result.maps[method][name][row, slot].float()
                    notes = warnings
                    if values.ndim == 3:
                        notes = (
                            *notes,
                            f"the mean of the maps of a picture's {len(values)} slices",
                        )
                        values = values.mean(0)
                    values = values.contiguous()
                    details = {
                        detail: self.result.details[method, name, detail][row, slot].numpy()
                        for detail in self._details(method)
                    }
                    yield self._make_explanation(
                        picture, view, values.numpy(), details, (facts, notes)
                    )

    def _details(self, method: str) -> tuple[str, ...]:
        """Returns the names of a method's details; a combination has none."""
        return () if self.plan.request.find_combined(method) else METHODS[method].details

    def _layers(self, method: str, name: str) -> tuple[str, ...]:
        if combined := self.plan.request.find_combined(method):
            return combined.layers
        fused = self.plan.request.layers if depends_on_layer(method) else ()
        return (name,) if name else fused

    def _make_explanation(
        self,
        picture: Picture,
        view: View,
        values: NDArray[np.float32],
        details: Mapping[str, NDArray[np.float32]],
        facts_and_warnings: tuple[Mapping[str, Any], tuple[str, ...]],
    ) -> Explanation:
        (facts, warnings), plan = facts_and_warnings, self.plan
        method, used = facts["method"], facts["layers"]
        # the record is made in one step, since a copy for each field takes as long as drawing
        record = Record(
            **facts,
            **_describe_method(method, used, plan),
            smoothing=_describe_smoothing(plan.request),
            concepts=_name_concepts(details, plan),
            statistics=describe_map(values, view.box, picture.size),
            map=pack_map(values),
            minimum=float(values.min()),
            maximum=float(values.max()),
            residual=float(details["residual"]) if "residual" in details else None,
            seconds=self._share,
            warnings=(
                *picture.notes,
                *(doubt for layer, doubt in plan.doubts.items() if layer in used),
                *warnings,
                *explain_empty(
                    values,
                    method,
                    len(used),
                    signed=facts.get("value") is not None and bool(facts["target"]),
                ),
                *_warn_of_reuse(used, self.result),
                *_explain_residual(details),
            ),
        )
        height, width = view.inputs.shape[-2:]
        heatmap = Heatmap(values, method, used, record.category)
        return Explanation(picture, view.box, record, heatmap, (height, width), details)

    def _describe_class(
        self, method: str, row: int, slot: int, category: int | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Returns the record's fields about the explained class, and warnings."""
        asks_class = self.plan.request.asks_class(method)
        if self.result.reading.is_value and category is not None:
            return self._describe_value(row, category, asks=asks_class), ()
        facts: dict[str, Any] = {"category": category}
        if self._probabilities is not None:
            of_all = self._probabilities[row]
            shown = category if asks_class and category is not None else int(of_all.argmax())
            facts = self._describe_probability(row, shown)
        if not asks_class:
            return facts, ()
        references = self.result.references
        compared = None if references is None else references[row, slot]
        of_target, warnings = _describe_target(category, compared, self.plan)
        least = self.plan.threshold
        if least is not None and facts.get("probability", 1.0) < least:
            warnings = (
                *warnings,
                f"no class has a probability of {least:g} or more: this is the likeliest one",
            )
        return facts | of_target, warnings

    def _describe_probability(self, row: int, category: int) -> dict[str, Any]:
        """Says how likely a class is, and which classes are likeliest."""
        assert self._probabilities is not None
        of_all, label = self._probabilities[row], self._name(category)
        categories, probabilities = self._likeliest[0][row], self._likeliest[1][row]
        probability = of_all[category]
        others = (p for c, p in zip(categories, probabilities, strict=True) if c != category)
        best_other = next(others, None)
        return {
            "category": category,
            "label": label,
            "short_label": shorten_label(label),
            "probability": float(probability),
            "margin": None if best_other is None else float(probability) - best_other,
            "rank": int((of_all > probability).sum()) + 1,
            "top_categories": tuple(categories),
            "top_labels": tuple(shorten_label(self._name(c)) for c in categories),
            "top_probabilities": tuple(probabilities),
        }

    def _name(self, category: int) -> str:
        return label_name(self.plan.classifier.labels, category)

    def _describe_value(self, row: int, index: int, *, asks: bool) -> dict[str, Any]:
        """Returns the record's fields about the explained value."""
        assert self.result.logits is not None
        target, n = self.plan.request.target.name, self.result.logits.shape[1]
        names = self.plan.classifier.labels
        return {
            "category": None if n == 1 else index,
            "label": (names[index] if names else "") or ("value" if n == 1 else f"value {index}"),
            "value": float(self.result.logits[row, index]),
            "target": target if asks else "",
        }

    def _is_unlikely(self, row: int, slot: int) -> bool:
        """Tells whether a class was only chosen for other pictures of the batch."""
        categories, least = self._categories[row], self.plan.threshold
        if least is None or self._probabilities is None:
            return False
        category = categories[slot]
        assert category is not None
        return category in categories[:slot] or bool(self._probabilities[row, category] < least)

    @cached_property
    def _of_all(self) -> dict[str, Any]:
        """The records' fields that are the same for all pictures."""
        classifier, precision = self.plan.classifier, self.plan.request.precision
        return {
            "model": classifier.name,
            "precision": choose_precision(precision, classifier.device),
        }

    @cached_property
    def _share(self) -> float:
        """The seconds of one heatmap."""
        classes = len(self._categories[0])
        heatmaps = sum(
            len(layers) * (classes if self.plan.request.asks_class(method) else 1)
            for method, layers in self.result.maps.items()
        )
        return round(self.seconds / heatmaps, 6)

    @cached_property
    def _categories(self) -> list[list[int]] | list[list[None]]:
        categories = self.result.categories
        if categories is not None:
            chosen: list[list[int]] = categories.tolist()
            return chosen
        pictures = len(next(iter(next(iter(self.result.maps.values())).values())))
        return [[None]] * pictures

    @cached_property
    def _likeliest(self) -> tuple[list[list[int]], list[list[float]]]:
        """The likeliest classes of each picture, and their probabilities."""
        assert self.result.probabilities is not None
        count = min(LIKELIEST, self.result.probabilities.shape[1])
        best = self.result.probabilities.topk(count)
        return best.indices.tolist(), best.values.tolist()

    @cached_property
    def _probabilities(self) -> NDArray[np.float32] | None:
        probabilities = self.result.probabilities
        return None if probabilities is None else probabilities.numpy()


def _name_concepts(details: Mapping[str, NDArray[np.float32]], plan: Plan) -> tuple[Concept, ...]:
    """Returns the concepts with the classes that they speak for, if there are any."""
    if "concept_logits" not in details:
        return ()
    reading = plan.request.reading
    if reading.is_value:
        return ()
    logits = torch.from_numpy(details["concept_logits"])
    probabilities = reading.log_probabilities(logits).exp()
    best = probabilities.topk(min(CLASSES_OF_A_CONCEPT, probabilities.shape[1]))
    peaks = details["concepts"].max((1, 2))
    # a concept that is only rounding speaks for no class
    present = (peaks > SMALLEST_CONCEPT * peaks.max()).tolist()
    colours, names = make_palette(len(probabilities)), plan.classifier.labels
    rows = zip(colours, present, best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(
        Concept(colour, tuple(c), tuple(label_name(names, i) for i in c), tuple(p))
        if is_there
        else Concept(colour, (), (), ())
        for colour, is_there, c, p in rows
    )


def _describe_method(method: str, layers: Sequence[str], plan: Plan) -> dict[str, Any]:
    """Returns the record's fields about a method: its layers and why, or what it combines."""
    options = plan.request.options
    if combined := plan.request.find_combined(method):
        changed = {
            f"{part}.{name}": value
            for part in combined.methods
            for name, value in list_changed_options(part, options.get(part, {})).items()
        }
        return {
            "layer_reason": plan.combined_reasons.get(method, ""),
            "parts": combined.terms,
            "combination": combined.combination,
            "options": changed,
        }
    return {
        "layer_reason": plan.layer_reason if layers else "",
        "layer_fusion": plan.request.layer_fusion if len(layers) > 1 else "",
        "options": list_changed_options(method, options.get(method, {})),
    }


def _describe_smoothing(request: ExplainRequest) -> dict[str, Any]:
    """Returns the smoothing options that differ from the defaults."""
    views = {"aug_smooth": request.aug_smooth, "eigen_smooth": request.eigen_smooth}
    chosen: dict[str, Any] = {name: True for name, asked in views.items() if asked}
    if noise := request.noise:
        drawn = {"noise_smooth": noise.samples, "noise_sigma": noise.sigma, "seed": noise.seed}
        chosen.update(drawn)
    return chosen


def _describe_picture(picture: Picture, view: View) -> dict[str, Any]:
    return {
        "source": str(picture.source or ""),
        "frame": picture.frame,
        "time": None if picture.time is None else float(picture.time),
        "picture_size": picture.size,
        "view": view.box,
    }


def _describe_target(
    category: int | None, references: Tensor | None, plan: Plan
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the record's fields about the target and a contrast's classes, and warnings."""
    target, labels = plan.request.target, plan.classifier.labels
    if not isinstance(target, ContrastTarget) or references is None:
        return {"target": target.name}, ()
    others = tuple(c for c in references.tolist() if c != category)
    alone = (
        "the only class to compare with is the explained one, so nothing is subtracted from its "
        "logit"
    )
    facts = {
        "target": target.name,
        "contrast": others,
        "contrast_labels": tuple(label_name(labels, c) for c in others),
        "contrast_strength": target.strength,
    }
    return facts, () if others else (alone,)


def _warn_of_reuse(layers: Iterable[str], result: ExplainResult) -> Iterator[str]:
    for layer in layers:
        if result.calls[layer] > 1:
            yield f"layer {layer!r} {describe_last_use(result.calls[layer])}"


def _explain_residual(details: Mapping[str, NDArray[np.float32]]) -> Iterator[str]:
    """Yields a warning if a map that should add up to the whole score leaves a part of it out."""
    if "residual" not in details:
        return
    residual, score = float(details["residual"]), float(details["score"])
    if abs(residual) > LARGEST_RESIDUAL * abs(score):
        yield (
            f"input and biases contribute {score - residual:.3g} to a score of {score:.3g}: they "
            "make up all of it only in piecewise linear networks (ReLU, BatchNorm), and not with "
            "smooth activations, or with gates, attention and norms that depend on the picture"
        )
