"""How many pictures fit in a pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import camcli
from camcli.config import from_keywords
from camcli.engine import sizing
from camcli.engine.sizing import fitting, largest_batch
from camcli.models.load import Classifier
from camcli.pipeline import make_plan

MEGA = 2**20


@pytest.mark.parametrize(
    ("room", "each", "size"),
    [(100, 1, 32), (100, 6, 8), (100, 6.25, 8), (100, 7, 4), (100, 49, 1), (100, 1000, 1)],
)
def test_half_of_the_room_is_filled_by_a_power_of_two(room: int, each: float, size: int) -> None:
    assert fitting(room, each, 32) == size


def test_a_run_is_measured_by_its_peak() -> None:
    if sizing._room(torch.device("cpu")) is None:
        pytest.skip("this system does not tell")

    def run() -> None:
        torch.ones(64 * MEGA).sum()

    # torch's own threads and caches come on top
    assert 250 * MEGA < sizing.taken_by(torch.device("cpu"), run) < 350 * MEGA


@pytest.fixture
def classifier() -> Classifier:
    return camcli.load_model("timm/test_resnet", pretrained=False, device="cpu")


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int | None], None]:
    """Lets four pictures take so many bytes of so much room, and runs what is measured."""

    def said(taken: int, room: int | None) -> None:
        def measured(_: torch.device, run: Callable[[], None]) -> int:
            run()
            return taken

        monkeypatch.setattr(sizing, "taken_by", measured)
        monkeypatch.setattr(sizing, "_room", lambda _: room)

    return said


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "eigencam", "rise"])
def test_auto_is_what_fits_for_pictures_and_altered_copies(
    method: str, classifier: Classifier, taking: Callable[[int, int | None], None]
) -> None:
    taking(4 * MEGA, 33 * MEGA)
    todo = make_plan(classifier, from_keywords(method=method, batch_size="auto"))
    assert (todo.batch_size, todo.request.chunk) == (16, 16)


def test_auto_is_the_default_where_memory_cannot_be_measured(
    classifier: Classifier, taking: Callable[[int, int | None], None]
) -> None:
    taking(1, None)
    todo = make_plan(classifier, from_keywords(batch_size=" AUTO"))
    plain = make_plan(classifier, from_keywords())
    assert (todo.batch_size, todo.request.chunk) == (plain.batch_size, plain.request.chunk)
    assert (plain.batch_size, plain.request.chunk) == (8, 32)


def test_measuring_leaves_the_model_as_it_was(classifier: Classifier) -> None:
    todo = make_plan(classifier, from_keywords())
    module = classifier.module.train()
    size = largest_batch(module, todo.request, (3, 64, 64), lambda n: todo.choice([None] * n))
    assert size in (None, 1, 2, 4, 8, 16, 32)
    assert module.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
