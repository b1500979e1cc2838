"""Where the time goes."""

import re
import time
from pathlib import Path

import pytest

from camcli.cli.app import main
from camcli.stages import Stopwatch
from tests.test_demo import PHOTO


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_stage_counts_without_what_is_inside_it(clock: list[float]) -> None:
    watch = Stopwatch(start=clock[0])

    @watch.stage("forward")
    def forward() -> None:
        clock[0] += 2

    with watch.stage("method"):
        clock[0] += 1
        forward()
        with watch.stage("method"):
            clock[0] += 4
            forward()
    clock[0] += 8
    assert watch.seconds == {"forward": 4, "method": 5}
    assert watch.total == 17


def test_what_fails_counts_too(clock: list[float]) -> None:
    watch = Stopwatch(start=clock[0])
    with watch.stage("method"):
        with pytest.raises(ValueError), watch.stage("draw"):
            clock[0] += 3
            raise ValueError
        clock[0] += 1
    assert watch.seconds == {"draw": 3, "method": 1}


def test_the_command_tells_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = [str(PHOTO), "--method", "gradcam,fullgrad,guidedbackprop", "--save-map", "npy"]
    assert main([*command, "--save-path", str(out), "-q", "--profile"]) == 0
    said = capsys.readouterr().err
    names = re.findall(r"([a-z]+) (\d+\.\d\d)[,;]", said)
    stages = ["import", "load", "decode", "forward", "backward", "method", "draw", "write", "other"]
    assert [name for name, _ in names] == stages
    total = float(said.rsplit(";", 1)[1].split()[0])
    assert sum(float(seconds) for _, seconds in names) == pytest.approx(total, abs=0.1)


def test_without_profile_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(PHOTO), "--save-path", str(tmp_path), "-q"]) == 0
    assert capsys.readouterr().err == ""
