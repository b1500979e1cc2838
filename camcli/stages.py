"""Where a run's time goes: seconds by stage, each without those of the stages inside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["import", "load", "decode", "forward", "backward", "method", "draw", "write"]


@dataclass
class Stopwatch:
    """Sums up what every stage took since it was made."""

    seconds: dict[Stage, float] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)
    # what the stages inside the running ones took, innermost last
    _inside: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Counts the time spent in a block, or a function, for a stage."""
        begin = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - begin
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._inside.pop()
            if self._inside:
                self._inside[-1] += took

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.start


# two clock readings a stage cost nothing beside what they measure, so that it always runs
STOPWATCH = Stopwatch()
stage = STOPWATCH.stage
