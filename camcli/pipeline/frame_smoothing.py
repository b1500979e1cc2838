"""Smooths raw maps from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import torch

from camcli.methods.smoothing import FrameSmoother
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.work_items import Film
from camcli.runs import describe_map


class FrameSmoothing:
    """Smooths the raw maps of films over some frames, each film on its own."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._film: Film | None = None
        self._smoother = FrameSmoother(frames)

    def smooth(self, film: Film | None, explanations: list[Explanation]) -> list[Explanation]:
        """Adds a frame's raw maps to the averages of its film, and returns the averages.

        Pictures that are not frames stay as they are.
        """
        if film is not self._film:
            self._film, self._smoother = film, FrameSmoother(self._frames)
        if film is None:
            return explanations
        return [_smooth(explanation, self._smoother, self._frames) for explanation in explanations]


def _smooth(explanation: Explanation, smoother: FrameSmoother, frames: int) -> Explanation:
    """Adds a frame's raw map to the average of its method, layers and class; returns that.

    The record describes the average, and says over how many frames it is taken.
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
