"""Work beside the model: in order, bounded, and never hanging."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

import pytest
import torch

from camcli.errors import UsageError
from camcli.pipeline import shutdown
from camcli.pipeline.shutdown import Stop, interruptible
from camcli.pipeline.worker_pool import Threads, default_workers, ordered, workers
from tests.checkout import ROOT


def test_a_machine_that_starts_no_more_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = threading.active_count(), threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if threading.active_count() > before + 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(UsageError, match=r"--workers 5000: this machine starts no more threads"):
        Threads(5000)
    assert threading.active_count() == before


class Counting:
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
def pool(request: pytest.FixtureRequest) -> Iterator[Threads | None]:
    with workers(request.param) as threads:
        yield threads


def test_results_come_in_the_order_of_the_items(pool: Threads | None) -> None:
    counting = Counting()
    results = list(ordered(counting.work, range(40), pool, ahead=7))
    assert results == [n * n for n in range(40)]
    assert counting.most_running <= 3


@pytest.mark.parametrize("ahead", [1, 2, 6])
def test_no_more_than_the_bound_is_begun_and_not_taken(pool: Threads | None, ahead: int) -> None:
    counting = Counting()
    with closing(ordered(counting.work, counting.items(), pool, ahead)) as results:
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
    counting = Counting()
    with workers(2) as pool, closing(ordered(counting.work, counting.items(), pool, 5)) as results:
        next(results)
        time.sleep(0.1)
        assert counting.finished == counting.taken == 5
        # all of them are there, and come out before another is taken
        assert [next(results) for _ in range(4)] == [1, 4, 9, 16]
        assert counting.taken == 5


def _raising_at(bad: int, error: BaseException) -> Callable[[int], int]:
    def work(number: int) -> int:
        if number == bad:
            raise error
        return number

    return work


def test_a_worker_that_dies_is_told_in_its_place(pool: Threads | None) -> None:
    results = ordered(_raising_at(4, ZeroDivisionError("four")), range(100), pool, ahead=3)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError, match="four"):
        next(results)
    assert list(results) == []


def test_what_the_items_raise_comes_behind_what_was_begun(pool: Threads | None) -> None:
    stages = ordered(_raising_at(4, ValueError("four")), range(100), pool, ahead=3)
    results, seen = ordered(lambda n: n * n, stages, pool, ahead=8), []
    with pytest.raises(ValueError, match="four"):
        for result in results:
            seen.append(result)
    assert seen == [0, 1, 4, 9]


def test_an_interruption_does_not_wait_for_what_is_not_begun() -> None:
    counting = Counting()

    def items() -> Iterator[int]:
        yield from range(4)
        raise KeyboardInterrupt

    with workers(1) as pool, pytest.raises(KeyboardInterrupt):
        list(ordered(counting.work, items(), pool, ahead=10))
    assert counting.finished < 4


def test_the_threads_are_gone_afterwards() -> None:
    before = threading.active_count()
    with workers(3) as pool:
        list(ordered(time.sleep, [0.001] * 9, pool, ahead=9))
        assert before < threading.active_count() <= before + 3
    assert threading.active_count() == before


def test_each_thread_works_alone_and_the_model_with_all_its_own() -> None:
    here = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with workers(2) as pool:
            theirs = set(ordered(lambda _: torch.get_num_threads(), range(9), pool, ahead=9))
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
    with workers(2) as pool:
        assert pool
        with pool.held():
            futures = [pool.submit(begun.append, number) for number in range(5)]
            time.sleep(0.05)
            assert not begun
        for future in futures:
            future.result(timeout=10)
    assert sorted(begun) == [0, 1, 2, 3, 4]


def test_threads_are_let_go_by_a_pass_that_fails() -> None:
    with workers(1) as pool:
        assert pool
        with pytest.raises(ValueError, match="out"), pool.held():
            raise ValueError("out")
        assert pool.submit(len, "work").result(timeout=10) == 4


def test_there_is_a_worker_a_core_up_to_eight_and_none_beside_a_model_on_the_only_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for cores, wanted, on_cpu in ((1, 1, 0), (2, 2, 2), (4, 4, 4), (64, 8, 8)):
        everyone = set(range(cores))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, c=everyone: c, raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda c=cores: c)
        assert (default_workers("cuda"), default_workers("cpu")) == (wanted, on_cpu)
        assert (default_workers("cuda", cores), default_workers("cpu", cores)) == (wanted, on_cpu)


@pytest.mark.parametrize(
    ("beside", "wanted"), [("8", 2), ("4", 4), ("1", 8), ("64", 1), ("0", 8), ("many", 8)]
)
def test_processes_of_torchrun_have_their_part_of_the_cores(
    beside: str, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
    assert default_workers("cuda") == wanted


# stopping


def test_nothing_is_taken_after_a_stop_and_the_first_reason_counts() -> None:
    stop, first = Stop(), OSError("first")
    items = iter(range(9))
    seen = []
    for item in stop.until(items):
        seen.append(item)
        if item == 2:
            stop.ask(first)
            stop.ask(ValueError("second"))
    assert seen == [0, 1, 2]
    assert stop.reason is first


def _never() -> None:
    raise AssertionError("it has ended by itself")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_asks_and_a_second_one_interrupts(number: signal.Signals) -> None:
    before, stop, told = signal.getsignal(number), Stop(), []
    with pytest.raises(KeyboardInterrupt), interruptible(stop, lambda: told.append(1), _never):
        signal.raise_signal(number)
        assert isinstance(stop.reason, KeyboardInterrupt)
        assert told == [1]
        signal.raise_signal(number)
    assert told == [1]
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interruptible(stop, lambda: None, _never):
            signal.raise_signal(signal.SIGTERM)
        assert stop.reason is None
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def inside() -> None:
        with interruptible(Stop(), lambda: None, _never):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]


STUCK = """
import signal, threading
from camcli.cli.explain import _end_here
from camcli.pipeline import Stop, interruptible, shutdown

shutdown.PATIENCE = 0.2
lock = threading.Lock()
with interruptible(Stop(), lambda: None, _end_here):
    signal.raise_signal(signal.SIGINT)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        # whoever held it was interrupted before he could give it back
        lock.acquire()
        lock.acquire()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_run_that_is_stuck_behind_a_second_signal_ends_all_the_same() -> None:
    command = [sys.executable, "-c", STUCK]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "camviz: interrupted\n")


def test_nothing_is_given_up_that_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "PATIENCE", 0.05)
    given_up: list[int] = []
    with (
        pytest.raises(KeyboardInterrupt),
        interruptible(Stop(), lambda: None, lambda: given_up.append(1)),
    ):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)
    assert not given_up
