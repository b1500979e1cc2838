"""Processes that are forked off this one: each does tasks in turn, and may ask this one things."""

from __future__ import annotations

import gc
import os
import pickle
import selectors
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from mmap import mmap
from multiprocessing.connection import Connection, Pipe
from typing import Any, NoReturn, Protocol

from camcli.errors import ImageError, OutputError, UnknownName, UsageError
from camcli.media.opencv_threads import end_threads
from camcli.utils.profiling import STOPWATCH
from camcli.utils.warning_filters import ignore_warnings

# the numbers of messages that are no results of tasks
QUESTION, TIMES, END = -1, -2, -3
# errors that are made again of their message alone, and those by which a picture fails like them
PORTABLE = (ImageError, OutputError, MemoryError)

CallBack = Callable[[Any], Any]


class Ask(Protocol):
    """Asks this process something from a forked one, and waits for the answer.

    `answer` answers what is asked back meanwhile.  An error that the question meets is raised.
    """

    def __call__(self, *question: Any, answer: CallBack) -> Any:
        """Returns the answer."""


@dataclass
class _Process:
    """A forked process, and what it was given to do."""

    pid: int
    connection: Connection
    pending: dict[int, Future[Any]] = field(default_factory=dict)
    is_alive: bool = True
    # never held while something is sent, for which the process may have to be read from first
    lock: threading.Lock = field(default_factory=threading.Lock)
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, *message: Any) -> None:
        """Sends a message; raises OSError where the process has died."""
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self.connection.send_bytes(content)

    def receive(self) -> Any:
        """Receives a message; raises EOFError or OSError where the process has died."""
        return pickle.loads(self.connection.recv_bytes())


class ProcessPool:
    """Forked processes, each with an object whose methods do the tasks.

    `make_worker` makes that object in the process, from its number and a way to ask; all else that
    it needs it has from this process as it was.  `answer` answers questions, in a thread of this
    process: of a question and a way to ask back.
    """

    def __init__(
        self,
        size: int,
        make_worker: Callable[[int, Ask], object],
        answer: Callable[[Any, CallBack], Any],
    ) -> None:
        self._answer = answer
        self._numbers: Iterator[int] = count(1)
        # a byte that all see: tasks that have not begun are dropped once it is set
        self._is_over = mmap(-1, 1)
        self._processes: list[_Process] = []
        try:
            with end_threads():
                for number in range(size):
                    self._processes.append(self._fork(number, make_worker))
        except OSError as error:
            self._let_go()
            raise UsageError(
                f"--processes {size}: this machine starts no more ({error}). Give fewer."
            ) from error
        self._reader = threading.Thread(target=self._read, name="camviz-reader", daemon=True)
        self._reader.start()

    def find_idlest(self) -> int:
        """Returns the number of the process that has least to do."""
        tasks = [len(process.pending) for process in self._processes]
        return tasks.index(min(tasks))

    def submit(self, worker: int, task: str, *arguments: Any) -> Future[Any]:
        """Has a process call the method `task` of its object, after all that it was given before.

        The future has its result or error; a UsageError where the process dies.
        """
        process, number = self._processes[worker], next(self._numbers)
        future: Future[Any] = Future()
        # whoever drops a task waits for it, since it may be writing a file
        future.set_running_or_notify_cancel()
        with process.lock:
            if not process.is_alive:
                future.set_exception(_death_error(process))
                return future
            process.pending[number] = future
        # where this fails, the reader sees the end, and says so to all who wait
        with suppress(OSError):
            process.send(number, task, arguments)
        return future

    def end(self) -> None:
        """Ends the processes when each has done its task; drops those that had not begun."""
        self._is_over[0] = 1
        for process in self._processes:
            with suppress(OSError):
                process.send(END, "", ())
        self._reader.join()
        self._let_go()

    def _let_go(self) -> None:
        for process in self._processes:
            process.connection.close()
        for process in self._processes:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, 0)

    def _fork(self, number: int, make_worker: Callable[[int, Ask], object]) -> _Process:
        here, there = Pipe()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        # Python warns of threads, of which forked processes have none
        with ignore_warnings():
            pid = os.fork()
        if not pid:
            others = [here, *(process.connection for process in self._processes)]
            _serve(there, others, self._is_over, partial(make_worker, number))
        there.close()
        return _Process(pid, here)

    def _read(self) -> None:
        """Reads what the processes send, until all have ended."""
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                selector.register(process.connection, selectors.EVENT_READ, process)
            while selector.get_map():
                for key, _ in selector.select():
                    process = key.data
                    try:
                        self._take(process, process.receive())
                    except (EOFError, OSError, _Died):
                        selector.unregister(process.connection)
                        _mourn(process)

    def _take(self, process: _Process, message: Any) -> None:
        number, is_done, value = message
        if number == QUESTION:
            self._reply(process, value)
        elif number == TIMES:
            STOPWATCH.add(value)
        else:
            with process.lock:
                future = process.pending.pop(number)
            if is_done:
                future.set_result(value)
            else:
                future.set_exception(value)

    def _reply(self, process: _Process, question: Any) -> None:
        def ask_back(value: Any) -> Any:
            try:
                process.send(QUESTION, "asked back", value)
                # it does nothing else until it has its answer
                return process.receive()[2]
            except (EOFError, OSError) as error:
                raise _Died from error

        try:
            kind, value = "answer", self._answer(question, ask_back)
        except _Died:
            raise
        except Exception as error:
            kind, value = "error", _make_portable(error)
        process.send(QUESTION, kind, value)


