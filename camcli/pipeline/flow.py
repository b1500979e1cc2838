"""Moves items through the stages: threads, order, memory, stopping and failures.

This is the one place for these; what is done to a picture stands in `stages`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from camcli.config import Options
from camcli.errors import ImageError, OutputError, UnknownName
from camcli.pipeline.plan import Plan
from camcli.pipeline.shutdown import StopRequest
from camcli.pipeline.work_items import Opened, Step, WorkItem
from camcli.pipeline.workers.memory_budget import FOR_FILES, MemoryBudget, Need, resolve_memory
from camcli.pipeline.workers.worker_pool import WorkerPool, WorkLine, start_workers, wait_for_any
from camcli.pipeline.writing.output_writer import describe_failure
from camcli.records import Outcome

if TYPE_CHECKING:
    from concurrent.futures import Future

Input = TypeVar("Input")
Explained = TypeVar("Explained")
Result = TypeVar("Result")

# a batch waits for that many failures at most, times its size, until it is full
PATIENCE = 16
# by what a picture fails; anything else ends the run
FAILURES = (ImageError, MemoryError, UnknownName)


class SideWork(Protocol[Input, Explained]):
    """The steps that go on beside the model, by `count` workers: each begins one, for later.

    At most `ahead` items are in each step.  Without workers a step is done when it is asked for.
    """

    @property
    def count(self) -> int:
        """The number of workers."""

    @property
    def ahead(self) -> int:
        """How many items may be in each step."""

    def open(self, item: WorkItem) -> Future[Opened | None]:
        """Reads an item's file; there is none for a frame, or where the outcome is known."""

    def prepare(self, step: Step[Opened]) -> Future[Input | None]:
        """Decodes a picture and prepares it for the model."""

    def draw(self, step: Step[Explained]) -> Future[Any]:
        """Draws what the model said of an item."""

    def hold(self) -> AbstractContextManager[None]:
        """Leaves all cores to the model within a block, if it needs them."""


class Ending(Protocol):
    """The steps behind the drawing, one at a time and in order."""

    def finish(self, item: WorkItem, drawn: Any) -> Outcome:
        """Makes an outcome of what was drawn; raises OutputError."""

    def pass_by(self, item: WorkItem) -> Outcome:
        """Notes an item whose outcome is known already; raises OutputError."""

    def give_up(self, item: WorkItem, error: OutputError) -> NoReturn:
        """Notes an item that could not be drawn; raises the error."""


@dataclass(frozen=True)
class Work(Generic[Input, Explained]):
    """The work on items: steps beside the model, its batches, and what comes last."""

    beside: SideWork[Input, Explained]
    explain: Callable[[Sequence[Input]], Iterator[Explained]]
    batch_size: int
    ending: Ending


class _Place(Protocol):
    """A line of items, in order, between two stops."""

    def __len__(self) -> int: ...

    def clear(self) -> None: ...


