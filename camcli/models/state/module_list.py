"""Lists what a model consists of, and notes what else is asked of it often, once for a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

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


def list_modules(module: nn.Module) -> list[nn.Module]:
    """Lists a module and all that is in it, each once, in no order that means anything.

    The list is shared: nobody may change it.
    """
    return note_once(_walk, module)


def note_once(make: Callable[[nn.Module], Made], module: nn.Module) -> Made:
    """Returns what a function makes of a model; in a call it is asked once."""
    notes = _of_thread.notes
    if notes is None:
        return make(module)
    if (make, module) not in notes:
        notes[make, module] = make(module)
    made: Made = notes[make, module]
    return made


@contextmanager
def keep_notes(module: nn.Module, *, is_call: bool = False) -> Iterator[None]:
    """Keeps what is noted of a held model until its block ends, because nobody changes its parts.

    A call begins anew: another one may have changed them since.
    """
    before = _of_thread.notes
    if before is not None and (_walk, module) in before and not is_call:
        yield
        return
    _of_thread.notes = {}
    try:
        list_modules(module)
        yield
    finally:
        _of_thread.notes = before


def _walk(module: nn.Module) -> list[nn.Module]:
    # torch's own walk builds every part's full name, which is slow
    modules, waiting = {module}, [module]
    for part in waiting:
        for inner in part._modules.values():
            if inner is not None and inner not in modules:
                modules.add(inner)
                waiting.append(inner)
    return waiting
