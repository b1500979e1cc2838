"""What other processes add to a manifest is read while they do."""

from __future__ import annotations

from pathlib import Path

from camcli.records import Box, Concept, Record, Statistics
from camcli.runs import Manifest, RunInfo
from camcli.runs.manifest_tail import ManifestTail, parse_record
from tests.runs.runs import PLAIN, explain, make_sources, read_records, run_to_end


def test_what_is_added_to_a_manifest_is_read_once(tmp_path: Path) -> None:
    sources = make_sources(*(f"{n}.jpg" for n in range(5)))
    run = RunInfo(PLAIN, shard=(0, 1))
    run_to_end(tmp_path, sources[:1], shard=(0, 1))
    follower = ManifestTail(tmp_path / run.manifest)
    assert list(follower.outcomes()) == []
    with Manifest.open(tmp_path, run, "resume") as manifest:
        manifest.list_remaining(sources)
        explain(manifest, sources[1], tmp_path, maps=2)
        (outcome,) = follower.outcomes()
        assert outcome.source == sources[1]
        assert [record.outputs for record in outcome.records] == [
            (str(tmp_path / "1_0.jpg"),),
            (str(tmp_path / "1_1.jpg"),),
        ]
        manifest.append(sources[2], [Record("in/2.jpg", frame=n) for n in range(3)], last=False)
        assert list(follower.outcomes()) == []
        manifest.append(sources[2], [])
        (video,) = follower.outcomes()
        assert [record.frame for record in video.records] == [0, 1, 2]
    # a line that is being written
    with (tmp_path / run.manifest).open("ab") as file:
        file.write(b'{"run": "x", ')
    assert list(follower.outcomes()) == []


def test_a_manifest_that_became_shorter_is_read_on(tmp_path: Path) -> None:
    sources = make_sources("a.jpg", "b.jpg", "c.jpg")
    run_to_end(tmp_path, sources[:2])
    follower = ManifestTail(tmp_path / "manifest.jsonl")
    lines = (tmp_path / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "manifest.jsonl").write_bytes(lines[0])
    assert list(follower.outcomes()) == []
    run_to_end(tmp_path, sources[2:], "resume")
    assert [outcome.source for outcome in follower.outcomes()] == sources[2:]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = Record(
        "in/a.jpg",
        picture_size=(20, 30),
        view=Box(0, 0.5, 20, 20),
        layers=("layer4",),
        concepts=(Concept("#ff0000", (1, 2), ("a", "b"), (0.5, 0.25)),),
        statistics=Statistics(0.5, 0.25, 0.125, (0.5, 0.75)),
        options={"masks": 5},
        outputs=(str(tmp_path / "deep" / "a.jpg"),),
        sheet=str(tmp_path / "sheet.jpg"),
        warnings=("one",),
    )
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        manifest.append(make_sources("a.jpg")[0], [record])
    (line,) = read_records(tmp_path)
    assert parse_record(line, tmp_path) == record
