"""The layers of a model: found by name, surveyed in one probing pass, and the default target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from math import inf, nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from camcli.errors import CamvizError, LayerError, ModelError, UnknownName
from camcli.models.embedded.network import EfficientNetLite0
from camcli.models.inspection.autograd_graph import (
    AutogradGraph,
    is_in_place,
    list_sources,
    spread_picks,
)
from camcli.models.inspection.layout import (
    Layout,
    convert_to_maps,
    find_tensor,
    measure_layout,
    replace_tensor,
)
from camcli.models.inspection.model_lock import in_this_thread, locks_model
from camcli.models.inspection.model_state import (
    check_hookable,
    list_modules,
    make_recordable,
    preserve_state,
    unwrap,
)
from camcli.models.inspection.quirks import why_never_default
from camcli.models.inspection.spatial_order import NO_PLACES, Places, find_moved_places
from camcli.models.outputs.folded_batch import find_slices_cached
from camcli.models.outputs.logits import describe_output, select_output

SEED = 0
# strides and unpadded convolutions may leave out the last row of a grid, class tokens leave out all
EVERYWHERE = 0.9
NO_GRADIENT = "no gradient comes back from its output (no_grad, detach, quantised weights)"
GRADIENT_FREE_METHODS = "--method eigencam or scorecam"
ALL_LAYERS = "All: camviz --preview-model"
# what wrappers call the module inside; people copy names with and without it
WRAPPERS = ("module", "_orig_mod")
FEW_NAMES = 3
NUMBER = re.compile("-?[0-9]{1,9}")


@dataclass(frozen=True)
class TargetLayer:
    """A layer to explain at, its output's layout, why it was chosen, and what is in doubt."""

    name: str
    layout: Layout
    reason: str
    doubt: str = ""


# of our own network at its own size, where a test measures it: the first picture need not wait for
# that, which takes a twentieth of the start and 50 MiB
EMBEDDED_INPUT = (3, 224, 224)
EMBEDDED_DEFAULT = TargetLayer(
    "features", Layout("nchw", (7, 7)), "the last 7x7 grid on which the score depends everywhere"
)


@dataclass(frozen=True)
class LayerFacts:
    """What one probing pass showed of a layer; `shape` is its last output's, batch of one first.

    `called` counts its calls.  `depends` says whether the score depends on every cell of the grid.
    """

    name: str
    type: str
    shape: tuple[int, ...] | None
    layout: Layout | None
    parameters: int
    called: int
    depends: bool

    @property
    def is_target(self) -> bool:
        """Whether the layer can be explained at."""
        return self.layout is not None and self.depends


@dataclass(frozen=True)
class Survey:
    """All layers in the order of `named_modules()`, the default target, and the input's (H, W).

    `problem` says why no dependence could be measured, and so no default found; `last_grid` is the
    last layer that puts out a grid.
    """

    layers: tuple[LayerFacts, ...]
    default: TargetLayer | None
    input_size: tuple[int, int]
    problem: str = ""
    last_grid: str = ""


def find_layer(module: nn.Module, layer: str | nn.Module) -> str:
    """Finds a layer's name in `named_modules()`; raises UnknownName with the closest ones.

    Letter case, `-` and `_` do not count where only one layer is meant, and negative numbers count
    from the end: `blocks.-1.norm1`.  The layer itself will do, as grad-cam takes it.  Wrappers need
    not be named, and may be: `module.layer4`, `_orig_mod.layer4`.
    """
    module = unwrap(module)
    if isinstance(layer, str) and _is_the_name(module, layer):
        return layer
    names = _name_modules(module)
    if isinstance(layer, nn.Module):
        if layer not in names:
            raise LayerError(f"This {type(layer).__name__} is no layer of the model. {ALL_LAYERS}")
        return names[layer]
    layer_module: nn.Module | None = module
    for part in layer.split("."):
        layer_module = _find_child(layer_module, part) if layer_module is not None else None
    if layer_module is None or layer_module not in names:
        raise UnknownName("layer", layer, names.values(), ALL_LAYERS)
    return names[layer_module]


