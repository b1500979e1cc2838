"""Answers a request about a batch in one model: raw maps by method and layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, get_args, overload

import torch
from torch import Tensor, nn

import camcli.engine.evidence
import camcli.methods  # noqa: F401  (fills the registry)
from camcli.engine.batch_context import CHUNK, BatchContext, TokenOptions
from camcli.engine.device.oom_chunks import run_in_chunks
from camcli.engine.device.precision import use_precision
from camcli.engine.targets import (
    ABOUT_A_CLASS,
    CategoryChoice,
    PlainTarget,
    Target,
)
from camcli.errors import MethodError, UsageError
from camcli.method_terms import BEST
from camcli.methods import postprocessing, principal_component, smoothing
from camcli.methods.combine import CombinedMethod, combine
from camcli.models.acceleration import PrepackCache, accelerate
from camcli.models.inspection.layout import Layout
from camcli.models.multiple_inputs import SeveralInputs, add_other_inputs
from camcli.models.outputs.interpretation import (
    OutputReading,
    apply_output_reading,
)
from camcli.models.state import check_hookable, locks_model, preserve_state
from camcli.records import Fusion, Precision
from camcli.registry import (
    EVIDENCE,
    METHODS,
    Method,
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
# evidence about whole pictures; a layer with several slices of each picture has none
BY_PICTURE = {"score", "rescore", "recompute_logits", "guided_gradients", "class_weights"}


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

    @property
    def all_methods(self) -> tuple[str, ...]:
        """All methods that run, alone or in a combination, each once."""
        return tuple(dict.fromkeys([*self.methods, *(method for method, _ in self.all_parts)]))

    @property
    def all_layers(self) -> tuple[str, ...]:
        """All layers that any method looks at, each once."""
        of_parts = (layer for _, layer in self.all_parts if layer)
        return tuple(dict.fromkeys([*self.layers, *of_parts]))

    @property
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

    @property
    def graph(self) -> bool:
        """Whether a method needs a backward pass."""
        asked = collect_evidence(METHODS[m] for m in self.all_methods)
        return any(EVIDENCE[e].backward for e in asked)

    @property
    def many_passes(self) -> bool:
        """Whether a picture passes more than once: altered, augmented, or with noise."""
        asked = collect_evidence(METHODS[m] for m in self.all_methods)
        return bool(asked & MANY_PASSES) or self.aug_smooth or self.noise is not None


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


@locks_model
@stage("method")
def answer_request(
    module: nn.Module,
    inputs: Tensor,
    choice: CategoryChoice | None,
    request: ExplainRequest,
    prepack_cache: PrepackCache | None = None,
) -> ExplainResult:
    """Explains a batch [b 3 H W] at the requested layers; halves it if memory runs out.

    With `choice` None the output is not read, which only methods without a class allow.  If several
    batches share `prepack_cache`, all passes but the first are faster.
    """
    inputs, watched = move_to_model(module, inputs), check_hookable(module)

    def run(rows: slice) -> ExplainResult:
        with add_other_inputs(module, request.inputs, rows.start):
            return _answer_batch(module, inputs[rows], choice and choice.part(rows), request)

    if prepack_cache is None and request.many_passes:
        prepack_cache = PrepackCache()
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        preserve_state(watched),
        accelerate(watched, prepack_cache),
        apply_output_reading(module, request.reading),
        use_precision(request.precision, inputs.device),
    ):
        # all altered copies of a picture share its other inputs, so pictures pass one by one
        one_by_one = bool(request.inputs) or request.reading.is_alone
        parts = run_in_chunks(run, len(inputs), 1 if one_by_one else len(inputs))
        chosen = [part.categories for part in parts if part.categories is not None]
        k = max((categories.shape[1] for categories in chosen), default=1)
        maps = {
            method: {
                layer: torch.cat([_widen(part.maps[method][layer], k) for part in parts])
                for layer in layers
            }
            for method, layers in parts[0].maps.items()
        }
        logits = _join(part.logits for part in parts)
        categories = _join(_widen(part.categories, k) for part in parts)
        references = _join(_widen(part.references, k) for part in parts)
        details = {
            key: torch.cat([_widen(p.details[key], k) for p in parts]) for key in parts[0].details
        }
    calls = parts[0].calls
    return ExplainResult(logits, categories, references, maps, details, calls, request.reading)


@overload
def _widen(tensor: Tensor, k: int) -> Tensor: ...
@overload
def _widen(tensor: Tensor | None, k: int) -> Tensor | None: ...
def _widen(tensor: Tensor | None, k: int) -> Tensor | None:
    """Repeats the last class if another part of the batch has more classes.  -> [b k ...]"""
    if tensor is None or tensor.shape[1] == k:
        return tensor
    missing = tensor[:, -1:].expand(-1, k - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], 1)


def _join(parts: Iterable[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _answer_batch(
    module: nn.Module, inputs: Tensor, choice: CategoryChoice | None, request: ExplainRequest
) -> ExplainResult:
    with make_context(module, inputs, choice, request, graph=request.graph) as context:
        logits = context.get("logits") if choice else None
        categories = context.get("categories") if choice else None
        maps, details = _smooth_explanation(context, request)
        calls = context.get("recording").calls
        made = {**_fuse(maps, inputs, request), **_combine(maps, inputs, request)}
        for method, layer in request.parts:
            made[method] = {**made.get(method, {}), layer: maps[method][layer]}
        return ExplainResult(logits, categories, _collect_references(context), made, details, calls)


def make_context(
    module: nn.Module,
    inputs: Tensor,
    choice: CategoryChoice | None,
    request: ExplainRequest,
    *,
    graph: bool,
) -> BatchContext:
    """Returns the context of a batch [b 3 H W] for a request."""
    asked = collect_evidence(METHODS[name] for name in request.all_methods or METHODS)
    return BatchContext(
        module,
        inputs,
        request.all_layers,
        choice,
        graph=graph,
        heads="class_head" in asked,
        target=request.target,
        layouts=request.layouts,
        tokens=request.tokens,
        chunk=1 if request.reading.is_alone else request.chunk,
    )


def _collect_references(context: BatchContext) -> Tensor | None:
    if not context.choice:
        return None
    slots = range(context.get("categories").shape[1])
    references = [context.get("references", slot=slot) for slot in slots]
    return None if references[0] is None else torch.stack(references, 1)


def _smooth_explanation(
    context: BatchContext, request: ExplainRequest
) -> tuple[postprocessing.Maps, Details]:
    """Returns raw maps, smoothed as requested; each augmented view is smoothed on its own."""
    maps, details = _compute_raw_maps(context, request)

    def compute_views(views: Tensor) -> postprocessing.Maps:
        with context.with_inputs(views) as other:
            return _compute_raw_maps(other, request)[0]

    maps_of: Callable[[Tensor], postprocessing.Maps] = compute_views
    if request.noise:
        maps_of = partial(smoothing.smooth_by_noise, compute_views, noise=request.noise)
        maps = maps_of(context.inputs)
    if request.aug_smooth:
        maps = smoothing.smooth_by_augmentation(maps, maps_of, context.inputs)
    return maps, details


def _compute_raw_maps(
    context: BatchContext, request: ExplainRequest
) -> tuple[postprocessing.Maps, Details]:
    reduce = (
        principal_component.eigen_smooth if request.eigen_smooth else postprocessing.sum_channels
    )
    k = context.get("categories").shape[1] if context.choice else 1
    details: Details = {}

    def stack_categories(parts: Sequence[Tensor]) -> Tensor:
        stack = torch.stack(tuple(parts), 1).float()
        return stack.expand(-1, k, *stack.shape[2:])

    def compute_all_slots(method: Method, layer: str) -> Tensor:
        slots = range(k) if depends_on_category(method.name) else [0]
        options = request.options.get(method.name, {})
        t = _count_slices(context, method, layer) if layer else 1
        results = [context.apply(method, layer, slot, **options) for slot in slots]
        for name in method.details:
            details[method.name, layer, name] = stack_categories([f.details[name] for f in results])
        weighted = method.gives == "weighted activations"
        maps = [reduce(f.map) if weighted else f.map for f in results]
        return stack_categories(maps if t == 1 else [m.reshape(-1, t, *m.shape[1:]) for m in maps])

    maps: dict[str, dict[str, Tensor]] = {}
    for name, layer in _list_places(request):
        maps.setdefault(name, {})[layer] = compute_all_slots(METHODS[name], layer)
    return maps, details


def _list_places(request: ExplainRequest) -> tuple[tuple[str, str], ...]:
    """Lists each (method, layer) that runs, once; methods without a layer run at WHOLE."""
    plain = [
        (name, layer) for name in request.methods for layer in _list_plain_layers(name, request)
    ]
    return tuple(dict.fromkeys([*plain, *request.all_parts]))


def _count_slices(context: BatchContext, method: Method, layer: str) -> int:
    """Returns how many slices of each picture a layer's maps have.

    Raises MethodError for a method that needs whole pictures.
    """
    output = context.get("recording").outputs.get(layer)
    t = 1 if output is None else context.slices(layer, output)
    if t > 1 and not BY_PICTURE.isdisjoint(method.evidence):
        raise MethodError(
            f"{layer!r} puts out {t} slices of each picture, and {method.name} alters or compares "
            "whole pictures: try --method gradcam, or a layer where the slices are joined."
        )
    return t


def _fuse(
    maps: postprocessing.Maps, inputs: Tensor, request: ExplainRequest
) -> postprocessing.Maps:
    """Fuses the layers of all methods that are not part of a combination."""
    plain = {
        name: {layer: maps[name][layer] for layer in _list_plain_layers(name, request)}
        for name in request.methods
    }
    if len(request.layers) == 1 or request.layer_fusion == "none":
        return plain
    size = (inputs.shape[-2], inputs.shape[-1])

    def fuse_method(method: str) -> Mapping[str, Tensor]:
        if not depends_on_layer(method):
            return plain[method]
        of_value = request.reading.is_value and depends_on_category(method)
        every = list(plain[method].values())
        if len({m.ndim for m in every}) > 1:
            raise MethodError(
                "Maps of slices cannot be fused with maps of whole pictures: name layers of one "
                "kind, or give --layer-fusion none."
            )
        return {WHOLE: postprocessing.fuse(every, size, request.layer_fusion, keep_sign=of_value)}

    return {method: fuse_method(method) for method in plain}


def _list_plain_layers(method: str, request: ExplainRequest) -> tuple[str, ...]:
    return request.layers if depends_on_layer(method) else (WHOLE,)


def _combine(
    maps: postprocessing.Maps, inputs: Tensor, request: ExplainRequest
) -> postprocessing.Maps:
    """Makes one map of the parts of each combination, at the input's size."""
    size = (inputs.shape[-2], inputs.shape[-1])

    def combine_parts(combined: CombinedMethod) -> Tensor:
        parts = [maps[method][layer] for method, layer in combined.parts]
        if len({part.ndim for part in parts}) > 1:
            raise MethodError(
                "Maps of slices cannot be combined with maps of whole pictures: name layers of "
                "one kind."
            )
        of_value = request.reading.is_value and combined.asks_class
        return combine(parts, size, combined.combination, keep_sign=of_value)

    return {combined.name: {WHOLE: combine_parts(combined)} for combined in request.combined}


def move_to_model(module: nn.Module, inputs: Tensor) -> Tensor:
    """Moves inputs to the device and the precision of the model's parameters."""
    parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
    return inputs if parameter is None else inputs.to(parameter.device, parameter.dtype)
