"""Evaluations that workers of Ray measure: each batch once, and what comes of it in order."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from camcli.cli.app import main
from camcli.errors import UsageError
from camcli.pipeline.distributed.ray_evaluation import AHEAD, _share_out
from camcli.pipeline.evaluation.evaluation import PictureScores
from camcli.records import Source
from tests.pipeline.evaluation.test_evaluation_run import make_pictures

SOURCES = [Source(Path(f"{n}.png")) for n in range(11)]


class WorkerDied(Exception):
    """As Ray's RayActorError."""


class FakeRay:
    """Ray as `_share_out` sees it: what was begun last is done first."""

    exceptions = SimpleNamespace(RayActorError=WorkerDied)

    def __init__(self, *, answer: str | Exception | None = None) -> None:
        self.begun: list[tuple[int, tuple[Source, ...]]] = []
        self.most = 0
        self.answer = answer
        self.fetched = 0

    def make_worker(self, name: int) -> Any:
        def remote(sources: Sequence[Source]) -> int:
            self.begun.append((name, tuple(sources)))
            self.most = max(self.most, len(self.begun) - self.fetched)
            return len(self.begun) - 1

        return SimpleNamespace(measure=SimpleNamespace(remote=remote))

    def wait(self, busy: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        assert num_returns == 1
        return busy[-1:], busy[:-1]

    def get(self, measuring: int) -> list[PictureScores] | str:
        self.fetched += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer:
            return self.answer
        return [PictureScores(source) for source in self.begun[measuring][1]]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_batch_is_measured_once_and_comes_in_its_place(workers: int) -> None:
    ray = FakeRay()
    actors = [ray.make_worker(n) for n in range(workers)]
    measured = list(_share_out(ray, actors, SOURCES, 2))
    assert [scores.source for scores in measured] == SOURCES
    assert [source for _, batch in ray.begun for source in batch] == SOURCES
    assert {name for name, _ in ray.begun} == set(range(workers))
    assert ray.most <= AHEAD * workers


def test_why_a_worker_cannot_is_told() -> None:
    ray = FakeRay(answer="no such class")
    with pytest.raises(UsageError, match="no such class"):
        list(_share_out(ray, [ray.make_worker(0)], SOURCES, 2))
    ray = FakeRay(answer=WorkerDied())
    with pytest.raises(UsageError, match="A Ray worker died, was started again"):
        list(_share_out(ray, [ray.make_worker(0)], SOURCES, 2))


@pytest.mark.slow  # Ray takes seconds to start, and two more processes
def test_ray_writes_what_one_process_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    folder = make_pictures(tmp_path / "in", 5, ("red", "green"))
    (folder / "3.png").write_bytes(b"torn")
    typed = ["evaluate", str(folder), "--img-size", "64", "--device", "cpu", "-b", "2"]
    typed += ["--metrics", "average_drop", "--method", "gradcam", "--no-plots", "-q"]
    assert main([*typed, "--save-path", str(tmp_path / "a")]) == 1
    by_ray = ["--engine", "ray", "--ray-workers", "2"]
    assert main([*typed, "--save-path", str(tmp_path / "b"), *by_ray]) == 1
    assert "3.png" in capsys.readouterr().err
    tables = []
    for name in ("a", "b"):
        with (tmp_path / name / "evaluation.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == 4 * 5
    for one, other in zip(*tables, strict=True):
        # workers may fold batch norms, which the tests' own process does not
        for number in ("value", "probability"):
            assert float(one.pop(number)) == pytest.approx(float(other.pop(number)), abs=1e-3)
        assert one == other


def test_launchers_and_ray_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_pictures(tmp_path / "in", 1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["evaluate", str(folder), "--engine", "ray"]) == 2
    assert "--engine ray shares an evaluation out by itself" in capsys.readouterr().err
