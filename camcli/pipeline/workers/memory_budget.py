"""Bounds the memory that pictures in flight may take."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from heapq import nlargest

from camcli.pipeline.distributed.sharding import count_local_processes
from camcli.utils.cpu import measure_free_memory

# bytes a pixel: its decoded values, and each overlay that is held at once with others
HELD, OVERLAY = 3, 3
# what decoding, drawing and encoding have besides, while a thread is at it
AT_WORK = 18
# what of the memory is for files that are read and not decoded yet: one in so many parts
FOR_FILES = 4
# bytes, where a system does not say how many are free
UNKNOWN_MEMORY = 2**32


def resolve_memory(asked: float) -> int:
    """Returns bytes for a number of them, or for a share of what is free now (float)."""
    if isinstance(asked, int):
        return asked
    free = measure_free_memory()
    share = asked / count_local_processes(os.environ)
    return max(1, int(share * (UNKNOWN_MEMORY if free is None else free)))


@dataclass(frozen=True)
class Need:
    """The bytes that a picture takes while it is in flight, and those while a thread is at it."""

    held: int = 0
    at_work: int = 0

    @classmethod
    def of(cls, size: tuple[int, int], held: int = 0, at_work: int = 0) -> Need:
        """Returns the cost of a picture of a height and width with so many overlays."""
        pixels = size[0] * size[1]
        return cls(pixels * (HELD + OVERLAY * held), pixels * (AT_WORK + OVERLAY * at_work))


@dataclass
class MemoryBudget:
    """What the pictures in flight take of a limit in bytes; they leave in the order they came.

    So many threads at most are at work on them.
    """

    limit: int
    threads: int = 1
    _inside: deque[Need] = field(default_factory=deque)

    @property
    def taken(self) -> int:
        """The bytes of all in flight."""
        return self._sum(self._inside)

    def has_room(self, need: Need) -> bool:
        """Tells whether a picture finds room; one that is larger than the limit does if alone."""
        return not self._inside or self._sum([*self._inside, need]) <= self.limit

    def enter(self, need: Need) -> None:
        """Adds a picture."""
        self._inside.append(need)

    def leave(self) -> None:
        """Removes the first picture in flight, which is written."""
        self._inside.popleft()

    def _sum(self, needs: Collection[Need]) -> int:
        at_work = nlargest(self.threads, (need.at_work for need in needs))
        return sum(need.held for need in needs) + sum(at_work)
