"""The request about a batch, with the form of its result: raw maps by method and layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

from torch import Tensor

import camcli.engine.evidence
import camcli.methods  # noqa: F401  (fills the registry)
from camcli.engine.batch_context import CHUNK, TokenOptions
from camcli.engine.targets import ABOUT_A_CLASS, PlainTarget, Target
from camcli.errors import MethodError, UsageError
from camcli.method_terms import BEST
from camcli.methods import postprocessing, smoothing
from camcli.methods.combine import CombinedMethod
from camcli.models.inspection.layout import Layout
from camcli.models.multiple_inputs import SeveralInputs
from camcli.models.outputs.interpretation import OutputReading
from camcli.records import Fusion, Precision
from camcli.registry import (
    EVIDENCE,
    METHODS,
    check_options,
    collect_evidence,
    depends_on_category,
    depends_on_layer,
)
from camcli.utils.profiling import stage

# method, layer and name -> [b k ...]
Details = dict[tuple[str, str, str], Tensor]
# the layer's name of a map that is made of several layers, or of none
WHOLE = ""
# evidence of methods that run many passes for a picture
MANY_PASSES = {"score_cache", "gradients_at"}


@dataclass(frozen=True)
class ExplainRequest:
    """What is asked about a batch; layouts that are not given are measured in the pass itself.

    Methods run at all of the layers; combinations run at the layers of their own parts.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    combined: tuple[CombinedMethod, ...] = field(default=(), kw_only=True)
    # (method, layer) pairs whose raw maps are returned as they are; "" is no layer
    parts: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    tokens: TokenOptions = field(default_factory=TokenOptions)
    layer_fusion: Fusion = "mean"
    aug_smooth: bool = False
    eigen_smooth: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: Target = field(default_factory=PlainTarget)
    reading: OutputReading = field(default_factory=OutputReading)
    noise: smoothing.Noise | None = None
    # how many altered layer outputs are in memory together
    chunk: int = CHUNK
    precision: Precision = "float32"
    # the other inputs of a model that takes more than pictures
    inputs: SeveralInputs | None = None

    def __post_init__(self) -> None:
        """Raises UsageError or MethodError for a request that is not defined, before any pass."""
        for name in self.all_methods:
            check_options(name, self.options.get(name, {}))
        if self.precision not in get_args(Precision):
            allowed = ", ".join(get_args(Precision))
            raise UsageError(f"Precision is one of {allowed}, not {self.precision!r}.")
        if self.layer_fusion not in get_args(Fusion):
            allowed = ", ".join(get_args(Fusion))
            raise UsageError(f"Layer fusion is one of {allowed}, not {self.layer_fusion!r}.")
        self._check_combined()
        if self.layer_fusion == "refine":
            self._check_refinable()
        maps = [name for name in self.all_methods if METHODS[name].gives == "map"]
        if self.eigen_smooth and maps:
            raise MethodError(
                "eigen-smooth takes the first principal component of weighted channels, and "
                f"{', '.join(maps)} makes a map directly: leave --eigen-smooth out."
            )
        detailed = [m for m in self.methods if METHODS[m].details and depends_on_layer(m)]
        if detailed and len(self.layers) > 1 and self.layer_fusion != "none":
            raise MethodError(
                f"{detailed[0]} shows more than a map for each layer: give one layer, or "
                "--layer-fusion none."
            )
        alone = [*self.methods, *dict(self.parts)]
        classless = [name for name in alone if not depends_on_category(name)]
        classless += [str(combined) for combined in self.combined if not combined.asks_class]
        if self.target.name in ABOUT_A_CLASS and classless:
            raise MethodError(
                f"Target {self.target.name} asks about a class, and {', '.join(classless)} "
                "explains no particular class: leave one of the two out."
            )

    def _check_refinable(self) -> None:
        layerless = [name for name in self.methods if not depends_on_layer(name)]
        if layerless:
            raise MethodError(
                f"RefineCAM multiplies the maps of several layers, and {', '.join(layerless)} "
                "looks at no layer: leave --layer-fusion refine out."
            )
        if len(self.layers) < 2:
            raise UsageError(
                "RefineCAM (--layer-fusion refine) multiplies the maps of several layers: name two"
                " or more with --target-layers; --preview-model shows them."
            )

    def _check_combined(self) -> None:
        is_best = any(combined.name == BEST for combined in self.combined)
        if is_best and self.eigen_smooth:
            raise UsageError(
                "Method best was measured with sums over the channels: leave --eigen-smooth out, "
                "or name the methods yourself, with --combine."
            )
        if self.combined and not self.methods and self.layer_fusion != "mean":
            raise UsageError(
                f"Layer fusion {self.layer_fusion} fuses the layers of one method, and combined "
                "methods have layers of their own: leave --layer-fusion out."
            )
        of_value = [one for one in self.combined if self.reading.is_value and one.asks_class]
        if of_value and (is_best or any(one.combination != "mean" for one in of_value)):
            raise UsageError(
                "The maps of a value have two signs, and "
                f"{'method best' if is_best else 'product'} needs maps from 0 to 1: name one "
                "method, or give --combine mean."
            )

    @cached_property
    def all_methods(self) -> tuple[str, ...]:
        """All methods that run, alone or in a combination, each once."""
        return tuple(dict.fromkeys([*self.methods, *(method for method, _ in self.all_parts)]))

    @property
    def all_layers(self) -> tuple[str, ...]:
        """All layers that any method looks at, each once."""
        of_parts = (layer for _, layer in self.all_parts if layer)
        return tuple(dict.fromkeys([*self.layers, *of_parts]))

    @cached_property
    def all_parts(self) -> tuple[tuple[str, str], ...]:
        """All (method, layer) pairs, of `parts` and of combinations, each once."""
        of_combined = (part for combined in self.combined for part in combined.parts)
        return tuple(dict.fromkeys([*self.parts, *of_combined]))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the requested maps: methods first, then combinations."""
        return (*self.methods, *(combined.name for combined in self.combined))

    def select(self, names: Collection[str]) -> ExplainRequest:
        """Returns the same request for some of its methods and combinations, by name.

        It has none of the `parts`, which have no names.
        """
        combined = tuple(one for one in self.combined if one.name in names)
        methods = tuple(name for name in names if self.find_combined(name) is None)
        return replace(self, methods=methods, combined=combined, parts=())

    def find_combined(self, name: str) -> CombinedMethod | None:
        """Returns the combination of this name; None for a method."""
        return next((combined for combined in self.combined if combined.name == name), None)

    def asks_class(self, name: str) -> bool:
        """Tells whether the map of a method or combination depends on the class."""
        combined = self.find_combined(name)
        return combined.asks_class if combined else depends_on_category(name)

    @cached_property
    def evidence(self) -> frozenset[str]:
        """All evidence that the methods need, directly or through other evidence."""
        return collect_evidence(METHODS[m] for m in self.all_methods)

    @property
    def graph(self) -> bool:
        """Whether a method needs a backward pass."""
        return any(EVIDENCE[e].backward for e in self.evidence)

    @property
    def many_passes(self) -> bool:
        """Whether a picture passes more than once: altered, augmented, or with noise."""
        return bool(self.evidence & MANY_PASSES) or self.aug_smooth or self.noise is not None


@dataclass(frozen=True)
class ExplainResult:
    """Logits [b n], categories [b k], {method: {layer: raw maps [b k h w]}}, and layers' calls.

    Maps of a layer that puts out t slices of each picture are [b k t h w].

    If no class was asked for, logits and categories are None, and k is 1.  Only a contrast has
    references [b k r].  Details [b k ...] belong to the unaltered pictures.
    """

    logits: Tensor | None
    categories: Tensor | None
    references: Tensor | None
    maps: postprocessing.Maps
    details: Details
    calls: Mapping[str, int]
    reading: OutputReading = field(default_factory=OutputReading)

    @cached_property
    def probabilities(self) -> Tensor | None:
        """Each class's probability, by softmax or sigmoid; None for values.  [b n]"""
        if self.logits is None or self.reading.is_value:
            return None
        return self.reading.log_probabilities(self.logits).exp()

    @stage("fetch")
    def to_cpu(self) -> ExplainResult:
        """Returns the same result in main memory; waits until a GPU has computed it."""
        # the whole batch at once, since every transfer waits for the GPU
        return replace(
            self,
            logits=_to_cpu(self.logits),
            categories=_to_cpu(self.categories),
            references=_to_cpu(self.references),
            maps={
                method: {layer: maps.cpu() for layer, maps in layers.items()}
                for method, layers in self.maps.items()
            },
            details={key: tensor.cpu() for key, tensor in self.details.items()},
        )


def _to_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
