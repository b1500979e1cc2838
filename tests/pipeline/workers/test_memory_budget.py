"""Pictures in flight keep within the memory that a run may take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from camcli.config import Options, from_keywords
from camcli.errors import ConfigError
from camcli.media.pictures.read import OpenPicture
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import carry_out_plan, make_plan, stages
from camcli.pipeline.workers import memory_budget
from camcli.pipeline.workers.memory_budget import (
    AT_WORK,
    HELD,
    OVERLAY,
    MemoryBudget,
    Need,
    resolve_memory,
)
from camcli.records import Outcome, Picture, Preprocessing
from tests.media.clips import COUNT, write_video
from tests.networks import Staged
from tests.outputs import outputs

HEIGHT, WIDTH = 40, 60
NAMES = tuple(f"{n:02}.png" for n in range(12))
BAD = ("03.png", "04.png")
HUGE = "07.png"


@pytest.fixture(scope="module")
def small() -> Classifier:
    torch.manual_seed(0)
    size = (32, 48)
    preprocessing = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    module = Staged(4).eval()
    return Classifier(module, "small", "timm", preprocessing, None, "by hand", 4, in_chans=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def pictures(folder: Path) -> Path:
    """Twelve pictures, of which two cannot be decoded and one is nine times as large."""
    draw = np.random.default_rng(0)
    for name in NAMES:
        scale = 3 if name == HUGE else 1
        pixels = draw.integers(0, 256, (HEIGHT * scale, WIDTH * scale, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
        if name in BAD:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: len(content) // 2])
    return folder


Carry = Callable[..., Iterator[Outcome]]


@pytest.fixture
def carry(small: Classifier, folder: Path, tmp_path: Path) -> Carry:
    def carry_out(out: str = "out", **given: Any) -> Iterator[Outcome]:
        defaults = {"target_layers": "last", "batch_size": 4, "save_path": tmp_path / out}
        options = from_keywords(**{**defaults, **given})
        return carry_out_plan(make_plan(small, options), find_sources([folder]), options)

    return carry_out


class Standing:
    """Notes how many pictures are decoded and not written yet, and how many there are at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.most_beside_huge = 0
        self.is_huge_there = False

    def decode(self, opened: OpenPicture) -> Picture:
        with self._lock:
            self.now += 1
            self.is_huge_there = self.is_huge_there or opened.size[0] > HEIGHT
            self.most = max(self.most, self.now)
            if self.is_huge_there:
                self.most_beside_huge = max(self.most_beside_huge, self.now)
        return DECODE(opened)

    def leave(self, budget: MemoryBudget) -> None:
        with self._lock:
            self.now = max(self.now - 1, 0)  # what failed before is not decoded again
            self.is_huge_there = False
        LEAVE(budget)


DECODE, LEAVE = OpenPicture.decode, MemoryBudget.leave


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Standing:
    seen = Standing()
    monkeypatch.setattr(OpenPicture, "decode", lambda opened: seen.decode(opened))
    monkeypatch.setattr(MemoryBudget, "leave", lambda budget: seen.leave(budget))
    return seen


def names_of(actual: Sequence[Outcome]) -> list[str]:
    return [outcome.source.path.name for outcome in actual]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in outputs(folder)}


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("scale", ["image", "run"])
def test_where_nothing_finds_room_each_picture_goes_alone(
    carry: Carry, pictures: Path, tmp_path: Path, standing: Standing, threads: int, scale: str
) -> None:
    assert len(list(pictures.iterdir())) == len(NAMES)
    free = list(carry("free", workers=threads, scale=scale))
    tight = list(carry("tight", workers=threads, scale=scale, max_memory=1))
    assert names_of(tight) == names_of(free) == list(NAMES)
    assert names_of([outcome for outcome in tight if outcome.failed]) == list(BAD)
    tight_files, free_files = (files_in(tmp_path / name) for name in ("tight", "free"))
    assert tight_files.keys() == free_files.keys()
    assert len(tight_files) == len(NAMES) - len(BAD)
    for name in free_files:
        one, other = (
            np.array(Image.open(tmp_path / folder / name)).astype(int)
            for folder in ("tight", "free")
        )
        # of a batch of another size a value may be rounded to the next colour
        assert np.abs(one - other).max() <= 4
    standing.most = 0
    list(carry("again", workers=threads, scale=scale, max_memory=1))
    assert standing.most == 1


