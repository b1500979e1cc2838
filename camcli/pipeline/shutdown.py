"""Ends a run early: pictures under way are finished, and no others begin."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")

PATIENCE = 5.0  # seconds


@dataclass
class StopRequest:
    """A request that a run ends, and the error to end it with: the first one counts."""

    reason: BaseException | None = None

    def ask(self, reason: BaseException) -> None:
        """Asks the run to end."""
        self.reason = self.reason or reason

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields items until the run is to end."""
        for item in items:
            if self.reason:
                return
            yield item


@contextmanager
def handle_interrupts(
    stop: StopRequest, tell: Callable[[], None], give_up: Callable[[], None]
) -> Iterator[None]:
    """Turns a first Ctrl-C or SIGTERM into a request to stop; a second raises KeyboardInterrupt.

    Schedulers end a job with SIGTERM.  `tell` is called within the signal's handler, and so must
    not print through Python's streams.  `give_up` is to end the process: it is called, from another
    thread, where all has not ended within some seconds of the second one.
    """
    # the exception may strike between a lock's being taken and the `with` that gives it back, and
    # then a thread waits for it for ever
    last = threading.Timer(PATIENCE, give_up)
    last.daemon = True
    started = False

    def ask(_: int, __: FrameType | None) -> None:
        nonlocal started
        if stop.reason:
            if not started:
                started = True
                last.start()
            raise KeyboardInterrupt
        stop.ask(KeyboardInterrupt())
        tell()

    # Python lets only the main thread handle signals
    in_main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM) if in_main}
    # who ignores a signal (nohup), or handles it outside Python, meant it
    ours = {s: old for s, old in before.items() if old not in (None, signal.SIG_IGN)}
    for number in ours:
        signal.signal(number, ask)
    try:
        yield
    finally:
        last.cancel()
        for number, old in ours.items():
            signal.signal(number, old)
