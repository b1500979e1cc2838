"""Raw maps that follow each other from frame to frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from camcli.methods.compose import FrameSmoother
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.memory_budget import Pause
from camcli.pipeline.work_items import Film, Work
from camcli.report import statistics


def smoothed(works: Iterable[Work | Pause], frames: int) -> Iterator[Work | Pause]:
    """Smooths the raw maps of films over some frames, each film by itself."""
    smoother = FrameSmoother(frames)
    for work in works:
        if isinstance(work, Film):
            smoother = FrameSmoother(frames)
        elif isinstance(work, list) and work[0].picture.frame is not None:
            work = [_smoothed(explanation, smoother, frames) for explanation in work]
        yield work


def _smoothed(explanation: Explanation, smoother: FrameSmoother, frames: int) -> Explanation:
    """Takes a frame's raw map into the average of its method, layers and class, and returns that.

    The record describes the average, and says over how many frames it goes.
    """
    record, map_ = explanation.record, explanation.map
    asked = explanation.category if record.target else None
    raw = torch.from_numpy(map_.values)
    values = smoother.smoothed((map_.method, map_.layers, asked), raw).numpy()
    told = replace(
        record,
        smoothing={**record.smoothing, "smooth_frames": frames},
        statistics=statistics(values, explanation.view, explanation.picture.size),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )
    return replace(explanation, map=replace(map_, values=values), record=told)
