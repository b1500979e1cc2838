"""Small runs over made-up sources, whose outputs are a few bytes each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from camcli.records import Record, Source
from camcli.runs import Counts, Manifest, Mode, RunInfo
from camcli.runs.jsonl import STATE

PLAIN: dict[str, Any] = {"method": ["gradcam"], "alpha": 0.5}


def make_sources(*names: str) -> list[Source]:
    return [Source(Path("in") / name) for name in names]


def record(source: Source, *outputs: Path, **fields: Any) -> Record:
    return Record(source=str(source), outputs=tuple(map(str, outputs)), **fields)


def explain(manifest: Manifest, source: Source, folder: Path, maps: int = 1) -> list[Path]:
    """Writes some outputs of a source, and their records; the content says whose they are."""
    made = []
    for place in range(maps):
        path = manifest.place(folder / f"{source.path.stem}_{place}.jpg", source)
        content = os.fsencode(str(source))
        # what stands there already need not be written: the tests write thousands
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        made.append(path)
    manifest.append(source, [record(source, path, rank=n) for n, path in enumerate(made)])
    return made


def run_to_end(
    folder: Path,
    sources: Sequence[Source],
    mode: Mode = "new",
    configuration: dict[str, Any] = PLAIN,
    *,
    shard: tuple[int, int] | None = None,
    maps: int = 1,
    until: int | None = None,
) -> list[Source]:
    """Runs to the end, or until some sources are done; returns what was to be done."""
    with Manifest.open(folder, RunInfo(configuration, shard=shard), mode) as manifest:
        plan = manifest.list_remaining(sources)
        for source in plan[:until]:
            explain(manifest, source, folder, maps)
        if until is None:
            counts = Counts(len(plan), maps * len(plan), 0, manifest.skipped)
            manifest.finish(counts)
    return plan


def read_records(folder: Path, name: str = "manifest.jsonl") -> list[dict[str, Any]]:
    path = folder / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def table(folder: Path) -> list[tuple[str, int]]:
    """What a manifest holds, without doubles of anything left out."""
    return [(line["source"], line["rank"]) for line in read_records(folder)]


def expect(sources: Iterable[Source], maps: int = 1) -> list[tuple[str, int]]:
    return [(str(source), rank) for source in sources for rank in range(maps)]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def traces(folder: Path) -> list[str]:
    return files(folder / STATE) if (folder / STATE).exists() else []
