"""Two processes in one folder: both may write, one at a time may rewrite."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from camcli.errors import UsageError
from camcli.runs import Counts, Manifest, RunInfo, merge_shards
from camcli.runs.jsonl import STATE
from camcli.runs.locks import LOCK_FILE, FolderLocks
from tests.checkout import ROOT
from tests.runs.runs import (
    PLAIN,
    expect,
    explain,
    files,
    make_sources,
    read_records,
    run_to_end,
    table,
    traces,
)

pytest.importorskip("fcntl")
A, B, C = make_sources("a.jpg", "b.jpg", "c.jpg")

WAITING = """
import sys
from pathlib import Path
from camcli.runs import Counts, Manifest, RunInfo
from tests.runs.runs import PLAIN, explain, make_sources, record
folder = Path(sys.argv[1])
with Manifest.open(folder, RunInfo(PLAIN)) as manifest:
    (source,) = manifest.list_remaining(make_sources(sys.argv[2]))
    manifest.place(folder / "placed.jpg", source)
    manifest.append(source, [record(source, rank=0), record(source, rank=1)], last=False)
    print("there", flush=True)
    sys.stdin.read()
    explain(manifest, source, folder)
    manifest.finish(Counts(1, 1, 0, 0))
"""

WRITING = """
import sys
from pathlib import Path
from camcli.records import Source
from tests.runs.runs import run_to_end
sources = [Source(Path(sys.argv[2]) / f"{n}.jpg") for n in range(150)]
run_to_end(Path(sys.argv[1]), sources, configuration={"alpha": float(sys.argv[3])}, maps=2)
"""


SHARING = """
import random, sys, time
from pathlib import Path
from camcli.errors import UsageError
from camcli.runs import Counts, Manifest, RunInfo
from tests.runs.runs import PLAIN, explain, make_sources
folder, mode = Path(sys.argv[1]), sys.argv[2]
try:
    with Manifest.open(folder, RunInfo(PLAIN), mode) as manifest:
        done, sources = 0, manifest.list_remaining(make_sources(*(f"{n}.jpg" for n in range(60))))
        print("there", flush=True)
        sys.stdin.readline()
        for source in sources:
            if manifest.claim(source):
                time.sleep(random.random() / 100)
                explain(manifest, source, folder, 2)
                done += 1
        manifest.finish(Counts(done))
    print(done)
except UsageError as error:
    assert "Another run is writing into" in str(error)
    print("busy")
