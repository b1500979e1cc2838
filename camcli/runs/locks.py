"""Locks that say which process writes what in an output folder; a lock ends with its process."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from camcli.errors import UsageError
from camcli.runs.jsonl import STATE, unwritable_error
from camcli.runs.presence import Presence, Process, list_processes
from camcli.utils.compact_map import hash_texts

try:
    import fcntl
except ImportError:  # Windows, where two runs at once are not kept apart
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = "lock"
FOLDER = "folder"  # what every run holds
PATIENCE = 60.0  # seconds, while another process reads or rewrites a manifest
ATTEMPTS = 100  # the last process to leave may have removed the file in between
HELD_ERRORS = {errno.EAGAIN, errno.EACCES}


class FolderLocks:
    """Named locks in a folder, shared or exclusive; none of them outlives its process.

    They are locks on bytes of one hidden file: unlike flock's, such a lock goes from exclusive to
    shared without a gap, and there may be thousands.  A file system without locks grants all of
    them, and `works` is then False.  `task` tells other processes what this one does.
    """

    # such locks belong to the process, whichever of its threads asks
    _here: ClassVar[set[Path]] = set()

    def __init__(self, folder: Path, task: str) -> None:
        self.works = fcntl is not None
        self._path = folder.resolve() / STATE / LOCK_FILE
        if self._path in self._here:
            raise UsageError(
                f"This process already writes into {str(folder)!r}: run one after the other."
            )
        above = [self._path.parents[1], *self._path.parents[1].parents]
        self._made = [place for place in above if not place.exists()]
        self._file = self._open()
        self._here.add(self._path)
        self._presence = Presence(self._path.parent, task)
        # the lock first: a process file without its lock would look like a dead process
        self.take(self._presence.lock, alone=True)
        self._presence.begin()

    def take(self, name: str, *, alone: bool = False) -> bool:
        """Takes a lock, or changes its kind; returns False if another process is in the way."""
        return self._lock(self._file, name, alone)

    def wait(self, name: str) -> bool:
        """Takes a shared lock; waits for it for up to a minute."""
        return self._wait_for(self._file, name)

    def leave(self, name: str) -> None:
        """Releases a lock."""
        if fcntl:
            self._control(self._file, fcntl.LOCK_UN, name)

    def beat(self) -> None:
        """Updates this process's sign of life if the last one is old."""
        self._presence.beat()

    def others(self, task: str = "") -> list[Process]:
        """Lists the other processes that work in the folder, or at a task; forgets dead ones."""
        return [
            process
            for process in list_processes(self._path.parent)
            if process.token != self._presence.token
            and task in ("", process.task)
            and self._is_alive(process)
        ]

    def busy_error(self, task: str = "") -> UsageError:
        """Makes the error that others work in the folder, or at a task, and says how to go on."""
        folder, others = str(self._path.parents[1]), self.others(task)
        names = f" ({'; '.join(map(str, others))})" if others else ""
        why = "the same run cannot be shared" if task else "its manifest cannot be rewritten now"
        return UsageError(
            f"Another run is writing into {folder!r}{names}, and {why}: wait for it, or choose "
            f"another --save-path. If its process is dead, {self._say_how_to_go_on(others)}."
        )

    def describe(self, process: Process) -> str:
        """Describes a process, and how to go on without it if it has been silent for long."""
        if not process.is_silent:
            return str(process)
        return f"{process}; if it is dead, {self._say_how_to_go_on([process])}"

    def _say_how_to_go_on(self, dead: Sequence[Process]) -> str:
        files = " and ".join(repr(str(path)) for path in (self._path, *(p.path for p in dead)))
        return f"remove {files} and go on with --resume"

    def leave_last(self, name: str) -> bool:
        """Releases a lock; if no other process has it, keeps it exclusively and returns True."""
        # if two leave together and each keeps its shared lock, neither gets the exclusive one
        self.leave(name)
        return self.take(name, alone=True)

    def close(self) -> None:
        """Releases all locks; the last process to leave removes the file.

        It also removes folders that were made for a run that then wrote nothing.
        """
        self._presence.end()
        if fcntl and self.leave_last(FOLDER) and is_at(self._file, self._path):
            with suppress(
                OSError
            ):  # the folder has vanished, or holds the journal of an interrupted run
                self._path.unlink()
                for folder in (self._path.parent, *self._made):
                    folder.rmdir()
        os.close(self._file)
        self._here.discard(self._path)

    def _open(self) -> int:
        for _ in range(ATTEMPTS):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unwritable_error(self._path.parents[1], error) from error
            if self._wait_for(file, FOLDER) and is_at(file, self._path):
                return file
            os.close(file)
        raise UsageError(
            f"Another run holds {str(self._path)!r}: wait for it, or choose another --save-path. If"
            " its process is dead, remove that file and go on with --resume."
        )

    def _is_alive(self, process: Process) -> bool:
        if self.works:
            alive = not self.take(process.lock, alone=True)
            if not alive:
                self.leave(process.lock)
        else:
            alive = process.is_likely_alive
        if not alive:
            process.forget()
        return alive

    def _wait_for(self, file: int, name: str) -> bool:
        end = time.monotonic() + PATIENCE
        while not self._lock(file, name, alone=False):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def _lock(self, file: int, name: str, alone: bool) -> bool:
        if not fcntl:
            return True
        return self._control(
            file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB, name
        )

    def _control(self, file: int, what: int, name: str) -> bool:
        try:
            fcntl.lockf(file, what, 1, hash_texts(name) >> 2)
        except OSError as error:
            if error.errno in HELD_ERRORS:
                return False
            self.works = False
        return True


def is_at(file: int, path: Path) -> bool:
    """Tells whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
