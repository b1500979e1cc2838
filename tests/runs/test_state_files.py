"""Whatever stands in the files that a run keeps, it goes on or says what is wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from camcli.errors import CamvizError
from camcli.pipeline.writing.color_scale import read_scales
from camcli.records import Box, FileStamp, Record, Source
from camcli.runs import (
    Counts,
    Manifest,
    RunInfo,
    list_outputs,
    merge_shards,
    read_manifest,
    verify_folder,
)
from camcli.runs.jsonl import STATE
from camcli.runs.manifest_tail import ManifestTail
from tests.runs.runs import PLAIN

RUN, SHARD = RunInfo(PLAIN), RunInfo(PLAIN, shard=(0, 2))
SOURCES = [Source(Path("in", f"{n}.jpg")) for n in range(3)]
FILES = (
    "manifest.jsonl",
    "run.json",
    f"{STATE}/{RUN.journal}",
    f"{STATE}/process-00.json",
    SHARD.manifest,
    SHARD.summary,
)
# what comes instead of a value, a line or a file
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"),
    "", "a", "\0", "../../a", "/dev/zero", "/", "\ud800", "a" * 300, "a/" * 3000, "\n",
    [], {}, [[]], [None], [1], ["a"], ["\0"], {"": None}, {"a": 1}, {"size": 1}, [{}], [[1, 2]],
    {"a.jpg": {"size": -1, "crc32": ""}}, {"a.jpg": {"size": "1", "crc32": 1}}, {"a.jpg": 5},
    "[" * 20_000, "1" * 5_000,
)  # fmt: skip
CONTENTS = (
    b"", b"\n", b"\0", b"null\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b"{\n", b"[" * 20_000 + b"\n",
    b"1" * 5_000 + b"\n", b'{"a":' * 20_000 + b"\n", b'{"run": "x"}\n', b'{"run": 1, "id": 2}\n',
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a file of each kind, as runs leave them that were cut off."""
    folder = tmp_path_factory.mktemp("runs")
    for run in (RUN, SHARD):
        with Manifest.open(folder, RunInfo(PLAIN) if run is RUN else run, "skip") as manifest:
            for source in manifest.list_remaining(SOURCES[:2]):
                path = manifest.place(folder / source.path.name, source)
                path.write_bytes(b"content")
                files = {str(path): FileStamp.of(b"content")}
                scaled = {"scale": (0.0, 1.5), "layers": ("last",), "method": "gradcam"}
                view = Box(0, 0, 1, 1)
                manifest.append(
                    source,
                    [Record("in", outputs=tuple(files), files=files, view=view, **scaled)],  # type: ignore[arg-type]
                )
            manifest.finish(Counts(2, 2))
        (folder / RUN.manifest).rename(folder / "kept") if run is RUN else None
    (folder / "kept").rename(folder / RUN.manifest)
    (folder / STATE).mkdir()
    noted = {"run": RUN.name, "id": "0" * 16, "outputs": ["0.jpg"]}
    first = {"run": RUN.name, "since": 1, "configuration": PLAIN}
    (folder / FILES[2]).write_text(f"{json.dumps(first)}\n{json.dumps(noted)}\n")
    facts = {"task": RUN.journal, "process": 1, "host": "elsewhere", "since": "2026"}
    (folder / FILES[3]).write_text(json.dumps(facts) + "\n")
    assert all((folder / name).stat().st_size for name in FILES)
    return folder


def damage(draw: random.Random, content: bytes) -> bytes:
    """Changes one value, one line or all of a file."""
    lines = content.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    kind = draw.randrange(5)
    if kind == 0:
        return draw.choice(CONTENTS)
    if kind == 1:
        lines[place] = draw.choice(CONTENTS)
    elif kind == 2:
        lines[place] = json.dumps(draw.choice(VALUES)).encode() + b"\n"
    elif kind == 3:
        return content[: draw.randrange(len(content))] + draw.choice(CONTENTS)
    else:
        whole = place if len(lines) < 5 or content[:2] != b"{\n" else None
        with suppress(ValueError):
            value = json.loads(content if whole is None else lines[place])
            text = json.dumps(change(draw, value)).encode() + b"\n"
            if whole is None:
                return text
            lines[place] = text
    return b"".join(lines)


def change(draw: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    """Puts something else in the place of one value, or takes it out."""
    name = draw.choice(sorted(value))
    inner = value[name]
    if isinstance(inner, dict) and inner and draw.random() < 0.5:
        return {**value, name: change(draw, inner)}
    if draw.random() < 0.2:
        return {key: kept for key, kept in value.items() if key != name}
    return {**value, name: draw.choice(VALUES)}


def go_on(mode: Any, run: RunInfo) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        with Manifest.open(folder, run, mode) as manifest:
            for source in manifest.list_remaining(SOURCES):
                if manifest.claim(source):
                    path = manifest.place(folder / source.path.name, source, {".npy": ""})
                    manifest.append(source, [Record("in", outputs=(str(path),))])
            manifest.finish(Counts())

    return act


def follow(folder: Path) -> None:
    follower = ManifestTail(folder / "nowhere")
    follower._path = folder / RUN.manifest
    list(follower.outcomes())


def scales(folder: Path) -> None:
    for _, (low, high) in read_scales(read_manifest(folder / RUN.manifest)).items():
        assert low < high


ACTIONS: tuple[Callable[[Path], object], ...] = (
    *(go_on(mode, run) for mode in ("new", "resume", "skip") for run in (RUN, SHARD, RunInfo({}))),
    merge_shards,
    lambda folder: merge_shards(folder, incomplete=True),
    lambda folder: list(verify_folder(folder)),
    lambda folder: list(list_outputs(folder)),
    follow,
    scales,
)


def check(folder: Path, place: Path, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damages files and acts on them, each time with what a seed draws."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for seed in seeds:
        draw = random.Random(seed)
        copy = place / str(seed)
        shutil.copytree(folder, copy)
        for name in draw.sample(FILES, draw.choice((1, 1, 1, 2, 6))):
            (copy / name).write_bytes(damage(draw, (copy / name).read_bytes()))
        for act in draw.sample(ACTIONS, 2):
            try:
                act(copy)
            except CamvizError as error:
                assert str(error), seed
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
        shutil.rmtree(copy)


def test_damaged_files_are_put_up_with_or_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(folder, tmp_path, range(100), monkeypatch)


@pytest.mark.slow
def test_many_damaged_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(folder, tmp_path, range(100, 5000), monkeypatch)
