"""Ends a run early: pictures under way are finished, and no other picture begins."""

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
    """A request to end a run, with the error to end it with; the first request counts."""

    reason: BaseException | None = None

    def ask(self, reason: BaseException) -> None:
        """Asks the run to end with an error."""
        self.reason = self.reason or reason

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields items until the run is asked to end."""
        for item in items:
            if self.reason:
                return
            yield item


@contextmanager
def handle_interrupts(
    stop: StopRequest, tell: Callable[[], None], give_up: Callable[[], None]
) -> Iterator[None]:
    """Turns a first Ctrl-C or SIGTERM into a request to stop; a second raises KeyboardInterrupt.

    Schedulers end a job with SIGTERM.  `tell` is called inside the signal handler, so it must not
    print through Python's streams.  `give_up` has to end the process: another thread calls it if
    the run has not ended some seconds after the second signal.
    """
    # the exception may come between taking a lock and the `with` that releases it, and then a
    # thread waits for that lock for ever
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
    # a signal that is ignored (nohup) or handled outside Python stays so
    ours = {s: old for s, old in before.items() if old not in (None, signal.SIG_IGN)}
    for number in ours:
        signal.signal(number, ask)
    try:
        yield
    finally:
        last.cancel()
        for number, old in ours.items():
            signal.signal(number, old)
