"""The plan of a search: the maps that one pass gives, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from camcli.config import Options
from camcli.engine.compatibility import find_incompatible_parts
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.layer_selection import (
    find_doubts,
    find_target_layers,
    name_layers,
    spread_layers,
)
from camcli.errors import MethodError, UsageError
from camcli.method_info import FORWARD, GRADIENT, METHOD_INFO
from camcli.method_terms import AT, BEST, split_term
from camcli.models.inspection.layer_lookup import find_layer
from camcli.models.load import Classifier
from camcli.models.state import call_on_model
from camcli.pipeline.evaluation.evaluation import LOCALISATION, RANDOM, plan_one_class
from camcli.pipeline.plan import Plan, draw_grey_noise, find_input_shape
from camcli.pipeline.tuning.candidates import Candidate, Part
from camcli.pipeline.tuning.schedule import SearchSize
from camcli.records import BestFor
from camcli.registry import ALL, METHODS, assign_options, collect_evidence, depends_on_layer

GRADCAM = "gradcam"
# a few grids, from fine to coarse
LAYERS = 5
# if CAM is defined, its map is GradCAM's
LIKE_OTHERS = frozenset({"cam"})
# evidence that needs a pass of its own
OWN_PASS = "attention_pass"

FAITHFULNESS = ("deletion", "insertion")
BY_BOXES: Mapping[BestFor, tuple[str, ...]] = {
    "evidence": ("pointing_game", "heat_inside"),
    "extent": ("pixel_ap", "box_iou"),
    "balanced": LOCALISATION,
}


@dataclass(frozen=True)
class TuningPlan:
    """What one pass of a picture gives for the candidates, and which metrics count.

    The plan's request has all single maps as parts.  `left_out` says which of the named methods
    cannot be run, or at which layers, and why.
    """

    plan: Plan
    options: Options
    singles: tuple[Candidate, ...]
    gradcam: Candidate
    best: Candidate
    best_for: BestFor
    has_boxes: bool
    left_out: Mapping[str, str]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are measured of each candidate."""
        return LOCALISATION if self.has_boxes else FAITHFULNESS

    @property
    def counting(self) -> tuple[str, ...]:
        """The metrics whose mean is the score."""
        return BY_BOXES[self.best_for] if self.has_boxes else FAITHFULNESS

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of single maps, each once."""
        return list_layers(self.singles)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of single maps, each once."""
        return tuple(dict.fromkeys(candidate.parts[0][0] for candidate in self.singles))

    @property
    def size(self) -> SearchSize:
        """The size of the search, and the cost of a picture."""
        places = {candidate.parts[0][1] for candidate in self.singles}
        passes = _count_passes(self.plan.request)
        return SearchSize(len(self.singles), len(places), passes, self.has_boxes)

    def find_doubts(self, candidate: Candidate) -> tuple[str, ...]:
        """Says for which of a candidate's layers it is uncertain where their cells lie."""
        layers, classifier = list_layers([candidate]), self.plan.classifier
        if not layers:
            return ()
        with call_on_model(classifier.module):
            doubts = find_doubts(
                classifier.module,
                find_input_shape(classifier),
                layers,
                layers,
                classifier.reading,
            )
        return tuple(doubts.values())


