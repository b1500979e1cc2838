"""One model at work at a time: visitors' pictures wait in their order, and each has its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

from camcli.serve.refusals import TooSlow, VisitorLeft

Result = TypeVar("Result")

LOOK_AGAIN = 0.2  # seconds after which is asked whether the visitor is still there


@dataclass
class Slip:
    """A picture's turn: how long it may take once it has begun, and whether it is still wanted."""

    seconds: float
    has_left: Event = field(default_factory=Event)
    deadline: float = float("inf")

    def begin(self) -> None:
        """Starts the clock; raises VisitorLeft where nobody waits any more."""
        self.deadline = time.monotonic() + self.seconds
        self.check()

    def check(self) -> None:
        """Raises VisitorLeft or TooSlow where the work should end."""
        if self.has_left.is_set():
            raise VisitorLeft
        if time.monotonic() > self.deadline:
            raise TooSlow


class Desk:
    """Does one piece of work after the other, in a thread of its own."""

    def __init__(self, seconds: float) -> None:
        """Takes the seconds that a piece of work may last."""
        self.seconds = seconds
        self._worker = ThreadPoolExecutor(1, "camviz-serve")
        self._is_closed = Event()

    def ask(
        self, work: Callable[[Callable[[], None]], Result], is_gone: Callable[[], bool]
    ) -> Result:
        """Waits for its turn and returns what `work(check)` returns, or raises what it raises.

        Raises VisitorLeft where `is_gone` says so meanwhile, or where the server ends.
        """
        slip = Slip(self.seconds)
        try:
            future = self._worker.submit(self._work, work, slip)
        except RuntimeError as error:  # the server ends
            raise VisitorLeft from error
        return self._wait(future, slip, is_gone)

    def close(self) -> None:
        """Ends what is at work at its next pass, and what waits at once."""
        self._is_closed.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _work(self, work: Callable[[Callable[[], None]], Result], slip: Slip) -> Result:
        slip.begin()

        def check() -> None:
            if self._is_closed.is_set():
                raise VisitorLeft
            slip.check()

        return work(check)

    def _wait(self, future: Future[Result], slip: Slip, is_gone: Callable[[], bool]) -> Result:
        while not future.done():
            try:
                future.exception(timeout=LOOK_AGAIN)
            except TimeoutError:
                if is_gone():
                    slip.has_left.set()
                    future.cancel()
                    raise VisitorLeft from None
            except CancelledError:
                break
        try:
            return future.result()
        except CancelledError as error:
            raise VisitorLeft from error
