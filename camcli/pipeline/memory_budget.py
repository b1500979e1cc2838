"""The memory that pictures in flight may take, and how a run keeps within it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from heapq import nlargest
from typing import Any, TypeVar

from camcli import machine
from camcli.pipeline.sharding import processes_here

Item = TypeVar("Item")

# bytes a pixel: its decoded values, and each overlay that is held at once with others
HELD, OVERLAY = 3, 3
# what decoding, drawing and encoding have besides, while a thread is at it
AT_WORK = 18
# what of the memory is for files that are read and not decoded yet: one in so many parts
FOR_FILES = 4


class Pause(Enum):
    """Goes through the run between pictures: all in front comes out before anything follows."""

    PAUSE = auto()


PAUSE = Pause.PAUSE


def memory_for(asked: float) -> int:
    """Returns bytes for a number of them, or for a share of what this process may use (float)."""
    if isinstance(asked, int):
        return asked
    return max(1, int(asked * machine.memory() / processes_here(os.environ)))


@dataclass(frozen=True)
class Need:
    """The bytes that a picture takes while it is in flight, and those while a thread is at it."""

    held: int = 0
    at_work: int = 0

    @classmethod
    def of(cls, size: tuple[int, int], held: int = 0, at_work: int = 0) -> Need:
        """Returns that of a picture of a height and width, of which so many overlays are there."""
        pixels = size[0] * size[1]
        return cls(pixels * (HELD + OVERLAY * held), pixels * (AT_WORK + OVERLAY * at_work))


@dataclass
class Budget:
    """What the pictures in flight take of a limit in bytes; they leave in the order they came.

    So many threads at most are at work on them.
    """

    limit: int
    threads: int = 1
    _inside: deque[Need] = field(default_factory=deque)

    @property
    def taken(self) -> int:
        """The bytes of all in flight."""
        at_work = nlargest(self.threads, (need.at_work for need in self._inside))
        return sum(need.held for need in self._inside) + sum(at_work)

    def admit(self, items: Iterable[Item], need: Callable[[Any], Need]) -> Iterator[Item | Pause]:
        """Yields items, and a pause before one that finds no room, behind which it is alone."""
        for item in items:
            if isinstance(item, Pause):
                yield item
                continue
            self._inside.append(need(item))
            if len(self._inside) > 1 and self.taken > self.limit:
                last = self._inside.pop()
                yield PAUSE
                self._inside.append(last)
            yield item

    def leave(self) -> None:
        """Says that the first of those in flight is written, and takes nothing any more."""
        self._inside.popleft()