@pytest.mark.parametrize("threads", [0, 3])
def test_as_many_are_held_as_find_room_and_one_too_large_is_alone(
    carry: Carry,
    pictures: Path,
    standing: Standing,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    batches: list[int] = []
    explain = stages.explain_batch
    monkeypatch.setattr(
        stages,
        "explain_batch",
        lambda batch, plan: batches.append(len(batch)) or explain(batch, plan),
    )
    largest = max((pictures / name).stat().st_size for name in NAMES if name != HUGE)
    one = Need.of((HEIGHT, WIDTH))
    limit = 2 * (one.held + largest) + min(2, threads or 1) * one.at_work
    actual = list(carry(workers=threads, max_memory=limit))
    assert names_of(actual) == list(NAMES)
    assert names_of([outcome for outcome in actual if outcome.failed]) == list(BAD)
    assert (standing.most, standing.most_beside_huge) == (2, 1)
    assert max(batches) == 2 and sum(batches) == len(NAMES) - len(BAD)
    assert standing.now == 0


@pytest.mark.parametrize("threads", [0, 3])
def test_frames_are_counted_with_their_overlays(
    carry: Carry, folder: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    write_video(folder / "a.mp4")
    needs: list[Need] = []
    enter = MemoryBudget.enter

    def note(budget: MemoryBudget, need: Need) -> None:
        needs.append(need)
        enter(budget, need)

    monkeypatch.setattr(MemoryBudget, "enter", note)
    actual = list(carry(workers=threads, max_memory=1, top_k=2))
    assert [outcome.last for outcome in actual] == [False] * COUNT + [True]
    frames = [need for need in needs if need.held]
    pixels = frames[0].at_work // AT_WORK
    assert frames == [Need(pixels * (HELD + 2 * OVERLAY), pixels * AT_WORK)] * COUNT
    assert needs[COUNT:] == [Need()]  # the film's end


def test_another_limit_is_the_same_run(carry: Carry, pictures: Path) -> None:
    assert len(list(carry(max_memory=1))) == len(list(pictures.iterdir()))
    assert list(carry(max_memory="30%", resume=True)) == []


def test_one_finds_room_that_fits_or_is_alone() -> None:
    budget = MemoryBudget(10)
    assert budget.has_room(Need(20))
    budget.enter(Need(4))
    assert budget.has_room(Need(6)) and not budget.has_room(Need(7))
    budget.enter(Need(6))
    assert budget.taken == 10
    assert budget.has_room(Need()) and not budget.has_room(Need(1))
    budget.leave()
    assert budget.has_room(Need(4)) and not budget.has_room(Need(5))
    budget.leave()
    assert budget.has_room(Need(20))


def test_work_is_counted_for_as_many_as_there_are_threads() -> None:
    budget = MemoryBudget(100, threads=2)
    for work in (5, 7, 6):
        budget.enter(Need(1, work))
    assert budget.taken == 3 + 7 + 6
    budget.leave()
    budget.leave()
    assert budget.taken == 1 + 6


# what is asked for


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("1", 1),
        ("2G", 2**31),
        ("2g", 2**31),
        ("1.5GiB", 3 * 2**29),
        ("512M", 2**29),
        ("64k", 2**16),
        ("1T", 2**40),
        ("30%", 0.3),
        ("100 %", 1.0),
        ("0.25", 0.25),
        (0.25, 0.25),
        (7, 7),
    ],
)
def test_memory_is_bytes_or_a_share(typed: object, expected: float) -> None:
    actual = from_keywords(max_memory=typed).max_memory
    assert (actual, type(actual)) == (expected, type(expected))


@pytest.mark.parametrize("typed", ["0", "0%", "101%", "-1G", "2.5", 2.5, "G", "nan", "many", True])
def test_what_is_no_memory(typed: object) -> None:
    with pytest.raises(ConfigError, match=r"max_memory takes bytes from 1, such as 2G, or a share"):
        from_keywords(max_memory=typed)


def test_a_share_is_one_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "measure_free_memory", lambda: 1000)
    assert (resolve_memory(0.3), resolve_memory(2000)) == (300, 2000)
    assert resolve_memory(Options().max_memory) == 500
    # torchrun's processes share the machine
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (resolve_memory(0.5), resolve_memory(2000)) == (125, 2000)


@pytest.mark.parametrize(("free", "expected"), [(None, 2**31), (0, 1)])
def test_a_share_of_what_nobody_tells_or_of_nothing(
    free: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "measure_free_memory", lambda: free)
    assert resolve_memory(0.5) == expected