"""

CLAIMING = """
import sys
from pathlib import Path
from camcli.runs import Manifest, RunInfo
from tests.runs.runs import PLAIN, explain, make_sources
folder = Path(sys.argv[1])
with Manifest.open(folder, RunInfo(PLAIN)) as manifest:
    a, b = manifest.list_remaining(make_sources("a.jpg", "b.jpg"))
    assert manifest.claim(a) and manifest.claim(b)
    explain(manifest, a, folder)
    print("there", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(folder: Path, name: str) -> Iterator[None]:
    """Another process that has placed an output, and waits until the block ends."""
    command = [sys.executable, "-c", WAITING, str(folder), name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "there\n"
        yield
        process.stdin.close()
    assert process.returncode == 0


def test_another_run_may_write_but_not_rewrite(tmp_path: Path) -> None:
    run_to_end(tmp_path, [A])
    with another(tmp_path, "b.jpg"):
        with pytest.raises(UsageError, match="Another run is writing into"):
            run_to_end(tmp_path, [A])
        with pytest.raises(UsageError, match="Another run is writing into"):
            merge_shards(tmp_path)
        run_to_end(tmp_path, [C])
        # what the other one is about to write is not free
        with Manifest.open(tmp_path, RunInfo(PLAIN), "skip") as manifest:
            marked = manifest.place(tmp_path / "placed.jpg", C)
            assert marked.name.startswith("placed~")
            assert manifest.list_remaining([A, C]) == []
            with pytest.raises(UsageError, match="Another run"):
                manifest.list_remaining([B])  # half of it stands there
    b = str(B)
    assert table(tmp_path) == [(str(A), 0), (b, 0), (str(C), 0), (b, 1), (b, 0)]
    run_to_end(tmp_path, [A])
    assert table(tmp_path)[-1] == (str(A), 0)


@pytest.mark.parametrize("mode", ["new", "resume", "skip"])
@pytest.mark.parametrize("finished", [False, True])
def test_runs_of_the_same_options_do_nothing_twice(
    tmp_path: Path, mode: str, finished: bool
) -> None:
    sources = make_sources(*(f"{n}.jpg" for n in range(60)))
    if finished:
        run_to_end(tmp_path, sources, maps=2)
    command = [sys.executable, "-c", SHARING, str(tmp_path), mode]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [
        subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(3)
    ]
    # each knows what is left to do before the first one begins
    answers = [process.stdout.readline() for process in processes]
    begun = [p for p, answer in zip(processes, answers, strict=True) if answer == "there\n"]
    assert begun and set(answers) <= {"there\n", "busy\n"}
    for process in begun:
        process.stdin.write("\n")
        process.stdin.flush()
    counts = {process: process.communicate()[0] for process in processes}
    done = [int(counts[process]) for process in begun]
    # what is there already is replaced by the first one alone
    assert sum(done) == (0 if finished and mode != "new" else 60), done
    assert Counter(table(tmp_path)) == Counter(expect(sources, 2))
    assert files(tmp_path) == sorted(
        ["manifest.jsonl", "run.json", *(f"{n}_{m}.jpg" for n in range(60) for m in range(2))]
    )


@contextmanager
def claim(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has done A, and is at B; killed in the end."""
    command = [sys.executable, "-c", CLAIMING, str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"there\n"
        yield process
        process.kill()


def test_what_another_process_has_is_left_to_it_until_it_dies(tmp_path: Path) -> None:
    with ExitStack() as other, Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
        assert manifest.list_remaining([A, B, C]) == [A, B, C]
        process = other.enter_context(claim(tmp_path))
        assert [manifest.claim(source) for source in (A, B, C)] == [False, False, True]
        process.kill()
        process.wait()
        assert [manifest.claim(source) for source in (A, B)] == [False, True]
        explain(manifest, C, tmp_path)
        explain(manifest, B, tmp_path)
        manifest.finish(Counts(2))
    assert table(tmp_path) == [(str(source), 0) for source in (A, C, B)]
    assert run_to_end(tmp_path, [A, B, C], "resume") == []
    assert traces(tmp_path) == []


def test_whoever_is_at_work_is_named(tmp_path: Path) -> None:
    with claim(tmp_path) as process:
        with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
            (named_,) = map(str, manifest.other_processes)
        with Manifest.open(tmp_path, RunInfo({})) as manifest:
            assert manifest.other_processes == []
        with pytest.raises(UsageError) as raised:
            run_to_end(tmp_path, [A])
        with pytest.raises(UsageError, match=rf"\(process {process.pid} .* cannot be shared"):
            Manifest.open(tmp_path, RunInfo(PLAIN), shared=False)
    assert named_.startswith(f"process {process.pid} on {socket.gethostname()!r}, begun 20")
    assert named_ in str(raised.value)
    assert f"remove {str(tmp_path / STATE / LOCK_FILE)!r} and" in str(raised.value)


def test_a_lock_that_a_file_server_keeps_for_a_dead_machine_is_recognised(tmp_path: Path) -> None:
    with claim(tmp_path):  # whose locks are held, and which gives no sign of life any more
        (file,) = (tmp_path / STATE).glob("process-*.json")
        with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
            assert manifest.describe_others() == list(map(str, manifest.other_processes))
        then = time.time() - 7200
        os.utime(file, (then, then))
        advice = f"remove {str(tmp_path / STATE / LOCK_FILE)!r} and {str(file)!r} and go on with"
        with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
            (described,) = manifest.describe_others()
            assert (
                described.startswith(str(manifest.other_processes[0]))
                and f"if it is dead, {advice}" in described
            )
            assert not manifest.claim(B)
        with pytest.raises(UsageError) as raised:
            run_to_end(tmp_path, [A])
        assert f"If its process is dead, {advice}" in str(raised.value)
        # as it is advised
        for path in (tmp_path / STATE / LOCK_FILE, file):
            path.unlink()
        assert run_to_end(tmp_path, [A, B], "resume") == [B]
    assert table(tmp_path) == expect([A, B])


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("camcli.runs.locks.fcntl.lockf", refuse)


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    ("host", "number", "hours", "alive"),
    [
        ("here", None, 2, True),  # this process
        ("here", 2**22 + 1, 0, False),  # beyond Linux's largest
        ("here", 2**80, 0, False),
        ("elsewhere", 1, 0, True),
        ("elsewhere", None, 0, True),  # this process's number, on another machine
        ("elsewhere", 2**22 + 1, 0, True),  # which may count further
        ("elsewhere", None, 2, False),
    ],
)
def test_without_locks_a_run_is_not_shared_with_one_that_lives(
    tmp_path: Path, host: str, number: int | None, hours: float, alive: bool
) -> None:
    number = number or os.getpid()
    run_to_end(tmp_path, [A])
    (tmp_path / STATE).mkdir()
    file = tmp_path / STATE / "process-0123.json"
    name = socket.gethostname() if host == "here" else host
    facts = {"task": RunInfo(PLAIN).journal, "process": number, "host": name, "since": "2026"}
    file.write_text(json.dumps(facts))
    then = time.time() - 3600 * hours
    os.utime(file, (then, then))
    if alive:
        with pytest.raises(UsageError, match=rf"\(process {number} on '{name}'.*0123\.json"):
            run_to_end(tmp_path, [A, B], "resume")
        run_to_end(tmp_path, [C], configuration={})
        file.unlink()
    assert run_to_end(tmp_path, [A, B], "skip") == [B]
    assert traces(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    ["", "[", "[]", "{}", '{"process": []}', pytest.param("[" * 100_000, id="nested deep")],
)
def test_a_damaged_file_of_a_process_is_taken_away(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE).mkdir()
    (tmp_path / STATE / "process-0.json").write_text(content)
    assert run_to_end(tmp_path, [A]) == [A]
    assert traces(tmp_path) == []


def test_one_process_writes_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        Manifest.open(tmp_path, RunInfo(PLAIN)),
        pytest.raises(UsageError, match="run one after the other"),
    ):
        Manifest.open(tmp_path, RunInfo({}))
    Manifest.open(tmp_path, RunInfo({})).__exit__(None, None, None)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITING, str(tmp_path), "b.jpg"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"there\n"
        process.kill()
    assert table(tmp_path) == [(str(B), 0)]
    assert run_to_end(tmp_path, [A, B], "resume") == [A, B]
    assert table(tmp_path) == expect([A, B])
    assert traces(tmp_path) == []


def test_of_two_that_leave_together_one_takes_the_file_away(tmp_path: Path) -> None:
    locks = FolderLocks(tmp_path, "test")
    with ExitStack() as other:
        other.enter_context(another(tmp_path, "b.jpg"))
        leave_together(locks, other)
        locks.close()
    assert table(tmp_path) == [(str(B), 0), (str(B), 1), (str(B), 0)]
    assert traces(tmp_path) == []


def test_of_two_runs_that_end_together_one_takes_the_journal_away(tmp_path: Path) -> None:
    with ExitStack() as other:
        with Manifest.open(tmp_path, RunInfo(PLAIN)) as manifest:
            assert manifest.list_remaining([A]) == [A]
            other.enter_context(another(tmp_path, "b.jpg"))
            explain(manifest, A, tmp_path)
            manifest.finish(Counts(1, 1, 0, 0))
            leave_together(manifest._locks, other)
        assert traces(tmp_path) == []


def leave_together(locks: FolderLocks, other: ExitStack) -> None:
    """Has another process leave just after these locks were tried to be had alone."""

    def take(name: str, *, alone: bool) -> bool:
        taken = FolderLocks.take(locks, name, alone=alone)
        other.close()
        return taken

    locks.take = take  # type: ignore[method-assign]


def test_a_file_that_came_later_is_left_to_those_who_hold_it(tmp_path: Path) -> None:
    locks = FolderLocks(tmp_path, "test")
    path = tmp_path / STATE / LOCK_FILE
    path.unlink()
    path.touch()
    locks.close()
    assert path.exists()


def test_four_processes_at_once_mix_nothing_up(tmp_path: Path) -> None:
    asked = [("x", "1"), ("y", "1"), ("x", "2"), ("x", "3")]
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path), *arguments], cwd=ROOT)
        for arguments in asked
    ]
    assert [process.wait() for process in processes] == [0] * 4
    lines = read_records(tmp_path)
    assert Counter((line["run"], Path(line["source"]).parent.name) for line in lines) == {
        (RunInfo({"alpha": float(alpha)}).name, folder): 300 for folder, alpha in asked
    }
    outputs = [output for line in lines for output in line["outputs"]]
    assert len(set(outputs)) == len(outputs) == 1200
    for line in lines:
        assert (tmp_path / line["outputs"][0]).read_text() == line["source"]
    assert sorted(outputs) == [name for name in files(tmp_path) if name.endswith(".jpg")]
    assert traces(tmp_path) == []
