"""Keeps what was measured of models while they live and consist of the same parts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from torch import nn

from camcli.models.state.model_state import list_modules

Measured = TypeVar("Measured")


@dataclass
class _Entry(Generic[Measured]):
    parts: list[ref[nn.Module]]
    answers: dict[Hashable, Measured] = field(default_factory=dict)

    def is_of(self, layers: list[nn.Module]) -> bool:
        # not by addresses: a new part may get the address of one that is gone
        return len(self.parts) == len(layers) and all(
            part() is layer for part, layer in zip(self.parts, layers, strict=True)
        )


class ModelCache(Generic[Measured]):
    """Answers about models, each by what was asked; a model whose parts were swapped has none."""

    def __init__(self) -> None:
        self._entries: WeakKeyDictionary[nn.Module, _Entry[Measured]] = WeakKeyDictionary()

    def of(self, module: nn.Module) -> dict[Hashable, Measured]:
        """Returns the answers about a model as it is now, to be looked up and added to."""
        layers = list_modules(module)
        entry = self._entries.get(module)
        # people swap a head or a stage between two calls
        if entry is None or not entry.is_of(layers):
            entry = self._entries[module] = _Entry([ref(layer) for layer in layers])
        return entry.answers
