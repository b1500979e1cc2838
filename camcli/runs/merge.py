"""Merges the manifests of a run's shards into one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from camcli.errors import UsageError
from camcli.runs.jsonl import STATE, read_lines, write_durably
from camcli.runs.locks import FolderLocks
from camcli.runs.manifest import SHARDS, WHOLE
from camcli.runs.run_info import Counts, read_summary, write_json
from camcli.utils.compact_map import CompactMap

MOST_NAMED = 100  # ranks
SHARD = re.compile(r"manifest(\.rank-(\d+)-of-(\d+))\.jsonl")


def merge_shards(folder: Path, *, incomplete: bool = False) -> Counts:
    """Joins the shards of a run in `manifest.jsonl` and `run.json`, and removes the shards.

    A source keeps the records of only one shard, which replace older ones.  Merging can be
    repeated.  Raises UsageError if a shard is missing or not complete, unless `incomplete` is set.
    """
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is not a folder: name the folder that holds the shards.")
    locks = FolderLocks(folder, "merge")
    try:
        return _merge(folder, locks, incomplete)
    finally:
        locks.close()


def list_world_sizes(folder: Path) -> list[int]:
    """Lists the numbers of ranks for which a folder holds shards."""
    matches = (SHARD.match(path.name) for path in folder.glob(SHARDS))
    return sorted({int(match[3]) for match in matches if match})


def _merge(folder: Path, locks: FolderLocks, incomplete: bool) -> Counts:
    shards = {path: m for path in sorted(folder.glob(SHARDS)) if (m := SHARD.match(path.name))}
    if not all(locks.take(name, alone=True) for name in [WHOLE, *(p.name for p in shards)]):
        raise locks.busy_error()
    if not shards:
        return _read_counts(_read_known(folder))
    summaries = {
        path: _read_shard_summary(folder / f"run{m[1]}.json") for path, m in shards.items()
    }
    wrong = [*_list_missing(shards), *_list_unfinished(folder, shards, summaries)]
    if wrong and not incomplete:
        raise UsageError(
            f"The shards in {str(folder)!r} are not complete: {'; '.join(wrong)}. Go on with "
            "--resume there, or join what is there with --incomplete."
        )
    write_durably(folder / WHOLE, _join_lines(folder / WHOLE, list(shards)))
    present = [summary for summary in summaries.values() if summary]
    counts = sum(map(_read_counts, present), Counts())
    if present:
        write_json(folder / "run.json", _sum_summaries(present, counts))
    # if it is interrupted from here on, joining the rest again gives the same result
    for path, match in shards.items():
        (folder / f"run{match[1]}.json").unlink(missing_ok=True)
        _hand_on_journals(folder, match[1])
        path.unlink()
    if not wrong:
        # journals of shards of this run that were joined before they were complete
        for summary in present:
            (folder / STATE / f"run-{summary['run']}.jsonl").unlink(missing_ok=True)
    return counts


def _hand_on_journals(folder: Path, share: str) -> None:
    """Lets a run without shards go on with what a shard began."""
    for journal in (folder / STATE).glob(f"run-*{share}.jsonl"):
        journal.replace(journal.with_name(journal.name.replace(share, "")))


def _read_known(folder: Path) -> Mapping[str, Any]:
    summary = _read_shard_summary(folder / "run.json")
    if summary is None:
        raise UsageError(f"{str(folder)!r} holds no shards of a run ({SHARDS}).")
    return summary


def _read_shard_summary(path: Path) -> dict[str, Any] | None:
    """Reads the summary of a complete run; None if the file is not one."""
    summary = read_summary(path)
    if summary is None:
        return None
    counts, names = summary.get("counts"), {field.name for field in fields(Counts)}
    numbers = [*counts.values(), summary.get("seconds")] if isinstance(counts, dict) else [None]
    is_whole = (
        isinstance(counts, dict)
        and counts.keys() == names
        and all(isinstance(number, int | float) for number in numbers)
        and all(isinstance(summary.get(name), str) for name in ("started", "finished"))
    )
    return summary if is_whole else None


def _read_counts(summary: Mapping[str, Any]) -> Counts:
    return Counts(**summary["counts"])


def _list_missing(shards: Mapping[Path, re.Match[str]]) -> Iterator[str]:
    present = {(int(match[3]), int(match[2])) for match in shards.values()}
    for world in sorted({world for world, _ in present}):
        # a file's name may claim any number of ranks
        gone = (str(rank) for rank in range(world) if (world, rank) not in present)
        if some := list(islice(gone, MOST_NAMED)):
            more = ", ..." if next(gone, "") else ""
            yield f"missing of {world}: rank {', '.join(some)}{more}"


def _list_unfinished(
    folder: Path,
    shards: Mapping[Path, re.Match[str]],
    summaries: Mapping[Path, Mapping[str, Any] | None],
) -> Iterator[str]:
    names = {summary["run"] for summary in summaries.values() if summary}
    for path, match in shards.items():
        if summaries[path] is None or any((folder / STATE).glob(f"run-*{match[1]}.jsonl")):
            yield f"not finished: {path.name}"
    if len(names) > 1:
        yield f"of several configurations: {', '.join(sorted(names))}"


def _join_lines(whole: Path, shards: Sequence[Path]) -> Iterator[bytes]:
    """Yields the lines of all shards; a source's lines come from the first shard that has it."""
    home = CompactMap()
    for place, shard in enumerate(shards):
        for line in read_lines(shard):
            if line.record.get("last") and home.get(line.owner) is None:
                home[line.owner] = place
    done = len(shards)
    for line in read_lines(whole):
        if home.get(line.owner) is None:
            yield line.text
    for place, shard in enumerate(shards):
        for line in read_lines(shard):
            if home.get(line.owner) == place:
                yield line.text
                if line.record.get("last"):
                    home[line.owner] = done


def _sum_summaries(summaries: Sequence[Mapping[str, Any]], counts: Counts) -> dict[str, Any]:
    return {
        **summaries[0],
        "counts": asdict(counts),
        "started": min(summary["started"] for summary in summaries),
        "finished": max(summary["finished"] for summary in summaries),
        "seconds": max(summary["seconds"] for summary in summaries),
        "shards": len(summaries),
    }
