"""Times whole commands: from the start of a process to its end."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from camcli.methods.postprocessing import enlarge
from tests.checkout import ROOT

CAMVIZ = (sys.executable, "-m", "camcli")
BARE = (sys.executable, "-m", "tests.benchmarks.passes")
IMPORT = (sys.executable, "-c", "import torch")
PICTURE = "demo_images/cat_and_coffee.jpg"
PICTURES, FEW, MANY = 400, 100, 2000
BATCH = 8
ROUNDS = 3
TURN = 2.0  # seconds
PAIRS = 15
# "at most" of each, in seconds, as a ratio, or in MiB
BARS = {
    "help": 0.35, "version": 0.35, "one": 1.15, "peak": 809.0, "memory": 1.05
}  # fmt: skip
# "at most" of a folder beside bare passes, by the network
FOLDER_BARS = {"mobilenetv3_small_100": 1.60, "resnet18": 1.00, "resnet50": 0.88}


def start_up() -> list[dict[str, Any]]:
    """Times --help and --version."""
    with tempfile.TemporaryDirectory() as folder, _measure_compiled(f"{folder}/bytecode"):
        _seconds((*CAMVIZ, "--help"))
        return [
            _figure(f"camviz --{option}", _median((*CAMVIZ, f"--{option}"), 10), BARS[option], "s")
            for option in ("help", "version")
        ]


def one_picture() -> list[dict[str, Any]]:
    """Times one picture with the embedded model beside torch's import, as whole processes."""
    with tempfile.TemporaryDirectory() as folder, _measure_compiled(f"{folder}/bytecode"):
        one = (*CAMVIZ, PICTURE, "--device", "cpu", "--save-path", folder)
        for command in (one, IMPORT):
            _seconds(command)
        # in turns, since a machine that others share is slower for a while
        pairs = [(_seconds(one), _seconds(IMPORT)[0]) for _ in range(PAIRS)]
    ratio = statistics.median(seconds / alone for (seconds, _), alone in pairs)
    peak = statistics.median(memory for (_, memory), _ in pairs) / 2**20
    title = "one picture, embedded model, from start to end"
    return [
        _figure(f"{title}, beside `import torch`", ratio, BARS["one"], "x"),
        _figure(f"{title}, peak memory", peak, BARS["peak"], "MiB"),
    ]


def folder() -> Iterator[dict[str, Any]]:
    """Times a folder of pictures beside the bare passes over as many, of several networks."""
    with tempfile.TemporaryDirectory() as place:
        pictures(Path(place, str(PICTURES)), PICTURES)
        for network, bar in FOLDER_BARS.items():
            yield _time_folder(place, network, bar)


def memory() -> list[dict[str, Any]]:
    """Holds the memory that many pictures take beside that of few."""
    with tempfile.TemporaryDirectory() as place:
        for count in (FEW, MANY):
            pictures(Path(place, str(count)), count)
        # a few batches leave more or less room free between what they hold, by chance
        few = statistics.median(_explain(place, FEW)[1] for _ in range(ROUNDS))
        grown = _explain(place, MANY)[1] / few
    title = f"memory of {MANY} pictures beside that of {FEW}"
    return [_figure(title, grown, BARS["memory"], "x")]


def _time_folder(place: str, network: str, bar: float) -> dict[str, Any]:
    rounds = [_compare_with_bare_passes(place, network) for _ in range(ROUNDS)]
    title = f"{PICTURES} JPEGs of 500x375, {network}, gradcam, overlays, beside the bare passes"
    return _figure(title, statistics.median(rounds), bar, "x")


def _compare_with_bare_passes(place: str, network: str) -> float:
    """Returns the ratio of a folder, behind its first batch, to bare passes of as many pictures.

    Both take turns of some seconds: a machine that others share is slower for longer than that.
    """
    # what stands there already would have to be replaced
    shutil.rmtree(_out(place, str(PICTURES)), ignore_errors=True)
    with (
        _measure_start((*BARE, network, str(BATCH))) as bare,
        _measure_start(_command(place, str(PICTURES), network)) as run,
    ):
        seconds = passing = 0.0
        while run.poll() is None:
            seconds += _turn(run)
            passing += _turn(bare)
        bare.kill()
        assert bare.stdout is not None
        passes = len(bare.stdout.readlines())
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, run.args)
    return seconds / (passing / passes * (PICTURES - BATCH) / BATCH)


def _measure_start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Starts a command, and has it wait as soon as it has printed a line."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    return process


def _turn(process: subprocess.Popen[str]) -> float:
    """Lets a command go on for a while, or to its end; returns the seconds that it took."""
    begin = time.perf_counter()
    process.send_signal(signal.SIGCONT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(TURN)
    process.send_signal(signal.SIGSTOP)
    return time.perf_counter() - begin


@contextmanager
def _measure_compiled(folder: str) -> Iterator[None]:
    """Has processes keep the bytecode of what they import, as pip leaves it for a package.

    A development machine may be set not to, and would compile all of camviz at every start.
    """
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with patch.dict(os.environ, kept | {"PYTHONPYCACHEPREFIX": folder}, clear=True):
        yield


def _figure(title: str, value: float, bar: float, unit: str) -> dict[str, Any]:
    return {"title": title, "value": value, "bar": bar, "unit": unit}


def _median(command: Sequence[str], times: int) -> float:
    return statistics.median(_seconds(command)[0] for _ in range(times))


def _seconds(command: Sequence[str]) -> tuple[float, int]:
    """Returns a command's wall time, and its peak memory in bytes; raises where it fails."""
    begin = time.perf_counter()
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - begin
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    return seconds, used.ru_maxrss * 1024


def _explain(place: str, count: int) -> tuple[float, int]:
    return _seconds(_command(place, str(count)))


def _command(place: str, name: str, network: str = "resnet50") -> Sequence[str]:
    out = ("--save-path", _out(place, name), "--device", "cpu", "-b", str(BATCH))
    return (*CAMVIZ, f"{place}/{name}", "-m", f"timm/{network}", "--no-pretrained", *out)


def _out(place: str, name: str) -> str:
    return f"{place}/out-{name}"


def pictures(place: Path, count: int) -> None:
    """Makes a folder of so many JPEGs of 500x375, all different."""
    from PIL import Image

    place.mkdir()
    draw = torch.Generator().manual_seed(0)
    for index in range(count):
        blobs = enlarge(torch.rand(3, 40, 50, generator=draw), (375, 500))
        pixels = (255 * blobs).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(place / f"{index:04}.jpg", quality=90)
