"""The steps beside the model in forked processes: a picture stays in the one that opened it.

Only views, what the model says of them, and records go from process to process.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from camcli.config import Options
from camcli.engine.device.device_timer import DeviceTimer
from camcli.engine.device.precision import choose_precision
from camcli.engine.explain_request import ExplainResult
from camcli.errors import UsageError
from camcli.media.pictures.read import OpenPicture
from camcli.models.outputs.interpretation import OutputReading
from camcli.pipeline import stages
from camcli.pipeline.batch_results import BatchResults
from camcli.pipeline.plan import Plan, find_input_shape
from camcli.pipeline.run_state import OutputClaim, OutputPlaces
from camcli.pipeline.stages import PreparedPicture
from camcli.pipeline.work_items import Opened, Step, WorkItem, may_have_films
from camcli.pipeline.workers.memory_budget import AT_WORK, FOR_FILES, HELD, resolve_memory
from camcli.pipeline.workers.process_pool import Ask, ProcessPool
from camcli.pipeline.writing.color_scale import ColorScales
from camcli.pipeline.writing.output_writer import OutputWriter
from camcli.records import Outcome, Record, Source
from camcli.runs import Rename
from camcli.utils.runtime_tuning import give_back_freed_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

# bytes that a pixel takes while it is decoded
NEED = HELD + AT_WORK


def check_can_fork(sources: Sequence[Source], options: Options) -> None:
    """Raises UsageError if processes are asked for that cannot do the work beside the model."""
    if not options.processes:
        return
    # elsewhere, libraries of the system itself do not outlive a fork
    if sys.platform != "linux":
        raise UsageError("--processes needs Linux: leave it out, threads (--workers) do the work.")
    if may_have_films(sources, options):
        raise UsageError(
            "--processes is for pictures, and frames follow each other: leave it out for videos, or"
            " run them by themselves."
        )
    if any(source.url for source in sources):
        raise UsageError(
            "--processes is for files of this machine, and clients of a network do not outlive a "
            "fork: leave it out."
        )


@dataclass(frozen=True)
class RemotePicture:
    """A picture file that a process has opened, by its number; `view` where it is prepared, too."""

    worker: int
    number: int
    size: tuple[int, int]
    content_size: int
    place: int
    view: RemoteView | None = None


@dataclass(frozen=True)
class RemoteView:
    """What the network sees of a picture, in a place of the views that all processes share.

    `worker` has the picture, by its number.  `category` is the one that a list names for it.
    """

    worker: int
    number: int
    place: int
    category: int | None


@dataclass(frozen=True)
class RemoteResult:
    """What the model says of a picture, whose pass took so many seconds."""

    worker: int
    number: int
    result: _Row
    seconds: float


class ProcessWork:
    """Steps that forked processes do, each with what they need of this one as it is now.

    Used as a context; the processes end with its block.
    """

    def __init__(
        self, plan: Plan, options: Options, state: OutputPlaces, scales: ColorScales, count: int
    ) -> None:
        self.count = count
        # while the model runs a batch, the one before it is written and the next one is read
        self.ahead = max(plan.batch_size + 1, 2 * count)
        self._plan, self._state = plan, state
        self._views = _Views(find_input_shape(plan.classifier), 2 * self.ahead + plan.batch_size)
        most_pixels = resolve_memory(options.max_memory) // FOR_FILES // self.ahead // NEED
        self._numbers = iter(range(2**63))

        # a forked process must not ask the GPU what `auto` means
        precision = choose_precision(plan.request.precision, plan.classifier.device)
        resolved = replace(plan, request=replace(plan.request, precision=precision))

        def make_worker(number: int, ask: Ask) -> _Worker:
            places = _AskedPlaces(state.weights, state.shared_options, state.encode, ask)
            writer = OutputWriter(resolved, options, places, scales)
            return _Worker(number, resolved, options.max_pixels, most_pixels, self._views, writer)

        self._pool = ProcessPool(count, make_worker, state.place)

    def open(self, item: WorkItem) -> Future[Opened | None]:
        """Reads an item's file; there is none where the outcome is known."""
        if item.outcome:
            return _done(None)
        number, place = next(self._numbers), self._views.take()
        future = self._pool.submit(self._pool.find_idlest(), "open", number, place, item.source)
        future.add_done_callback(partial(self._free_if_failed, place))
        return future

    def prepare(self, step: Step[Opened]) -> Future[RemoteView | None]:
        """Decodes a picture and prepares it for the model."""
        picture = step.result
        if step.item.outcome:
            return _done(None)
        assert isinstance(picture, RemotePicture)
        if picture.view:
            return _done(picture.view)
        future = self._pool.submit(picture.worker, "prepare", picture.number)
        future.add_done_callback(partial(self._free_if_failed, picture.place))
        return future

    def _free_if_failed(self, place: int, step: Future[Any]) -> None:
        if step.exception():
            self._views.give_back(place)

    def explain(self, batch: Sequence[RemoteView]) -> Iterator[RemoteResult]:
        """Explains pictures in one pass, which begins at once; yields what is said of each."""
        places = [view.place for view in batch]
        inputs = [self._views.get(place) for place in places]
        result, clock = stages.run_pass(inputs, [view.category for view in batch], self._plan)
        # the pass has a copy of its own
        for place in places:
            self._views.give_back(place)
        return _share_out(batch, result, clock, self._plan)

    def draw(self, step: Step[RemoteResult]) -> Future[Outcome | None]:
        """Draws what the model said of a picture."""
        of = step.result
        if of is None:
            return _done(None)
        return self._pool.submit(of.worker, "draw", of.number, of.result, of.seconds)

    def hold(self) -> AbstractContextManager[None]:
        """Holds nothing: processes do not wait for each other."""
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.end()


