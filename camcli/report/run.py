"""What a run is: the options that decide what it writes, and what it ran on; and its traces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from camcli.errors import UsageError
from camcli.plain import plain
from camcli.report.lines import STATE, encoded, put, unwritable

DIGITS = 12
MOST = 200  # characters of a value in a message


@dataclass(frozen=True)
class Counts:
    """What a run did: sources explained, heatmaps written, sources that failed or were done."""

    pictures: int = 0
    heatmaps: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        sums = {name: value + asdict(other)[name] for name, value in asdict(self).items()}
        return Counts(**sums)


@dataclass(frozen=True)
class Run:
    """A run: `configuration` is what changes its outputs, `ran_on` what does not.

    `configuration` and `ran_on` (device, batch size, ...) must be fit for JSON.  `shard` is a
    rank and the number of ranks.
    """

    configuration: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    ran_on: Mapping[str, Any] = field(default_factory=dict)
    shard: tuple[int, int] | None = None

    @cached_property
    def name(self) -> str:
        """The digest of the configuration, 12 hex digits."""
        text = json.dumps(plain(self.configuration), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:DIGITS]

    @property
    def manifest(self) -> str:
        """The name of the file that holds its records."""
        return f"manifest{self._share}.jsonl"

    @property
    def summary(self) -> str:
        """The name of the file that says that it is complete."""
        return f"run{self._share}.json"

    @property
    def journal(self) -> str:
        """The name of the file that says that it is not complete."""
        return f"run-{self.name}{self._share}.jsonl"

    @property
    def _share(self) -> str:
        return "" if self.shard is None else ".rank-{:04}-of-{:04}".format(*self.shard)


class Journal:
    """What stands in the hidden folder while a run lasts, and is left behind where it is cut off.

    Its first line holds configuration and start; the others name the outputs whose records were
    dropped because they are made again.  `since` is the start by the clock of the file system in
    ns, 0 where no run was cut off.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.path = folder / STATE / run.journal
        self._run = run
        self.since = _since(next(_objects(self.path), {}))

    def begin(self, now: int) -> None:
        """Writes the first line, unless a run that was cut off did."""
        if not self.since:
            run = self._run
            first = {"run": run.name, "since": now, "configuration": run.configuration}
            put(self.path, [encoded(first)])

    def note(self, outputs: Iterable[tuple[str, list[str]]]) -> None:
        """Remembers the outputs of sources whose records are dropped; raises OutputError."""
        try:
            with self.path.open("ab") as file:
                file.write(b"\n")  # what stands there may end in a torn line
                for id_, names in outputs:
                    file.write(encoded({"run": self._run.name, "id": id_, "outputs": names}))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def end(self) -> None:
        """Takes it away."""
        with suppress(OSError):
            self.path.unlink()


def noted(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yields what the journals of a folder remember: run, source, and its outputs."""
    for path in sorted((folder / STATE).glob("run-*.jsonl")):
        for line in _objects(path):
            run, id_, outputs = line.get("run"), line.get("id"), line.get("outputs")
            if isinstance(run, str) and isinstance(id_, str) and isinstance(outputs, list):
                yield run, id_, [output for output in outputs if isinstance(output, str)]


def write_summary(folder: Path, run: Run, counts: Counts, began: datetime) -> None:
    """Writes what a complete run was and did; raises OutputError."""
    now = datetime.now(UTC)
    write_json(
        folder / run.summary,
        {
            "run": run.name,
            "configuration": run.configuration,
            "counts": asdict(counts),
            "started": began.isoformat(timespec="seconds"),
            "finished": now.isoformat(timespec="seconds"),
            "seconds": round((now - began).total_seconds(), 3),
            "versions": run.versions,
            "ran_on": run.ran_on,
        },
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file of the output folder in one piece; raises OutputError."""
    put(path, [json.dumps(plain(content), indent=2, allow_nan=False).encode("ascii") + b"\n"])


def read_summary(path: Path) -> dict[str, Any] | None:
    """Reads what `write_summary` wrote; None where nothing of the kind is there."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("run"), str) else None


def check_same(folder: Path, run: Run) -> None:
    """Raises UsageError where a folder has runs to go on with, but not this one."""
    found = [next(_objects(path), None) for path in (folder / STATE).glob("run-*.jsonl")]
    there = [trace for trace in found if trace and isinstance(trace.get("run"), str)]
    there.sort(key=_since)
    if not there:
        found = [read_summary(folder / name) for name in ("run.json", run.summary)]
        there = [trace for trace in found if trace]
    if there and run.name not in [trace["run"] for trace in there]:
        before = there[-1].get("configuration")
        changes = differences(before if isinstance(before, Mapping) else {}, run.configuration)
        raise UsageError(
            f"--resume: the run in {str(folder)!r} has {', '.join(changes)}. Give the same options,"
            " or leave --resume out to begin another run there."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says in words which options differ, and both values."""
    old, new = dict(_leaves("", plain(before))), dict(_leaves("", plain(now)))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name} {_shown(old, name)} (now {_shown(new, name)})" for name in names]


def _since(trace: Mapping[str, Any]) -> int:
    """Returns when a run began by its journal, 0 where that does not say it."""
    since = trace.get("since")
    return since if isinstance(since, int) else 0


def _leaves(above: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not above):
        for name, below in value.items():
            yield from _leaves(f"{above}.{name}" if above else name, below)
    else:
        yield above, value


def _shown(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    text = value if isinstance(value, str) and value else json.dumps(value)
    return "unset" if value is None else text[:MOST]


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the whole lines of a journal, which a run that was cut off may have left torn."""
    with suppress(OSError), path.open("rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                yield line
