"""Work beside the model: in order, bounded, and never hanging."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import count

import pytest
import torch

from camcli.errors import UsageError
from camcli.pipeline.workers.worker_pool import (
    WorkerPool,
    WorkLine,
    default_workers,
    start_workers,
    wait_for_any,
)


def test_a_machine_that_starts_no_more_threads_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = threading.active_count(), threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if threading.active_count() > before + 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(UsageError, match=r"--workers 5000: this machine starts no more threads"):
        WorkerPool(5000)
    assert threading.active_count() == before


class CountedItems:
    """Items without end, and a function on them, that note what is begun, finished and open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.taken = self.finished = self.running = self.most_running = 0

    def items(self) -> Iterator[int]:
        for number in count():
            self.taken += 1
            yield number

    def work(self, number: int) -> int:
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        # the earlier an item, the later it is done
        time.sleep(0.002 * (5 - number % 5))
        with self.lock:
            self.running -= 1
            self.finished += 1
        return number * number


@pytest.fixture(params=[0, 1, 3])
def pool(request: pytest.FixtureRequest) -> Iterator[WorkerPool]:
    with start_workers(request.param) as threads:
        yield threads


def test_results_come_in_the_order_of_the_items(pool: WorkerPool) -> None:
    counting = CountedItems()
    results = list(run_in_order(counting.work, range(40), pool, ahead=7))
    assert results == [n * n for n in range(40)]
    assert counting.most_running <= 3


@pytest.mark.parametrize("ahead", [1, 2, 6])
def test_no_more_than_the_bound_is_begun_and_not_taken(pool: WorkerPool, ahead: int) -> None:
    counting = CountedItems()
    with closing(run_in_order(counting.work, counting.items(), pool, ahead)) as results:
        assert counting.taken == 0
        for taken, _ in zip(range(1, 30), results, strict=False):
            assert counting.taken <= taken - 1 + ahead
            assert counting.most_running <= ahead
    # what was not begun never will be, and nothing runs on
    done = counting.finished
    assert counting.running == 0
    time.sleep(0.03)
    assert counting.finished == done <= counting.taken


def test_work_goes_on_while_the_consumer_is_busy() -> None:
    counting = CountedItems()
    with (
        start_workers(2) as pool,
        closing(run_in_order(counting.work, counting.items(), pool, 5)) as results,
    ):
        next(results)
        time.sleep(0.1)
        assert counting.finished == counting.taken == 5
        # all of them are there, and come out before another is taken
        assert [next(results) for _ in range(4)] == [1, 4, 9, 16]
        assert counting.taken == 5


def run_in_order(
    function: Callable[[int], int], items: Iterable[int], pool: WorkerPool, ahead: int
) -> Iterator[int]:
    """Does work in a line of at most so many items, and takes what is there before the next one."""
    line = WorkLine[int, int](pool, ahead)
    try:
        for item in items:
            line.begin(item, function, item)
            while not line.has_room or line.is_ready:
                yield line.take()[1].result()
        while line:
            yield line.take()[1].result()
    finally:
        line.clear()


def _make_raising_at(bad: int, error: BaseException) -> Callable[[int], int]:
    def work(number: int) -> int:
        if number == bad:
            raise error
        return number

    return work


def test_a_worker_that_dies_is_reported_in_its_place(pool: WorkerPool) -> None:
    results = run_in_order(
        _make_raising_at(4, ZeroDivisionError("four")), range(100), pool, ahead=3
    )
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError, match="four"):
        next(results)
    assert list(results) == []


def test_a_line_knows_how_much_is_in_it() -> None:
    line = WorkLine[str, int](WorkerPool(0), most=3)
    assert (len(line), line.size, line.is_ready, line.list_pending()) == (0, 0, False, [])
    for name, size in (("a", 5), ("b", 0), ("c", 7)):
        assert line.has_room
        line.begin(name, len, name, size=size)
    assert (len(line), line.size, line.is_ready, line.has_room) == (3, 12, True, False)
    assert line.take()[0] == "a"
    assert (len(line), line.size) == (2, 7)
    line.clear()
    assert (len(line), line.size) == (0, 0)


def test_who_waits_goes_on_with_the_first_result_of_any_line() -> None:
    gate = threading.Event()
    with start_workers(3) as pool:
        slow, quick = (WorkLine[str, object](pool, 2) for _ in range(2))
        slow.begin("slow", gate.wait)
        quick.begin("quick", time.sleep, 0.01)
        pending = [*slow.list_pending(), *quick.list_pending()]
        assert len(pending) == 2
        wait_for_any(pending)
        assert (slow.is_ready, quick.is_ready) == (False, True)
        # what is there is nothing that is waited for
        assert not quick.list_pending()
        gate.set()
        wait_for_any(slow.list_pending())
        assert slow.is_ready
    with pytest.raises(AssertionError, match="nothing is under way"):
        wait_for_any(slow.list_pending())


def test_an_interruption_does_not_wait_for_what_is_not_begun() -> None:
    counting = CountedItems()

    def items() -> Iterator[int]:
        yield from range(4)
        raise KeyboardInterrupt

    with start_workers(1) as pool, pytest.raises(KeyboardInterrupt):
        list(run_in_order(counting.work, items(), pool, ahead=10))
    assert counting.finished < 4


def test_the_threads_are_gone_afterwards() -> None:
    before = threading.active_count()
    with start_workers(3) as pool:
        list(run_in_order(time.sleep, [0.001] * 9, pool, ahead=9))
        assert before < threading.active_count() <= before + 3
    assert threading.active_count() == before


def test_each_thread_works_alone_and_the_model_with_all_its_own() -> None:
    here = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with start_workers(2) as pool:
            theirs = set(run_in_order(lambda _: torch.get_num_threads(), range(9), pool, ahead=9))
            assert (theirs, torch.get_num_threads()) == ({1}, 3)
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(here)


def test_nothing_begins_while_threads_are_held() -> None:
    begun: list[int] = []
    with start_workers(2) as pool:
        with pool.hold():
            futures = [pool.submit(begun.append, number) for number in range(5)]
            time.sleep(0.05)
            assert not begun
        for future in futures:
            future.result(timeout=10)
    assert sorted(begun) == [0, 1, 2, 3, 4]


def test_threads_are_let_go_by_a_pass_that_fails() -> None:
    with start_workers(1) as pool:
        with pytest.raises(ValueError, match="out"), pool.hold():
            raise ValueError("out")
        assert pool.submit(len, "work").result(timeout=10) == 4


def test_there_is_a_worker_a_core_up_to_eight_and_none_beside_a_model_on_the_only_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for cores, expected, on_cpu in ((1, 1, 0), (2, 2, 2), (4, 4, 4), (64, 8, 8)):
        everyone = set(range(cores))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, c=everyone: c, raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda c=cores: c)
        assert (default_workers("cuda"), default_workers("cpu")) == (expected, on_cpu)
        assert (default_workers("cuda", cores), default_workers("cpu", cores)) == (expected, on_cpu)


@pytest.mark.parametrize(
    ("neighbour", "expected"), [("8", 2), ("4", 4), ("1", 8), ("64", 1), ("0", 8), ("many", 8)]
)
def test_processes_of_torchrun_have_their_part_of_the_cores(
    neighbour: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", neighbour)
    assert default_workers("cuda") == expected