def _done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future


class _Views:
    """Places for views [H W c] in memory that forked processes share; the first one gives them."""

    def __init__(self, shape: tuple[int, int, int], most: int) -> None:
        channels, height, width = shape
        memory = mmap(-1, most * channels * height * width * 4)
        self._all = np.frombuffer(memory, np.float32).reshape(most, height, width, channels)
        self._free = deque(range(most))

    def take(self) -> int:
        """Takes a free place: there are as many as views that can be under way."""
        return self._free.popleft()

    def give_back(self, place: int) -> None:
        """Makes a place free again."""
        self._free.append(place)

    def put(self, place: int, inputs: Tensor) -> None:
        """Copies a view [c H W] into a place."""
        self._all[place] = inputs.permute(1, 2, 0).numpy()

    def get(self, place: int) -> Tensor:
        """Returns the view in a place, without a copy.  -> [c H W]"""
        return torch.from_numpy(self._all[place]).permute(2, 0, 1)


class _Row(NamedTuple):
    """A picture's part of a pass's result, in arrays, which go from process to process faster."""

    logits: NDArray[Any] | None
    categories: NDArray[Any] | None
    references: NDArray[Any] | None
    maps: Mapping[str, Mapping[str, NDArray[Any]]]
    details: Mapping[tuple[str, str, str], NDArray[Any]]
    calls: Mapping[str, int]
    reading: OutputReading

    @classmethod
    def of(cls, result: ExplainResult, row: int) -> _Row:
        """Takes a row of a result in main memory."""

        def cut(tensor: Tensor) -> NDArray[Any]:
            return tensor[row : row + 1].numpy()

        return cls(
            None if result.logits is None else cut(result.logits),
            None if result.categories is None else cut(result.categories),
            None if result.references is None else cut(result.references),
            {m: {layer: cut(maps) for layer, maps in of.items()} for m, of in result.maps.items()},
            {key: cut(tensor) for key, tensor in result.details.items()},
            result.calls,
            result.reading,
        )

    def restore(self) -> ExplainResult:
        """Makes a result of one picture again."""

        tensor = torch.from_numpy
        return ExplainResult(
            None if self.logits is None else tensor(self.logits),
            None if self.categories is None else tensor(self.categories),
            None if self.references is None else tensor(self.references),
            {m: {layer: tensor(maps) for layer, maps in of.items()} for m, of in self.maps.items()},
            {key: tensor(array) for key, array in self.details.items()},
            self.calls,
            self.reading,
        )


def _share_out(
    batch: Sequence[RemoteView], result: ExplainResult, clock: DeviceTimer, plan: Plan
) -> Iterator[RemoteResult]:
    here = stages.fetch(result, plan)
    seconds = clock.seconds / len(batch)
    for row, view in enumerate(batch):
        yield RemoteResult(view.worker, view.number, _Row.of(here, row), seconds)


# in the forked processes


@dataclass(frozen=True)
class _AskedPlaces:
    """What has to be known of a run to write an output; places are asked for."""

    weights: str
    shared_options: str
    encode: Callable[[Source, Sequence[Record]], bytes]
    ask: Ask

    def place(self, claim: OutputClaim, rename: Rename) -> Path:
        """Returns where an output may be written without overwriting another run's file."""
        placed: Path = self.ask(claim, answer=rename)
        return placed


class _Worker:
    """Does the steps of pictures, and keeps what it makes of them until the next one."""

    def __init__(
        self,
        number: int,
        plan: Plan,
        max_pixels: int,
        most_pixels: int,
        views: _Views,
        writer: OutputWriter,
    ) -> None:
        self._worker, self._plan = number, plan
        # of a picture that is read at all, and of one that is prepared without asking
        self._max_pixels, self._most_pixels = max_pixels, most_pixels
        self._views, self._writer = views, writer
        self._opened: dict[int, tuple[OpenPicture, int]] = {}
        self._prepared: dict[int, PreparedPicture] = {}

    def open(self, number: int, place: int, source: Source) -> RemotePicture:
        """Reads a picture file, and prepares a small picture at once; raises as `prepare` does."""
        opened = stages.open_file(source, self._max_pixels)
        self._opened[number] = opened, place
        height, width = opened.size
        view = self.prepare(number) if height * width <= self._most_pixels else None
        return RemotePicture(self._worker, number, opened.size, opened.content_size, place, view)

    def prepare(self, number: int) -> RemoteView:
        """Decodes a picture and puts its view in its place; raises ImageError or UnknownName."""
        opened, place = self._opened.pop(number)
        prepared = stages.prepare(stages.decode(opened), self._plan)
        inputs = prepared.view.inputs
        self._views.put(place, inputs)
        # from now on only its shape counts
        light = replace(prepared.view, inputs=torch.empty(1).expand(inputs.shape))
        self._prepared[number] = replace(prepared, view=light)
        return RemoteView(self._worker, number, place, prepared.category)

    def draw(self, number: int, row: _Row, seconds: float) -> Outcome:
        """Draws a picture's heatmaps and writes their files; raises OutputError."""
        height, width = self._prepared[number].picture.size
        try:
            return self._draw(number, row, seconds)
        finally:
            if height * width > self._most_pixels:
                # it would stay with this process, while the next large picture is another's
                give_back_freed_memory()

    def _draw(self, number: int, row: _Row, seconds: float) -> Outcome:
        prepared = self._prepared.pop(number)
        results = BatchResults(row.restore(), self._plan, seconds)
        explanations = list(results.of(prepared.picture, prepared.view, 0))
        return stages.draw_picture(explanations, self._writer)
