"""Processes that do tasks: results, errors, questions, and ends that nobody planned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from camcli.errors import ImageError, OutputError, UnknownName, UsageError
from camcli.pipeline.workers import process_pool
from camcli.pipeline.workers.process_pool import Ask, ProcessPool
from camcli.utils.profiling import STOPWATCH, stage
from tests.checkout import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")

PATIENCE = 20.0  # seconds


class Desk:
    """What a process does."""

    def __init__(self, number: int, ask: Ask) -> None:
        self.number, self.ask = number, ask

    def name(self) -> tuple[int, int]:
        return self.number, os.getpid()

    def double(self, value: Any) -> Any:
        return 2 * value

    def fail(self, kind: str) -> None:
        errors: dict[str, Exception] = {
            "image": ImageError("no picture"),
            "output": OutputError("no place"),
            "name": UnknownName("class", "dgo", ["dog", "cat"]),
            "usage": UsageError("not so"),
            "memory": MemoryError("too much"),
            "bug": ZeroDivisionError("of ours"),
        }
        raise errors[kind]

    def ask_for(self, question: str) -> Any:
        return self.ask(question, answer=lambda asked: f"{asked} of {self.number}")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def be_interrupted(self) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return "still here"

    def write(self, path: Path, seconds: float) -> None:
        path.write_text("begun")
        time.sleep(seconds)
        path.write_text("done")

    def compute(self) -> tuple[float, int, int]:
        large = np.zeros((2000, 2000, 3), np.uint8)
        drawn = cv2.GaussianBlur(large, (9, 9), 2)
        total = torch.ones(2_000_000).sum()
        return float(total) + float(drawn.sum()), torch.get_num_threads(), cv2.getNumThreads()

    @stage("draw")
    def spend(self, seconds: float) -> None:
        time.sleep(seconds)


def answer(question: str, ask_back: Callable[[Any], Any]) -> Any:
    match question:
        case "plain":
            return 5
        case "back":
            return [ask_back("first"), ask_back("second")]
    raise OutputError(f"nobody knows {question}")


@contextmanager
def processes(size: int) -> Iterator[ProcessPool]:
    pool = ProcessPool(size, Desk, answer)
    try:
        yield pool
    finally:
        pool.end()


def result(future: Future[Any]) -> Any:
    return future.result(PATIENCE)


def test_each_process_does_its_tasks_in_order() -> None:
    with processes(2) as pool:
        tasks = [pool.submit(number % 2, "double", number) for number in range(50)]
        assert [result(task) for task in tasks] == [2 * number for number in range(50)]
        names = [result(pool.submit(number, "name")) for number in (0, 1, 0)]
        assert [number for number, _ in names] == [0, 1, 0]
        assert names[0] == names[2] and len({os.getpid(), *dict(names).values()}) == 3


def test_who_has_least_to_do_comes_first(tmp_path: Path) -> None:
    with processes(3) as pool:
        begun = [pool.submit(n, "write", tmp_path / str(n), 0.2) for n in (0, 0, 1)]
        assert pool.find_idlest() == 2
        for task in begun:
            result(task)
        assert pool.find_idlest() == 0


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("image", ImageError, "no picture"),
        ("output", OutputError, "no place"),
        ("name", ImageError, r"Unknown class 'dgo'\. Closest: 'dog'"),
        ("usage", UsageError, "not so"),
        ("memory", MemoryError, "too much"),
        ("bug", RuntimeError, "ZeroDivisionError: of ours"),
    ],
)
def test_errors_come_back(kind: str, error: type[Exception], message: str) -> None:
    with processes(1) as pool:
        with pytest.raises(error, match=message) as raised:
            result(pool.submit(0, "fail", kind))
        assert type(raised.value) is error
        if kind == "bug":
            assert "raise errors[kind]" in "".join(raised.value.__notes__)
        assert result(pool.submit(0, "double", 4)) == 8


def test_questions_are_answered_while_tasks_wait() -> None:
    with processes(2) as pool:
        asked = [pool.submit(n, "ask_for", q) for q in ("plain", "back") for n in (0, 1)]
        later = [pool.submit(0, "double", n) for n in range(20)]
        answers = [result(task) for task in asked]
        assert answers[:2] == [5, 5]
        assert answers[2:] == [[f"first of {n}", f"second of {n}"] for n in (0, 1)]
        assert [result(task) for task in later] == [2 * n for n in range(20)]
        with pytest.raises(OutputError, match="nobody knows"):
            result(pool.submit(1, "ask_for", "else"))


def test_large_messages_go_both_ways() -> None:
    values = np.arange(3_000_000)
    with processes(1) as pool:
        tasks = [pool.submit(0, "double", values) for _ in range(3)]
        for task in tasks:
            np.testing.assert_array_equal(result(task), 2 * values)


def test_a_process_that_dies_fails_its_own_tasks() -> None:
    with processes(2) as pool:
        lost = [pool.submit(0, name) for name in ("die", "name")]
        for task in lost:
            with pytest.raises(UsageError, match=r"A worker process \(\d+\) died.*--resume"):
                result(task)
        with pytest.raises(UsageError, match="died"):
            result(pool.submit(0, "name"))
        assert result(pool.submit(1, "double", 3)) == 6


def test_signals_are_for_the_process_that_forks() -> None:
    with processes(1) as pool:
        assert result(pool.submit(0, "be_interrupted")) == "still here"


def test_libraries_work_without_their_threads() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        # so that there are threads which are not forked along
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 2)
        torch.ones(2_000_000).sum()
        with processes(2) as pool:
            computed = [result(pool.submit(n, "compute")) for n in (0, 1)]
        assert computed == [(2_000_000, 1, 1)] * 2
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_the_end_waits_for_what_was_begun_and_drops_the_rest(tmp_path: Path) -> None:
    with processes(1) as pool:
        begun = pool.submit(0, "write", tmp_path / "first", 0.3)
        dropped = pool.submit(0, "write", tmp_path / "second", 0.0)
        while not (tmp_path / "first").exists():
            time.sleep(0.01)
    assert (tmp_path / "first").read_text() == "done"
    assert begun.done() and dropped.done() and dropped.exception()
    assert not (tmp_path / "second").exists()


def test_their_stages_count() -> None:
    before = STOPWATCH.of_other_threads.get("draw", 0.0)
    with processes(2) as pool:
        for task in [pool.submit(n, "spend", 0.1) for n in (0, 1)]:
            result(task)
    spent = STOPWATCH.of_other_threads["draw"] - before
    assert 0.2 <= spent < 2.0


PARENT = """
import os, sys, time
sys.path.insert(0, {root!r})
from tests.pipeline.workers.test_process_pool import Desk, answer
from camcli.pipeline.workers.process_pool import ProcessPool
pool = ProcessPool(3, Desk, answer)
pids = [pool.submit(n, "name").result()[1] for n in range(3)]
print(*pids, flush=True)
time.sleep(60)
"""


def test_they_end_where_the_process_that_forked_them_is_killed() -> None:
    script = PARENT.format(root=str(ROOT))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3 and all(map(_is_there, pids))
        parent.kill()
    deadline = time.monotonic() + PATIENCE
    while any(map(_is_there, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_send_that_is_interrupted_ends_its_process_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ProcessPool(2, Desk, answer)
    process = pool._processes[0]
    assert result(pool.submit(0, "name"))

    def break_off(_: bytes) -> None:
        # the length of a message, and no message
        os.write(process.connection.fileno(), b"\0\0\1\0half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(process.connection, "send_bytes", break_off, raising=False)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(0, "double", 4)
    assert result(pool.submit(1, "double", 4)) == 8
    pool.end()
    pool.end()
    assert not _is_there(process.pid)


def test_what_cannot_be_taken_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ProcessPool(2, Desk, answer)

    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr(pool._processes[0], "receive", fail, raising=False)
    with pytest.raises(UsageError, match="died"):
        result(pool.submit(0, "double", 4))
    assert result(pool.submit(1, "double", 4)) == 8
    pool.end()


def test_a_process_of_the_program_itself_holds_nobody_up() -> None:
    # it has the ends of the connections, as one that was forked meanwhile
    pool = ProcessPool(1, Desk, answer)
    pid = os.fork()
    if not pid:
        pool.end()
        time.sleep(PATIENCE)
        os._exit(0)
    try:
        assert result(pool.submit(0, "double", 4)) == 8
        begun = time.monotonic()
        pool.end()
        assert time.monotonic() - begun < PATIENCE / 2
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_pool_that_is_left_alone_ends_with_its_program() -> None:
    script = PARENT.format(root=str(ROOT)).replace("time.sleep(60)", "")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=3 * PATIENCE
    )
    assert done.returncode == 0 and not done.stderr
    assert not any(_is_there(int(word)) for word in done.stdout.split())


SEVERAL = """
import sys
sys.path.insert(0, {root!r})
from concurrent.futures import ThreadPoolExecutor
from tests.pipeline.workers.test_process_pool import processes, result
def start(_):
    with processes(2) as pool:
        return [result(pool.submit(n, "double", n)) for n in (0, 1)]
with ThreadPoolExecutor(4) as threads:
    assert list(threads.map(start, range(4))) == [[0, 2]] * 4
"""


def test_several_pools_start_at_once() -> None:
    # a program of its own: a fork clears what threads hold, and not all libraries outlive that
    script = SEVERAL.format(root=str(ROOT))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=3 * PATIENCE)


class Sleeper(Desk):
    """A process that does not begin."""

    def __init__(self, number: int, ask: Ask) -> None:
        super().__init__(number, ask)
        time.sleep(0 if number == 0 else 2 * PATIENCE)


class Broken(Desk):
    """A process that dies before it begins."""

    def __init__(self, number: int, ask: Ask) -> None:
        super().__init__(number, ask)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("desk", [Sleeper, Broken])
def test_a_process_that_does_not_begin_is_told(
    desk: type[Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "PATIENCE", 1.0)
    before = _list_children()
    with pytest.raises(UsageError, match="a process did not begin"):
        ProcessPool(2, desk, answer)
    assert _list_children() == before


def _list_children() -> set[str]:
    children = Path("/proc/self/task").glob("*/children")
    return {pid for path in children for pid in path.read_text().split()}
