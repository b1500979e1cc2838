"""Selects the layers to explain at: the named ones, or the default one."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

import camcli.engine.evidence.attention
import camcli.engine.evidence.curvature
import camcli.engine.evidence.forward_backward
import camcli.engine.evidence.fullgrad
import camcli.engine.evidence.guided_backprop
import camcli.methods  # noqa: F401  (fills the registry)
from camcli.engine.batch_context import find_places
from camcli.errors import CamvizWarning
from camcli.models.inspection.anatomy import list_spread_layers
from camcli.models.inspection.layer_lookup import find_layer
from camcli.models.inspection.layout import Layout
from camcli.models.inspection.spatial_order import Places
from camcli.models.inspection.target_layers import TargetLayer, measure_default_layer
from camcli.models.outputs.interpretation import (
    OutputReading,
    apply_output_reading,
)
from camcli.models.outputs.logits import OutputKey
from camcli.models.state import ModelCache, locks_model
from camcli.registry import (
    depends_on_layer,
)

Layers = str | nn.Module | Sequence[str | nn.Module]


def find_layers_for(
    methods: Iterable[str],
    module: nn.Module,
    inputs: Tensor,
    given: Layers | None,
    reading: OutputReading | None = None,
) -> tuple[tuple[str, ...], dict[str, Layout]]:
    """Finds the layers that methods look at; none if they need no layer and none is named."""
    # such methods also work on models without a target layer
    if not given and not any(map(depends_on_layer, methods)):
        return (), {}
    return find_target_layers(module, inputs, given, reading)


@locks_model
def find_target_layers(
    module: nn.Module, inputs: Tensor, given: Layers | None, reading: OutputReading | None = None
) -> tuple[tuple[str, ...], dict[str, Layout]]:
    """Finds the named layers, or the default one, and the layouts that are known already."""
    shape = (inputs.shape[1], inputs.shape[2], inputs.shape[3])
    if given:
        names = name_layers(module, given)
        places = find_places(module, shape, names)
        return names, {name: places[name].layout for name in places}
    default = find_default_layer(module, shape, reading)
    return (default.name,), {default.name: default.layout}


def name_layers(module: nn.Module, given: Layers) -> tuple[str, ...]:
    """Returns the names of layers, each once; raises LayerError for one that is unknown."""
    named = [given] if isinstance(given, str | nn.Module) else given
    return tuple(dict.fromkeys(find_layer(module, name) for name in named))


@locks_model
def find_doubts(
    module: nn.Module,
    shape: Sequence[int],
    layers: Sequence[str],
    given: Layers | None,
    reading: OutputReading | None = None,
) -> dict[str, str]:
    """Returns {layer: reason} for layers where it is not certain which cell lies where."""
    size = (shape[0], shape[1], shape[2])
    if not given:
        doubts = {layer: find_default_layer(module, size, reading).doubt for layer in layers}
    else:
        places = find_places(module, size, layers)
        doubts = {layer: places[layer].doubt(layer) for layer in places}
    return {layer: doubt for layer, doubt in doubts.items() if doubt}


def warn_doubts(doubts: Iterable[str]) -> None:
    """Warns a caller from Python; Python prints each warning once."""
    for doubt in doubts:
        warnings.warn(doubt, CamvizWarning, stacklevel=4)


_defaults: ModelCache[TargetLayer] = ModelCache()


@locks_model
def find_default_layer(
    module: nn.Module,
    shape: tuple[int, int, int],
    reading: OutputReading | OutputKey | None = None,
) -> TargetLayer:
    """Finds a model's default target layer for inputs (channels, H, W); measures it only once.

    `reading` says how the output is read; the key of the logits is enough.
    """
    if not isinstance(reading, OutputReading):
        reading = OutputReading(reading)
    known, key = _defaults.of(module), (shape, reading)
    if key not in known:
        with apply_output_reading(module, reading):
            known[key] = measure_default_layer(module, shape)
    return known[key]


@locks_model
def spread_layers(
    module: nn.Module,
    shape: tuple[int, int, int],
    count: int,
    reading: OutputReading | None = None,
) -> tuple[str, ...]:
    """Returns at most `count` layers from fine to coarse grids; the default one is the last.

    `shape` is that of the inputs (channels, H, W).  Raises LayerError if the model has no target
    layer.
    """
    default = find_default_layer(module, shape, reading)
    with apply_output_reading(module, reading or OutputReading()):
        names = list_spread_layers(module, shape, default, count)
    places = find_places(module, shape, names)
    return tuple(
        name for name in names if name == default.name or not _has_no_places(places.get(name))
    )


def _has_no_places(places: Places | None) -> bool:
    return places is not None and places.has_none
