"""How many pictures fit in a pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import camcli
from camcli.config import from_keywords
from camcli.engine.device import batch_size
from camcli.engine.device.batch_size import find_largest_batch, round_batch_size
from camcli.models.load import Classifier
from camcli.pipeline import make_plan

MEGA = 2**20


@pytest.mark.parametrize(
    ("room", "each", "size"),
    [(100, 1, 32), (100, 6, 8), (100, 6.25, 8), (100, 7, 4), (100, 49, 1), (100, 1000, 1)],
)
def test_half_of_the_room_is_filled_by_a_power_of_two(room: int, each: float, size: int) -> None:
    assert round_batch_size(room, each, 32) == size


def test_a_run_is_measured_by_its_peak() -> None:
    if batch_size._measure_free_memory(torch.device("cpu")) is None:
        pytest.skip("this system does not tell")

    def run() -> None:
        torch.ones(64 * MEGA).sum()

    # torch's own threads and caches come on top
    assert 250 * MEGA < batch_size.measure_memory(torch.device("cpu"), run) < 350 * MEGA


@pytest.fixture
def classifier() -> Classifier:
    return camcli.load_model("timm/test_resnet", pretrained=False, device="cpu")


@pytest.fixture
def make_taking(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int | None], None]:
    """Lets four pictures take so many bytes of so much room, and runs what is measured."""

    def note(taken: int, room: int | None) -> None:
        def measure(_: torch.device, run: Callable[[], None]) -> int:
            run()
            return taken

        monkeypatch.setattr(batch_size, "measure_memory", measure)
        monkeypatch.setattr(batch_size, "_measure_free_memory", lambda _: room)

    return note


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "eigencam", "rise"])
def test_auto_is_what_fits_for_pictures_and_altered_copies(
    method: str, classifier: Classifier, make_taking: Callable[[int, int | None], None]
) -> None:
    make_taking(4 * MEGA, 33 * MEGA)
    plan = make_plan(classifier, from_keywords(method=method, batch_size="auto"))
    assert (plan.batch_size, plan.request.chunk) == (16, 16)


def test_auto_is_the_default_where_memory_cannot_be_measured(
    classifier: Classifier, make_taking: Callable[[int, int | None], None]
) -> None:
    make_taking(1, None)
    plan = make_plan(classifier, from_keywords(batch_size=" AUTO"))
    plain = make_plan(classifier, from_keywords())
    assert (plan.batch_size, plan.request.chunk) == (plain.batch_size, plain.request.chunk)
    assert (plain.batch_size, plain.request.chunk) == (8, 32)


@pytest.mark.parametrize(
    ("asked", "room", "expected"),
    [
        (10**9, 33 * MEGA, 16),
        (1000, 33 * MEGA, 16),
        (1000, 2000 * MEGA, 1000),
        (1000, 1999 * MEGA, 512),
        (1000, None, 1000),
        (256, 1, 256),
    ],
)
def test_a_large_batch_is_held_against_the_memory_there_is(
    asked: int,
    room: int | None,
    expected: int,
    classifier: Classifier,
    make_taking: Callable[[int, int | None], None],
) -> None:
    make_taking(4 * MEGA, room)
    plan = make_plan(classifier, from_keywords(batch_size=asked))
    assert (plan.batch_size, plan.request.chunk) == (expected, expected)
    words = (
        f"a batch of {asked:,} pictures needs more memory than there is: batches have {expected:,}"
    )
    assert any(words in warning for warning in plan.warnings) == (expected < asked)


def test_measuring_leaves_the_model_as_it_was(classifier: Classifier) -> None:
    plan = make_plan(classifier, from_keywords())
    module = classifier.module.train()
    size = find_largest_batch(module, plan.request, (3, 64, 64), lambda n: plan.choice([None] * n))
    assert size in (None, 1, 2, 4, 8, 16, 32)
    assert module.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