def _is_the_name(module: nn.Module, layer: str) -> bool:
    """Tells whether a layer has just this name, which takes less than to list all names."""
    part: nn.Module | None = module
    for key in layer.split("."):
        # TorchScript's own dictionary has no get()
        part = part._modules[key] if part is not None and key in part._modules else None
    if part is None:
        return False
    layers = list_modules(module)
    # as many children as there are parts: none of them has two names
    return sum(len(m._modules) for m in layers) == len(layers) - 1


def _name_modules(module: nn.Module) -> dict[nn.Module, str]:
    """Gives all inside a module its first name in `named_modules()`, in a third of the time."""
    names: dict[nn.Module, str] = {}
    waiting = [("", module)]
    while waiting:
        prefix, part = waiting.pop()
        if part not in names:
            names[part] = prefix[:-1]
            inner = part._modules.items()
            waiting += [(f"{prefix}{key}.", m) for key, m in reversed(inner) if m is not None]
    del names[module]
    return names


def _find_child(module: nn.Module, part: str) -> nn.Module | None:
    # named_children() would leave out a shared child's second name
    children = {key: child for key, child in module._modules.items() if child is not None}
    if part in children:
        return children[part]
    inner = unwrap(module)
    if part in WRAPPERS:
        return inner
    if inner is not module:
        return _find_child(inner, part)
    if NUMBER.fullmatch(part):
        # children of an nn.Sequential are in order whatever they are called
        ordered = isinstance(module, nn.Sequential | nn.ModuleList)
        numbered = [child for key, child in children.items() if ordered or key.isdigit()]
        return numbered[int(part)] if -len(numbered) <= int(part) < 0 else None
    alike = [child for key, child in children.items() if _simplify(key) == _simplify(part)]
    return alike[0] if len(alike) == 1 else None


