"""Describes a run: the options that decide its outputs, what it ran on, and its summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from camcli.runs.jsonl import write_durably
from camcli.utils.jsonable import to_jsonable

DIGITS = 12


@dataclass(frozen=True)
class Counts:
    """What a run did: explained sources, written heatmaps, failed and skipped sources."""

    pictures: int = 0
    heatmaps: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        # written out, since asdict costs a picture more than its line in the manifest
        return Counts(
            self.pictures + other.pictures,
            self.heatmaps + other.heatmaps,
            self.failed + other.failed,
            self.skipped + other.skipped,
        )


@dataclass(frozen=True)
class RunInfo:
    """A run: `configuration` decides its outputs, `ran_on` does not.

    Both hold only values for JSON; `ran_on` has the device, the batch size, ...  `shard` is a rank
    and the number of ranks.
    """

    configuration: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    ran_on: Mapping[str, Any] = field(default_factory=dict)
    shard: tuple[int, int] | None = None

    @cached_property
    def name(self) -> str:
        """The digest of the configuration, 12 hex digits."""
        text = json.dumps(to_jsonable(self.configuration), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:DIGITS]

    @property
    def manifest(self) -> str:
        """The name of the file that holds the run's records."""
        return f"manifest{self.share}.jsonl"

    @property
    def summary(self) -> str:
        """The name of the file that marks the run as complete."""
        return f"run{self.share}.json"

    @property
    def journal(self) -> str:
        """The name of the file that marks the run as not complete."""
        return f"run-{self.name}{self.share}.jsonl"

    @property
    def share(self) -> str:
        """The part of a shard's file names before the suffix; empty for a whole run."""
        return "" if self.shard is None else ".rank-{:04}-of-{:04}".format(*self.shard)


def write_summary(folder: Path, run: RunInfo, counts: Counts, began: datetime) -> None:
    """Writes the summary of a complete run; raises OutputError."""
    before = read_summary(folder / run.summary) or {}
    if before.get("run") == run.name and replace(counts, skipped=0) == Counts():
        # nothing was done: times and counts of the run that did it are worth more
        return
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
    write_durably(
        path, [json.dumps(to_jsonable(content), indent=2, allow_nan=False).encode("ascii") + b"\n"]
    )


def read_summary(path: Path) -> dict[str, Any] | None:
    """Reads what `write_summary` wrote; None if there is no such file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("run"), str) else None
