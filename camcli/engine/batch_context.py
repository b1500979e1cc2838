"""Holds one batch and its model, and computes each piece of evidence once in its scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from camcli.engine.targets import CategoryChoice, FixedCategories, PlainTarget, Target
from camcli.models.acceleration import accepts_channels_last
from camcli.models.inspection.layout import Layout, find_batch_axis, force_layout
from camcli.models.inspection.spatial_order import Places, measure_places
from camcli.models.outputs.folded_batch import count_slices
from camcli.models.state import ModelCache, check_hookable
from camcli.records import Detailed
from camcli.registry import EVIDENCE, EVIDENCE_FUNCTIONS, Method, Scope

Key = tuple[str, str, int, str]
# the evidence whose pass gives the logits
FirstPass = Literal["recording", "guided_pass", "full_pass"]
# whether evidence exists for each layer, category and method; flags are slow to look into
_IS_FOR_EACH = {
    name: tuple(part in declared.scope for part in (Scope.LAYER, Scope.CATEGORY, Scope.METHOD))
    for name, declared in EVIDENCE.items()
}
CHUNK = 32
# a GPU needs more of them to be busy (camviz help speed)
GPU_CHUNK = 128
# a few pictures stay in the caches of a core (camviz help speed)
FEWEST_PICTURES, PICTURES_A_CORE = 8, 4


def choose_chunk(device: torch.device) -> int:
    """Returns how many altered layer outputs pass together on a device."""
    return GPU_CHUNK if device.type == "cuda" else CHUNK


def choose_picture_chunk(chunk: int, device: torch.device) -> int:
    """Returns how many altered pictures pass together, given the number for layer outputs."""
    if device.type != "cpu":
        return chunk
    return min(chunk, max(FEWEST_PICTURES, PICTURES_A_CORE * torch.get_num_threads()))


@dataclass(frozen=True)
class TokenOptions:
    """What the user says about a layer's tokens; None means that it is measured."""

    vit_like: bool | None = None
    num_extra_tokens: int | None = None


class BatchContext:
    """One batch of inputs [b 3 H W], and the evidence that was computed from it so far.

    Raises ModelError for a model that hooks cannot look inside.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        layers: Sequence[str],
        choice: CategoryChoice | None,
        *,
        graph: bool,
        heads: bool = True,
        target: Target | None = None,
        layouts: Mapping[str, Layout] | None = None,
        tokens: TokenOptions | None = None,
        chunk: int = CHUNK,
        first_pass: FirstPass = "recording",
    ) -> None:
        self.module, self.inputs = check_hookable(module), inputs
        # measured before any hook is attached
        accepts_channels_last(self.module, inputs)
        self.layers, self.choice = tuple(layers), choice
        self.graph, self.heads, self.chunk = graph, graph and heads, chunk
        self.target = target or PlainTarget()
        self.tokens = tokens or TokenOptions()
        self.first_pass: FirstPass = first_pass
        self._layouts = dict(layouts or {})
        self._values: dict[Key, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Forgets all evidence, some of which refers to the context and keeps the batch alive."""
        for values in self._values.values():
            if isinstance(values, BatchContext) and values is not self:
                values.__exit__()
        self._values.clear()

    def get(self, name: str, layer: str = "", slot: int = 0, asker: str = "") -> Any:
        """Returns a piece of evidence for a layer and a category's slot; computes it at most once.

        `asker` names the method and its layer, for evidence whose scope is one method.
        """
        by_layer, by_category, by_method = _IS_FOR_EACH[name]
        key = (
            name,
            layer if by_layer else "",
            slot if by_category else 0,
            asker if by_method else "",
        )
        if key not in self._values:
            provided = {"context": self, "layer": layer, "slot": slot}
            evidence = EVIDENCE_FUNCTIONS[name]
            asked = [
                provided[a] if a in provided else self.get(a, layer, slot, asker)
                for a in evidence.asks_for
            ]
            self._values[key] = evidence.function(*asked)
        return self._values[key]

    def apply(self, method: Method, layer: str, slot: int, **options: Any) -> Detailed:
        """Runs a method on its evidence.  -> [b c h w] or [b h w], whichever the method returns"""
        asker = f"{method.name} {layer}"
        evidence = [self.get(name, layer, slot, asker) for name in method.evidence]
        result: Tensor | Detailed = method.function(*evidence, **options)
        return result if isinstance(result, Detailed) else Detailed(result, {})

    def with_inputs(self, inputs: Tensor) -> BatchContext:
        """Returns a context for other inputs with the categories and references of these inputs."""
        other = copy(self)
        other.inputs, other._values = inputs, {}
        if self.choice:
            categories = self.get("categories")
            other.choice = FixedCategories(categories)
            for slot in range(categories.shape[1]):
                other._values["references", "", slot, ""] = self.get("references", slot=slot)
        return other

    def slices(self, layer: str, output: Tensor) -> int:
        """Returns how many rows (frames or slices) of each picture a layer's output has."""
        known = self._layouts.get(layer)
        if len(output) == len(self.inputs) or (known and known.kind == "sequence first"):
            return 1
        return count_slices(self.module, layer, self.inputs, len(output))

    def batch_axis(self, layer: str, output: Tensor) -> int:
        """Returns the axis of a layer's output that counts the pictures."""
        if layer in self._layouts:
            return int(self._layouts[layer].kind == "sequence first")
        return find_batch_axis(tuple(output.shape), len(self.inputs))

    def layout(self, layer: str, output: Tensor) -> Layout:
        """Returns a layer's layout; measures it on this output if it is not known yet."""
        known = self._layouts.get(layer)
        if known and self.tokens == TokenOptions():
            return known
        height, width = self.inputs.shape[-2:]
        layout = force_layout(
            tuple(output.shape),
            (height, width),
            vit_like=self.tokens.vit_like,
            num_extra_tokens=self.tokens.num_extra_tokens,
            layer=layer,
            batch=self.slices(layer, output) * len(self.inputs),
            sequence_first=known is not None and known.kind == "sequence first",
        )
        if known is None:
            self._layouts[layer] = layout
        # the measured order of tokens stays, also if the user gives their kind or number
        in_order = known is not None and replace(known, order=()) == layout
        return known if known and in_order else layout


_places: ModelCache[Places | None] = ModelCache()


def find_places(
    module: nn.Module, shape: tuple[int, int, int], layers: Sequence[str]
) -> dict[str, Places]:
    """Finds where in the picture the cells of layers lie, for inputs (channels, H, W)."""
    module = check_hookable(module)
    known = _places.of(module)
    new = [layer for layer in layers if (layer, shape) not in known]
    if new:
        new_places = measure_places(module, shape, new)
        known.update({(layer, shape): new_places.get(layer) for layer in new})
    return {layer: places for layer in layers if (places := known[layer, shape])}