def _simplify(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def find_default_layer(module: nn.Module, inputs_shape: tuple[int, int, int]) -> TargetLayer:
    """Returns the default target layer for inputs (channels, H, W).

    Raises LayerError where no layer has a grid on which the score depends everywhere.
    """
    if type(module) is EfficientNetLite0 and inputs_shape == EMBEDDED_INPUT:
        return EMBEDDED_DEFAULT
    layer_survey = survey_layers(module, inputs_shape)
    if layer_survey.default:
        return layer_survey.default
    size, kind = "x".join(map(str, inputs_shape)), type(unwrap(module)).__name__
    grids = [layer.name for layer in layer_survey.layers if layer.layout]
    folded = [layer for layer in layer_survey.layers if _is_folded(layer, layer_survey.input_size)]
    if not grids and folded:
        raise LayerError(_why_no_slices(module, inputs_shape, folded, layer_survey.problem))
    if not grids:
        raise LayerError(
            f"No layer of this {kind} puts out a grid larger than 1x1 for a {size}"
            " input, so there is no place that a map could show."
        )
    if layer_survey.problem:
        without = f", and a method that needs none: {GRADIENT_FREE_METHODS}"
        way_on = without if layer_survey.problem == NO_GRADIENT else ""
        raise LayerError(
            f"No layer of this {kind} can be chosen by measuring: {layer_survey.problem}. Name one"
            f" with --target-layers, such as {layer_survey.last_grid!r}{way_on}. {ALL_LAYERS}"
        )
    raise LayerError(
        f"{len(grids)} layers of this {kind} put out a grid for a {size} input,"
        f" but the score depends on none of them everywhere. Name one with --target-layers, such"
        f" as {grids[-1]!r}. {ALL_LAYERS}"
    )


def _is_folded(layer: LayerFacts, input_size: tuple[int, int]) -> bool:
    shape = layer.shape or ()
    return len(shape) > 2 and shape[0] > 1 and measure_layout(shape, input_size) is not None


def _why_no_slices(
    module: nn.Module,
    inputs_shape: tuple[int, int, int],
    folded: Sequence[LayerFacts],
    problem: str,
) -> str:
    """Says which layers have a map of each slice, where all put out several rows a picture."""
    last, size = folded[-1], "x".join(map(str, inputs_shape))
    begin = (
        f"All layers of this {type(unwrap(module)).__name__} that put out grids put out several"
        f" rows for one {size} input, such as {last.name!r} {list(last.shape or ())}"
    )
    like = _like_parameters(module, torch.empty(1, *inputs_shape))
    rows = {layer.name: (layer.shape or (1,))[0] for layer in folded}
    named = [name for name, t in rows.items() if find_slices_cached(module, name, like, t) == t]
    if not named:
        return (
            f"{begin}, which are no frames or slices of it (windows, heads, or frames that have"
            " met, are folded into the batch), so that none of them has a map of the picture. Try"
            " --method occlusion or rise, which need no layer."
        )
    why = problem or "the score depends on none of them everywhere"
    without = " and --method eigencam" if problem == NO_GRADIENT else ""
    few = ", ".join(map(repr, named[: -FEW_NAMES - 1 : -1]))
    return (
        f"{begin}: slices are folded into the batch, and none can be chosen by measuring: {why}."
        f" Name one with --target-layers, such as {few}{without}, and each slice gets a map."
        f" {ALL_LAYERS}"
    )


@locks_model
def survey_layers(module: nn.Module, inputs_shape: tuple[int, int, int]) -> Survey:
    """Measures every layer with one forward and one backward pass of noise (channels, H, W).

    The score that layers are tested against is a random projection of the classifier's input and of
    the logits, because a classifier may be zero or saturated.  Raises ModelError where the model
    does not run on such an input, or hooks cannot look into it.
    """
    module = check_hookable(module)
    input_size = inputs_shape[1:]
    observed = LayerObserver(input_size)
    run_probing_pass(module, inputs_shape, observed)
    default = _choose_default(module, inputs_shape, observed)
    if default is None:
        observed, default = _by_slices(module, inputs_shape, observed)
    layers = tuple(
        _collect_facts(name, layer, observed) for name, layer in module.named_modules() if name
    )
    return Survey(layers, default, input_size, observed.problem, _describe_last_grid(observed))


def _by_slices(
    module: nn.Module, inputs_shape: tuple[int, int, int], observed: LayerObserver
) -> tuple[LayerObserver, TargetLayer | None]:
    """Looks for a default layer that puts out a grid of each slice of the picture's channels.

    What was observed of whole pictures is handed back where there is none.
    """
    like = _like_parameters(module, torch.empty(1, *inputs_shape))
    rows = {output.shape[0] for output in observed.outputs.values() if len(output.shape) > 2}
    for t in sorted(t for t in rows if 1 < t <= inputs_shape[0]):
        of_slices = LayerObserver(inputs_shape[1:], t)
        run_probing_pass(module, inputs_shape, of_slices)
        default = _choose_default(module, inputs_shape, of_slices)
        if default and find_slices_cached(module, default.name, like, t) == t:
            return of_slices, default
        if default and not _describe_last_grid(observed):
            observed.problem = f"each row of {default.name!r} looks at several of them"
        observed.problem = observed.problem or of_slices.problem
    return observed, None


@dataclass
class _LayerOutput:
    """What a module put out: its shape and layout, and the step of the pass that made it.

    `share` is that of the grid's cells on which the score depends.
    """

    shape: tuple[int, ...]
    layout: Layout | None
    step: Node | None = None
    share: Tensor | None = None

    def see(self, gradient: Tensor | None) -> None:
        """Notes on which share of the grid's cells any channel has gradient."""
        # quantised layers hand back no gradient at all
        if self.layout and gradient is not None:
            self.share = _compute_share(gradient, self.layout)

    @property
    def depends(self) -> bool:
        return self.share is not None and self.share.item() >= EVERYWHERE


def _compute_share(gradient: Tensor, layout: Layout) -> Tensor:
    maps = convert_to_maps(gradient, layout)
    strongest: Tensor = torch.linalg.vector_norm(maps, ord=inf, dim=1)
    return strongest.gt(0).float().mean()


@dataclass
class LayerObserver:
    """What hooks saw: last outputs in order of completion, the classifier, and what was recorded.

    `joins` are steps that join values in a grid on which the score depends everywhere.  Grids are
    those of `slices` rows that the one picture is parted into.
    """

    input_size: tuple[int, int]
    slices: int = 1
    outputs: dict[str, _LayerOutput] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    # the last module with weights of its own, and its input: the classifier, if it is linear
    weighted: tuple[str, nn.Module, Tensor] | None = None
    classifier: str | None = None
    latest: tuple[Tensor, int, _LayerOutput] | None = None
    steps: set[Node] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    no_sources: dict[str, str] = field(default_factory=dict)
    graph: AutogradGraph | None = None
    joins: list[Node] = field(default_factory=list)
    problem: str = ""

    def count_writes(self, name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        """Notes how often a layer's input was written to before; a forward pre-hook."""
        given = find_tensor(args)
        if given is not None:
            self.versions[name] = given._version

    def note(self, name: str, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Notes a call and returns what goes on; a forward hook once the name is bound."""
        tensor = find_tensor(output)
        if tensor is None:
            return output
        self.no_sources[name] = self._explain_no_source(name, layer, args, tensor)
        if any(arg is tensor for arg in args):
            # what a layer hands on unchanged may be used beside it, which is no use of its output
            tensor = tensor.clone()
            output = replace_tensor(output, tensor)
        self.calls[name] += 1
        self.outputs.pop(name, None)
        self.outputs[name] = self._output(tensor)
        if args and isinstance(args[0], Tensor) and next(layer.parameters(False), None) is not None:
            self.weighted = (name, layer, args[0])
        return output

    def layout_of(self, tensor: Tensor) -> Layout | None:
        """Measures a tensor's layout by its shape, if it has a row for each slice."""
        return measure_layout(tuple(tensor.shape), self.input_size, batch=self.slices)

    def _output(self, tensor: Tensor) -> _LayerOutput:
        # stages, their last blocks and identities put out the same tensor: look at it once
        if self.latest and self.latest[0] is tensor and self.latest[1] == tensor._version:
            return self.latest[2]
        shape, step = tuple(tensor.shape), tensor.grad_fn
        output = _LayerOutput(shape, self.layout_of(tensor), step)
        if step is not None:
            self.steps.add(step)
        if output.layout and tensor.requires_grad:
            # hooks on the tensor keep no gradient alive, and stay with the value that the layer
            # put out when an in-place activation changes it afterwards
            tensor.register_hook(output.see)  # type: ignore[no-untyped-call]
        self.latest = (tensor, tensor._version, output)
        return output

    def _explain_no_source(
        self, name: str, layer: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> str:
        """Says what a layer does to another one's output where it makes nothing of its own."""
        given = find_tensor(args)
        if given is None or next(layer.parameters(), None) is not None:
            return ""
        if given._version != self.versions[name] or not self._is_put_out(given.grad_fn):
            return ""
        if output is given or _has_same_values(given, output):
            return "only hands it on" if torch.equal(given, output) else "only turns it"
        before, behind = self.layout_of(given), self.layout_of(output)
        return "pools it" if before and behind and before.grid != behind.grid else ""

    def _is_put_out(self, step: Node | None) -> bool:
        """Tells whether some layer put a step's result out, or what was made of it alone."""
        while step is not None and step not in self.steps:
            before = list_sources(step)
            step = before[0] if len(before) == 1 else None
        return step is not None

    def follow(self, score: Tensor) -> None:
        """Looks at what was recorded, and makes ready for the pass back."""
        self.graph = AutogradGraph(score)
        spread_picks(self.graph.steps)
        for join in self.graph.joins():
            join.register_prehook(partial(self._record_join, join))

    def _record_join(self, join: Node, gradients: tuple[Tensor | None, ...]) -> None:
        gradient = gradients[0]
        layout = None if gradient is None else self.layout_of(gradient)
        if gradient is not None and layout and _compute_share(gradient, layout) >= EVERYWHERE:
            self.joins.append(join)

    def why_no_default(self, name: str) -> str:
        """Says why a layer's output is not all of the features at its place, or nothing."""
        step = self.outputs[name].step
        if self.no_sources[name] or not self.graph or step is None:
            return self.no_sources[name]
        if self.graph.is_attention_operand(step):
            return "holds queries, keys or values of attention"
        if self.graph.has_shortcut(step, self.joins):
            return "lies beside a shortcut"
        return ""


def _has_same_values(one: Tensor, other: Tensor) -> bool:
    """Tells whether two tensors hold the same values, in whatever order."""
    if one.numel() != other.numel() or one.dtype != other.dtype:
        return False
    if one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
        return True
    one, other = one.detach(), other.detach()
    alike = (torch.equal(f(one), f(other)) for f in (torch.amin, torch.amax))
    # zeros are what any activation makes of zeros
    return (
        all(alike)
        and not one.eq(one.amin()).all()
        and torch.equal(*(t.flatten().sort().values for t in (one, other)))
    )


def _is_classifier(layer: nn.Module, logits: Tensor) -> bool:
    """Tells whether the last module with weights is linear and as wide as the logits.

    A model without a classifier has a norm there, or something else that is none.
    """
    width = logits.shape[-1] if logits.ndim < 3 else logits.shape[1]
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.out_channels == width
    return isinstance(layer, nn.Linear) and layer.out_features == width


def run_probing_pass(
    module: nn.Module, inputs_shape: tuple[int, int, int], observed: LayerObserver
) -> None:
    """Runs noise (channels, H, W) forward and back, and notes what every layer puts out."""
    # drawn on the CPU, so that every device sees the same noise
    generator = torch.Generator().manual_seed(SEED)
    with torch.inference_mode(False), torch.enable_grad(), preserve_state(module):
        noise = torch.randn(1, *inputs_shape, generator=generator)
        inputs = _like_parameters(module, noise).requires_grad_()
        with _attach_hooks(module, observed):
            # a leaf cannot be changed in place, but its clone can
            logits = _run_model(module, inputs.clone())
        scored = [logits]
        if observed.weighted and _is_classifier(observed.weighted[1], logits):
            observed.classifier, _, classified = observed.weighted
            scored.append(classified)
        score = sum(
            (t.float() * torch.randn(t.shape, generator=generator).to(t.device)).sum()
            for t in scored
        )
        if not torch.as_tensor(score).isfinite():
            observed.problem = (
                "its output is not finite (NaN weights, or half precision overflowed)"
            )
        elif isinstance(score, Tensor) and score.requires_grad:
            observed.follow(score)
            if not _has_gradient(score, inputs):
                # what is quantised while it runs has a graph, through which nothing comes
                observed.problem = NO_GRADIENT
        else:
            observed.problem = NO_GRADIENT


def _like_parameters(module: nn.Module, inputs: Tensor) -> Tensor:
    """Moves inputs to where the parameters are, in their precision."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    return inputs.to(like.device, like.dtype)


def _run_model(module: nn.Module, inputs: Tensor) -> Tensor:
    try:
        output = make_recordable(module)(inputs)
    except CamvizError:
        raise
    except Exception as error:
        size = "x".join(map(str, inputs.shape[1:]))
        message = f"The model does not run on a {size} input: {type(error).__name__}: {error}"
        raise ModelError(message) from error
    logits = find_tensor(select_output(output, None))
    if logits is None:
        raise ModelError(
            f"The model returned {describe_output(output)}, and no tensor of logits: --output-key"
            " (in Python output_key) says which part of it they are."
        )
    return logits


def _has_gradient(score: Tensor, inputs: Tensor) -> bool:
    try:
        (gradient,) = torch.autograd.grad(score, inputs, allow_unused=True)
    except RuntimeError as error:
        why = str(error).partition(". ")[0]
        raise ModelError(
            f"No gradient can be followed through the model: {why}. Name a layer with"
            f" --target-layers, and a method that needs no gradient: {GRADIENT_FREE_METHODS}."
        ) from error
    return gradient is not None


@contextmanager
def _attach_hooks(module: nn.Module, observed: LayerObserver) -> Iterator[None]:
    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if name:
                begin, note = partial(observed.count_writes, name), partial(observed.note, name)
                stack.callback(layer.register_forward_pre_hook(in_this_thread(begin)).remove)
                stack.callback(layer.register_forward_hook(in_this_thread(note)).remove)
        yield


def _collect_facts(name: str, layer: nn.Module, observed: LayerObserver) -> LayerFacts:
    output = observed.outputs.get(name)
    layout = output.layout if output else None
    return LayerFacts(
        name=name,
        type=type(unwrap(layer)).__name__,
        shape=output.shape if output else None,
        layout=layout,
        parameters=sum(parameter.numel() for parameter in layer.parameters()),
        called=observed.calls[name],
        depends=output is not None and output.depends,
    )


def _describe_last_grid(observed: LayerObserver) -> str:
    grids = (name for name, output in reversed(observed.outputs.items()) if output.layout)
    return next(grids, "")


def _choose_default(
    module: nn.Module, inputs_shape: tuple[int, int, int], observed: LayerObserver
) -> TargetLayer | None:
    """Chooses the last layer in front of the classifier with a grid that the score depends on.

    All of the features at each place are preferred to a part of them, and a grid whose cells are no
    places of the picture is none.
    """
    in_front = takewhile(lambda item: item[0] != observed.classifier, observed.outputs.items())
    dependent = [name for name, o in reversed(list(in_front)) if o.layout and o.depends]
    places = _PlacesFinder(module, inputs_shape, observed, dependent)
    why_not: dict[str, str] = {}
    for name in dependent:
        kinds = kinds_around(module, name)
        if why := why_never_default(kinds) or observed.why_no_default(name):
            why_not[name] = why
        elif places.are_none(name):
            why_not[name] = NO_PLACES
        else:
            return _make_target(name, observed, places.of(name), why_not)
    # a part of the features is better than no map
    for name in dependent:
        if why_not[name] != NO_PLACES and not places.are_none(name):
            return _make_target(name, observed, places.of(name), why_not)
    if dependent:
        observed.problem = f"each layer on which the score depends everywhere {NO_PLACES}"
    return None


def _make_target(
    name: str, observed: LayerObserver, places: Places, why_not: Mapping[str, str]
) -> TargetLayer:
    h, w = places.layout.grid
    last = next(iter(why_not), name)
    passed_over = f" ({last} behind it {why_not[last]})" if last != name else ""
    each = f" of each of the picture's {observed.slices} slices" if observed.slices > 1 else ""
    reason = f"the last {h}x{w} grid{each} on which the score depends everywhere{passed_over}"
    calls = observed.calls[name]
    said = f"; it {describe_last_use(calls)}" if calls > 1 else ""
    return TargetLayer(name, places.layout, reason + said, places.doubt(name))


@dataclass
class _PlacesFinder:
    """The places of layers that may be the default, looked for where they are in question."""

    module: nn.Module
    inputs_shape: tuple[int, int, int]
    observed: LayerObserver
    layers: Sequence[str]
    asked: list[str] = field(default_factory=list)
    found: dict[str, Places] = field(default_factory=dict)

    def of(self, name: str) -> Places:
        """Returns a layer's places; as its shape shows them where nothing can move any."""
        output = self.observed.outputs[name]
        if output.layout and output.layout.kind == "nchw" and is_in_place(output.step):
            return Places(output.layout, 1.0)
        if name not in self.asked:
            # where the first one has none, the others are looked at together
            new = [layer for layer in self.layers if layer not in self.asked]
            new = new if self.asked else [name]
            self.asked += new
            slices = self.observed.slices
            self.found |= find_moved_places(self.module, self.inputs_shape, new, slices)
        # a model that takes no batch of noise is believed
        assert output.layout
        return self.found.get(name) or Places(output.layout, nan)

    def are_none(self, name: str) -> bool:
        """Tells whether a layer's cells are no places of the picture."""
        places = self.of(name)
        folded = places.layout.kind == "sequence first" and name not in self.found
        return folded or places.has_none


def kinds_around(module: nn.Module, name: str) -> list[type[nn.Module]]:
    """Returns the classes of a layer and of all around it but the model, outermost first."""
    parts = name.split(".")
    around = (".".join(parts[: end + 1]) for end in range(len(parts)))
    return [type(unwrap(module.get_submodule(part))) for part in around]


def describe_last_use(calls: int) -> str:
    """Says which use of a shared layer is explained."""
    return f"runs {calls} times in a pass, and the last counts"
