"""Answers a request about a batch in one model: the passes, smoothing, fusing and combining."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import overload

import torch
from torch import Tensor, nn

from camcli.engine.batch_context import BatchContext, FirstPass
from camcli.engine.device.oom_chunks import run_in_chunks
from camcli.engine.device.precision import use_precision
from camcli.engine.explain_request import WHOLE, Details, ExplainRequest, ExplainResult
from camcli.engine.targets import CategoryChoice
from camcli.errors import MethodError
from camcli.methods import postprocessing, principal_component, smoothing
from camcli.methods.combine import CombinedMethod, combine
from camcli.models.acceleration import PrepackCache, accelerate
from camcli.models.multiple_inputs import add_other_inputs
from camcli.models.outputs.interpretation import apply_output_reading
from camcli.models.state import check_hookable, locks_model, note_once, preserve_state
from camcli.registry import METHODS, Method, collect_evidence, depends_on_category, depends_on_layer
from camcli.utils.profiling import stage

# evidence about whole pictures; a layer with several slices of each picture has none
BY_PICTURE = {"score", "rescore", "recompute_logits", "guided_gradients", "class_weights"}


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
                layer: _join_maps([_widen(part.maps[method][layer], k) for part in parts])
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


def _join_maps(parts: Sequence[Tensor]) -> Tensor:
    # nothing else holds what a single part computed; what was expanded is written out
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(tuple(parts))


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
        calls = context.get("recording").calls if context.layers else {}
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
    asked = request.evidence if request.all_methods else collect_evidence(METHODS.values())
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
        first_pass=_choose_first_pass(request),
    )


def _choose_first_pass(request: ExplainRequest) -> FirstPass:
    """Chooses the pass that gives the logits: one that a method needs anyway."""
    if request.all_layers or not request.all_methods:
        return "recording"
    if "guided_pass" in request.evidence:
        return "guided_pass"
    return "full_pass" if "full_pass" in request.evidence else "recording"


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


def _find_floating_parameter(module: nn.Module) -> nn.Parameter | None:
    return next((p for p in module.parameters() if p.is_floating_point()), None)


def move_to_model(module: nn.Module, inputs: Tensor) -> Tensor:
    """Moves inputs to the device and the precision of the model's parameters."""
    parameter = note_once(_find_floating_parameter, module)
    return inputs if parameter is None else inputs.to(parameter.device, parameter.dtype)
