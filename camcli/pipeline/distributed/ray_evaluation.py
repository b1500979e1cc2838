"""An evaluation whose pictures are measured by Ray workers, a batch at a time.

Workers write nothing: they return what they measured to the driver, which writes it in the
pictures' order, as if it had measured the pictures itself.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from camcli.config import Options
from camcli.errors import CamvizError, UsageError
from camcli.pipeline.distributed.ray_backend import (
    RESTARTS,
    Load,
    RayWorkers,
    enter_folder,
    import_ray,
    join_cluster,
)
from camcli.pipeline.evaluation.evaluation import Evaluation, PictureScores, Truth, plan_evaluation
from camcli.pipeline.picture_api import group_items
from camcli.pipeline.workers.worker_pool import WorkerPool
from camcli.records import Source
from camcli.utils.runtime_tuning import keep_freed_memory

# batches of each worker that may be under way, or may wait for an earlier one
AHEAD = 2


@dataclass(frozen=True)
class EvaluationTask:
    """What a worker has to know; names of files are relative to `folder`."""

    options: Options
    metrics: tuple[str, ...]
    truth: Truth
    load: Load
    folder: Path


def measure_on_ray(
    evaluation: Evaluation, load: Load, sources: Sequence[Source]
) -> Iterator[PictureScores]:
    """Measures pictures in Ray workers; yields their scores in order.

    Raises UsageError if Ray or its workers cannot do it.
    """
    if not sources:
        return
    ray, size = import_ray(), evaluation.plan.batch_size
    with join_cluster(ray):
        workers = RayWorkers.of(ray, evaluation.options, ceil(len(sources) / size))
        task = EvaluationTask(
            workers.options, evaluation.metrics, evaluation.truth, load, Path.cwd()
        )
        actor = ray.remote(EvaluationWorker).options(
            **workers.needs, max_restarts=RESTARTS, max_task_retries=-1
        )
        yield from _share_out(
            ray, [actor.remote(task) for _ in range(workers.count)], sources, size
        )


def _share_out(
    ray: Any, actors: Sequence[Any], sources: Sequence[Source], size: int
) -> Iterator[PictureScores]:
    """Gives a worker a batch when it has none; a slow batch holds up only a few others."""
    free, batches = deque(actors), group_items(sources, size)
    busy: dict[Any, Any] = {}
    in_order: deque[Any] = deque()
    while True:
        while free and len(in_order) < AHEAD * len(actors):
            batch = next(batches, None)
            if batch is None:
                break
            actor = free.popleft()
            measuring = actor.measure.remote(list(batch))
            busy[measuring] = actor
            in_order.append(measuring)
        if not in_order:
            return
        if busy:
            for measured in ray.wait(list(busy), num_returns=1)[0]:
                free.append(busy.pop(measured))
        while in_order and in_order[0] not in busy:
            yield from _fetch(ray, in_order.popleft())


def _fetch(ray: Any, measuring: Any) -> list[PictureScores]:
    try:
        measured: list[PictureScores] | str = ray.get(measuring)
    except ray.exceptions.RayActorError as error:
        raise UsageError(
            f"A Ray worker died, was started again {RESTARTS} times, and died again. Perhaps "
            "memory is too small: go on with --resume and a smaller --ray-workers or --batch-size."
        ) from error
    if isinstance(measured, str):
        raise UsageError(measured)
    return measured


class EvaluationWorker:
    """A Ray process that measures batches of pictures."""

    def __init__(self, task: EvaluationTask) -> None:
        self._task = task
        self._evaluation: Evaluation | None = None
        self._pool = WorkerPool(task.options.workers or 0)

    def measure(self, sources: Sequence[Source]) -> list[PictureScores] | str:
        """Measures pictures; returns the reason if it fails for another cause than a picture."""
        try:
            self._evaluation = self._evaluation or self._begin()
            return list(self._evaluation.measure(sources, self._pool))
        except CamvizError as error:
            # some errors cannot be made again from their message in the driver
            return str(error)

    def _begin(self) -> Evaluation:
        task = self._task
        enter_folder(task.folder)
        plan = plan_evaluation(task.load(task.options), task.options)
        keep_freed_memory(os.environ)
        return Evaluation(plan, task.options, task.metrics, task.truth)
