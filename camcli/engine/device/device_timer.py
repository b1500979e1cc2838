"""Measures how long work takes on its device; a GPU still works when the calls have returned."""

from __future__ import annotations

import time
from typing import Any

import torch


class DeviceTimer:
    """Measures the time from its creation until `stop`, by the device's own clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._end = self._now()

    def stop(self) -> None:
        """Stops the clock behind the work that was queued on the device so far."""
        self._end = self._now()

    @property
    def seconds(self) -> float:
        """The measured time; waits until a GPU has done the work."""
        if self._device.type != "cuda":
            return float(self._end - self._begin)
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) / 1000

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
