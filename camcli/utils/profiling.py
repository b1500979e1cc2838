"""Measures where a run's time goes: seconds by stage, without those of stages inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ContextDecorator
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal[
    "import", "load", "decode", "forward", "backward", "method", "fetch", "draw", "write", "wait"
]


class _StageStack(threading.local):
    """What the stages inside the running ones took, innermost last; each thread has its own."""

    def __init__(self) -> None:
        self.seconds: list[float] = []


class StageBlock(ContextDecorator):
    """A block, or a function, whose time counts for a stage; it may stand in itself."""

    def __init__(self, stopwatch: Stopwatch, name: Stage) -> None:
        self._stopwatch, self._name, self._begin = stopwatch, name, 0.0

    def _recreate_cm(self) -> StageBlock:
        # each call of a function has its own
        return StageBlock(self._stopwatch, self._name)

    def __enter__(self) -> None:
        """Begins the stage."""
        self._begin = self._stopwatch.begin()

    def __exit__(self, *_: object) -> None:
        """Ends the stage, also where the block raises."""
        self._stopwatch.end(self._name, self._begin)


@dataclass
class Stopwatch:
    """Sums up what every stage took since it was made.

    `seconds` are those of the thread that made it, `of_other_threads` those of all others, and of
    other processes, which run at the same time.
    """

    seconds: dict[Stage, float] = field(default_factory=dict)
    of_other_threads: dict[Stage, float] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)
    _owner: int = field(default_factory=threading.get_ident)
    _inside: _StageStack = field(default_factory=_StageStack)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stage(self, name: Stage) -> StageBlock:
        """Counts the time spent in a block, or a function, for a stage."""
        return StageBlock(self, name)

    def begin(self) -> float:
        """Begins a stage, and says when."""
        self._inside.seconds.append(0.0)
        return time.perf_counter()

    def end(self, name: Stage, begin: float) -> None:
        """Ends the stage that began last in this thread."""
        took = time.perf_counter() - begin
        inside = self._inside.seconds
        self._add(name, took - inside.pop())
        if inside:
            inside[-1] += took

    def add(self, seconds: Mapping[Stage, float]) -> None:
        """Adds what another process's stages took."""
        with self._lock:
            for name, took in seconds.items():
                self.of_other_threads[name] = self.of_other_threads.get(name, 0.0) + took

    def sum_up(self) -> Mapping[Stage, float]:
        """Returns what every stage took, in all threads together."""
        names = dict.fromkeys([*self.seconds, *self.of_other_threads])
        both = (self.seconds, self.of_other_threads)
        return {name: sum(one.get(name, 0.0) for one in both) for name in names}

    def begin_anew(self) -> None:
        """Forgets what was measured before, in a process that was forked off."""
        # another thread may have held it then
        self._lock = threading.Lock()
        self.seconds.clear()
        self.of_other_threads.clear()
        self._inside.seconds.clear()

    def _add(self, name: Stage, seconds: float) -> None:
        sums = self.seconds if threading.get_ident() == self._owner else self.of_other_threads
        with self._lock:
            sums[name] = sums.get(name, 0.0) + seconds

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.start


# two clock readings a stage cost nothing beside what they measure, so that it always runs
STOPWATCH = Stopwatch()
stage = STOPWATCH.stage
