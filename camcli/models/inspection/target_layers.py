"""Measures by one pass of noise which layers can be targets, and which one is the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from math import nan

import torch
from torch import nn

from camcli.errors import LayerError
from camcli.models.embedded import EfficientNetLite0
from camcli.models.inspection.autograd_graph import is_in_place
from camcli.models.inspection.layer_lookup import ALL_LAYERS
from camcli.models.inspection.layout import Layout, measure_layout
from camcli.models.inspection.probing_pass import (
    GRADIENT_FREE_METHODS,
    NO_GRADIENT,
    LayerObserver,
    like_parameters,
    run_probing_pass,
)
from camcli.models.inspection.quirks import why_never_default
from camcli.models.inspection.spatial_order import NO_PLACES, Places, find_moved_places
from camcli.models.outputs.folded_batch import count_slices
from camcli.models.state import check_hookable, locks_model, unwrap

FEW_NAMES = 3


@dataclass(frozen=True)
class TargetLayer:
    """A layer to explain at, its output's layout, why it was chosen, and what is uncertain."""

    name: str
    layout: Layout
    reason: str
    doubt: str = ""


# those of the embedded network at its own size, so that the first picture need not wait for
# measuring; a test measures them
EMBEDDED_INPUT = (3, 224, 224)
EMBEDDED_DEFAULT = TargetLayer(
    "features", Layout("nchw", (7, 7)), "the last 7x7 grid on which the score depends everywhere"
)


@dataclass(frozen=True)
class LayerFacts:
    """What one probing pass showed about a layer.

    `shape` is that of its last output, with a batch of one first.  `called` counts its calls.
    `depends` says whether the score depends on every cell of the grid.
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

    `problem` says why no dependence could be measured, so that there is no default; `last_grid` is
    the last layer with a grid.
    """

    layers: tuple[LayerFacts, ...]
    default: TargetLayer | None
    input_size: tuple[int, int]
    problem: str = ""
    last_grid: str = ""


def measure_default_layer(module: nn.Module, inputs_shape: tuple[int, int, int]) -> TargetLayer:
    """Returns the default target layer for inputs (channels, H, W).

    Raises LayerError if no layer has a grid on which the score depends everywhere.
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
            f"No layer of this {kind} puts out a grid larger than 1x1 for a {size} input, so there "
            "are no places that a map could show."
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
    """Says which layers have a map of each slice, if all layers put out several rows a picture."""
    last, size = folded[-1], "x".join(map(str, inputs_shape))
    begin = (
        f"All layers of this {type(unwrap(module)).__name__} that put out grids put out several"
        f" rows for one {size} input, such as {last.name!r} {list(last.shape or ())}"
    )
    like = like_parameters(module, torch.empty(1, *inputs_shape))
    rows = {layer.name: (layer.shape or (1,))[0] for layer in folded}
    named = [name for name, t in rows.items() if count_slices(module, name, like, t) == t]
    if not named:
        return (
            f"{begin}, which are no frames or slices of it (windows, heads or joined frames are "
            "folded into the batch), so none of them has a map of the picture. Try --method "
            "occlusion or rise, which need no layer."
        )
    why = problem or "the score depends on none of them everywhere"
    without = " and --method eigencam" if problem == NO_GRADIENT else ""
    few = ", ".join(map(repr, named[: -FEW_NAMES - 1 : -1]))
    return (
        f"{begin}: slices are folded into the batch, and no layer can be chosen by measuring: "
        f"{why}. Name one with --target-layers, such as {few}{without}, and each slice gets a map. "
        f"{ALL_LAYERS}"
    )


@locks_model
def survey_layers(module: nn.Module, inputs_shape: tuple[int, int, int]) -> Survey:
    """Measures every layer with one forward and one backward pass of noise (channels, H, W).

    The score of this pass is a random projection of the classifier's input and of the logits,
    because a classifier may be zero or saturated.  Raises ModelError if the model does not run on
    such an input, or if hooks cannot look inside it.
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
    """Looks for a default layer that puts out a grid for each slice of the picture's channels.

    If there is none, returns what was observed of whole pictures.
    """
    like = like_parameters(module, torch.empty(1, *inputs_shape))
    rows = {output.shape[0] for output in observed.outputs.values() if len(output.shape) > 2}
    for t in sorted(t for t in rows if 1 < t <= inputs_shape[0]):
        of_slices = LayerObserver(inputs_shape[1:], t)
        run_probing_pass(module, inputs_shape, of_slices)
        default = _choose_default(module, inputs_shape, of_slices)
        if default and count_slices(module, default.name, like, t) == t:
            return of_slices, default
        if default and not _describe_last_grid(observed):
            observed.problem = f"each row of {default.name!r} looks at several of them"
        observed.problem = observed.problem or of_slices.problem
    return observed, None


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
    """Chooses the last layer before the classifier with a grid that the score depends on.

    A layer with all features at each place is preferred to one with a part of them, and a grid
    whose cells are no places of the picture does not count.
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
    """Measures the places of layers that may be the default, only if they are in doubt."""

    module: nn.Module
    inputs_shape: tuple[int, int, int]
    observed: LayerObserver
    layers: Sequence[str]
    asked: list[str] = field(default_factory=list)
    places_by_layer: dict[str, Places] = field(default_factory=dict)

    def of(self, name: str) -> Places:
        """Returns a layer's places; its shape is enough if no operation can move any."""
        output = self.observed.outputs[name]
        if output.layout and output.layout.kind == "nchw" and is_in_place(output.step):
            return Places(output.layout, 1.0)
        if name not in self.asked:
            # if the first layer has no places, all others are measured together
            new = [layer for layer in self.layers if layer not in self.asked]
            new = new if self.asked else [name]
            self.asked += new
            slices = self.observed.slices
            self.places_by_layer |= find_moved_places(self.module, self.inputs_shape, new, slices)
        # a model that does not take a batch of noise gets the layout that its shape shows
        assert output.layout
        return self.places_by_layer.get(name) or Places(output.layout, nan)

    def are_none(self, name: str) -> bool:
        """Tells whether a layer's cells are no places of the picture."""
        places = self.of(name)
        folded = places.layout.kind == "sequence first" and name not in self.places_by_layer
        return folded or places.has_none


def kinds_around(module: nn.Module, name: str) -> list[type[nn.Module]]:
    """Returns the classes of a layer and the modules around it (not the model), outermost first."""
    parts = name.split(".")
    around = (".".join(parts[: end + 1]) for end in range(len(parts)))
    return [type(unwrap(module.get_submodule(part))) for part in around]


def describe_last_use(calls: int) -> str:
    """Says that the last call of a layer with several calls is explained."""
    return f"runs {calls} times in a pass, and the last counts"
