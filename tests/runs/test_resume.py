"""Whatever cut a run off, going on loses nothing, doubles nothing, and does nothing twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camcli.errors import UsageError
from camcli.records import Source
from camcli.runs import Counts, Manifest, RunInfo
from camcli.runs.jsonl import STATE
from tests.checkout import ROOT
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
SOURCES = make_sources("a.jpg", "猫.jpg", "c.jpg")


def cut_off(folder: Path, sources: list[Source], maps: int = 1) -> None:
    """A run that did all of its sources, but was killed before it could say so."""
    with Manifest.open(folder, RunInfo(PLAIN)) as manifest:
        for source in manifest.list_remaining(sources):
            explain(manifest, source, folder, maps)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("hasty")
def test_a_manifest_cut_at_any_byte(tmp_path: Path) -> None:
    sources = SOURCES[:2]
    cut_off(tmp_path, sources, maps=2)
    manifest = tmp_path / "manifest.jsonl"
    text = manifest.read_bytes()
    lines = text.splitlines(keepends=True)
    ends = [sum(map(len, lines[:n])) for n in (2, 4)]  # of the sources
    assert ends[-1] == len(text)
    # all about the ends of lines, and many inside them
    borders = [0, *(sum(map(len, lines[: n + 1])) for n in range(len(lines)))]
    near = {border + step for border in borders for step in range(-8, 9)}
    for size in sorted({*range(0, len(text), 11), *near} & {*range(len(text) + 1)}):
        manifest.write_bytes(text[:size])
        done = sum(end <= size for end in ends)
        plan = run_to_end(tmp_path, sources, "resume", maps=2, until=2)
        assert plan == sources[done:], size
        assert table(tmp_path) == expect(sources, 2), size
        # what stood there without a record was its own
        assert len(files(tmp_path)) == 4 + 2, size


@pytest.mark.usefixtures("hasty")
def test_runs_of_two_configurations_cut_at_any_byte(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    cut_off(folder, SOURCES[:2])
    run_to_end(folder, SOURCES[:2], configuration=OTHER)
    text = (folder / "manifest.jsonl").read_bytes()
    for size in range(0, len(text) + 1, 17):
        (folder / "manifest.jsonl").write_bytes(text[:size])
        run_to_end(folder, SOURCES[:2], "skip", OTHER)
        run_to_end(folder, SOURCES[:2], "skip")
        lines = read_records(folder)
        assert len(lines) == len({(line["run"], line["source"]) for line in lines}) == 4, size
        places = [output for line in lines for output in line["outputs"]]
        assert len(set(places)) == 4
        shutil.rmtree(folder)
        cut_off(folder, SOURCES[:2])
        run_to_end(folder, SOURCES[:2], configuration=OTHER)


def test_a_video_without_its_last_frame_is_done_again(tmp_path: Path) -> None:
    first, video, last = SOURCES
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        explain(manifest, first, tmp_path)
        manifest.append(video, [record(video, rank=n) for n in range(3)], last=False)
        explain(manifest, last, tmp_path)  # by another thread's luck in between
    assert table(tmp_path) == [(str(first), 0), (str(video), 0), (str(video), 1), (str(last), 0)]
    assert run_to_end(tmp_path, SOURCES, "resume") == [video]
    assert sorted(table(tmp_path)) == sorted(expect(SOURCES))


def test_what_a_run_left_half_done_is_cut_off_by_any_other(tmp_path: Path) -> None:
    _, video, last = SOURCES
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        manifest.append(video, [record(video, rank=n) for n in range(3)], last=False)
    run_to_end(tmp_path, [last], configuration=OTHER)
    assert table(tmp_path) == expect([last])


@pytest.mark.parametrize("mode", ["resume", "skip"])
def test_going_on_with_nothing_begins(tmp_path: Path, mode: str) -> None:
    assert run_to_end(tmp_path, SOURCES, mode) == SOURCES  # type: ignore[arg-type]
    assert run_to_end(tmp_path, SOURCES, mode) == []  # type: ignore[arg-type]
    assert table(tmp_path) == expect(SOURCES)


def test_a_file_that_is_gone_is_made_again(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES, maps=2)
    (tmp_path / "a_1.jpg").unlink()
    (tmp_path / "c_0.jpg").write_bytes(b"")  # a machine that lost power
    assert run_to_end(tmp_path, SOURCES, "resume", maps=2) == [SOURCES[0], SOURCES[2]]
    assert sorted(table(tmp_path)) == sorted(expect(SOURCES, 2))
    assert len(files(tmp_path)) == 6 + 2


def test_who_failed_is_tried_again_by_skip_existing_alone(tmp_path: Path) -> None:
    bad, good, _ = SOURCES
    for mode, tried in (("resume", []), ("skip", [bad])):
        folder = tmp_path / mode
        with Manifest.open(folder, RunInfo(PLAIN)) as manifest:
            manifest.append(bad, [record(bad, error="torn")])
            explain(manifest, good, folder)
        with Manifest.open(folder, RunInfo(PLAIN), mode) as manifest:  # type: ignore[arg-type]
            assert manifest.list_remaining([bad, good]) == tried
            assert (manifest.skipped, manifest.replaced) == (2 - len(tried), 0)
            if tried:
                manifest.append(bad, [record(bad, error="still torn")])
        errors = [line["error"] for line in read_records(folder)]
        assert sorted(errors) == ["", "still torn" if tried else "torn"]


def test_resume_goes_on_with_its_own_options_alone(tmp_path: Path) -> None:
    before = {"method": ["gradcam"], "alpha": 0.5, "preprocessing": {"fit": "pad", "mean": None}}
    now = {"method": ["cam", "fem"], "alpha": 0.5, "preprocessing": {"fit": "crop"}, "seed": 3}
    for until in (1, None):
        run_to_end(tmp_path, SOURCES, configuration=before, until=until)
        left = read_records(tmp_path)
        with pytest.raises(UsageError, match="--resume") as caught:
            Manifest.open(tmp_path, RunInfo(now), "resume")
        assert (
            'has method ["gradcam"] (now ["cam", "fem"]), preprocessing.fit pad (now crop), seed '
            "unset (now 3). Give"
        ) in str(caught.value)
        assert read_records(tmp_path) == left
    assert run_to_end(tmp_path, SOURCES, "skip", now) == SOURCES
    assert run_to_end(tmp_path, SOURCES, "resume", now) == []


def test_resume_may_choose_among_runs_that_were_cut_off(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES, until=1)
    run_to_end(tmp_path, SOURCES, configuration=OTHER, until=2)
    assert run_to_end(tmp_path, SOURCES, "resume") == SOURCES[1:]
    assert run_to_end(tmp_path, SOURCES, "resume", OTHER) == SOURCES[2:]
    assert traces(tmp_path) == []


def test_files_of_a_run_cut_off_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "c_0.jpg").write_text("mine")
    old = time.time() - 60
    os.utime(tmp_path / "c_0.jpg", (old, old))
    with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        manifest.place(tmp_path / "a_0.jpg", SOURCES[0]).write_text("no record")
    (tmp_path / "猫_0.jpg").write_text("mine, but written meanwhile")
    run_to_end(tmp_path, SOURCES, configuration=OTHER)
    run_to_end(tmp_path, SOURCES)
    places = [line["outputs"][0] for line in read_records(tmp_path)]
    assert all("~" in place for place in places[:3])  # not those of the other options
    assert places[3:5] == ["a_0.jpg", "猫_0.jpg"]
    assert places[5].startswith("c_0~")
    assert (tmp_path / "c_0.jpg").read_text() == "mine"
    # the run is complete now, and what comes later is somebody's own
    (tmp_path / "d_0.jpg").write_text("mine")
    run_to_end(tmp_path, make_sources("d.jpg"), "skip")
    assert (tmp_path / "d_0.jpg").read_text() == "mine"


def test_what_is_made_again_stays_its_own_when_that_is_cut_off(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES)
    for path in tmp_path.glob("*.jpg"):
        os.utime(path, (1, 1))  # long before the run that is cut off
    for until in (0, 1, 0):
        assert run_to_end(tmp_path, SOURCES, until=until) == SOURCES
        assert len(read_records(tmp_path)) == until
    assert run_to_end(tmp_path, SOURCES, "resume") == SOURCES
    assert len(files(tmp_path)) == 3 + 2
    assert table(tmp_path) == expect(SOURCES)


def test_a_torn_journal_is_understood(tmp_path: Path) -> None:
    run_to_end(tmp_path, SOURCES)
    for path in tmp_path.glob("*.jpg"):
        os.utime(path, (1, 1))
    run_to_end(tmp_path, SOURCES[:2], until=0)
    (journal,) = (tmp_path / STATE).iterdir()
    journal.write_bytes(journal.read_bytes()[:-3])
    run_to_end(tmp_path, SOURCES, until=0)
    run_to_end(tmp_path, SOURCES, "skip")
    assert [line["source"] for line in read_records(tmp_path)] == [str(s) for s in SOURCES]
    assert {"a_0.jpg", "c_0.jpg"} < set(files(tmp_path))


KILLED = """
import sys, time
from pathlib import Path
from camcli.records import Source
from tests.runs.runs import run_to_end
sources = [Source(Path(f"{n}.jpg")) for n in range(400)]
run_to_end(Path(sys.argv[1]), sources, "resume", maps=2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_kill_minus_nine_again_and_again(tmp_path: Path) -> None:
    folder, sources = tmp_path / "out", [Source(Path(f"{n}.jpg")) for n in range(400)]
    killed, grown = 0, 0
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT)
        while process.poll() is None and len(list_written_sizes(folder)) < grown + 60 + attempt:
            time.sleep(0.001)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        grown = len(list_written_sizes(folder))
    assert killed
    process = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, check=True)
    assert table(folder) == expect(sources, 2)
    assert len(files(folder)) == 800 + 2
    assert process.returncode == 0


def list_written_sizes(folder: Path) -> list[bytes]:
    path = folder / "manifest.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def test_counts_add_up() -> None:
    assert Counts(1, 2, 3, 4) + Counts(10, 20, 30, 40) == Counts(11, 22, 33, 44)
