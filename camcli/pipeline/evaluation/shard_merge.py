"""Joins the shards of an evaluation that several processes measured, without the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.errors import UsageError
from camcli.pipeline.evaluation.evaluation_run import make_summary
from camcli.pipeline.evaluation.figures import draw_charts
from camcli.pipeline.evaluation.files import (
    SHARDS,
    TASK,
    EvaluationNames,
    encode_pictures,
    encode_table,
    list_numbers,
)
from camcli.pipeline.evaluation.metric_statistics import Collected
from camcli.pipeline.evaluation.rows import read_rows
from camcli.runs import STATE, FolderLocks, write_durably, write_json

# parts of a summary that differ from shard to shard
OWN = ("pictures", "failed", "metrics", "verdicts", "run", "configuration")


@dataclass(frozen=True)
class MergedEvaluation:
    """A joined evaluation: its summary, the numbers of pictures and failures, and its figures.

    If pictures are still missing, `summary` is the file of rows.
    """

    summary: Path
    pictures: int
    failed: int
    figures: tuple[Path, ...] = ()


def merge_evaluations(folder: Path, *, incomplete: bool = False) -> list[MergedEvaluation]:
    """Joins the shards of all evaluations in a folder, and removes the shards.

    Returns nothing if there are no shards.  Raises UsageError if a shard is missing, not finished,
    or has other options, unless `incomplete` is set: then the existing shards are joined, and
    --resume does the rest.
    """
    unmerged = [
        names
        for number in reversed(list_numbers(folder))
        if (names := EvaluationNames(folder, number)).shards
    ]
    if not unmerged:
        return []
    locks = FolderLocks(folder, TASK)
    try:
        return [_merge(names, locks, incomplete) for names in unmerged]
    finally:
        locks.close()


def _merge(names: EvaluationNames, locks: FolderLocks, incomplete: bool) -> MergedEvaluation:
    shards = names.shards
    if not all(locks.take(path.name, alone=True) for path in [names.jsonl, *shards]):
        raise UsageError(
            f"Another process is writing an evaluation in {str(names.folder)!r}: wait for it."
        )
    summaries = {path: _read(path.with_suffix(".json")) for path in shards}
    wrong = [*_list_missing(shards), *_list_unfinished(names, summaries)]
    if wrong and not incomplete:
        raise UsageError(
            f"The shards of {names.stem} in {str(names.folder)!r} are not complete: "
            f"{'; '.join(wrong)}. Go on with --resume there, or join what is there with "
            "--incomplete."
        )
    description = names.read_description() or {}
    known = [summary for summary in (_read(names.json), *summaries.values()) if summary]
    write_durably(names.jsonl, encode_pictures([*shards, names.jsonl], with_grids=True))
    write_durably(names.csv, encode_table(names.jsonl))
    collected = Collected(next((s["seed"] for s in known), 0))
    pictures, drawn = 0, list[Path]()
    for _, scores in read_rows(names.jsonl):
        collected.add(scores)
        pictures += scores.grid is None
    failures = [failure for summary in summaries.values() for failure in summary.get("failed", ())]
    if known and not wrong:
        subject = {key: value for key, value in known[-1].items() if key not in OWN}
        metrics = known[-1]["configuration"]["metrics"]
        count = sum(summary["pictures"] for summary in summaries.values())
        results = collected.summarise(metrics)
        summary = make_summary(subject, results, count, failures)
        described = {key: description.get(key) for key in ("run", "configuration")}
        write_json(names.json, {**summary, **described})
        drawn = draw_charts(names.folder / names.stem, results, collected.average_curves())
    else:
        # a resumed evaluation has to find its description
        write_json(names.state, {key: description.get(key) for key in ("run", "configuration")})
    names.take_away_shards()
    return MergedEvaluation(
        names.jsonl if wrong else names.json, pictures, len(failures), tuple(drawn)
    )


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and isinstance(content.get("configuration"), dict):
            return content
    return {}


def _list_missing(shards: list[Path]) -> Iterator[str]:
    matches = [m for path in shards if (m := SHARDS.fullmatch(path.name))]
    worlds = sorted({int(match[3]) for match in matches})
    if len(worlds) > 1:
        yield f"of {' and of '.join(map(str, worlds))} ranks"
    for world in worlds:
        present = {int(match[2]) for match in matches if int(match[3]) == world}
        if gone := [str(rank) for rank in range(world) if rank not in present][:100]:
            yield f"missing of {world}: rank {', '.join(gone)}"


def _list_unfinished(
    names: EvaluationNames, summaries: Mapping[Path, Mapping[str, Any]]
) -> Iterator[str]:
    for path, summary in summaries.items():
        if not summary or (names.folder / STATE / f"{path.stem}.json").exists():
            yield f"not finished: {path.name}"
    runs = sorted({str(summary["run"]) for summary in summaries.values() if summary})
    if len(runs) > 1:
        yield f"of other options: {', '.join(runs)}"
