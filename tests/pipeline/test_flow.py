"""Items in their lines: batches, order, passes ahead, and what breaks off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from camcli.config import from_keywords
from camcli.errors import ImageError, OutputError
from camcli.pipeline.flow import PATIENCE, Flow, Work
from camcli.pipeline.shutdown import StopRequest
from camcli.pipeline.work_items import WorkItem
from camcli.pipeline.workers.thread_work import ThreadWork
from camcli.pipeline.workers.worker_pool import start_workers
from camcli.records import Outcome, Picture, Source

PIXELS = np.zeros((2, 3, 3), np.uint8)


def item(number: int) -> WorkItem:
    """A picture that needs no file."""
    return WorkItem(Source(Path(str(number))), frame=Picture(PIXELS, frame=number))


def failure(number: int) -> WorkItem:
    return item(number).make_failed("why")


def number_of(outcome: Outcome) -> int:
    return int(outcome.source.path.name)


@dataclass
class RecordedWork:
    """What is done to pictures that are numbers, and what was done in which order."""

    size: int = 4
    device: str = "cpu"
    bad: dict[tuple[str, int], Exception] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def check(self, stop: str, number: int) -> None:
        if (stop, number) in self.bad:
            raise self.bad[stop, number]

    def prepare(self, item: WorkItem, _: Picture) -> int:
        number = int(item.source.path.name)
        # the earlier, the later it is done
        time.sleep(0.001 * (3 - number % 3))
        self.check("prepare", number)
        return number

    def explain(self, numbers: Sequence[int]) -> Iterator[Any]:
        self.notes.append(f"begin {numbers[0]}")
        self.batches.append(len(numbers))
        self.check("explain", numbers[0])

        def results() -> Iterator[Any]:
            self.notes.append(f"fetch {numbers[0]}")
            for number in numbers:
                self.check("fetch", number)
                yield [number]

        return results()

    def draw(self, _: WorkItem, explanations: list[Any]) -> int:
        (number,) = explanations
        time.sleep(0.001 * (3 - number % 3))
        self.check("draw", number)
        return int(number)

    def finish(self, _: WorkItem, drawn: int) -> Outcome:
        self.check("finish", drawn)
        return Outcome(Source(Path(str(drawn))), ())

    def pass_by(self, item: WorkItem) -> Outcome:
        assert item.outcome is not None
        return item.outcome

    def give_up(self, item: WorkItem, error: OutputError) -> NoReturn:
        self.notes.append(f"give up {item.source}")
        raise error


Start = Callable[..., Iterator[Outcome]]


@pytest.fixture(params=[0, 1, 3])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a flow of items, with no threads, one or some."""
    with start_workers(request.param) as pool:

        def begin(
            items: Iterator[WorkItem], way: RecordedWork, stop: StopRequest | None = None
        ) -> Any:
            beside = ThreadWork(pool, way.prepare, way.draw, 1, way.size, holds=way.device == "cpu")
            work = Work(beside, way.explain, way.size, way)
            plan: Any = SimpleNamespace(
                classifier=SimpleNamespace(device=torch.device(way.device)),
                batch_size=way.size,
                overlays_per_picture=1,
                on_sheets=False,
            )
            flow = Flow(
                items, work, plan, from_keywords(), pool, stop or StopRequest(), has_films=False
            )
            return flow.outcomes()

        yield begin


def test_items_keep_their_order_and_batches_are_full(start: Start) -> None:
    way = RecordedWork()
    items = [failure(n) if n % 5 == 1 else item(n) for n in range(23)]
    outcomes = list(start(iter(items), way))
    assert [number_of(outcome) for outcome in outcomes] == list(range(23))
    assert [n for n, outcome in enumerate(outcomes) if outcome.failed] == [1, 6, 11, 16, 21]
    assert way.batches == [4, 4, 4, 4, 2]


