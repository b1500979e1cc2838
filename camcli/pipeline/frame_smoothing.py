"""Smooths raw maps from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import torch

from camcli.methods.smoothing import FrameSmoother
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.work_items import Film
from camcli.runs import describe_map


class FrameSmoothing:
    """Smooths the raw maps of films over some frames, each film by itself."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._film: Film | None = None
        self._smoother = FrameSmoother(frames)

    def smooth(self, film: Film | None, explanations: list[Explanation]) -> list[Explanation]:
        """Takes a frame's raw maps into the averages of its film, and returns those.

        What is no frame stays as it is.
        """
        if film is not self._film:
            self._film, self._smoother = film, FrameSmoother(self._frames)
        if film is None:
            return explanations
        return [_smooth(explanation, self._smoother, self._frames) for explanation in explanations]


def _smooth(explanation: Explanation, smoother: FrameSmoother, frames: int) -> Explanation:
    """Takes a frame's raw map into the average of its method, layers and class, and returns that.

    The record describes the average, and says over how many frames it goes.
    """
    record, map_ = explanation.record, explanation.map
    asked = explanation.category if record.target else None
    raw = torch.from_numpy(map_.values)
    values = smoother.smooth((map_.method, map_.layers, asked), raw).numpy()
    smoothed_record = replace(
        record,
        smoothing={**record.smoothing, "smooth_frames": frames},
        statistics=describe_map(values, explanation.view, explanation.picture.size),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )
    return replace(explanation, map=replace(map_, values=values), record=smoothed_record)
