"""Bounds the memory that pictures in flight may take."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from heapq import nlargest

from camcli.pipeline.distributed.sharding import count_local_processes
from camcli.utils.cpu import measure_free_memory

# bytes a pixel: its decoded values, and each overlay in memory
HELD, OVERLAY = 3, 3
# further bytes a pixel while a thread decodes, draws or encodes
AT_WORK = 18
# one part in so many is for files that are read and not decoded yet
FOR_FILES = 4
# bytes, if a system does not say how many are free
UNKNOWN_MEMORY = 2**32


def resolve_memory(asked: float) -> int:
    """Returns a limit in bytes, from a number of bytes or a share (float) of the free memory."""
    if isinstance(asked, int):
        return asked
    free = measure_free_memory()
    share = asked / count_local_processes(os.environ)
    return max(1, int(share * (UNKNOWN_MEMORY if free is None else free)))


@dataclass(frozen=True)
class Need:
    """The bytes of a picture in flight, and further ones while a thread works on it."""

    held: int = 0
    at_work: int = 0

    @classmethod
    def of(cls, size: tuple[int, int], held: int = 0, at_work: int = 0) -> Need:
        """Returns a picture's need: `held` overlays stay, `at_work` more exist for a while."""
        pixels = size[0] * size[1]
        return cls(pixels * (HELD + OVERLAY * held), pixels * (AT_WORK + OVERLAY * at_work))


@dataclass
class MemoryBudget:
    """What the pictures in flight take of a limit in bytes; they leave in the order they came.

    At most `threads` threads work on them.
    """

    limit: int
    threads: int = 1
    _inside: deque[Need] = field(default_factory=deque)
    _most: int = 0

    @property
    def taken(self) -> int:
        """The bytes of all pictures in flight."""
        return self._sum(self._inside)

    def has_room(self, need: Need) -> bool:
        """Tells whether a picture has room; one above the limit has room only if it is alone."""
        # as if threads were at all of them
        if not self._inside or self._most + need.held + need.at_work <= self.limit:
            return True
        return self._sum([*self._inside, need]) <= self.limit

    def enter(self, need: Need) -> None:
        """Adds a picture."""
        self._inside.append(need)
        self._most += need.held + need.at_work

    def leave(self) -> None:
        """Removes the first picture in flight, once it is written."""
        need = self._inside.popleft()
        self._most -= need.held + need.at_work

    def _sum(self, needs: Collection[Need]) -> int:
        at_work = nlargest(self.threads, (need.at_work for need in needs))
        return sum(need.held for need in needs) + sum(at_work)
