"""Keeps the journal of an output folder: which runs are under way or were interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from camcli.runs.jsonl import STATE, encode_record, unwritable_error, write_durably
from camcli.runs.run_info import RunInfo


class Journal:
    """A file in the hidden folder while a run lasts; it stays there if the run is interrupted.

    Its first line holds the configuration and the start.  The other lines name outputs whose
    records were dropped because they are made again.  `since` is the start in ns by the file
    system's clock, 0 if no run was interrupted.
    """

    def __init__(self, folder: Path, run: RunInfo) -> None:
        self.path = folder / STATE / run.journal
        self._run = run
        self.since = read_start(next(read_objects(self.path), {}))

    def begin(self, now: int) -> None:
        """Writes the first line, unless an interrupted run has written it."""
        if not self.since:
            run = self._run
            first = {"run": run.name, "since": now, "configuration": run.configuration}
            write_durably(self.path, [encode_record(first)])

    def note(self, outputs: Iterable[tuple[str, list[str]]]) -> None:
        """Notes the outputs of sources whose records are dropped; raises OutputError."""
        try:
            with self.path.open("ab") as file:
                file.write(b"\n")  # the file may end in a torn line
                for id_, names in outputs:
                    file.write(encode_record({"run": self._run.name, "id": id_, "outputs": names}))
        except OSError as error:
            raise unwritable_error(self.path, error) from error

    def end(self) -> None:
        """Removes the journal."""
        with suppress(OSError):
            self.path.unlink()


def read_journals(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yields the entries of a folder's journals: run, source, and the source's outputs."""
    for path in sorted((folder / STATE).glob("run-*.jsonl")):
        for line in read_objects(path):
            run, id_, outputs = line.get("run"), line.get("id"), line.get("outputs")
            if isinstance(run, str) and isinstance(id_, str) and isinstance(outputs, list):
                yield run, id_, [output for output in outputs if isinstance(output, str)]


def read_start(trace: Mapping[str, Any]) -> int:
    """Returns when a run began, by its journal; 0 if that is not known."""
    since = trace.get("since")
    return since if isinstance(since, int) else 0


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the complete lines of a journal; an interrupted run may have left a torn one."""
    with suppress(OSError), path.open("rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                yield line
