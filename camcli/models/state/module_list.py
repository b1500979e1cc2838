"""Looks through a model once for a call, and notes what else is asked of it often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor, nn

from camcli.errors import UsageError

Made = TypeVar("Made")
# what is made of a model, and the model
Key = tuple[Callable[[nn.Module], Any], nn.Module]


class _OfThread(threading.local):
    # no context variable: asyncio hands those on to other threads
    notes: dict[Key, Any] | None = None


_of_thread = _OfThread()


def check_is_module(given: Any) -> None:
    """Raises UsageError for what is no module, such as a Classifier, which has one."""
    if isinstance(given, nn.Module):
        return
    way_on = ": give its .module" if isinstance(getattr(given, "module", None), nn.Module) else ""
    raise UsageError(f"A torch.nn.Module is asked for, not a {type(given).__name__}{way_on}.")


@dataclass(frozen=True)
class ModelParts:
    """What a model consists of: its modules and their attributes, its parameters and buffers.

    Each module stands there once, the model itself first.  Nobody may change the lists.
    """

    modules: list[nn.Module]
    # of each module, the dictionary that holds them: a module's own way to find them is slow
    attributes: list[dict[str, Any]]
    parameters: list[nn.Parameter]
    buffers: list[Tensor]

    @cached_property
    def kinds(self) -> frozenset[type[nn.Module]]:
        """The classes of the modules, which are few."""
        return frozenset(map(type, self.modules))


def list_parts(module: nn.Module) -> ModelParts:
    """Lists what a model consists of, once for a call."""
    return note_once(look_through, module)


def list_modules(module: nn.Module) -> list[nn.Module]:
    """Lists a module and all that is in it, each once, in no order that means anything.

    The list is shared: nobody may change it.
    """
    return list_parts(module).modules


def note_once(make: Callable[[nn.Module], Made], module: nn.Module) -> Made:
    """Returns what a function makes of a model; in a call it is asked once."""
    notes = _of_thread.notes
    if notes is None:
        return make(module)
    if (make, module) not in notes:
        notes[make, module] = make(module)
    made: Made = notes[make, module]
    return made


def has_notes(module: nn.Module) -> bool:
    """Tells whether this thread keeps notes of a model already."""
    notes = _of_thread.notes
    return notes is not None and (look_through, module) in notes


@contextmanager
def keep_notes(
    module: nn.Module, parts: ModelParts | None = None, *, is_call: bool = False
) -> Iterator[None]:
    """Keeps what is noted of a held model until its block ends, because nobody changes its parts.

    A call begins anew: another one may have changed them since.  `parts` are its parts, if they
    are known.
    """
    if has_notes(module) and not is_call:
        yield
        return
    before, _of_thread.notes = _of_thread.notes, {}
    try:
        _of_thread.notes[look_through, module] = parts or look_through(module)
        yield
    finally:
        _of_thread.notes = before


def look_through(module: nn.Module) -> ModelParts:
    """Lists what a model consists of, as it is now."""
    # torch's own walks build every part's full name, which is slow
    modules, seen = [module], {module}
    attributes: list[dict[str, Any]] = []
    for part in modules:
        attributes.append(own := vars(part))
        if inside := _get_held(part, own, "_modules"):
            # other threads may add to a dictionary in the meantime
            for inner in tuple(inside.values()):
                if inner is not None and inner not in seen:
                    seen.add(inner)
                    modules.append(inner)
    return ModelParts(
        modules,
        attributes,
        _list_held(modules, attributes, "_parameters"),
        _list_held(modules, attributes, "_buffers"),
    )


def _list_held(modules: list[nn.Module], attributes: list[dict[str, Any]], name: str) -> list[Any]:
    """Lists what stands in one dictionary of each module."""
    dictionaries = (_get_held(*pair, name) for pair in zip(modules, attributes, strict=True))
    held = [tuple(inside.values()) for inside in dictionaries if inside]
    return [value for values in held for value in values if value is not None]


def _get_held(module: nn.Module, attributes: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a dictionary of a module, which TorchScript's have elsewhere."""
    found: dict[str, Any] = attributes[name] if name in attributes else getattr(module, name)
    return found
