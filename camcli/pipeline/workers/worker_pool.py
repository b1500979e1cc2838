"""Runs tasks in threads beside the model; their results come in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from camcli.errors import UsageError
from camcli.pipeline.distributed.sharding import count_local_processes
from camcli.utils import cpu
from camcli.utils.profiling import stage

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8


def default_workers(device: str, cores: int | None = None) -> int:
    """Returns how many threads work beside a model on a device, of all cores or of `cores`."""
    own = _count_own_cores() if cores is None else cores
    # on one core threads have to wait for the model and gain nothing
    return 0 if device == "cpu" and own == 1 else min(own, MOST_WORKERS)


def _count_own_cores() -> int:
    # torchrun gives all cores to each of its processes
    return max(1, cpu.count_cores() // count_local_processes(os.environ))


class WorkerPool:
    """Threads that do tasks in their order, but begin none while they are held.

    Without threads each task is done when it is submitted.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.Event()
        self._free.set()
        self._executor = self._start(count) if count else None

    def _start(self, count: int) -> ThreadPoolExecutor:
        import torch

        executor = ThreadPoolExecutor(count, "camviz", _work_alone)
        here, all_there = torch.get_num_threads(), threading.Barrier(count + 1)
        try:
            for _ in range(count):
                executor.submit(all_there.wait)
            all_there.wait()
        except RuntimeError as error:
            all_there.abort()
            executor.shutdown(cancel_futures=True)
            raise UsageError(
                f"--workers {count}: this machine starts no more threads ({error}). Give fewer."
            ) from error
        except BaseException:
            all_there.abort()
            raise
        # a thread's own setting also counts for threads that start later
        torch.set_num_threads(here)
        return executor

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Calls a function as soon as a thread is free."""
        if self._executor:
            return self._executor.submit(self._call, function, *arguments)
        done: Future[Result] = Future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def _call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        self._free.wait()
        return function(*arguments)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps tasks from beginning within a block.

        A model on the CPU uses all cores, and waits at every layer for a core that a task has
        taken.
        """
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def end(self) -> None:
        """Finishes the tasks that were begun, and drops the rest."""
        if self._executor:
            self._executor.shutdown(cancel_futures=True)


def _work_alone() -> None:
    """Limits torch to one thread for operations in this thread.

    Otherwise each thread would start helpers of its own.  If there are more threads than cores,
    OpenMP lets all of them sleep between operations, also the model's.
    """
    import torch

    # a setting becomes the thread's own only once it has been read
    torch.get_num_threads()
    torch.set_num_threads(1)


@contextmanager
def start_workers(count: int) -> Iterator[WorkerPool]:
    """Starts threads and ends them afterwards; tasks that had not begun are dropped."""
    pool = WorkerPool(count)
    try:
        yield pool
    finally:
        pool.end()


class WorkLine(Generic[Item, Result]):
    """Tasks that were begun in a pool and not taken yet: at most `most` items, in order."""

    def __init__(self, pool: WorkerPool, most: int) -> None:
        self.pool = pool
        self._most = most
        self._begun: deque[tuple[Item, Future[Result], int]] = deque()

    def __len__(self) -> int:
        return len(self._begun)

    @property
    def has_room(self) -> bool:
        """Whether one more may be begun."""
        return len(self._begun) < self._most

    @property
    def size(self) -> int:
        """The sum of the sizes of all items."""
        return sum(size for _, _, size in self._begun)

    @property
    def is_ready(self) -> bool:
        """Whether the first is done."""
        return bool(self._begun) and self._begun[0][1].done()

    def begin(
        self, item: Item, function: Callable[..., Result], *arguments: Any, size: int = 0
    ) -> None:
        """Begins to call a function for an item."""
        self.add(item, self.pool.submit(function, *arguments), size)

    def add(self, item: Item, future: Future[Result], size: int = 0) -> None:
        """Adds an item for which something was begun already."""
        self._begun.append((item, future, size))

    def take(self) -> tuple[Item, Future[Result]]:
        """Removes the first item, and returns it with its future."""
        item, future, _ = self._begun.popleft()
        return item, future

    def list_pending(self) -> list[Future[Result]]:
        """Returns the future of the first item, if it is not done yet."""
        return [] if not self._begun or self.is_ready else [self._begun[0][1]]

    def clear(self) -> None:
        """Drops all items: none begins any more, and those that run are waited for."""
        # the last first, so that none begins while others are cancelled
        wait([future for _, future, _ in reversed(self._begun) if not future.cancel()])
        self._begun.clear()


@stage("wait")
def wait_for_any(futures: Sequence[Future[Any]]) -> None:
    """Waits until one of several futures is done."""
    assert futures, "nothing is under way that could be waited for"
    wait(futures, return_when=FIRST_COMPLETED)
