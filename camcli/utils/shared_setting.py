"""Holds settings of the whole process that calls in several threads need at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Value = TypeVar("Value")


@dataclass(eq=False)
class _Change(Generic[Value]):
    """A setting changed to a value, the threads that need it so, and how it is put back."""

    value: Value
    # left to put it back
    block: AbstractContextManager[Any]
    threads: list[int] = field(default_factory=list)


class SharedSetting(Generic[Value]):
    """A setting that the first call changes, and the last one puts back.

    Threads that each restored what they found would leave the wrong value behind when they end in
    another order.  Calls that need another value wait for those of other threads.
    """

    def __init__(self, change: Callable[[Value], AbstractContextManager[Any]]) -> None:
        self._change = change
        self._changes: list[_Change[Value]] = []
        self._left = threading.Condition()
        _every.add(self)

    @contextmanager
    def hold_at(self, value: Value) -> Iterator[None]:
        """Holds the setting at a value in its block."""
        thread, change = threading.get_ident(), None
        try:
            with self._left:
                if self._changes:
                    self._left.wait_for(lambda: not self._is_needed_otherwise(value, thread))
                change = self._change_to(value)
                change.threads.append(thread)
            yield
        finally:
            if change is not None:
                self._leave(change, thread)

    def _is_needed_otherwise(self, value: Value, thread: int) -> bool:
        return any(
            change.value != value and any(other != thread for other in change.threads)
            for change in self._changes
        )

    def _change_to(self, value: Value) -> _Change[Value]:
        if self._changes and self._changes[-1].value == value:
            return self._changes[-1]
        change = _Change(value, self._change(value))
        change.block.__enter__()
        self._changes.append(change)
        return change

    def _leave(self, change: _Change[Value], thread: int) -> None:
        with self._left:
            if thread in change.threads:
                change.threads.remove(thread)
            if not change.threads and change in self._changes:
                self._changes.remove(change)
                change.block.__exit__(None, None, None)
                self._left.notify_all()

    def begin_anew(self, thread: int) -> None:
        """Puts back, in a forked process, what threads needed that were not forked with it."""
        self._left = threading.Condition()
        for change in reversed(tuple(self._changes)):
            change.threads = [other for other in change.threads if other == thread]
            self._leave(change, thread) if not change.threads else None


_every: WeakSet[SharedSetting[Any]] = WeakSet()


def _begin_anew() -> None:
    thread = threading.get_ident()
    for setting in tuple(_every):
        setting.begin_anew(thread)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