def list_layers(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Returns the layers that candidates look at, each once."""
    parts = (part for candidate in candidates for part in candidate.parts)
    return tuple(dict.fromkeys(layer for _, layer in parts if layer))


def check_options(options: Options, *, has_boxes: bool) -> None:
    """Raises UsageError for options that tune cannot search, before the model is needed."""
    fixed = {
        "--combine": options.combine,
        "--layer-fusion": options.layer_fusion != "mean",
        "--aug-smooth": options.aug_smooth,
        "--eigen-smooth": options.eigen_smooth,
        "--noise-smooth": options.noise_smooth,
    }
    if given := [flag for flag, value in fixed.items() if value]:
        raise UsageError(
            f"{', '.join(given)}: tune itself tries single maps of plain methods, and pairs of "
            "them combined in both ways: leave that out (in a preset: --cfg-options combine=none)."
        )
    if options.best_for == "extent" and not has_boxes:
        raise UsageError(
            "--best-for extent asks what the object covers, which only boxes can tell: give "
            "--boxes, or leave it out."
        )
    if BEST in options.method:
        raise UsageError(
            "Method best is always among the candidates: leave it out, and name only the methods "
            "to search."
        )
    _list_terms(options)


def plan_tuning(classifier: Classifier, options: Options, *, has_boxes: bool) -> TuningPlan:
    """Finds what is searched, layers and methods that fit, and what it is compared with.

    Rivals are GradCAM at the default layer, and `best`.  Raises UsageError for a model or options
    that cannot be searched, and LayerError if the model has no target layer.
    """
    check_options(options, has_boxes=has_boxes)
    best_for = options.best_for or "balanced"
    changes: dict[str, Any] = {
        "method": (GRADCAM, BEST), "best_for": best_for, "target_layers": (), "set": {},
    }  # fmt: skip
    rivals = plan_one_class(classifier, options.model_copy(update=changes))
    (recipe,) = rivals.request.combined
    gradcam = Candidate(((GRADCAM, rivals.request.layers[0]),))
    best = Candidate(recipe.parts, recipe.combination)
    with call_on_model(classifier.module):
        singles_to_try = _list_parts(rivals.classifier, options, best)
        needed = tuple(dict.fromkeys([*singles_to_try, *gradcam.parts, *best.parts]))
        request = _request_parts(rivals, options, needed)
        unfit = find_incompatible_parts(
            classifier.module,
            draw_grey_noise(classifier),
            rivals.choice([None]),
            request,
            needed,
        )
    fitting = tuple(part for part in needed if part not in unfit)
    singles = tuple(Candidate((part,)) for part in singles_to_try if part not in unfit)
    if lacking := [part for part in (*gradcam.parts, *best.parts) if part in unfit]:
        raise MethodError(
            "tune compares with GradCAM and method best, and this model does not allow that: "
            f"{unfit[lacking[0]]}"
        )
    if not singles:
        raise MethodError(f"None of the methods fits this model: {next(iter(unfit.values()))}")
    named = "method" in options.model_fields_set and ALL not in options.method
    left_out = {str(Candidate((part,))): why for part, why in unfit.items()} if named else {}
    plan = replace(rivals, request=replace(request, parts=fitting))
    return TuningPlan(plan, options, singles, gradcam, best, best_for, has_boxes, left_out)


def _list_terms(options: Options) -> tuple[str, ...]:
    """Returns the methods to search, or METHOD@LAYER; raises UsageError for an expensive one."""
    is_given = "method" in options.model_fields_set and ALL not in options.method
    if not is_given:
        searched = ALL in options.method
        return tuple(
            name
            for name, info in METHOD_INFO.items()
            if info.cost in (GRADIENT, FORWARD) and name != RANDOM
            if searched or (info.asks_class and info.gradients and name not in LIKE_OTHERS)
        )
    for term in options.method:
        method, _ = split_term(term)
        cost = METHOD_INFO[method].cost
        if cost not in (GRADIENT, FORWARD):
            raise UsageError(
                f"{method} needs more passes ({cost}) than the one forward and one backward pass "
                "that all candidates share: leave it out, and compare it with camviz evaluate."
            )
    return options.method


def _list_parts(classifier: Classifier, options: Options, best: Candidate) -> tuple[Part, ...]:
    """Lists methods at the named or measured layers; a method without a layer appears once."""
    module = classifier.module
    if options.target_layers:
        layers = name_layers(module, options.target_layers)
    else:
        shape = find_input_shape(classifier)
        measured = spread_layers(module, shape, LAYERS, classifier.reading)
        layers = tuple(dict.fromkeys([*measured, *list_layers([best])]))
    parts: list[Part] = []
    for method, layer in map(split_term, _list_terms(options)):
        if not depends_on_layer(method):
            if layer:
                raise UsageError(f"{method} looks at no layer: write {method} without {AT}{layer}.")
            parts.append((method, ""))
        else:
            own = (find_layer(module, layer),) if layer else layers
            parts += [(method, name) for name in own]
    return tuple(dict.fromkeys(parts))


def _request_parts(plan: Plan, options: Options, parts: Sequence[Part]) -> ExplainRequest:
    """Makes the request for raw maps of methods at layers, with the given options."""
    module, shape = plan.classifier.module, find_input_shape(plan.classifier)
    layers = tuple(dict.fromkeys(layer for _, layer in parts if layer))
    inputs = torch.empty(1, *shape)
    methods = tuple(dict.fromkeys(method for method, _ in parts))
    return replace(
        plan.request,
        methods=(),
        combined=(),
        layers=(),
        parts=tuple(parts),
        layouts=find_target_layers(module, inputs, layers, plan.classifier.reading)[1],
        options=assign_options(methods, options.set, options.seed),
    )


def _count_passes(request: ExplainRequest) -> int:
    """Counts the forward and backward passes that at most are needed for all parts of a picture."""
    passes = 1 + request.graph
    asked = collect_evidence(METHODS[name] for name in request.all_methods)
    # attention cannot be read in a pass with fused attention
    return 2 * passes if OWN_PASS in asked else passes
