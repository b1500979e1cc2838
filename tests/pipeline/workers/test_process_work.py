"""Runs whose pictures are decoded, drawn and written by processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from camcli.config import from_keywords, refuse_contradictions
from camcli.errors import OutputError, TooManyFailures, UsageError
from camcli.media.pictures import write
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import StopRequest, carry_out_plan, make_plan, stages
from camcli.pipeline.workers import process_work
from camcli.pipeline.workers.process_work import check_can_fork
from camcli.records import Outcome, Preprocessing, Record, Source
from tests.checkout import ROOT
from tests.networks import Staged
from tests.outputs import outputs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")

COUNT = 20
BAD = ("a03.jpg", "a04.jpg", "a11.jpg")
FEW = ("a00.jpg", "a03.jpg")


def make_small() -> Classifier:
    torch.manual_seed(0)
    size = (32, 48)
    preprocessing = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    labels = ("ant", "bee", "cat", "dog")
    return Classifier(
        Staged(4).eval(), "small", "timm", preprocessing, labels, "by hand", 4, in_chans=3
    )


@pytest.fixture(scope="module")
def small() -> Classifier:
    return make_small()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(COUNT):
        name = f"a{number:02}.jpg"
        if name in BAD:
            (folder / name).write_bytes(b"no picture")
            continue
        pixels = draw.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, quality=95)
    # a namesake, whose output needs another name
    Image.fromarray(draw.integers(0, 256, (30, 30, 3), np.uint8)).save(folder / "a00.png")
    return folder


Carry = Callable[..., Iterator[Outcome]]


@pytest.fixture
def carry(small: Classifier, pictures: Path, tmp_path: Path) -> Carry:
    """Explains the pictures into a folder `out`."""

    def carry_out(
        stop: StopRequest | None = None, only: Sequence[str] = (), **given: Any
    ) -> Iterator[Outcome]:
        defaults = {"target_layers": "last", "batch_size": 4, "save_path": tmp_path / "out"}
        options = from_keywords(**{**defaults, **given})
        sources = find_sources([pictures / name for name in only] or [pictures])
        return carry_out_plan(make_plan(small, options), sources, options, stop)

    return carry_out


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in outputs(folder)}


def without_times(outcomes: Sequence[Outcome]) -> list[list[Record]]:
    return [[replace(record, seconds=None) for record in o.records] for o in outcomes]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def names(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.source.path.name for outcome in outcomes]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"method": ["gradcam", "eigencam"], "top_k": 2, "save_map": "npy", "caption": True},
        {"method": ["guided-gradcam", "dff"], "boxes": "all", "contour": True, "only": FEW},
        {"method": "all", "batch_size": 8, "only": FEW},
        {"target": "contrast", "contrast": ["dog"], "scale": (0.0, 1.0)},
        {"noise_smooth": 2, "aug_smooth": True, "outside": "crop", "only": FEW},
        # more than that takes one picture after the other
        {"max_memory": 10_000},
    ],
    ids=lambda asked: "-".join(map(str, asked)) or "plain",
)
def test_files_and_records_are_those_of_threads(
    carry: Carry, tmp_path: Path, asked: dict[str, Any]
) -> None:
    by_threads = list(carry(**asked, workers=2))
    files, lines = files_of(tmp_path / "out"), lines_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    by_processes = list(carry(**asked, processes=2))
    assert names(by_processes) == names(by_threads)
    assert without_times(by_processes) == without_times(by_threads)
    assert files_of(tmp_path / "out") == files
    assert len(files) >= 1
    assert lines_of(tmp_path / "out") == lines
    failed = [outcome.source.path.name for outcome in by_processes if outcome.failed]
    assert failed == [name for name in BAD if name in asked.get("only", BAD)]


def test_outputs_of_other_runs_are_passed_by_in_the_same_way(carry: Carry, tmp_path: Path) -> None:
    expected, actual = tmp_path / "threads", tmp_path / "processes"
    for folder, way in ((expected, {"workers": 2}), (actual, {"processes": 3})):
        for alpha in (0.5, 0.3, 0.3):
            list(carry(alpha=alpha, save_path=folder, **way))
    assert files_of(actual) == files_of(expected)
    renamed = {Path(line["outputs"][0]).name for line in lines_of(actual) if line["renamed"]}
    assert len(renamed) >= COUNT - len(BAD) and any("alpha0.3" in name for name in renamed)


def test_a_run_that_is_stopped_goes_on(carry: Carry, tmp_path: Path) -> None:
    list(carry(workers=0, save_path=tmp_path / "whole"))
    stop, seen = StopRequest(), []
    with pytest.raises(KeyboardInterrupt):
        for outcome in carry(stop, processes=2):
            seen.append(outcome)
            stop.ask(KeyboardInterrupt())
    assert 1 <= len(seen) < COUNT
    # whatever is there has its record
    outs = {name for line in lines_of(tmp_path / "out") for name in line["outputs"]}
    assert set(files_of(tmp_path / "out")) == outs
    rest = list(carry(processes=2, resume=True))
    assert names(seen) + names(rest) == sorted({*names(seen), *names(rest)})
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_failures_end_a_run(carry: Carry) -> None:
    seen = []
    with pytest.raises(TooManyFailures):
        for outcome in carry(processes=2, fail_fast=True):
            seen.append(outcome)
    assert BAD[0] in names(seen) and len(seen) < COUNT


def test_a_place_that_takes_no_more_ends_a_run(
    carry: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, calls = stages.draw_picture, []

    def full(explanations: Any, writer: Any) -> Outcome:
        calls.append(1)
        if explanations[0].picture.source.path.name == "a06.jpg":
            raise OutputError("no space left")
        return draw(explanations, writer)

    monkeypatch.setattr(stages, "draw_picture", full)
    seen = []
    with pytest.raises(OutputError, match="no space left"):
        for outcome in carry(processes=2):
            seen.append(outcome)
    assert names(seen)[:7] == ["a00.jpg", "a00.png", "a01.jpg", "a02.jpg", *BAD[:2], "a05.jpg"]
    assert not calls, "this process drew"


def test_a_process_that_dies_ends_a_run_and_another_goes_on(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, this = stages.decode, os.getpid()

    def die(opened: Any) -> Any:
        if opened.source.path.name == "a07.jpg" and os.getpid() != this:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(opened)

    monkeypatch.setattr(stages, "decode", die)
    seen = []
    with pytest.raises(UsageError, match=r"A worker process .* died"):
        for outcome in carry(processes=2):
            seen.append(outcome)
    monkeypatch.undo()
    rest = list(carry(processes=2, resume=True))
    assert sorted(names(seen) + names(rest)) == sorted({*names(seen), *names(rest)})
    assert len({*names(seen), *names(rest)}) == COUNT + 1
    assert len(files_of(tmp_path / "out")) == COUNT + 1 - len(BAD)


def test_categories_of_a_list(small: Classifier, pictures: Path, tmp_path: Path) -> None:
    options = from_keywords(
        target_layers="last", batch_size=2, save_path=tmp_path / "out", processes=2
    )
    named = {"a00.jpg": "dog", "a01.jpg": "dgo", "a02.jpg": ""}
    sources = [Source(pictures / name, category=category) for name, category in named.items()]
    outcomes = list(carry_out_plan(make_plan(small, options), sources, options))
    assert [o.failed for o in outcomes] == [False, True, False]
    assert outcomes[0].records[0].label == "dog"
    assert "Unknown category 'dgo'" in outcomes[1].records[0].error


def test_what_auto_means_is_known_before_the_fork(
    carry: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_work, "choose_precision", lambda *_: "bf16")
    outcomes = list(carry(processes=2, precision="auto"))
    assert {r.precision for o in outcomes for r in o.records if not r.error} == {"bf16"}


def test_pictures_are_written_by_processes(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(write, "write_file", _note(write.write_file, log))
    list(carry(processes=3))
    writers = set(log.read_text().split())
    assert 1 < len(writers) <= 3 and str(os.getpid()) not in writers


def test_memory_of_large_pictures_is_given_back(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(process_work, "give_back_freed_memory", _note(lambda: None, log))
    list(carry(processes=2))
    assert not log.exists()
    list(carry(processes=2, max_memory=10_000, save_path=tmp_path / "other"))
    assert len(log.read_text().split()) == COUNT + 1 - len(BAD)


def _note(function: Callable[..., Any], log: Path) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return function(*args, **kwargs)

    return noted


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        (Source(Path("clip.mp4")), {}, "for pictures"),
        (Source(Path("a.gif")), {"every": 2}, "for pictures"),
        (Source(Path("a.jpg"), url="s3://bucket/a.jpg"), {}, "clients of a network"),
    ],
)
def test_what_processes_cannot_do_is_refused(
    source: Source, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_can_fork([source], from_keywords(processes=2, **given))
    check_can_fork([source], from_keywords(**given))
    check_can_fork([Source(Path("a.jpg"))], from_keywords(processes=2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 2}, "threads of --workers 2"),
        ({"engine": "ray"}, "--ray-workers"),
        ({"scale": "run"}, "--scale run"),
        ({"compare": "resnet18"}, "--compare"),
    ],
)
def test_options_that_contradict_processes(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        refuse_contradictions(from_keywords(processes=2, **given))


def test_other_systems_have_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match="--processes needs Linux"):
        check_can_fork([Source(Path("a.jpg"))], from_keywords(processes=2))


ABANDONED = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.pipeline.workers.test_process_work import make_small
from camcli.config import from_keywords
from camcli.media.sources.listing import find_sources
from camcli.pipeline import carry_out_plan, make_plan
options = from_keywords(target_layers="last", batch_size=2, save_path=Path({out!r}), {way})
outcomes = carry_out_plan(make_plan(make_small(), options), find_sources([{pictures!r}]), options)
next(outcomes)
"""


@pytest.mark.parametrize("way", ["workers=2", "processes=2"])
def test_a_run_that_is_left_alone_ends_with_its_program(
    pictures: Path, tmp_path: Path, way: str
) -> None:
    out = tmp_path / "out"
    script = ABANDONED.format(root=str(ROOT), out=str(out), pictures=str(pictures), way=way)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 1 <= len(lines_of(out)) < COUNT
