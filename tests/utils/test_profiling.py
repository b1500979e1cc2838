"""Where the time goes."""

import re
import threading
import time
from pathlib import Path

import pytest

from camcli.cli.app import main
from camcli.utils.profiling import STOPWATCH, Stopwatch
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


def test_threads_are_told_apart() -> None:
    watch = Stopwatch()

    def work() -> None:
        for _ in range(200):
            with watch.stage("draw"), watch.stage("write"):
                time.sleep(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with watch.stage("method"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(watch.seconds) == {"method"}
    assert set(watch.of_other_threads) == {"draw", "write"}
    # what is inside a stage of one thread is not taken off another's
    assert 0 < watch.seconds["method"] <= watch.total
    assert min(watch.of_other_threads.values()) > 0


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets what other tests took."""
    start = time.perf_counter()
    for name, value in {"seconds": {}, "of_other_threads": {}, "start": start}.items():
        monkeypatch.setattr(STOPWATCH, name, value)


@pytest.mark.usefixtures("fresh")
def test_what_runs_beside_the_model_is_told_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.jpg").write_bytes(PHOTO.read_bytes())
    pictures = [str(PHOTO), str(tmp_path / "other.jpg")]
    typed = ["-q", "--profile", "-j", "2", "--save-path", str(tmp_path / "out")]
    assert main([*pictures, *typed]) == 0
    run, neighbour = capsys.readouterr().err.splitlines()
    assert neighbour.startswith("seconds beside the model: ")
    assert re.findall(r"([a-z]+) \d", neighbour) == ["decode", "draw", "write"]
    assert not {"decode", "draw", "write"} & set(re.findall(r"([a-z]+) \d", run))
    assert "wait" in run


@pytest.mark.usefixtures("fresh")
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
