"""Overlays go to a logger, and training goes on as without them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn

import camcli
from camcli.errors import CamvizWarning, UsageError
from tests.pipeline.training.writers import (
    Learner,
    Writer,
    assert_equal_weights,
    make_batches,
    read_random_states,
    seed_all,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
VIEW = {"mean": 0.5, "std": 0.5, "fit": "squash"}


def explain(model: nn.Module, pictures: Any = PICTURE, **options: Any) -> Any:
    given = {"preprocessing": VIEW, "img_size": 32, "labels": ["a", "b", "c"], **options}
    return camcli.explain(model, pictures, **given)


def train(after_epoch: Callable[[nn.Module, int], None]) -> tuple[nn.Module, list[Any]]:
    """Trains for two epochs, and also returns where the random generators are then."""
    seed_all()
    model = Learner()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(2):
        for images, classes in make_batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), classes).backward()
            optimizer.step()
        after_epoch(model, epoch)
    return model, read_random_states()


@pytest.mark.parametrize("method", ["gradcam", "eigencam", "smoothgradcam++", "rise", "fullgrad"])
def test_training_goes_on_as_without_it(method: str) -> None:
    writer = Writer()

    def log(model: nn.Module, epoch: int) -> None:
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        options = {"set": {"masks": 8}} if method == "rise" else {}
        camcli.log_overlays(writer, explain(model, method=method, **options), step=epoch)
        assert all(m.training for m in model.modules())
        assert all(p.requires_grad for p in model.parameters())
        after = [p.grad for p in model.parameters() if p.grad is not None]
        assert len(after) == len(gradients) > 0
        assert all(map(torch.equal, after, gradients))

    plain, plain_states = train(lambda *_: None)
    logged, states = train(log)
    assert_equal_weights(logged, plain)
    assert states == plain_states
    assert list(writer.logged) == [("overlays/picture", 0), ("overlays/picture", 1)]


def test_the_pixels_are_those_of_the_overlay_with_its_caption() -> None:
    writer, model = Writer(), Learner().eval()
    camcli.log_overlays(writer, explain(model), step=3, alpha="auto", colormap="viridis")
    (e,) = explain(model)
    ((key, pixels),) = writer.logged.items()
    assert key == ("overlays/picture", 3)
    assert np.array_equal(pixels, e.overlay("auto", "viridis", caption=True))
    assert pixels.shape[0] > 40 and pixels.shape[1:] == (50, 3)


def test_names_tell_pictures_methods_and_ranks_apart(tmp_path: Any) -> None:
    from PIL import Image

    writer, model = Writer(), Learner().eval()
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        Image.fromarray(PICTURE).save(tmp_path / folder / "cat.png")
    photos = [tmp_path / "one" / "cat.png", tmp_path / "other" / "cat.png", PICTURE]
    camcli.log_overlays(writer, explain(model, photos, top_k=2), tag="val")
    names = ["val/cat.png", "val/cat.png/2", "val/cat.png/3", "val/cat.png/4"]
    assert [tag for tag, _ in writer.logged] == [*names, "val/picture", "val/picture/2"]
    writer = Writer()
    camcli.log_overlays(writer, explain(model, method=["gradcam", "layercam"], top_k=2), 1)
    begin = "overlays/picture"
    expected = {f"{begin}/gradcam", f"{begin}/gradcam/2", f"{begin}/layercam"}
    assert {tag for tag, _ in writer.logged} == {*expected, f"{begin}/layercam/2"}


def test_of_several_processes_the_first_alone_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    for rank, count in ((1, 0), (0, 1)):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        made: list[Any] = []
        explanations = (made.append(e) or e for e in explain(Learner().eval()))
        writer = Writer()
        camcli.log_overlays(writer, explanations)
        assert len(made) == len(writer.logged) == count


class Run:
    """A run of Weights & Biases, whose steps only grow."""

    def __init__(self) -> None:
        self.step, self.logged = 0, list[tuple[dict[str, Any], int | None]]()

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((data, step))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Image:
        def __init__(self, pixels: Any, caption: str) -> None:
            self.pixels, self.caption = pixels, caption

    monkeypatch.setattr(Run, "__module__", "wandb.sdk.wandb_run")
    module: Any = ModuleType("wandb")
    module.Image, module.run = Image, None
    module.init = module.log = lambda: None
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_run_of_weights_and_biases_gets_all_in_one_step(wandb: Any) -> None:
    run, model = Run(), Learner().eval()
    camcli.log_overlays(run, explain(model, top_k=2), step=4)
    ((data, step),) = run.logged
    assert step == 4 and list(data) == ["overlays/picture", "overlays/picture/2"]
    (e,) = explain(model)
    first = data["overlays/picture"]
    assert isinstance(first, wandb.Image)
    assert np.array_equal(first.pixels, e.overlay(caption=True))
    assert e.label in first.caption and "gradcam" in first.caption


def test_a_step_that_would_be_dropped_is_said_and_left_out(wandb: Any) -> None:
    run = wandb.run = Run()
    run.step = 9
    with pytest.warns(CamvizWarning, match="is at step 9 and would drop pictures of step 4"):
        camcli.log_overlays(wandb, explain(Learner().eval()), step=4)
    assert [step for _, step in run.logged] == [None]


def test_lightnings_logger_of_a_run_says_its_own_step(wandb: Any) -> None:  # noqa: ARG001
    class WandbLogger:
        experiment = Run()
        logged: tuple[Any, ...] = ()

        def log_metrics(self, metrics: Any, step: int) -> None:
            self.logged = (list(metrics), step)

    logger = WandbLogger()
    camcli.log_overlays(logger, explain(Learner().eval()), step=7)
    assert logger.logged == (["overlays/picture"], 7) and logger.experiment.logged == []


def test_what_takes_no_picture_is_refused(wandb: Any) -> None:
    with pytest.raises(UsageError, match="A dict takes no pictures: give a SummaryWriter"):
        camcli.log_overlays({}, [])
    with pytest.raises(UsageError, match=r"no run yet: call wandb.init\(\)"):
        camcli.log_overlays(wandb, [])
    with pytest.raises(UsageError, match="alpha is a share"):
        camcli.log_overlays(Writer(), [], alpha=2)


@pytest.mark.filterwarnings("ignore")  # of its own
def test_the_writer_of_tensorboard_itself(tmp_path: Any) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in (1, 2):
            camcli.log_overlays(writer, explain(Learner().eval()), step=step)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    (tag,) = read.Tags()["images"]
    assert tag == "overlays/picture" and [e.step for e in read.Images(tag)] == [1, 2]
    assert {(e.width, e.height > 40) for e in read.Images(tag)} == {(50, True)}


@pytest.mark.slow  # starts a process
@pytest.mark.filterwarnings("ignore")  # of its own
def test_a_run_of_weights_and_biases_itself(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="camviz", mode="offline", dir=str(tmp_path)) as run:
        camcli.log_overlays(run, explain(Learner().eval()), step=2)
        camcli.log_overlays(wandb, explain(Learner().eval(), top_k=2))
    written = {path.name.rsplit("_", 2)[0] for path in tmp_path.rglob("*.png")}
    assert written == {"picture", "2"}
