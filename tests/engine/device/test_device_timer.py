"""How long work takes; on a GPU, `test_cuda.py` looks."""

import time

import pytest
import torch

from camcli.engine.device.device_timer import DeviceTimer


def test_time_ends_when_the_clock_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((100.0, 102.5))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = DeviceTimer(torch.device("cpu"))
    assert clock.seconds == 0
    clock.stop()
    assert clock.seconds == clock.seconds == 2.5
