"""A run ends in good order when it is asked to, and never hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from camcli.pipeline import shutdown
from camcli.pipeline.shutdown import StopRequest, handle_interrupts
from tests.checkout import ROOT


def test_nothing_is_taken_after_a_stop_and_the_first_reason_counts() -> None:
    stop, first = StopRequest(), OSError("first")
    items = iter(range(9))
    seen = []
    for item in stop.until(items):
        seen.append(item)
        if item == 2:
            stop.ask(first)
            stop.ask(ValueError("second"))
    assert seen == [0, 1, 2]
    assert stop.reason is first


def _never() -> None:
    raise AssertionError("it has ended by itself")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_asks_and_a_second_one_interrupts(number: signal.Signals) -> None:
    before, stop, message = signal.getsignal(number), StopRequest(), []
    with (
        pytest.raises(KeyboardInterrupt),
        handle_interrupts(stop, lambda: message.append(1), _never),
    ):
        signal.raise_signal(number)
        assert isinstance(stop.reason, KeyboardInterrupt)
        assert message == [1]
        signal.raise_signal(number)
    assert message == [1]
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored() -> None:
    stop = StopRequest()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with handle_interrupts(stop, lambda: None, _never):
            signal.raise_signal(signal.SIGTERM)
        assert stop.reason is None
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    before, actual = signal.getsignal(signal.SIGINT), []

    def inside() -> None:
        with handle_interrupts(StopRequest(), lambda: None, _never):
            actual.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert actual == [before]


STUCK = """
import signal, threading
from camcli.cli.commands.explain import _exit_at_once
from camcli.pipeline import StopRequest, handle_interrupts, shutdown

shutdown.PATIENCE = 0.2
lock = threading.Lock()
with handle_interrupts(StopRequest(), lambda: None, _exit_at_once):
    signal.raise_signal(signal.SIGINT)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        # whoever held it was interrupted before he could give it back
        lock.acquire()
        lock.acquire()
"""


@pytest.mark.slow  # starts Python once more
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_run_that_is_stuck_behind_a_second_signal_ends_all_the_same() -> None:
    command = [sys.executable, "-c", STUCK]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "camviz: interrupted\n")


def test_nothing_is_given_up_that_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "PATIENCE", 0.05)
    given_up: list[int] = []
    with (
        pytest.raises(KeyboardInterrupt),
        handle_interrupts(StopRequest(), lambda: None, lambda: given_up.append(1)),
    ):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)
    assert not given_up
