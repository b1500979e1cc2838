"""Shares of a run: each has its manifest, and `merge_shards` makes one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camcli.errors import UsageError
from camcli.records import Source
from camcli.runs import Counts, Manifest, RunInfo, merge_shards
from tests.runs.runs import PLAIN, expect, explain, files, make_sources, run_to_end, table, traces

SOURCES = make_sources(*(f"{n}.jpg" for n in range(7)))


def shares(
    folder: Path, world: int, *, but: int | None = None, sources: list[Source] = SOURCES
) -> None:
    for rank in range(world):
        if rank != but:
            run_to_end(folder, sources[rank::world], shard=(rank, world), maps=2)


def in_order(world: int) -> list[tuple[str, int]]:
    return expect([s for rank in range(world) for s in SOURCES[rank::world]], 2)


@pytest.mark.parametrize("world", [1, 3, 8])
def test_shards_become_one(tmp_path: Path, world: int) -> None:
    shares(tmp_path, world)
    names = [f"manifest.rank-{rank:04}-of-{world:04}.jsonl" for rank in range(world)]
    assert [name for name in files(tmp_path) if name.startswith("man")] == names
    counts = Counts(7, 14)
    for _ in range(2):
        assert merge_shards(tmp_path) == counts
        assert table(tmp_path) == in_order(world)
        left = [name for name in files(tmp_path) if not name.endswith(".jpg")]
        assert left == ["manifest.jsonl", "run.json"]
    summary = json.loads((tmp_path / "run.json").read_text())
    assert (summary["run"], summary["shards"]) == (RunInfo(PLAIN).name, world)
    # one process, or another number of them, may go on
    assert run_to_end(tmp_path, SOURCES, "resume") == []
    assert run_to_end(tmp_path, SOURCES, "resume", shard=(0, 2)) == []


def test_what_is_missing_or_not_complete_is_listed(tmp_path: Path) -> None:
    shares(tmp_path, 4, but=2)
    with Manifest.open(tmp_path, RunInfo(PLAIN, shard=(1, 4))) as manifest:
        manifest.list_remaining(SOURCES[1::4])
        explain(manifest, SOURCES[1], tmp_path, maps=2)
    before = files(tmp_path)
    with pytest.raises(UsageError) as caught:
        merge_shards(tmp_path)
    assert "missing of 4: rank 2; not finished: manifest.rank-0001-of-0004.jsonl." in str(
        caught.value
    )
    assert files(tmp_path) == before
    assert merge_shards(tmp_path, incomplete=True) == Counts(2 + 2 + 1, 10)
    assert table(tmp_path) == expect([SOURCES[n] for n in (0, 4, 1, 3)], 2)
    assert run_to_end(tmp_path, SOURCES, "resume", maps=2) == [SOURCES[n] for n in (2, 5, 6)]
    assert sorted(table(tmp_path)) == sorted(expect(SOURCES, 2))
    assert traces(tmp_path) == []


def test_a_shard_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES, shard=(0, 1), until=3, maps=2)
    assert run_to_end(tmp_path, SOURCES, "resume", shard=(0, 1), maps=2) == SOURCES[3:]
    merge_shards(tmp_path)
    assert table(tmp_path) == expect(SOURCES, 2)


def test_the_newer_records_of_a_source_stay(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES[:3])
    other = {**PLAIN, "alpha": 0.1}
    run_to_end(tmp_path, SOURCES[:2], configuration=other)
    shares(tmp_path, 2, sources=SOURCES[1:])
    merge_shards(tmp_path)
    assert table(tmp_path) == [
        *expect(SOURCES[:1]),
        *expect(SOURCES[:2]),
        *expect([*SOURCES[1::2], *SOURCES[2::2]], 2),
    ]


def test_a_source_that_two_shards_did_stands_there_once(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES[:2], shard=(0, 2))
    run_to_end(tmp_path, SOURCES[1:4], shard=(1, 2))
    merge_shards(tmp_path)
    assert table(tmp_path) == expect(SOURCES[:4])


def test_shards_of_other_options_are_not_mixed(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES[:2], shard=(0, 2))
    run_to_end(tmp_path, SOURCES[2:], shard=(1, 2), configuration={**PLAIN, "alpha": 0.1})
    with pytest.raises(UsageError, match="of several configurations: "):
        merge_shards(tmp_path)


def test_a_run_without_shards_asks_for_them_to_be_joined(tmp_path: Path) -> None:
    shares(tmp_path, 2)
    with pytest.raises(UsageError, match="camviz merge"):
        Manifest.open(tmp_path, RunInfo(PLAIN), "resume")
    # other options do not mind, and leave their pictures alone
    run_to_end(tmp_path, SOURCES, configuration={**PLAIN, "alpha": 0.1})
    merge_shards(tmp_path)
    assert (tmp_path / "0_0.jpg").exists()
    assert len(table(tmp_path)) == 7 + 14


def test_nothing_to_join_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no shards"):
        merge_shards(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        merge_shards(tmp_path / "nowhere")
    assert files(tmp_path) == []
