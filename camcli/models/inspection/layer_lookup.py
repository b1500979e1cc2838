"""Finds a layer's name from what a user types, or from the layer itself."""

from __future__ import annotations

import re

from torch import nn

from camcli.errors import LayerError, UnknownName
from camcli.models.state import list_modules, unwrap

ALL_LAYERS = "All: camviz --preview-model"
# wrappers' names for the module inside; people copy layer names with and without them
WRAPPERS = ("module", "_orig_mod")
NUMBER = re.compile("-?[0-9]{1,9}")


def find_layer(module: nn.Module, layer: str | nn.Module) -> str:
    """Finds a layer's name in `named_modules()`; raises UnknownName with the closest ones.

    Letter case, `-` and `_` do not matter if only one layer fits, and negative numbers count from
    the end: `blocks.-1.norm1`.  The layer itself can be given, too, as in grad-cam.  Prefixes of
    wrappers are optional: `module.layer4`, `_orig_mod.layer4`.
    """
    module = unwrap(module)
    if isinstance(layer, str) and _is_the_name(module, layer):
        return layer
    names = _name_modules(module)
    if isinstance(layer, nn.Module):
        if layer not in names:
            raise LayerError(
                f"This {type(layer).__name__} is not a layer of the model. {ALL_LAYERS}"
            )
        return names[layer]
    layer_module: nn.Module | None = module
    for part in layer.split("."):
        layer_module = _find_child(layer_module, part) if layer_module is not None else None
    if layer_module is None or layer_module not in names:
        raise UnknownName("layer", layer, names.values(), ALL_LAYERS)
    return names[layer_module]


def _is_the_name(module: nn.Module, layer: str) -> bool:
    """Tells whether a layer has exactly this name; this is faster than listing all names."""
    part: nn.Module | None = module
    for key in layer.split("."):
        # TorchScript's own dictionary has no get()
        part = part._modules[key] if part is not None and key in part._modules else None
    if part is None:
        return False
    layers = list_modules(module)
    # the numbers are equal, so no child has two names
    return sum(len(m._modules) for m in layers) == len(layers) - 1


def _name_modules(module: nn.Module) -> dict[nn.Module, str]:
    """Returns the first name of each module as in `named_modules()`, in less time."""
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
        # children of an nn.Sequential have an order, whatever their names are
        ordered = isinstance(module, nn.Sequential | nn.ModuleList)
        numbered = [child for key, child in children.items() if ordered or key.isdigit()]
        return numbered[int(part)] if -len(numbered) <= int(part) < 0 else None
    alike = [child for key, child in children.items() if _simplify(key) == _simplify(part)]
    return alike[0] if len(alike) == 1 else None


def _simplify(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
