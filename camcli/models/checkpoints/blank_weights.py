"""Builds a model without drawing its random weights, where a checkpoint's take their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camcli.models.model_spec import BuiltModel, ModelSpec, Weights

# what fills a tensor with random numbers in place; timm and torchvision draw weights by these
DRAWING = frozenset(
    {
        Tensor.normal_,
        Tensor.uniform_,
        # turns uniform numbers into normal ones
        Tensor.erfinv_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.uniform_,
        nn.init.xavier_normal_,
        nn.init.xavier_uniform_,
    }
)


class _WithoutDrawing(TorchFunctionMode):
    """Fills tensors with NaN where they would be filled with random numbers.

    NaN goes on into all that is made of it, so that nothing undrawn is used without a word.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs a function of torch, unless it draws."""
        given = kwargs or {}
        if func not in DRAWING:
            return func(*args, **given)
        # functions of torch.nn.init name it
        tensor = args[0] if args else given["tensor"]
        with torch.no_grad():
            return tensor.fill_(torch.nan)


def build_blank(build: Callable[[ModelSpec], BuiltModel], request: ModelSpec) -> BuiltModel:
    """Builds a model whose random weights are not drawn; its `rebuild` builds it with them."""
    with _WithoutDrawing():
        built = build(request)
    stored = _list_places(built.module)
    # no checkpoint has what a module does not store
    unstored = [buffer for buffer in built.module.buffers() if buffer.data_ptr() not in stored]
    if any(buffer.isnan().any() for buffer in unstored):
        return build(request)
    return replace(built, rebuild=lambda: build(request))


def draw_what_is_missing(built: BuiltModel, given: Weights) -> BuiltModel:
    """Returns the model with random weights drawn, unless all are replaced by those that are given.

    A converter may hand the model's own ones on: those are none of a checkpoint.
    """
    if built.rebuild is None:
        return built
    own = _list_places(built.module)
    drawn = [
        name
        for name, weight in _list_stored(built.module)
        if weight.is_floating_point()
        and weight.numel()
        and (name not in given or given[name].data_ptr() in own)
    ]
    return built.rebuild() if drawn else replace(built, rebuild=None)


def _list_places(module: nn.Module) -> set[int]:
    return {weight.data_ptr() for _, weight in _list_stored(module)}


def _list_stored(module: nn.Module) -> list[tuple[str, Tensor]]:
    # a part may store something else besides
    return [(n, w) for n, w in module.state_dict().items() if isinstance(w, Tensor)]
