"""A run over many pictures: order, failures, and how it ends before its time."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from camcli.config import from_keywords
from camcli.errors import OutputError, TooManyFailures
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import (
    RunCallbacks,
    StopRequest,
    carry_out_plan,
    make_plan,
    runner,
    stages,
)
from camcli.pipeline.runner import NO_CALLBACKS
from camcli.pipeline.stages import PreparedPicture
from camcli.pipeline.writing import output_writer
from camcli.records import Outcome, Preprocessing, Record
from tests.networks import Staged
from tests.outputs import outputs as written_outputs

NAMES = tuple(f"{n:02}.jpg" for n in range(20))
BAD = ("03.jpg", "04.jpg", "11.jpg")


@pytest.fixture(scope="module")
def small() -> Classifier:
    torch.manual_seed(0)
    size = (32, 48)
    preprocessing = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    module = Staged(4).eval()
    return Classifier(module, "small", "timm", preprocessing, None, "by hand", 4, in_chans=3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in NAMES:
        if name in BAD:
            (folder / name).write_bytes(b"no picture")
        else:
            pixels = draw.integers(0, 256, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name, quality=95)
    return folder


Carry = Callable[..., Iterator[Outcome]]


@pytest.fixture
def carry(small: Classifier, pictures: Path, tmp_path: Path) -> Carry:
    """Explains the pictures into a folder `out`, in threads if nothing else is said."""

    def carry_out(
        stop: StopRequest | None = None,
        only: Sequence[str] = (),
        watch: RunCallbacks = NO_CALLBACKS,
        **given: Any,
    ) -> Iterator[Any]:
        defaults = {"target_layers": "last", "batch_size": 4, "workers": 3}
        options = from_keywords(save_path=tmp_path / "out", **{**defaults, **given})
        sources = find_sources([pictures / name for name in only] or [pictures])
        return carry_out_plan(make_plan(small, options), sources, options, stop, watch)

    return carry_out


def _names(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.source.path.name for outcome in outcomes]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in written_outputs(folder)}


def timeless(outcomes: list[Outcome]) -> list[list[Record]]:
    return [[replace(record, seconds=None) for record in o.records] for o in outcomes]


def test_the_number_of_threads_changes_nothing(carry: Carry, tmp_path: Path) -> None:
    actual, files = [], []
    for threads in (0, 1, 3):
        asked = {"method": ["gradcam", "eigencam"], "top_k": 2, "save_map": "npy"}
        actual.append(list(carry(workers=threads, **asked)))
        files.append(_files(tmp_path / "out"))
        shutil.rmtree(tmp_path / "out")
    assert timeless(actual[0]) == timeless(actual[1]) == timeless(actual[2])
    assert files[0] == files[1] == files[2]
    assert _names(actual[0]) == list(NAMES)
    assert [outcome.source.path.name for outcome in actual[0] if outcome.failed] == list(BAD)
    methods = [[r.method for r in outcome.records] for outcome in actual[0] if not outcome.failed]
    assert methods == [["gradcam", "eigencam", "gradcam"]] * 17
    assert len(files[0]) == 17 * 3 * 2


@pytest.mark.parametrize("threads", [0, 2])
def test_batches_are_full_though_pictures_fail(
    carry: Carry, batches: list[int], threads: int
) -> None:
    assert len(list(carry(workers=threads))) == 20
    assert batches == [4, 4, 4, 4, 1]


def test_what_stands_in_memory_is_bounded(carry: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = set[int](), 0
    prepare, write = stages.prepare, stages.draw_picture

    def prepare_noting(*given: Any) -> PreparedPicture:
        picture = prepare(*given)
        alive.add(id(picture))
        weakref.finalize(picture, alive.discard, id(picture))
        return picture

    def write_noting(*given: Any, **named: Any) -> Any:
        nonlocal most
        time.sleep(0.005)
        most = max(most, len(alive))
        # where all cores are taken, the next one is a while in coming
        until = time.monotonic() + 5
        while most < 2 and time.monotonic() < until:
            time.sleep(0.001)
            most = max(most, len(alive))
        return write(*given, **named)

    monkeypatch.setattr(stages, "prepare", prepare_noting)
    monkeypatch.setattr(stages, "draw_picture", write_noting)
    list(carry(batch_size=1))
    # read ahead, in the model, and on the way to the disk: not all 17
    assert 2 <= most <= 6
    gc.collect()
    assert not alive


def test_one_picture_needs_no_threads(carry: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    start = runner.start_workers
    monkeypatch.setattr(runner, "start_workers", lambda n: asked.append(n) or start(n))
    assert len(list(carry(only=NAMES[:1]))) == 1
    assert len(list(carry(only=NAMES[:2], workers=2))) == 2
    assert asked == [0, 2]


def test_threads_are_those_for_the_models_device(
    carry: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    start = runner.start_workers
    monkeypatch.setattr(runner, "start_workers", lambda n: asked.append(n) or start(n))
    monkeypatch.setattr(runner, "default_workers", {"cpu": 3}.__getitem__)
    assert len(list(carry(only=NAMES[:2], workers=None))) == 2
    assert asked == [3]


def test_a_run_that_is_left_leaves_no_thread(carry: Carry) -> None:
    before = threading.active_count()
    outcomes = carry()
    next(outcomes)
    assert threading.active_count() > before
    outcomes.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


# failures


def _name(value: Any) -> str:
    source = getattr(value, "source", value)
    path = getattr(source, "path", source)
    return path.name if isinstance(path, Path) else ""


def _fail(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, bad: str, error: BaseException
) -> None:
    """Lets a function fail for what is called like the bad picture."""
    function = getattr(where, name)

    def raise_error(*given: Any, **named: Any) -> Any:
        if any(_name(value).startswith(bad) for value in given):
            raise error
        return function(*given, **named)

    monkeypatch.setattr(where, name, raise_error)


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize(
    ("where", "name"),
    [(stages, "open_picture"), (stages, "prepare"), (output_writer, "write_picture")],
)
def test_a_picture_too_large_for_memory_is_one_that_fails(
    carry: Carry, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, threads: int
) -> None:
    _fail(monkeypatch, where, name, "07", MemoryError())
    outcomes = list(carry(workers=threads))
    assert _names(outcomes) == list(NAMES)
    failed = [outcome for outcome in outcomes if outcome.failed]
    assert _names(failed) == [*BAD[:2], "07.jpg", BAD[2]]
    assert "does not fit into memory" in failed[2].records[0].error
    assert failed[2].records[0].outputs == ()


@pytest.mark.parametrize("threads", [0, 3])
def test_a_full_disk_ends_the_run_and_what_is_written_is_recorded(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    full = OutputError("Cannot write: No space left on device.")
    _fail(monkeypatch, output_writer, "write_picture", "09_eigencam", full)
    seen = []
    with pytest.raises(OutputError, match="No space left") as raised:
        for outcome in carry(workers=threads, method=["gradcam", "eigencam"]):
            seen.append(outcome)
    assert raised.value is full
    names = _names(seen)
    # those behind it which were begun are finished, and it is in none of the records
    assert names[:9] == list(NAMES[:9]) and "09.jpg" not in names
    assert names == sorted(names) and len(names) < (20 if threads else 19)
    written = {Path(p).name for o in seen for r in o.records for p in r.outputs}
    assert set(_files(tmp_path / "out")) - written == {"09_gradcam_1-class_1.jpg"}


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize(
    ("where", "name"), [(stages, "open_picture"), (output_writer, "write_picture")]
)
def test_a_worker_that_dies_ends_the_run(
    carry: Carry, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, threads: int
) -> None:
    _fail(monkeypatch, where, name, "10", ZeroDivisionError("a bug"))
    before, seen = threading.active_count(), []
    with pytest.raises(ZeroDivisionError, match="a bug"):
        for outcome in carry(workers=threads):
            seen.append(outcome)
    names = _names(seen)
    assert names == list(NAMES[: len(names)])
    assert len(names) == 10
    assert threading.active_count() == before


def test_whoever_watches_is_told_of_blocks_and_of_all_pictures_before_the_first_is_drawn(
    carry: Carry, monkeypatch: pytest.MonkeyPatch
) -> None:
    message: list[Any] = []
    monkeypatch.setattr(runner, "compile_model", lambda _: nullcontext(7))
    watch = RunCallbacks(
        lambda kept: message.append(len(kept.sources)), message.append, message.append
    )
    for outcome in carry(watch=watch, scale="run"):
        message.append(outcome.source.path.name)
    assert message == [20, 7, *range(1, 21), *NAMES]


def test_a_model_that_fails_is_not_hidden(carry: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    explain, batches = stages.explain_batch, iter(range(9))

    def raise_error(*given: Any) -> Any:
        if next(batches) == 2:
            raise RuntimeError("an odd batch")
        return explain(*given)

    monkeypatch.setattr(stages, "explain_batch", raise_error)
    seen = []
    with pytest.raises(RuntimeError, match="an odd batch"):
        for outcome in carry():
            seen.append(outcome)
    # two batches of four, and two failures among them
    assert _names(seen) == list(NAMES[:10])


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize(
    ("given", "last", "message"),
    [
        ({"fail_fast": True}, 3, "first picture that failed"),
        ({"max_failures": 0}, 3, "more than 0 pictures"),
        ({"max_failures": 1}, 4, "more than 1 picture"),
        ({"max_failures": 2}, 11, "more than 2 pictures"),
    ],
)
def test_a_run_puts_up_with_so_many_failures(
    carry: Carry, tmp_path: Path, given: dict[str, Any], last: int, message: str, threads: int
) -> None:
    seen = []
    with pytest.raises(TooManyFailures, match=message) as raised:
        for outcome in carry(workers=threads, **given):
            seen.append(outcome)
    assert raised.value.exit_code == 1
    # what was begun is finished: with threads that may be all there is
    assert last + 1 <= len(seen) <= (20 if threads else 19)
    assert _names(seen) == list(NAMES[: len(seen)])
    written = {Path(p).name for o in seen for r in o.records for p in r.outputs}
    assert set(_files(tmp_path / "out")) == written


def test_failures_that_are_allowed_end_nothing(carry: Carry) -> None:
    assert len(list(carry(max_failures=3))) == 20


# stopping


@pytest.mark.parametrize("threads", [0, 3])
def test_a_run_that_is_asked_to_stop_finishes_what_is_begun(
    carry: Carry, tmp_path: Path, threads: int
) -> None:
    stop, seen = StopRequest(), []
    with pytest.raises(KeyboardInterrupt):
        for outcome in carry(stop, workers=threads):
            seen.append(outcome)
            stop.ask(KeyboardInterrupt())
    # the batch that was in the model, and no other
    assert 4 <= len(seen) <= 10
    assert _names(seen) == list(NAMES[: len(seen)])
    written = {Path(p).name for o in seen for r in o.records for p in r.outputs}
    assert set(_files(tmp_path / "out")) == written