class _Died(Exception):
    """A process died while it was asked."""


def _mourn(process: _Process) -> None:
    """Fails the tasks of a process that has died."""
    with process.lock:
        process.is_alive = False
        pending = list(process.pending.values())
        process.pending.clear()
    for future in pending:
        future.set_exception(_death_error(process))


def _death_error(process: _Process) -> UsageError:
    return UsageError(
        f"A worker process ({process.pid}) died. Perhaps memory is too small: go on with --resume "
        "and fewer --processes, or without them."
    )


# in the forked process


def _serve(
    connection: Connection,
    others: Iterable[Connection],
    is_over: mmap,
    make_worker: Callable[[Ask], object],
) -> NoReturn:
    """Does tasks until there are no more, or the process that gives them has died."""
    code = 1
    try:
        # who keeps an end of them would not see the other end close
        for other in others:
            other.close()
        _settle_in()
        tasks = _Tasks(connection)
        tasks.work(make_worker(tasks.ask), is_over)
        code = 0
    except (EOFError, OSError):
        pass  # nobody is there any more
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # whatever stands at this process's end is the other's
        os._exit(code)


def _settle_in() -> None:
    """Leaves signals and the terminal to the process that was forked, and the cores to others."""
    import torch

    # it says when to end: pictures under way are finished
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # a progress bar writes through the others
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    # its threads were not forked along
    torch.set_num_threads(1)
    STOPWATCH.begin_anew()
    # what is there stays, and a look at it would copy its pages
    gc.freeze()


class _Tasks:
    """What a forked process has to do, in order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: deque[Any] = deque()

    def work(self, worker: object, is_over: mmap) -> None:
        """Does tasks until the last."""
        while True:
            number, task, arguments = self._waiting.popleft() if self._waiting else self._receive()
            if number == END:
                self._send(TIMES, True, STOPWATCH.sum_up())
                return
            if is_over[0]:
                self._send(number, False, CancelledError())
                continue
            try:
                result = getattr(worker, task)(*arguments)
            except Exception as error:
                self._send(number, False, _make_portable(error))
                continue
            self._send(number, True, result)

    def ask(self, *question: Any, answer: CallBack) -> Any:
        """Asks the process that was forked, and waits for its answer."""
        self._send(QUESTION, True, question)
        while True:
            message = self._receive()
            number, kind, value = message
            if number != QUESTION:
                self._waiting.append(message)
            elif kind == "asked back":
                self._send(QUESTION, True, answer(value))
            elif kind == "error":
                raise value
            else:
                return value

    def _send(self, *message: Any) -> None:
        self._connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def _receive(self) -> Any:
        return pickle.loads(self._connection.recv_bytes())


def _make_portable(error: Exception) -> Exception:
    """Returns an error with the same message that another process can raise."""
    message = str(error)
    if isinstance(error, UnknownName):
        # it is not made of its message alone, and a picture fails by it all the same
        return ImageError(message)
    kind = next((kind for kind in (*PORTABLE, UsageError) if isinstance(error, kind)), None)
    if kind:
        return kind(message)
    portable = RuntimeError(f"{type(error).__name__}: {message}")
    portable.add_note("".join(traceback.format_exception(error)))
    return portable