def test_failures_come_out_at_once_where_no_batch_waits_for_them(start: Start) -> None:
    taken = 0

    def items(first: WorkItem) -> Iterator[WorkItem]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield failure(number) if number else first

    outcomes = start(items(failure(0)), RecordedWork())
    next(outcomes)
    assert taken <= 20  # what may be read ahead, and no batch
    taken, way = 0, RecordedWork()
    outcomes = start(items(item(0)), way)
    next(outcomes)
    # a picture waits for others until so many failures stand behind it
    assert PATIENCE * 4 <= taken <= PATIENCE * 4 + 20
    assert way.batches == [1]


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 0), ("cuda", 1)])
def test_a_gpu_begins_the_next_batch_before_this_one_is_looked_at(
    start: Start, device: str, ahead: int
) -> None:
    way = RecordedWork(size=2, device=device)
    items = [item(0), failure(1), item(2), item(3), failure(4), item(5), item(6), item(7)]
    assert [number_of(outcome) for outcome in start(iter(items), way)] == list(range(8))
    order = {
        0: ["begin 0", "fetch 0", "begin 3", "fetch 3", "begin 6", "fetch 6"],
        1: ["begin 0", "begin 3", "fetch 0", "begin 6", "fetch 3", "fetch 6"],
    }
    assert way.notes == order[ahead]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("stop", "number", "last"),
    # a batch that fails takes all of its pictures along
    [("prepare", 9, 8), ("explain", 8, 7), ("fetch", 9, 8), ("draw", 9, 8), ("finish", 9, 8)],
)
def test_what_no_picture_is_to_blame_for_ends_the_flow_in_its_place(
    start: Start, device: str, stop: str, number: int, last: int
) -> None:
    way = RecordedWork(device=device, bad={(stop, number): ZeroDivisionError("a bug")})
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError, match="a bug"):
        for outcome in start(map(item, range(40)), way):
            seen.append(number_of(outcome))
    assert seen == list(range(last + 1))


def test_of_two_errors_the_first_in_order_is_raised(start: Start) -> None:
    way = RecordedWork(bad={("prepare", 9): ValueError("late"), ("draw", 2): KeyError("early")})
    seen: list[int] = []
    with pytest.raises(KeyError, match="early"):
        for outcome in start(map(item, range(40)), way):
            seen.append(number_of(outcome))
    assert seen == [0, 1]


def test_what_the_items_raise_comes_behind_what_was_begun(start: Start) -> None:
    def items() -> Iterator[WorkItem]:
        yield from map(item, range(6))
        raise ValueError("six")

    seen: list[int] = []
    with pytest.raises(ValueError, match="six"):
        for outcome in start(items(), RecordedWork()):
            seen.append(number_of(outcome))
    assert seen == list(range(6))


@pytest.mark.parametrize("error", [ImageError("torn"), MemoryError()])
@pytest.mark.parametrize("stop", ["prepare", "draw", "finish"])
def test_a_picture_that_fails_ends_nothing(start: Start, stop: str, error: Exception) -> None:
    outcomes = list(start(map(item, range(10)), RecordedWork(bad={(stop, 3): error})))
    assert [number_of(outcome) for outcome in outcomes] == list(range(10))
    assert [n for n, outcome in enumerate(outcomes) if outcome.failed] == [3]
    assert outcomes[3].records[0].error == str(error) or "memory" in outcomes[3].records[0].error


@pytest.mark.parametrize("place", ["draw", "finish"])
def test_what_cannot_be_written_stops_the_flow_behind_what_was_begun(
    start: Start, place: str
) -> None:
    full, stop = OutputError("full"), StopRequest()
    way = RecordedWork(bad={(place, 5): full})
    seen = [number_of(outcome) for outcome in start(map(item, range(60)), way, stop)]
    assert stop.reason is full
    assert seen[:5] == list(range(5)) and 5 not in seen and len(seen) < 30
    assert seen == sorted(seen)
    assert ("give up 5" in way.notes) == (place == "draw")


def test_a_flow_that_is_stopped_finishes_what_the_model_has_seen(start: Start) -> None:
    stop, way, seen = StopRequest(), RecordedWork(), []
    for outcome in start(map(item, range(60)), way, stop):
        seen.append(number_of(outcome))
        stop.ask(KeyboardInterrupt())
    assert seen == list(range(sum(way.batches)))
    assert 4 <= len(seen) <= 8


def test_a_flow_that_is_left_closes_its_items_and_leaves_nothing_running(start: Start) -> None:
    closed: list[int] = []

    def items() -> Iterator[WorkItem]:
        try:
            yield from map(item, range(60))
        finally:
            closed.append(1)

    before, way = threading.active_count(), RecordedWork()
    outcomes = start(items(), way)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert closed == [1]
    done = len(way.notes)
    time.sleep(0.02)
    assert (threading.active_count(), len(way.notes)) == (before, done)
