"""Processes that are forked off this one: each does tasks in turn, and may ask this one things."""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
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
QUESTION, TIMES, END, READY = -1, -2, -3, -4
# errors that are made again of their message alone, and those by which a picture fails like them
PORTABLE = (ImageError, OutputError, MemoryError)
# seconds in which a forked process has to begin
PATIENCE = 60.0
# seconds after which a process that has nothing to do looks whether it is still needed
CHECK_INTERVAL = 1.0
# two runs of one program: what one forks must not keep the ends of the other's connections
_FORKING = threading.Lock()

CallBack = Callable[[Any], Any]


class Ask(Protocol):
    """Asks this process something from a forked one, and waits for the answer.

    `answer` answers what is asked back meanwhile.  An error that the question meets is raised.
    """

    def __call__(self, question: Any, *, answer: CallBack) -> Any:
        """Returns the answer."""


@dataclass
class _Process:
    """A forked process, and what it was given to do."""

    pid: int
    connection: Connection
    # becomes readable at its end; -1 where the system has none
    handle: int = -1
    pending: dict[int, Future[Any]] = field(default_factory=dict)
    is_alive: bool = True
    # never held while something is sent, for which the process may have to be read from first
    lock: threading.Lock = field(default_factory=threading.Lock)
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, *message: Any) -> None:
        """Sends a message; raises OSError where the process has died."""
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            try:
                self.connection.send_bytes(content)
            except BaseException:
                # what stands behind half a message would be read as its rest
                self._hang_up()
                raise

    def _hang_up(self) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as end:
            end.shutdown(socket.SHUT_WR)

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
        self._owner, self._has_ended = os.getpid(), False
        self._reader = threading.Thread(target=self._read, name="camviz-reader", daemon=True)
        try:
            with _FORKING, end_threads(), _put_off_signals() as mask:
                for number in range(size):
                    self._processes.append(self._fork(number, make_worker, mask))
            for process in self._processes:
                _await_start(process)
            self._reader.start()
        except (OSError, RuntimeError) as error:
            self._let_go()
            raise UsageError(
                f"--processes {size}: this machine starts no more ({error}). Give fewer."
            ) from error
        except BaseException:
            for process in self._processes:
                os.kill(process.pid, signal.SIGKILL)
            self._let_go()
            raise
        # a program may end with a run that it has begun and left: then no thread reads any more
        atexit.register(self.end)

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
        # a process that the program forked by itself has a copy
        if self._has_ended or os.getpid() != self._owner:
            return
        self._is_over[0] = 1
        for process in self._processes:
            with suppress(OSError):
                process.send(END, "", ())
        self._reader.join()
        self._has_ended = True
        atexit.unregister(self.end)
        self._let_go()

    def _let_go(self) -> None:
        for process in self._processes:
            process.connection.close()
        for process in self._processes:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, 0)
            if process.handle >= 0:
                os.close(process.handle)

    def _fork(
        self, number: int, make_worker: Callable[[int, Ask], object], mask: set[int]
    ) -> _Process:
        here, there = Pipe()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            # whoever prints next meets what is wrong with it
            with suppress(OSError, ValueError):
                stream.flush()
        # Python warns of threads, of which forked processes have none
        with ignore_warnings():
            pid = os.fork()
        if not pid:
            others = [here, *(process.connection for process in self._processes)]
            _serve(there, others, self._is_over, partial(make_worker, number), mask)
        there.close()
        return _Process(pid, here, _open_handle(pid))

    def _read(self) -> None:
        """Reads what the processes send, until all have ended."""
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                selector.register(process.connection, selectors.EVENT_READ, process)
                if process.handle >= 0:
                    selector.register(process.handle, selectors.EVENT_READ, process)
            while selector.get_map():
                for process in {key.data.pid: key.data for key, _ in selector.select()}.values():
                    if not self._listen(process):
                        selector.unregister(process.connection)
                        if process.handle >= 0:
                            selector.unregister(process.handle)
                        _fail_pending(process)

    def _listen(self, process: _Process) -> bool:
        """Takes a process's next message, if there is one; False where none will come any more."""
        try:
            if process.connection.poll():
                self._take(process, process.receive())
                return True
        except (EOFError, OSError, _Died):
            return False
        except Exception:
            # such as memory that is too small for the message: whoever waits must hear of it
            os.kill(process.pid, signal.SIGKILL)
            return False
        # another program's process may hold the other end open
        return False

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


def _await_start(process: _Process) -> None:
    """Waits until a process is there; raises UsageError where it is not."""
    # who waits for a thread that was not forked along waits for ever: torch's process groups do
    with suppress(EOFError, OSError):
        if process.connection.poll(PATIENCE) and process.receive()[0] == READY:
            return
    raise UsageError(
        "--processes: what this program holds does not outlive a fork, so that a process did not "
        "begin: leave it out, threads (--workers) do the work."
    )


class _Died(Exception):
    """A process died while it was asked."""


def _fail_pending(process: _Process) -> None:
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


def _open_handle(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # the end of its connection says the same
        return -1


@contextmanager
def _put_off_signals() -> Iterator[set[int]]:
    """Puts off Ctrl-C and SIGTERM in its block, and yields the signals that were put off before.

    A process that is forked there would answer them as this one does, until it ignores them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# in the forked process


def _serve(
    connection: Connection,
    others: Iterable[Connection],
    is_over: mmap,
    make_worker: Callable[[Ask], object],
    mask: set[int],
) -> NoReturn:
    """Does tasks until there are no more, or the process that gives them has died."""
    code = 1
    try:
        # who keeps an end of them would not see the other end close
        for other in others:
            other.close()
        _prepare_process(mask)
        tasks = _TaskLoop(connection)
        tasks.work(make_worker(tasks.ask), is_over)
        code = 0
    except (EOFError, OSError):
        pass  # nobody is there any more
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # whatever stands at this process's end is the other's
        os._exit(code)


def _prepare_process(mask: set[int]) -> None:
    """Leaves signals and the terminal to the process that was forked, and the cores to others."""
    import torch

    # it says when to end: pictures under way are finished
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # a progress bar writes through the others
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    # its threads were not forked along
    torch.set_num_threads(1)
    STOPWATCH.begin_anew()
    # what is there stays, and a look at it would copy its pages
    gc.freeze()


class _TaskLoop:
    """What a forked process has to do, in order."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._parent = connection, os.getppid()
        self._waiting: deque[Any] = deque()

    def work(self, worker: object, is_over: mmap) -> None:
        """Does tasks until the last."""
        self._send(READY, True, None)
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

    def ask(self, question: Any, *, answer: CallBack) -> Any:
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
        # a process that the program forked by itself may hold the other end open
        while not self._connection.poll(CHECK_INTERVAL):
            if os.getppid() != self._parent:
                raise EOFError
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
