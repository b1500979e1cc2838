"""What is in a manifest, who owns which output, and what the same command does again."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from camcli.errors import OutputError, UsageError
from camcli.records import Box, Record, Source, Statistics
from camcli.runs import Counts, Manifest, RunInfo, read_manifest
from camcli.runs.manifest import identify_source
from tests.runs.runs import (
    PLAIN,
    expect,
    explain,
    files,
    make_sources,
    read_records,
    record,
    run_to_end,
    table,
    traces,
)

OTHER = {**PLAIN, "alpha": 0.25}
A, B, C, D = make_sources("a.jpg", "b.jpg", "c.jpg", "d.jpg")


def test_a_line_holds_the_record_and_the_run(tmp_path: Path) -> None:
    run = RunInfo(PLAIN, {"torch": "2.9"}, {"device": "cpu"})
    whole = Record(
        source=str(A),
        picture_size=(30, 40),
        view=Box(0, 0, 40, 30),
        layers=("layer4",),
        probability=float("nan"),
        minimum=float("-inf"),
        statistics=Statistics(0.5, 0.25, 0.125, (0.5, 0.75), (0.5, 0.5), 0.375),
        options={"concepts": 3},
        outputs=(str(tmp_path / "sub" / "a.jpg"),),
        sheet=str(tmp_path / "all.jpg"),
        warnings=("dark",),
    )
    with Manifest.open(tmp_path, run) as manifest:
        manifest.append(A, [whole, record(A)])
        manifest.finish(Counts(1, 2))
    first, second = read_records(tmp_path)
    assert (first["run"], first["versions"], first["last"]) == (run.name, {"torch": "2.9"}, False)
    assert first["view"] == {"left": 0, "top": 0, "right": 40, "bottom": 30}
    assert (first["probability"], first["minimum"]) == (None, None)
    assert first["statistics"] == {
        "mean": 0.5,
        "std": 0.25,
        "above_half": 0.125,
        "peak": [0.5, 0.75],
        "peak_in_view": [0.5, 0.5],
        "border_distance": 0.375,
    }
    assert (first["outputs"], first["sheet"]) == (["sub/a.jpg"], "all.jpg")
    assert second["last"] is True
    assert list(read_manifest(tmp_path / "manifest.jsonl")) == [first, second]
    assert set(first) == {"run", "id", "last", "versions", *vars(whole)}


@pytest.mark.parametrize(
    "name",
    ["猫 \U0001f408.jpg", "a\nb.jpg", "-x.jpg", os.fsdecode(b"\xff\xfe caf\xe9.jpg"), "\u2028.jpg"],
)
def test_names_of_every_kind_come_back(tmp_path: Path, name: str) -> None:
    (source,) = make_sources(name)
    run_to_end(tmp_path, [source])
    (line,) = read_manifest(tmp_path / "manifest.jsonl")
    assert line["source"] == str(source)
    assert (tmp_path / line["outputs"][0]).read_bytes() == os.fsencode(str(source))
    assert (tmp_path / "manifest.jsonl").read_bytes().isascii()
    assert run_to_end(tmp_path, [source], "resume") == []


def test_the_digest_stands_for_the_options_alone() -> None:
    assert (
        RunInfo({"a": 1, "b": (2, 3)}).name == RunInfo({"b": [2, 3], "a": 1}, {"torch": "2"}).name
    )
    assert RunInfo({"a": 1}).name != RunInfo({"a": 2}).name
    assert len(RunInfo({}).name) == 12


def test_a_source_is_told_by_its_place_folder_and_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("a.jpg")
    assert identify_source(Source(path)) == identify_source(Source(tmp_path / "x" / ".." / "a.jpg"))
    others = [
        Source(path),
        Source(path, Path("sub")),
        Source(path, category="cat"),
        Source(path, url="memory://a.jpg"),
        Source(Path("sub/a.jpg")),
    ]
    assert len(set(map(identify_source, others))) == len(others)


def test_run_json_is_written_last(tmp_path: Path) -> None:
    run = RunInfo(PLAIN, {"torch": "2.9"}, {"device": "cpu", "batch_size": 8})
    with Manifest.open(tmp_path, run) as manifest:
        explain(manifest, A, tmp_path)
        assert files(tmp_path) == [".camviz", "a_0.jpg", "manifest.jsonl"]
        manifest.finish(Counts(1, 1, 2, 3))
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["run"] == run.name
    assert summary["configuration"] == PLAIN
    assert summary["counts"] == {"pictures": 1, "heatmaps": 1, "failed": 2, "skipped": 3}
    assert summary["ran_on"] == {"device": "cpu", "batch_size": 8}
    assert summary["versions"] == {"torch": "2.9"}
    assert summary["started"].endswith("+00:00") and summary["started"] <= summary["finished"]
    assert 0 <= summary["seconds"] < 60
    assert files(tmp_path) == ["a_0.jpg", "manifest.jsonl", "run.json"]


def test_a_run_that_did_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Manifest.open(tmp_path / "new", RunInfo(PLAIN)) as manifest:
        manifest.list_remaining([A])
        raise KeyError
    assert not (tmp_path / "new").exists()


def test_the_same_command_again_replaces_its_own(tmp_path: Path) -> None:
    run_to_end(tmp_path, [A, B, C], maps=2)
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        assert manifest.list_remaining([D, B]) == [D, B]
        assert (manifest.replaced, manifest.skipped) == (2, 0)
        for source in (D, B):
            explain(manifest, source, tmp_path, maps=2)
        manifest.finish(Counts())
    assert table(tmp_path) == expect([A, C, D, B], 2)
    pictures = [f"{source.path.stem}_{n}.jpg" for source in (A, B, C, D) for n in (0, 1)]
    assert files(tmp_path) == [*pictures, "manifest.jsonl", "run.json"]


def test_other_options_take_another_name_and_keep_it(tmp_path: Path) -> None:
    run_to_end(tmp_path, [A])
    run_to_end(tmp_path, [A], configuration=OTHER)
    (marked,) = set(files(tmp_path)) - {"a_0.jpg", "manifest.jsonl", "run.json"}
    assert marked.startswith("a_0~") and marked.endswith(".jpg") and len(marked) == 14
    assert [line["outputs"] for line in read_records(tmp_path)] == [["a_0.jpg"], [marked]]
    run_to_end(tmp_path, [A], configuration=OTHER)
    run_to_end(tmp_path, [A])
    assert [line["outputs"] for line in read_records(tmp_path)] == [[marked], ["a_0.jpg"]]
    assert len(files(tmp_path)) == 4


def test_other_inputs_of_the_same_name_take_another_name(tmp_path: Path) -> None:
    here, present = Source(Path("x/a.jpg")), Source(Path("y/a.jpg"))
    run_to_end(tmp_path, [here])
    run_to_end(tmp_path, [present])
    assert (tmp_path / "a_0.jpg").read_text() == str(here)
    assert {(tmp_path / line["outputs"][0]).read_text() for line in read_records(tmp_path)} == {
        str(here),
        str(present),
    }
    run_to_end(tmp_path, [present, here])
    assert (tmp_path / "a_0.jpg").read_text() == str(here)
    assert len(files(tmp_path)) == 4


def test_two_inputs_of_one_run_never_share_a_name(tmp_path: Path) -> None:
    sources = [Source(Path(f"{n}/a.jpg")) for n in range(20)]
    for _ in range(2):
        run_to_end(tmp_path, sources, maps=2)
        assert all(
            (tmp_path / o).read_text() == line["source"]
            for line in read_records(tmp_path)
            for o in line["outputs"]
        )
        assert len(files(tmp_path)) == 40 + 2


def test_names_that_differ_in_case_alone_are_kept_apart(tmp_path: Path) -> None:
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        one, other = Source(Path("A.jpg")), Source(Path("a.jpg"))
        first = manifest.place(tmp_path / "A_é.jpg", one)
        second = manifest.place(tmp_path / "a_e\u0301.jpg", other)
    assert first.name == "A_é.jpg"
    assert second.name.startswith("a_e\u0301~")


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_in_no_manifest_is_never_touched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a_0.jpg"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    (made,) = (line["outputs"][0] for line in [*_run_of(tmp_path)])
    assert made != "a_0.jpg" and (tmp_path / made).read_text() == str(A)
    assert kind != "file" or path.read_text() == "mine"
    (again,) = (line["outputs"][0] for line in [*_run_of(tmp_path)])
    assert again == made


def _run_of(folder: Path) -> list[dict[str, object]]:
    run_to_end(folder, [A])
    return read_records(folder)


def test_what_stands_beside_needs_a_free_name_too(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.npy").write_text("mine")
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        marked = manifest.place(tmp_path / "a.jpg", A, {".npy": ""})
        assert marked.name.startswith("a~")
        # what was not taken is free for others
        assert manifest.place(tmp_path / "a.jpg", B) == tmp_path / "a.jpg"
        assert manifest.place(tmp_path / "a.jpg", A, {".npy": ""}) == marked


def test_a_mark_grows_where_somebody_has_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        names = []
        for _ in range(3):
            path = manifest.place(tmp_path / "a.jpg", A)
            names.append(path.stem.partition("~")[2])
            path.touch()
            manifest._owners.__init__()  # type: ignore[misc]
        assert [len(name) for name in names] == [6, 12, 24]
        assert names[2].startswith(names[1]) and names[1].startswith(names[0])
        with pytest.raises(OutputError, match="belong to other files"):
            manifest.place(tmp_path / "a.jpg", A)


@pytest.mark.parametrize("stem", ["x" * 240, "猫" * 80, "é" * 119 + "x", "\udcff" * 240])
def test_a_mark_makes_no_long_name_longer(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.jpg"
    path.touch()
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        marked = manifest.place(path, A)
    assert len(os.fsencode(marked.name)) <= len(os.fsencode(path.name))
    assert stem.startswith(marked.stem.rpartition("~")[0])
    assert len(os.fsencode(marked.name)) >= len(os.fsencode(path.name)) - 3
    marked.touch()


def test_outputs_may_be_moved_with_their_manifest(tmp_path: Path) -> None:
    run_to_end(tmp_path / "old", [A, B])
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert run_to_end(tmp_path / "new", [A, B], "resume") == []
    run_to_end(tmp_path / "new", [A, B])
    assert files(tmp_path / "new") == ["a_0.jpg", "b_0.jpg", "manifest.jsonl", "run.json"]


def test_a_video_is_written_bit_by_bit(tmp_path: Path) -> None:
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        manifest.append(A, [record(A, frame=0), record(A, frame=1)], last=False)
        manifest.append(B, [record(B)])
        manifest.append(A, [record(A, frame=2)], last=False)
        manifest.append(A, [])
        manifest.append(C, [])
    actual = [(line["source"], line["frame"], line["last"]) for line in read_records(tmp_path)]
    a, b = str(A), str(B)
    assert actual == [(a, 0, False), (b, None, True), (a, 1, False), (a, 2, True)]


def test_lines_that_are_encoded_before_are_written_as_they_are(tmp_path: Path) -> None:
    plain, encoded = tmp_path / "plain", tmp_path / "encoded"
    for folder in (plain, encoded):
        with Manifest.open(folder, RunInfo(PLAIN)) as manifest:
            pair = [record(B, rank=0), record(B, rank=1)]
            lines = manifest.encode(B, pair) if folder == encoded else b""
            manifest.append(B, pair, lines=lines)
            # a frame that is held back comes first
            manifest.append(A, [record(A, frame=0)], last=False)
            last = record(A, frame=1)
            lines = manifest.encode(A, [last]) if folder == encoded else b""
            manifest.append(A, [last], lines=lines)
    assert len(read_records(plain)) == 4
    assert read_records(encoded) == read_records(plain)


@pytest.mark.parametrize(
    "line",
    [b"rubbish\n", b"{}\n", b"[1]\n", b"3\n", b'{"run": 1, "id": "x"}\n', b'{"run":"a"', b"\xff\n"],
)
def test_rubbish_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    run_to_end(tmp_path, [A, B])
    path = tmp_path / "manifest.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + second)
    for mode in ("new", "resume", "skip"):
        with pytest.raises(UsageError, match=r"Line 2 of '.*manifest.jsonl' is not a record"):
            Manifest.open(tmp_path, RunInfo(PLAIN), mode)
    with pytest.raises(UsageError, match="Line 2"):
        list(read_manifest(path))
    assert path.read_bytes() == first + line + second
    assert traces(tmp_path) == []


def test_a_full_disk_leaves_a_sound_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, [700]

    def limit(file: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(file, data[: left[0]])
        left[0] -= count
        return count

    with monkeypatch.context() as full, Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        left[0] = 1000
        full.setattr(os, "write", limit)
        with pytest.raises(OutputError, match=r"No space left.*--resume"):
            for source in manifest.list_remaining([A, B, C, D]):
                explain(manifest, source, tmp_path)
    assert table(tmp_path) == expect([A])
    assert run_to_end(tmp_path, [A, B, C, D], "resume") == [B, C, D]
    assert table(tmp_path) == expect([A, B, C, D])


def test_a_folder_that_vanishes_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with Manifest.open(folder, RunInfo(PLAIN)) as manifest:
        explain(manifest, A, folder)
        shutil.rmtree(folder)
        with pytest.raises(OutputError, match="vanished"):
            manifest.append(B, [record(B)])


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        Manifest.open(tmp_path / "file", RunInfo(PLAIN))
    (tmp_path / "out" / "manifest.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match="Is a directory"):
        run_to_end(tmp_path / "out", [A])


def test_any_order_of_runs_keeps_every_picture_and_its_record(tmp_path: Path) -> None:
    draw = random.Random(0)
    sources = [
        Source(Path(folder) / name) for folder in "xy" for name in ("a.jpg", "b.jpg", "c.jpg")
    ]
    configurations = [{**PLAIN, "alpha": alpha} for alpha in (0.1, 0.2, 0.3)]
    held: dict[tuple[str, str], str] = {}
    for _ in range(100):
        configuration = draw.choice(configurations)
        asked = draw.sample(sources, draw.randint(1, 6))
        until = draw.choice([None, 0, 1, 2])
        mode = draw.choice(["new", "skip"])
        run_to_end(tmp_path, asked, mode, configuration, until=until)
        now: dict[tuple[str, str], str] = {}
        for line in read_records(tmp_path):
            (output,) = line["outputs"]
            assert (line["run"], line["source"]) not in now
            assert (tmp_path / output).read_text() == line["source"]
            now[line["run"], line["source"]] = output
        assert len(set(now.values())) == len(now)
        # a name stays with whoever had it first
        assert all(held.get(key, output) == output for key, output in now.items())
        held.update(now)
    pictures = set(files(tmp_path)) - {".camviz", "manifest.jsonl", "run.json"}
    assert pictures == set(held.values())