class Flow(Generic[Input, Explained]):
    """Takes items from their files to their outcomes, in order; each place keeps a few of them.

        coming -> opening -> decoding -> batch -> passes -> drawing -> finishing

    The caller that asks for outcomes moves items from one place to the next, runs the model, and
    waits if nothing can be moved.  In the places whose names end in "-ing", workers are at items.
    """

    def __init__(
        self,
        items: Iterator[WorkItem],
        work: Work[Input, Explained],
        plan: Plan,
        options: Options,
        pool: WorkerPool,
        stop: StopRequest,
        *,
        has_films: bool,
    ) -> None:
        self._items, self._work, self._plan, self._options = items, work, plan, options
        self._beside, self._stop = work.beside, stop
        # a GPU runs the next batch while the results of this one are read
        self._passes_ahead = 1 if plan.classifier.device.type == "cuda" else 0
        memory = resolve_memory(options.max_memory)
        self._budget = MemoryBudget(memory, max(1, work.beside.count))
        self._most_of_files = memory // FOR_FILES
        self._has_ended = False
        self._error: Exception | None = None

        here = WorkerPool(0)
        # a film has a thread that decodes its next frame, and one that writes its frames
        self._pens = int(has_films and pool.count > 0)
        ahead = work.beside.ahead
        self._coming = WorkLine[None, "WorkItem | None"](pool if has_films else here, 1)
        self._upcoming = deque[WorkItem](maxlen=1)
        self._opening = WorkLine[WorkItem, "Opened | None"](here, ahead)
        self._opened = deque[Step[Opened]](maxlen=1)
        self._decoding = WorkLine[WorkItem, "Input | None"](here, ahead)
        self._batch = deque[Step[Input]]()
        self._passes = deque[Iterator[Step[Explained]]]()
        self._drawing = WorkLine[WorkItem, Any](here, ahead)
        self._finishing = WorkLine[WorkItem, Outcome](here, ahead)

    @property
    def _places(self) -> Sequence[_Place]:
        """All places, in the order in which items pass them."""
        return (
            self._coming, self._upcoming, self._opening, self._opened, self._decoding,
            self._batch, self._passes, self._drawing, self._finishing,
        )  # fmt: skip

    def outcomes(self) -> Iterator[Outcome]:
        """Yields each item's outcome; raises errors that no picture caused, in their place."""
        with start_workers(self._pens) as pen:
            self._finishing.pool = pen
            try:
                while True:
                    # listed first, so that whatever is done while others are moved is not missed
                    pending = self._list_pending()
                    finished = list(self._take_finished())
                    yield from finished
                    if self._stop.reason and self._options.camera is None:
                        # items that the model has seen are finished; a camera's film ends by itself
                        self._drop(self._batch)
                    # in each place, the first items first
                    moved = [self._finish(), self._draw(), self._read(), self._run_model()]
                    if not any(self._places):
                        break
                    if not finished and not any(moved):
                        wait_for_any(pending)
            finally:
                self._drop(self._finishing)
                if isinstance(self._items, Generator):
                    self._items.close()
        if self._error:
            raise self._error

    def _list_pending(self) -> list[Future[Any]]:
        """Returns the futures that items are waiting for."""
        lines = (place for place in self._places if isinstance(place, WorkLine))
        return [future for line in lines for future in line.list_pending()]

    # in front of the model

    def _read(self) -> bool:
        """Opens, decodes and prepares as many of the next items as there is room for."""
        if self._is_batch_due and not self._beside.count:
            return False
        return any([self._fill_batch(), self._begin_decoding(), self._begin_opening()])

    def _begin_opening(self) -> bool:
        moved = False
        while self._opening.has_room:
            if not self._upcoming:
                if not self._fetch():
                    break
                moved = True
                continue
            size = self._upcoming[0].file_size
            if self._opening and self._opening.size + size > self._most_of_files:
                break
            item = self._upcoming.popleft()
            self._opening.add(item, self._beside.open(item), size)
            moved = True
        return moved

    def _fetch(self) -> bool:
        """Asks for the next item, or takes it if it has come; an error ends the items."""
        if self._has_ended:
            return False
        if not self._coming:
            self._coming.begin(None, next, self._items, None)
            return True
        if not self._coming.is_ready:
            return False
        try:
            item = self._coming.take()[1].result()
        except Exception as error:
            self._break_off(error, self._coming)
            return True
        if item:
            self._upcoming.append(item)
        self._has_ended = not item
        return True

    def _begin_decoding(self) -> bool:
        moved = False
        while self._decoding.has_room and self._has_opened() and not self._is_memory_full:
            step = self._opened.popleft()
            self._budget.enter(self._need(step))
            self._decoding.add(step.item, self._beside.prepare(step))
            moved = True
        return moved

    def _has_opened(self) -> bool:
        if not self._opened and self._opening.is_ready:
            self._opened.extend(self._settle(self._opening))
        return bool(self._opened)

    @property
    def _is_memory_full(self) -> bool:
        """Whether the next picture has no room until others have left."""
        return bool(self._opened) and not self._budget.has_room(self._need(self._opened[0]))

    def _need(self, step: Step[Opened]) -> Need:
        """Returns the memory that a picture or frame takes until all of it is written."""
        item, opened, overlays = step.item, step.result, self._plan.overlays_per_picture
        if item.outcome:
            return Need()
        if item.frame:
            return Need.of(item.frame.size, held=overlays)
        assert opened is not None
        need = Need.of(opened.size, at_work=overlays if self._plan.on_sheets else 0)
        return replace(need, held=need.held + opened.content_size)

    def _fill_batch(self) -> bool:
        moved = False
        while self._decoding.is_ready and not self._is_batch_due:
            self._batch.extend(self._settle(self._decoding))
            moved = True
        return moved

    @property
    def _is_batch_due(self) -> bool:
        """Whether a batch is full or cannot become full; failures alone do not wait."""
        if not self._batch:
            return False
        return self._is_batch_full or self._is_reading_over

    @property
    def _is_batch_full(self) -> bool:
        """Whether no more fits into the batch, or nothing in it needs the model."""
        size = self._work.batch_size
        if len(self._batch) < size:
            return all(step.item.outcome for step in self._batch)
        readable = sum(not step.item.outcome for step in self._batch)
        return readable in (0, size) or len(self._batch) == PATIENCE * size

    @property
    def _is_reading_over(self) -> bool:
        """Whether no further item can be read until items in front have left."""
        if self._decoding:
            return False
        unread = (self._coming, self._upcoming, self._opening, self._opened)
        return self._is_memory_full or (self._has_ended and not any(unread))

    # the model

    def _run_model(self) -> bool:
        """Begins the pass of a due batch, once the results of the batches before it were read."""
        if not self._is_batch_due or len(self._passes) > self._passes_ahead:
            return False
        batch = list(self._batch)
        self._batch.clear()
        inputs = [step.result for step in batch if step.result is not None]
        try:
            with self._beside.hold():
                explained = self._work.explain(inputs) if inputs else iter(())
        except Exception as error:
            self._break_off(error, self._batch)
            return True
        self._passes.append(_in_order(batch, explained))
        return True

    # behind the model

    def _draw(self) -> bool:
        """Begins to draw the model's results; the next pass goes first if it can begin."""
        moved = False
        while self._passes and self._drawing.has_room:
            is_next_near = not self._is_reading_over or self._batch
            if len(self._passes) <= self._passes_ahead and is_next_near:
                break
            moved = True
            try:
                step = next(self._passes[0], None)
            except Exception as error:
                self._break_off(error, self._passes)
                break
            if step is None:
                self._passes.popleft()
                continue
            self._drawing.add(step.item, self._beside.draw(step))
        return moved

    def _finish(self) -> bool:
        """Passes on what is drawn, in order."""
        moved, ending = False, self._work.ending
        while self._drawing.is_ready and self._finishing.has_room:
            moved = True
            for step in self._settle(self._drawing):
                item, drawn = step.item, step.result
                if item.outcome:
                    self._finishing.begin(item, ending.pass_by, item)
                elif isinstance(drawn, OutputError):
                    self._finishing.begin(item, ending.give_up, item, drawn)
                else:
                    self._finishing.begin(item, ending.finish, item, drawn)
        return moved

    def _take_finished(self) -> Iterator[Outcome]:
        while self._finishing.is_ready:
            for step in self._settle(self._finishing):
                self._budget.leave()
                if isinstance(step.result, OutputError):
                    # pictures that were begun behind it may still be written
                    self._stop.ask(step.result)
                else:
                    outcome = step.result or step.item.outcome
                    assert outcome is not None
                    yield outcome

    # failures

    def _settle(self, line: WorkLine[WorkItem, Any]) -> Iterator[Step[Any]]:
        """Yields a line's first step, a failure as its outcome; nothing if the run breaks off."""
        item, future = line.take()
        try:
            yield Step(item, future.result())
        except FAILURES as error:
            yield Step(item.make_failed(describe_failure(error, item.source.path)))
        except OutputError as error:
            yield Step(item, error)
        except Exception as error:
            self._break_off(error, line)

    def _break_off(self, error: Exception, place: _Place) -> None:
        """Ends the flow with an error, after all items before it."""
        self._error = error
        self._drop(place)

    def _drop(self, last: _Place) -> None:
        """Drops the items in a place, and all items that came later."""
        self._has_ended = True
        for place in self._places:
            place.clear()
            if place is last:
                break


def _in_order(
    batch: Sequence[Step[Input]], explained: Iterator[Explained]
) -> Iterator[Step[Explained]]:
    """Puts a batch's results and its failed items back in order."""
    for step in batch:
        yield Step(step.item, None if step.result is None else next(explained))
