"""The steps beside the model in threads, which share everything with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from camcli.media.pictures.read import OpenPicture
from camcli.pipeline import stages
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.frame_smoothing import FrameSmoothing
from camcli.pipeline.work_items import Opened, Step, WorkItem
from camcli.pipeline.workers.worker_pool import WorkerPool
from camcli.records import Picture

if TYPE_CHECKING:
    from concurrent.futures import Future

Input = TypeVar("Input")


@dataclass(frozen=True)
class ThreadWork(Generic[Input]):
    """Steps that a pool's threads do; `holds` tells whether the model needs all cores.

    `prepare` makes of a picture what the model takes, `draw` draws an item's explanations.
    """

    pool: WorkerPool
    prepare_picture: Callable[[WorkItem, Picture], Input]
    draw_item: Callable[[WorkItem, list[Explanation]], Any]
    max_pixels: int
    batch_size: int
    holds: bool
    smoothing: FrameSmoothing | None = None

    @property
    def count(self) -> int:
        """The number of threads."""
        return self.pool.count

    @property
    def ahead(self) -> int:
        """How many items may be in each step."""
        # while the model runs a batch, the one before it is written and the next one is read
        return self.batch_size + 1 if self.count else 1

    def open(self, item: WorkItem) -> Future[Opened | None]:
        """Reads an item's file; there is none for a frame, or where the outcome is known."""
        return self.pool.submit(self._open, item)

    def prepare(self, step: Step[Opened]) -> Future[Input | None]:
        """Decodes a picture and prepares it for the model."""
        return self.pool.submit(self._prepare, step)

    def draw(self, step: Step[list[Explanation]]) -> Future[Any]:
        """Draws an item's explanations; the maps of frames are smoothed in their order."""
        return self.pool.submit(self._draw, self._smooth(step))

    def hold(self) -> AbstractContextManager[None]:
        """Holds the threads within a block, so that a model on the CPU has all cores."""
        return self.pool.hold() if self.holds else nullcontext()

    def _open(self, item: WorkItem) -> Opened | None:
        return stages.open_file(item.source, self.max_pixels) if item.is_file else None

    def _prepare(self, step: Step[Opened]) -> Input | None:
        item, opened = step.item, step.result
        if item.outcome:
            return None
        picture = item.frame
        if picture is None:
            assert isinstance(opened, OpenPicture)
            picture = stages.decode(opened)
        return self.prepare_picture(item, picture)

    def _smooth(self, step: Step[list[Explanation]]) -> Step[list[Explanation]]:
        if self.smoothing is None or step.result is None:
            return step
        return replace(step, result=self.smoothing.smooth(step.item.film, step.result))

    def _draw(self, step: Step[list[Explanation]]) -> Any:
        return None if step.result is None else self.draw_item(step.item, step.result)
