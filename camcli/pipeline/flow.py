"""Work in threads beside the model: results in the order of the items, and never many at once."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

from camcli.stages import stage

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8
# on the CPU the model has all cores, and waits at every layer for one that is taken from it: on two
# of them two threads made 160 pictures by ResNet-50 a tenth slower than none (2026-11-21)
CORES_A_WORKER = 4
# on the scheduler's scale from -20 to 19, added to the process's own
NICENESS, HIGHEST = 10, 19


def default_workers(device: str, cores: int | None = None) -> int:
    """Returns how many threads stand beside a model on a device, of all cores or of some."""
    there = _cores() if cores is None else cores
    return min(there if device != "cpu" else there // CORES_A_WORKER, MOST_WORKERS)


def _cores() -> int:
    """Returns how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def workers(count: int) -> Iterator[Executor | None]:
    """Starts threads, or none for 0; afterwards none is left, and what had not begun is dropped."""
    if not count:
        yield None
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(count, "camviz", _give_way)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _give_way() -> None:
    """Lets the model's own threads go first, which wait for each other at every layer."""
    # SCHED_IDLE, and threads that wait while the model runs, could not be told apart from this on
    # two busy cores (2026-11-21); idle threads would starve beside other programs
    if sys.platform == "linux":  # elsewhere it would be the whole process
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + NICENESS, HIGHEST))


def ordered(
    function: Callable[[Item], Result], items: Iterable[Item], pool: Executor | None, ahead: int
) -> Generator[Result, None, None]:
    """Runs a function on items in threads, at most `ahead` of them unfinished or not yet taken.

    An item is taken when a result is asked for.  What an item or the function raises comes out in
    its place, behind the results before it.  Without a pool, everything is done when it is asked
    for.
    """
    if pool is None:
        yield from map(function, items)
        return
    begun: deque[Future[Result]] = deque()
    with closing(_submitted(function, items, pool)) as futures:
        try:
            for future in futures:
                begun.append(future)
                # whatever is there goes out before the next item, which may take long to come
                while begun and (len(begun) >= ahead or begun[0].done()):
                    yield _result(begun.popleft())
            while begun:
                yield _result(begun.popleft())
        finally:
            _drop(begun)


def _submitted(
    function: Callable[[Item], Result], items: Iterable[Item], pool: Executor
) -> Generator[Future[Result], None, None]:
    from concurrent.futures import Future

    try:
        for item in items:
            yield pool.submit(function, item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed


@stage("wait")
def _result(future: Future[Result]) -> Result:
    return future.result()


def _drop(futures: deque[Future[Result]]) -> None:
    from concurrent.futures import wait

    # from behind, so that none begins while others are cancelled
    wait([future for future in reversed(futures) if not future.cancel()])
