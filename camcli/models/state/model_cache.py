"""Keeps what was measured of models while they live and consist of the same parts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from torch import nn

from camcli.models.state.module_list import ModelParts, list_parts, note_once

Measured = TypeVar("Measured")


class _Parts:
    """The parts of a model, and their classes; another object once they are others."""

    def __init__(self, parts: ModelParts) -> None:
        # not by addresses: a new part may get the address of one that is gone
        self._references = list(map(ref, parts.modules))
        self._kinds = list(map(type, parts.modules))

    def are(self, parts: ModelParts) -> bool:
        return [reference() for reference in self._references] == parts.modules and list(
            map(type, parts.modules)
        ) == self._kinds


_parts: WeakKeyDictionary[nn.Module, _Parts] = WeakKeyDictionary()


def _find_parts(module: nn.Module) -> _Parts:
    listed = list_parts(module)
    parts = _parts.get(module)
    # people swap a head or a stage between two calls, or give it another class
    if parts is None or not parts.are(listed):
        parts = _parts[module] = _Parts(listed)
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
