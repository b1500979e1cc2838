"""What a run is: the options that decide what it writes, and what it ran on; and its traces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from camcli.runs.jsonl import write_durably
from camcli.utils.jsonable import to_jsonable

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
class RunInfo:
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
        text = json.dumps(to_jsonable(self.configuration), sort_keys=True, allow_nan=False)
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


def write_summary(folder: Path, run: RunInfo, counts: Counts, began: datetime) -> None:
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
    write_durably(
        path, [json.dumps(to_jsonable(content), indent=2, allow_nan=False).encode("ascii") + b"\n"]
    )


def read_summary(path: Path) -> dict[str, Any] | None:
    """Reads what `write_summary` wrote; None where nothing of the kind is there."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("run"), str) else None


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says in words which options differ, and both values."""
    old, new = (
        dict(_iterate_leaves("", to_jsonable(before))),
        dict(_iterate_leaves("", to_jsonable(now))),
    )
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [
        f"{name} {_format_values(old, name)} (now {_format_values(new, name)})" for name in names
    ]


def _iterate_leaves(above: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not above):
        for name, below in value.items():
            yield from _iterate_leaves(f"{above}.{name}" if above else name, below)
    else:
        yield above, value


def _format_values(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    text = value if isinstance(value, str) and value else json.dumps(value)
    return "unset" if value is None else text[:MOST]
