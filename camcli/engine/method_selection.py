"""Selects the methods that run, and those that are combined into one map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from camcli.engine.best import Recipe, choose_best
from camcli.engine.layer_selection import (
    Layers,
    find_default_layer,
    find_doubts,
    find_layers_for,
    find_target_layers,
    name_layers,
)
from camcli.errors import UsageError
from camcli.method_terms import AT, BEST, COMBINED, check_methods, expand_methods, split_term
from camcli.methods.combine import CombinedMethod
from camcli.models.inspection.layer_lookup import find_layer
from camcli.models.inspection.layout import Layout
from camcli.models.outputs.interpretation import OutputReading
from camcli.models.state import locks_model
from camcli.records import BestFor, Combination
from camcli.registry import depends_on_layer

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class MethodSelection:
    """The methods that run alone, and the combinations that make one map of several.

    `recipe` is the choice of method `best`; None if that was not asked for.
    """

    methods: tuple[str, ...]
    combined: tuple[CombinedMethod, ...] = ()
    recipe: Recipe | None = None

    @property
    def all_methods(self) -> tuple[str, ...]:
        """All methods that run, each once."""
        parts = (method for combined in self.combined for method in combined.methods)
        return tuple(dict.fromkeys([*self.methods, *parts]))

    @property
    def combined_layers(self) -> tuple[str, ...]:
        """The layers of all combinations, each once."""
        return tuple(dict.fromkeys(layer for one in self.combined for layer in one.layers))


@locks_model
def select_methods(
    module: nn.Module,
    inputs_shape: Shape,
    terms: Sequence[str],
    target_layers: Layers | None = None,
    combination: Combination | None = None,
    best_for: BestFor | None = None,
    reading: OutputReading | None = None,
) -> MethodSelection:
    """Selects methods for inputs (channels, H, W); `terms` are those of `find_method_names`.

    A combination makes one map of all of them.  A method without a layer of its own then looks at
    each of the target layers, or at the default one.  Raises UsageError for options that exclude
    each other, and LayerError for an unknown layer.
    """
    check_methods(terms, combination, best_for)
    if combination is not None:
        parts = _list_parts(module, inputs_shape, terms, target_layers, reading)
        return MethodSelection((), (CombinedMethod(COMBINED, parts, combination),))
    if BEST not in terms:
        return MethodSelection(expand_methods(terms))
    if target_layers and set(terms) == {BEST}:
        raise UsageError(
            "Method best chooses the layers itself: leave --target-layers out, or combine "
            "METHOD@LAYER terms of your own with --combine product."
        )
    recipe = choose_best(module, inputs_shape, best_for or "balanced", reading)
    return MethodSelection(expand_methods(terms), (recipe.combined,), recipe)


def find_selected_layers(
    module: nn.Module,
    inputs: Tensor,
    selected: MethodSelection,
    given: Layers | None,
    reading: OutputReading | None = None,
) -> tuple[tuple[str, ...], dict[str, Layout], dict[str, str]]:
    """Finds the layers of methods outside combinations, and the layouts and doubts of all layers.

    Only the shape of the inputs [b 3 H W] is used.
    """
    layers: tuple[str, ...] = ()
    layouts: dict[str, Layout] = {}
    doubts: dict[str, str] = {}
    if selected.methods or not selected.combined:
        layers, layouts = find_layers_for(selected.methods, module, inputs, given, reading)
        doubts = find_doubts(module, inputs.shape[1:], layers, given, reading)
    if others := selected.combined_layers:
        layouts = find_target_layers(module, inputs, others, reading)[1] | layouts
        doubts = find_doubts(module, inputs.shape[1:], others, others, reading) | doubts
    return layers, layouts, doubts


def _list_parts(
    module: nn.Module,
    inputs_shape: Shape,
    terms: Sequence[str],
    target_layers: Layers | None,
    reading: OutputReading | None,
) -> tuple[tuple[str, str], ...]:
    parts: list[tuple[str, str]] = []
    for method, layer in map(split_term, terms):
        if not depends_on_layer(method):
            if layer:
                raise UsageError(f"{method} looks at no layer: write {method} without {AT}{layer}.")
            parts.append((method, ""))
        elif layer:
            parts.append((method, find_layer(module, layer)))
        elif target_layers:
            parts += [(method, name) for name in name_layers(module, target_layers)]
        else:
            default = find_default_layer(module, inputs_shape, reading)
            parts.append((method, default.name))
    return tuple(dict.fromkeys(parts))
