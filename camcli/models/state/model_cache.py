"""Keeps what was measured of models while they live and consist of the same parts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from torch import nn

from camcli.models.state.module_list import list_modules, note_once

Measured = TypeVar("Measured")


class _Parts:
    """The parts that a model consists of; another object once they are others."""

    def __init__(self, layers: list[nn.Module]) -> None:
        # not by addresses: a new part may get the address of one that is gone
        self._references = list(map(ref, layers))

    def are(self, layers: list[nn.Module]) -> bool:
        return [reference() for reference in self._references] == layers


_parts: WeakKeyDictionary[nn.Module, _Parts] = WeakKeyDictionary()


def _find_parts(module: nn.Module) -> _Parts:
    layers = list_modules(module)
    parts = _parts.get(module)
    # people swap a head or a stage between two calls
    if parts is None or not parts.are(layers):
        parts = _parts[module] = _Parts(layers)
    return parts


@dataclass
class _Entry(Generic[Measured]):
    parts: _Parts
    answers: dict[Hashable, Measured] = field(default_factory=dict)


class ModelCache(Generic[Measured]):
    """Answers about models, each by what was asked; a model whose parts were swapped has none."""

    def __init__(self) -> None:
        self._entries: WeakKeyDictionary[nn.Module, _Entry[Measured]] = WeakKeyDictionary()

    def of(self, module: nn.Module) -> dict[Hashable, Measured]:
        """Returns the answers about a model as it is now, to be looked up and added to."""
        parts, entry = note_once(_find_parts, module), self._entries.get(module)
        if entry is None or entry.parts is not parts:
            entry = self._entries[module] = _Entry(parts)
        return entry.answers
