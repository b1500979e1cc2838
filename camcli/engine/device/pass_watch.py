"""Asks, between the passes of a method that takes many, whether it is to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def watch_passes(check: Callable[[], None]) -> Iterator[None]:
    """Has `check` called in its block before each chunk of passes, in this thread alone.

    What it raises ends the method, and leaves the model as it was found.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check_passes() -> None:
    """Calls what watches the passes of this thread, if anything does."""
    if check := _check.get():
        check()
