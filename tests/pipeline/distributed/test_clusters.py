"""Processes that were really started: by Ray, with one killed in the middle, and by torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.checkout import ROOT
from tests.outputs import outputs
from tests.runs.runs import read_records

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "RAY_ADDRESS")
PICTURES = 24
PATIENCE = 300.0  # seconds
WAIT = 0.05
TWO_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# a good part of a second a picture, so that there is a middle
SLOW = ("--method", "rise", "--set", "masks=50", "-b", "1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    with Image.open(ROOT / "demo_images" / "cat_and_coffee.jpg") as picture:
        for n in range(PICTURES):
            picture.rotate(5 * n).resize((96, 72)).save(folder / f"{n:02}.jpg")
    return folder


@pytest.fixture
def ray(many: Path) -> Callable[..., subprocess.Popen[str]]:
    pytest.importorskip("ray")

    def start(*more: str) -> subprocess.Popen[str]:
        by_ray = ("--engine", "ray", "--ray-workers", "2", "--device", "cpu")
        return _start("-m", "camcli", *_command(many), *by_ray, *more)

    return start


def _command(many: Path) -> tuple[str, ...]:
    return (str(many), "--save-path", str(many.parent / "out"))


def _start(*arguments: str) -> subprocess.Popen[str]:
    environ = {k: v for k, v in os.environ.items() if k not in LAUNCHED}
    environ |= {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], text=True, env=environ, cwd=ROOT, **pipes)


def _end(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert "Traceback" not in err and "Warning" not in err
    return out, err


def _shards(out: Path) -> list[int]:
    """How many lines each shard has so far."""
    return [path.read_bytes().count(b"\n") for path in sorted(out.glob("manifest.rank-*"))]


def _until(is_so: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (actual := is_so()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(WAIT)
    return actual


def _below(process: int) -> Iterator[tuple[int, bytes]]:
    """Yields a process's descendants, and what each calls itself."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state = (folder / "stat").read_text()
                name = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)] = (int(state.rpartition(")")[2].split()[1]), name)
    for number, (parent, name) in parents.items():
        while parent in parents and parent != process:
            parent = parents[parent][0]
        if parent == process:
            yield number, name


def _workers(process: subprocess.Popen[str]) -> list[int]:
    return [number for number, name in _below(process.pid) if name.startswith(b"ray::Worker")]


def _each_once(many: Path) -> None:
    out = many.parent / "out"
    lines = read_records(out)
    named = sorted(Path(line["source"]).name for line in lines)
    assert named == [f"{n:02}.jpg" for n in range(PICTURES)]
    assert not [line for line in lines if line["error"]]
    listed = sorted(output for line in lines for output in line["outputs"])
    assert listed == sorted(path.name for path in outputs(out))
    assert not [path.name for path in out.iterdir() if "rank" in path.name]
    assert not (out / ".camviz").exists()


def test_a_worker_that_is_killed_is_started_again_and_does_nothing_twice(
    ray: Callable[..., subprocess.Popen[str]], many: Path
) -> None:
    out = many.parent / "out"
    process = ray(*SLOW)
    _until(lambda: len(_shards(out)) == 2 and min(_shards(out)) >= 2, process)
    done = sum(_shards(out))
    assert done < PICTURES
    victim = _workers(process)[0]
    os.kill(victim, signal.SIGKILL)
    printed, message = _end(process)
    _each_once(many)
    assert len(printed.splitlines()) == PICTURES
    assert f"{PICTURES} pictures, {PICTURES} heatmaps" in message
    summary = json.loads((out / "run.json").read_text())
    assert (summary["shards"], summary["counts"]["pictures"]) == (2, PICTURES)


