"""Work in threads beside the model: results in the order of the items, and never many at once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from camcli import machine
from camcli.errors import UsageError
from camcli.pipeline.memory_budget import Pause
from camcli.pipeline.sharding import processes_here
from camcli.stages import stage

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8


def default_workers(device: str, cores: int | None = None) -> int:
    """Returns how many threads stand beside a model on a device, of all cores or of some."""
    there = _share_of_cores() if cores is None else cores
    # on one core, threads that have to wait for the model gain nothing
    return 0 if device == "cpu" and there == 1 else min(there, MOST_WORKERS)


def _share_of_cores() -> int:
    # torchrun gives all of its processes all cores
    return max(1, machine.cores() // processes_here(os.environ))


class Threads:
    """Threads that work on what they are given in its order, but begin nothing while held."""

    def __init__(self, count: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.count = count
        self._free = threading.Event()
        self._free.set()
        self._pool = ThreadPoolExecutor(count, "camviz", _work_alone)
        self._start(count)

    def _start(self, count: int) -> None:
        import torch

        here, all_there = torch.get_num_threads(), threading.Barrier(count + 1)
        try:
            for _ in range(count):
                self._pool.submit(all_there.wait)
            all_there.wait()
        except RuntimeError as error:
            all_there.abort()
            self.end()
            raise UsageError(
                f"--workers {count}: this machine starts no more threads ({error}). Give fewer."
            ) from error
        except BaseException:
            all_there.abort()
            raise
        # what each of them has set for itself counts for threads that are yet to come, too
        torch.set_num_threads(here)

    def submit(self, function: Callable[..., Result], *items: Any) -> Future[Result]:
        """Has a function called with items, when a thread has time."""
        return self._pool.submit(self._called, function, *items)

    def _called(self, function: Callable[..., Result], *items: Any) -> Result:
        self._free.wait()
        return function(*items)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lets nothing begin meanwhile.

        A model on the CPU has all cores, and waits at every layer for one that is taken from it.
        """
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def end(self) -> None:
        """Finishes what was begun, and drops the rest."""
        self._pool.shutdown(cancel_futures=True)


def _work_alone() -> None:
    """Has torch use this thread alone for what is done in it.

    Each would start helpers of its own otherwise; where there are more than cores, OpenMP lets all
    of them sleep between any two operations, the model's as well.
    """
    import torch

    # only what has been read once is a thread's own
    torch.get_num_threads()
    torch.set_num_threads(1)


@contextmanager
def workers(count: int) -> Iterator[Threads | None]:
    """Starts threads, or none for 0; afterwards none is left, and what had not begun is dropped."""
    if not count:
        yield None
        return
    threads = Threads(count)
    try:
        yield threads
    finally:
        threads.end()


def _nothing(_: object) -> int:
    return 0


def ordered(
    function: Callable[[Any], Result],
    items: Iterable[Any],
    pool: Threads | None,
    ahead: int,
    size: Callable[[Any], int] = _nothing,
    most: float = inf,
) -> Generator[Result | Pause, None, None]:
    """Runs a function on items in threads, at most `ahead` of them unfinished or not yet taken.

    Of what `size` says of them these have at most `most` together, but for one alone.  An item is
    taken when a result is asked for.  What an item or the function raises comes out in its place,
    behind the results before it; so does a pause.  Without a pool, everything is done when it is
    asked for.
    """
    if pool is None:
        yield from (item if isinstance(item, Pause) else function(item) for item in items)
        return
    begun = _InFlight[Result]()
    try:
        for item in _with_error(items):
            if isinstance(item, Pause):
                yield from begun.take_all()
                yield item
                continue
            added = 0 if isinstance(item, _Raised) else size(item)
            while begun and begun.size + added > most:
                yield begun.take()
            begun.add(_submitted(function, item, pool), added)
            # whatever is there goes out before the next item, which may take long to come
            while len(begun) >= ahead or begun.is_ready():
                yield begun.take()
        yield from begun.take_all()
    finally:
        begun.drop()


@dataclass(frozen=True)
class _Raised:
    """Stands in the place of an item that did not come."""

    error: Exception


def _with_error(items: Iterable[Item]) -> Iterator[Item | _Raised]:
    try:
        yield from items
    except Exception as error:
        yield _Raised(error)


def _submitted(
    function: Callable[[Item], Result], item: Item | _Raised, pool: Threads
) -> Future[Result]:
    from concurrent.futures import Future

    if not isinstance(item, _Raised):
        return pool.submit(function, item)
    failed: Future[Result] = Future()
    failed.set_exception(item.error)
    return failed


class _InFlight(Generic[Result]):
    """What was begun and is not taken yet, in order, and what `size` says of all of it."""

    def __init__(self) -> None:
        self.size = 0
        self._begun: deque[tuple[Future[Result], int]] = deque()

    def __len__(self) -> int:
        return len(self._begun)

    def is_ready(self) -> bool:
        """Tells whether the first is there."""
        return bool(self._begun) and self._begun[0][0].done()

    def add(self, future: Future[Result], size: int) -> None:
        self._begun.append((future, size))
        self.size += size

    @stage("wait")
    def take(self) -> Result:
        future, size = self._begun.popleft()
        self.size -= size
        return future.result()

    def take_all(self) -> Iterator[Result]:
        while self._begun:
            yield self.take()

    def drop(self) -> None:
        """Waits for those that run, and lets none of the others begin."""
        from concurrent.futures import wait

        # from behind, so that none begins while others are cancelled
        wait([future for future, _ in reversed(self._begun) if not future.cancel()])
