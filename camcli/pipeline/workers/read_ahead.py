"""Reads the next items in threads while the current one is used; in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from camcli.pipeline.workers.worker_pool import WorkerPool, WorkLine

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Result], pool: WorkerPool, most: int
) -> Iterator[tuple[Item, Result]]:
    """Yields items with the results of `read`, and reads at most `most` items ahead.

    An error of `read` is raised in the item's place.  Without threads each item is read when it is
    asked for.
    """
    line: WorkLine[Item, Result] = WorkLine(pool, most)
    try:
        for item in items:
            line.begin(item, read, item)
            if not line.has_room:
                yield _wait(line)
        while line:
            yield _wait(line)
    finally:
        line.clear()


def _wait(line: WorkLine[Item, Result]) -> tuple[Item, Result]:
    item, future = line.take()
    return item, future.result()