def test_ctrl_c_ends_in_good_order_and_resume_goes_on(
    ray: Callable[..., subprocess.Popen[str]], many: Path
) -> None:
    out = many.parent / "out"
    process = ray(*SLOW)
    _until(lambda: len(_shards(out)) == 2 and min(_shards(out)) >= 1, process)
    process.send_signal(signal.SIGINT)
    _, message = _end(process, 130)
    assert "--resume goes on there" in message
    before = {line["source"]: line for line in read_records(out)}
    assert 2 <= len(before) < PICTURES
    assert _shards(out) == []
    # with other workers, and other shares
    _, message = _end(ray(*SLOW, "--resume", "--ray-workers", "1"))
    assert f"{len(before)} of {PICTURES} were done before" in message
    _each_once(many)
    assert {line["source"]: line for line in read_records(out)}.items() >= before.items()


def test_a_driver_that_is_killed_leaves_nothing_running_and_is_gone_on_with(
    ray: Callable[..., subprocess.Popen[str]], many: Path
) -> None:
    out = many.parent / "out"
    process = ray(*SLOW)
    _until(lambda: len(_shards(out)) == 2 and min(_shards(out)) >= 1, process)
    workers = _workers(process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    end = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end, "workers go on without their driver"
        time.sleep(WAIT)
    assert sum(_shards(out)) < PICTURES
    _end(ray(*SLOW, "--resume"))
    _each_once(many)


def test_what_workers_refuse_is_reported_as_it_is_without_ray(
    ray: Callable[..., subprocess.Popen[str]], many: Path
) -> None:
    _, message = _end(ray("--target-category", "espreso"), 2)
    assert "espreso" in message and "Closest" in message
    assert not read_records(many.parent / "out")


def test_workers_of_ray_name_what_differs_from_an_earlier_run(
    ray: Callable[..., subprocess.Popen[str]], many: Path
) -> None:
    pictures = [f"{many}/{n:02}.jpg" for n in range(3)]
    one = ("--target-category", "3", "--img-size", "64")
    _end(_start("-m", "camcli", *pictures, *_command(many)[1:], "--device", "cpu", *one))
    _, message = _end(ray(*one, "--colormap", "hot"))
    assert "named " in message and "_hot.jpg: the plain name is another run's" in message
    by_end = [path.name.endswith("_hot.jpg") for path in (many.parent / "out").glob("*.jpg")]
    # the pictures that the first run had not have their plain names
    assert (len(by_end), sum(by_end)) == (PICTURES + 3, 3)
    assert len(read_records(many.parent / "out")) == PICTURES + 3


def test_torchrun_shares_a_folder_and_merge_joins_it(many: Path) -> None:
    (many / "bad.jpg").write_bytes(b"no picture")
    out = many.parent / "out"
    process = _start(*TWO_RANKS, "-m", "camcli", *_command(many), "--device", "cpu")
    _, message = process.communicate(timeout=PATIENCE)
    # a picture that failed does not make torchrun end the other rank
    assert process.returncode == 0, message
    assert "rank 0 of 2: 13 of 25" in message and "rank 1 of 2: 12 of 25" in message
    assert _shards(out) == [13, 12]
    joined, _ = _end(_start("-m", "camcli", "merge", str(out)), 1)
    assert "24 pictures, 24 heatmaps, 1 failed" in joined
    lines = read_records(out)
    (failed,) = [line for line in lines if line["error"]]
    assert Path(failed["source"]).name == "bad.jpg"
    expected = [f"{n:02}.jpg" for n in range(PICTURES)] + ["bad.jpg"]
    assert sorted(Path(line["source"]).name for line in lines) == expected


IN_A_GROUP = """
import sys
import torch.distributed as dist
from camcli.cli.app import main

dist.init_process_group("gloo")
code = main(sys.argv[2:])
dist.barrier()
if dist.get_rank() == 0:
    code = main(["merge", sys.argv[1]])
dist.destroy_process_group()
sys.exit(code)
"""


def test_ranks_of_a_gloo_group_take_their_shares_and_the_first_joins_them(many: Path) -> None:
    script, out = many.parent / "ranks.py", many.parent / "out"
    script.write_text(IN_A_GROUP)
    command = (str(script), str(out), *_command(many), "--device", "cpu", "-q")
    _end(_start(*TWO_RANKS, *command))
    _each_once(many)
