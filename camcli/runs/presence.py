"""Shows which processes work in an output folder: each has a hidden file."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FILES = "process-*.json"
EVERY = 30.0  # seconds between two signs of life
# without locks, a process counts as dead after so many seconds without a sign of life; a slow
# method may take long until it writes again
SILENCE = 3600.0


@dataclass(frozen=True)
class Process:
    """A process, as its file describes it: number, host, start, and last sign of life."""

    path: Path
    task: str
    number: int
    host: str
    since: str
    seen: float  # seconds since the epoch by the file system's clock

    def __str__(self) -> str:
        seen = datetime.fromtimestamp(self.seen, UTC).isoformat(" ", "seconds")
        return (
            f"process {self.number} on {self.host!r}, begun {self.since}, last sign of life {seen}"
        )

    @property
    def token(self) -> str:
        """A text that identifies the process among those of all machines."""
        return self.path.stem.removeprefix("process-")

    @property
    def lock(self) -> str:
        """The name of the lock that the process holds as long as it lives."""
        return f"process {self.token}"

    @property
    def is_likely_alive(self) -> bool:
        """Tells without a lock: by its number on this machine, elsewhere by its sign of life."""
        if self.host == socket.gethostname() and os.name == "posix":
            try:
                os.kill(self.number, 0)
            except (ProcessLookupError, OverflowError):
                return False
            except PermissionError:
                pass
            return True
        return not self.is_silent

    @property
    def is_silent(self) -> bool:
        """Whether its last sign of life is so old that it may be dead."""
        return time.time() - self.seen >= SILENCE

    def forget(self) -> None:
        """Removes the file of a dead process."""
        with suppress(OSError):
            self.path.unlink()


class Presence:
    """This process's own file; if the folder refuses it, the process works without one."""

    def __init__(self, state: Path, task: str) -> None:
        self.token = secrets.token_hex(8)
        self.lock = f"process {self.token}"
        self._path, self._task = state / f"process-{self.token}.json", task
        self._beat = time.monotonic()

    def begin(self) -> None:
        """Writes the file in one piece."""
        now = datetime.now(UTC).isoformat(" ", "seconds")
        facts = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
        temporary = self._path.with_suffix(".part")
        with suppress(OSError):
            temporary.write_text(json.dumps({"task": self._task, **facts}) + "\n", "ascii")
            temporary.replace(self._path)

    def beat(self) -> None:
        """Updates the sign of life if the last one is old."""
        now = time.monotonic()
        if now - self._beat > EVERY:
            self._beat = now
            with suppress(OSError):
                os.utime(self._path)

    def end(self) -> None:
        """Removes the file."""
        for path in (self._path, self._path.with_suffix(".part")):
            with suppress(OSError):
                path.unlink()


def list_processes(state: Path) -> Iterator[Process]:
    """Yields the processes that have a file in a hidden folder; removes invalid files."""
    for path in sorted(state.glob(FILES)):
        try:
            seen, facts = path.stat().st_mtime, json.loads(path.read_bytes())
            task, host, since = (str(facts[name]) for name in ("task", "host", "since"))
            yield Process(path, task, int(facts["process"]), host, since, seen)
        except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
            with suppress(OSError):
                path.unlink()
