"""The models that a visitor can choose from, and what can be asked of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from camcli.config import Options
from camcli.errors import CamvizError, UnknownName
from camcli.method_info import METHOD_INFO
from camcli.method_terms import BEST
from camcli.models.inspection.layer_lookup import find_layer
from camcli.models.inspection.target_layers import survey_layers
from camcli.models.labels import find_category
from camcli.models.load import Classifier
from camcli.models.outputs.interpretation import apply_output_reading
from camcli.models.state import lock_model
from camcli.pipeline.plan import Plan, find_input_shape, make_plan
from camcli.registry import ALL, find_method_name
from camcli.serve.refusals import hide_folders

BEST_SHOWS = "what was measured to be best for the kind of network"
# what the page shows of the methods at first; the others are a click away
COMMON = frozenset(
    {"gradcam", "gradcam++", "layercam", "hirescam", "eigencam", "legrad", "rollout"}
)
# what a preset may say of runs, where an answer is one map
ONE_MAP: Mapping[str, Any] = {
    "top_k": None, "threshold": None, "layers_sweep": False, "compare": None, "sheet": None,
}  # fmt: skip


@dataclass(frozen=True)
class OfferedModel:
    """A loaded model with the options that it was loaded and is explained with.

    `words` are what the command line needs to load it again.  `left_out` has the methods that do
    not fit it, and why.
    """

    classifier: Classifier
    options: Options
    words: tuple[str, ...]
    layers: tuple[str, ...]
    default_layer: str
    left_out: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name by which it is chosen."""
        return self.classifier.name

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes' names by index; empty where they have none."""
        return tuple(self.classifier.labels or ())

    def find_method(self, name: str) -> str:
        """Returns a method's own name; raises UnknownName."""
        return BEST if name == BEST else find_method_name(name)

    def find_layer(self, name: str) -> str:
        """Returns a layer's own name; raises UnknownName."""
        return find_layer(self.classifier.module, name)

    def find_category(self, text: str) -> int:
        """Returns the index of a class; raises UsageError."""
        return find_category(text, self.labels, self.classifier.num_categories)

    def name_category(self, category: int) -> str:
        """Returns the word that the command line takes for a class: its name, else its index."""
        name = self.labels[category].split(",")[0].strip() if self.labels else ""
        try:
            # a name of digits is an index there
            return name if name and self.find_category(name) == category else str(category)
        except CamvizError:
            return str(category)

    def plan(self, method: str, layer: str | None, category: int | None) -> Plan:
        """Resolves what is asked of a picture; raises UsageError."""
        asked = {
            "method": (method,),
            "target_layers": (layer,) if layer else self.options.target_layers,
            "target_category": self.options.target_category
            if category is None
            else (str(category),),
            # a preset's options of its own methods
            "set": self.options.set if method in self.options.method else {},
            "best_for": self.options.best_for if method == BEST else None,
        }
        return make_plan(self.classifier, self.options.model_copy(update={**ONE_MAP, **asked}))

    def describe(self) -> dict[str, Any]:
        """Says what the page offers."""
        return {
            "name": self.name,
            "labels": self.labels,
            "categories": self.classifier.num_categories if self.classifier.num_classes else 0,
            "is_value": self.classifier.reading.is_value,
            "layers": self.layers,
            "default_layer": self.default_layer,
            "methods": [
                _describe_best(),
                *(self._describe_method(name) for name in METHOD_INFO),
            ],
        }

    def _describe_method(self, name: str) -> dict[str, Any]:
        info = METHOD_INFO[name]
        return {
            "name": name,
            "shows": info.shows,
            "cost": info.cost,
            "asks_class": info.asks_class,
            "is_common": name in COMMON,
            "missing": hide_folders(self.left_out.get(name, "")),
        }


def _describe_best() -> dict[str, Any]:
    cost = "those of its parts"
    return {
        "name": BEST, "shows": BEST_SHOWS, "cost": cost, "asks_class": True, "is_common": True,
        "missing": "",
    }  # fmt: skip


def offer_model(classifier: Classifier, options: Options, words: Sequence[str]) -> OfferedModel:
    """Finds out what can be asked of a model: methods that fit it, and its layers."""
    module = classifier.module
    if classifier.reading.is_value and classifier.num_classes > 1 and not options.target_category:
        # its values have no order, and a page has to begin somewhere
        options = options.model_copy(update={"target_category": ("0",)})
    with lock_model(module), apply_output_reading(module, classifier.reading):
        survey = survey_layers(module, find_input_shape(classifier))
    every = {**ONE_MAP, "method": (ALL,), "target_category": (), "set": {}, "best_for": None}
    plan = make_plan(classifier, options.model_copy(update=every))
    named = ", ".join(plan.request.layers)
    return OfferedModel(
        classifier,
        options,
        tuple(words),
        tuple(layer.name for layer in survey.layers if layer.is_target),
        named,
        plan.left_out,
    )


def find_offered(models: Sequence[OfferedModel], name: str) -> OfferedModel:
    """Finds a model that was offered, the first where none is named; raises UnknownName."""
    if not name:
        return models[0]
    for model in models:
        if model.name == name:
            return model
    raise UnknownName("model", name, [model.name for model in models])
