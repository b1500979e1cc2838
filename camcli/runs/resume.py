"""Decides whether a run may be resumed in a folder: its options must be the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from camcli.errors import UsageError
from camcli.runs.journal import read_objects, read_start
from camcli.runs.jsonl import STATE
from camcli.runs.run_info import RunInfo, read_summary
from camcli.utils.jsonable import to_jsonable

MOST = 200  # characters of a value in a message


def check_same_run(folder: Path, run: RunInfo) -> None:
    """Raises UsageError if a folder holds other runs that could be resumed, but not this one."""
    traces = [next(read_objects(path), None) for path in (folder / STATE).glob("run-*.jsonl")]
    named_traces = [trace for trace in traces if trace and isinstance(trace.get("run"), str)]
    named_traces.sort(key=read_start)
    if not named_traces:
        traces = [read_summary(folder / name) for name in ("run.json", run.summary)]
        named_traces = [trace for trace in traces if trace]
    if named_traces and run.name not in [trace["run"] for trace in named_traces]:
        before = named_traces[-1].get("configuration")
        changes = describe_differences(
            before if isinstance(before, Mapping) else {}, run.configuration
        )
        raise UsageError(
            f"--resume: the run in {str(folder)!r} has {', '.join(changes)}. Give the same options,"
            " or leave --resume out to begin another run there."
        )


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says which options differ, with both values."""
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
