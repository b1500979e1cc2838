"""What is done to every picture: layers, methods and categories, resolved once for a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from camcli.config import Options
from camcli.engine.probe import Tokens
from camcli.engine.run import Request, found_default, seeded, target_layers_of
from camcli.engine.targets import Best, Choice, Fixed
from camcli.errors import ModelError, UsageError
from camcli.models.labels import find_category
from camcli.models.load import Classifier
from camcli.registry import depends_on_category, method_name


@dataclass(frozen=True)
class Plan:
    """What is done to every picture: the request, the categories, and why this layer.

    The categories are given ones, a number of best ones, or None for a model without classes.
    """

    classifier: Classifier
    request: Request
    categories: tuple[int, ...] | int | None
    layer_reason: str

    def choice(self, pictures: int) -> Choice | None:
        """Returns the choice of categories for a batch, if there are any."""
        if self.categories is None:
            return None
        if isinstance(self.categories, int):
            return Best(self.categories)
        return Fixed(torch.tensor(self.categories).expand(pictures, -1))

    @property
    def maps_per_picture(self) -> int:
        """How many heatmaps each picture gets."""
        chosen = 1 if self.categories is None else self.categories
        k = chosen if isinstance(chosen, int) else len(chosen)
        fused = len(self.request.layers) == 1 or self.request.layer_fusion != "none"
        maps = sum(k if depends_on_category(m) else 1 for m in self.request.methods)
        return maps * (1 if fused else len(self.request.layers))


def plan(classifier: Classifier, options: Options) -> Plan:
    """Resolves layers, methods and categories of a run; raises UsageError for what is unknown."""
    methods = tuple(dict.fromkeys(method_name(m) for m in options.method))
    _check_has_classes(classifier, methods)
    categories = _categories(classifier, options)
    tokens = Tokens(options.vit_like, options.num_extra_tokens)
    layers, layouts, reason = _layers(classifier, options.target_layers)
    request = Request(
        methods,
        layers,
        {} if tokens != Tokens() else layouts,
        tokens,
        options.layer_fusion,
        options.aug_smooth,
        options.eigen_smooth,
        seeded(methods, options.seed),
    )
    return Plan(classifier, request, categories, reason)


def _layers(classifier: Classifier, given: Sequence[str]) -> tuple[tuple[str, ...], Any, str]:
    shape = (len(classifier.preprocessing.mean), *classifier.preprocessing.size)
    probe = torch.empty(1, *shape)
    layers, layouts = target_layers_of(classifier.module, probe, given)
    reason = "named by --target-layers" if given else found_default(classifier.module, shape).reason
    return layers, layouts, reason


def _check_has_classes(classifier: Classifier, methods: Sequence[str]) -> None:
    asking = [name for name in methods if depends_on_category(name)]
    if asking and not classifier.num_classes:
        raise ModelError(
            f"{classifier.name!r} has no classifier, and so no class that {asking[0]} could "
            "explain: give --num-classes with your own --checkpoint, or try --method eigencam."
        )


def _categories(classifier: Classifier, options: Options) -> tuple[int, ...] | int | None:
    if not classifier.num_classes:
        if options.target_category or options.top_k:
            raise UsageError(
                f"{classifier.name!r} has no classes that could be chosen: leave --target-category "
                "and --top-k out."
            )
        return None
    if not options.target_category:
        k, known = options.top_k or 1, classifier.num_classes
        if k > known:
            raise UsageError(f"--top-k {k} is more than the {known} classes of the model.")
        return k
    if options.top_k:
        raise UsageError("--target-category and --top-k each choose the classes: give one of them.")
    names = [name for text in options.target_category for name in _names(text, classifier)]
    found = (find_category(n, classifier.labels, classifier.num_classes) for n in names)
    return tuple(dict.fromkeys(found))


def _names(text: str, classifier: Classifier) -> list[str]:
    """Splits at commas, but not a class name that holds some (`tabby, tabby cat`)."""
    whole = text.strip().lower()
    if any(whole == known.lower() for known in classifier.labels or ()):
        return [text.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]
