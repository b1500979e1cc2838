"""What a manifest names is there as it was written, or is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from camcli.cli.app import main
from camcli.config import Options
from camcli.errors import UsageError
from camcli.records import FileStamp, Record, Source
from camcli.runs import Counts, Manifest, RunInfo, read_stamp, verify_folder
from tests.runs.runs import PLAIN, explain, make_sources, read_records, record, run_to_end

A, B = make_sources("a.jpg", "b.jpg")
CONTENT = b"content " * 300_000


def make_stamped_run(folder: Path, source: Source = A, content: bytes = CONTENT) -> Path:
    """Writes one output with its stamp; returns its path."""
    with Manifest.open(folder, RunInfo(PLAIN)) as manifest:
        manifest.list_remaining([source])
        path = manifest.place(folder / f"{source.path.stem}.jpg", source)
        path.write_bytes(content)
        stamp = FileStamp.of(content)
        manifest.append(source, [record(source, path, files={str(path): stamp})])
        manifest.finish(Counts(1, 1))
    return path


def states(folder: Path) -> dict[str, str]:
    return {file.path: file.state for file in verify_folder(folder)}


def test_a_line_names_size_and_checksum(tmp_path: Path) -> None:
    path = make_stamped_run(tmp_path)
    (line,) = read_records(tmp_path)
    assert FileStamp(**line["files"]["a.jpg"]) == read_stamp(path) == FileStamp.of(CONTENT)
    assert FileStamp.of(b"123456789") == FileStamp(9, "cbf43926")  # the check value of CRC-32


DAMAGES: dict[str, Callable[[Path], object]] = {
    "whole": lambda path: path.touch(),
    "missing": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, 1000),
    "changed": lambda path: path.write_bytes(CONTENT[::-1]),
}


@pytest.mark.parametrize("state", DAMAGES)
def test_each_damage_is_reported(tmp_path: Path, state: str) -> None:
    path = make_stamped_run(tmp_path)
    DAMAGES[state](path)
    assert states(tmp_path) == {"a.jpg": state}


def test_what_is_longer_or_no_file_is_changed(tmp_path: Path) -> None:
    path = make_stamped_run(tmp_path)
    with path.open("ab") as file:
        file.write(b"more")
    assert states(tmp_path) == {"a.jpg": "changed"}
    path.unlink()
    os.mkfifo(path)  # nobody writes into it, and it is not waited for
    assert states(tmp_path) == {"a.jpg": "changed"}


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_run_that_goes_on_makes_again_what_does_not_agree_in_size(
    tmp_path: Path, damage: str
) -> None:
    path = make_stamped_run(tmp_path)
    make_stamped_run(tmp_path, B)
    DAMAGES[damage](path)
    for mode in ("resume", "skip"):
        with Manifest.open(tmp_path, RunInfo(PLAIN), mode) as manifest:
            assert manifest.list_remaining([A, B]) == [A]
    path.write_bytes(CONTENT)


def test_files_of_older_lines_need_only_be_there(tmp_path: Path) -> None:
    run_to_end(tmp_path, [A, B])  # without stamps
    assert states(tmp_path) == {"a_0.jpg": "unknown", "b_0.jpg": "unknown"}
    os.truncate(tmp_path / "b_0.jpg", 0)
    assert states(tmp_path)["b_0.jpg"] == "cut"
    assert run_to_end(tmp_path, [A, B], "resume") == [B]


def test_a_video_has_its_stamp_in_the_last_line(tmp_path: Path) -> None:
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        video = manifest.place(tmp_path / "a.mp4", A)
        frames = [Record(str(A), frame=n, outputs=(str(video),)) for n in range(3)]
        for frame in frames:
            manifest.append(A, [frame], last=False)
        video.write_bytes(CONTENT)
        manifest.append(A, [], files={str(video): read_stamp(video)})
        manifest.finish(Counts(1, 3))
    assert [bool(line["files"]) for line in read_records(tmp_path)] == [False, False, True]
    assert states(tmp_path) == {"a.mp4": "whole"}
    assert run_to_end(tmp_path, [A], "resume") == []
    os.truncate(video, 5)
    assert states(tmp_path) == {"a.mp4": "cut"}
    assert run_to_end(tmp_path, [A], "resume", until=0) == [A]


def test_a_torn_manifest_is_cut(tmp_path: Path) -> None:
    make_stamped_run(tmp_path)
    with (tmp_path / "manifest.jsonl").open("ab") as file:
        file.write(b'{"run": "')
    assert states(tmp_path) == {"manifest.jsonl": "cut", "a.jpg": "whole"}


def test_shards_are_read_too(tmp_path: Path) -> None:
    for rank in range(2):
        with Manifest.open(tmp_path, RunInfo(PLAIN, shard=(rank, 2))) as manifest:
            explain(manifest, (A, B)[rank], tmp_path)
    assert set(states(tmp_path)) == {"a_0.jpg", "b_0.jpg"}


def test_the_command_lists_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_stamped_run(tmp_path)
    make_stamped_run(tmp_path, B)
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 2 files: 2 whole\n"
    DAMAGES["cut"](path)
    assert main(["verify", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == f"cut  {path}\n{tmp_path}: 2 files: 1 cut, 1 whole\n"
    assert "--resume makes again" in err
    assert main(["verify", str(tmp_path), "--json"]) == 1
    data = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert data == [{"path": "a.jpg", "state": "cut"}, {"path": "b.jpg", "state": "whole"}]


def test_without_a_folder_the_command_looks_where_runs_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Options.model_fields["save_path"].default
    make_stamped_run(tmp_path / own)
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == f"{own}: 1 files: 1 whole\n"


@pytest.mark.parametrize("command", ["report", "summary", "verify", "merge"])
def test_without_a_folder_the_one_that_is_missing_is_named(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command]) == 2
    assert "'camviz-out'" in capsys.readouterr().err


def test_a_run_that_was_cut_off_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_to_end(tmp_path, [A, B], until=1)
    assert main(["verify", str(tmp_path)]) == 0
    assert "--resume goes on with it" in capsys.readouterr().err


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no manifest"):
        list(verify_folder(tmp_path))
