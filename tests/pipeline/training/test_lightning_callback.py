"""The callback in Lightning's own Trainer, under both of its names."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn

import camcli
from camcli.errors import ImageError, UnknownName, UsageError
from camcli.pipeline.training import lightning_callback
from tests.pipeline.training.writers import (
    Learner,
    Writer,
    assert_equal_weights,
    make_batches,
    read_random_states,
    seed_all,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
VIEW: dict[str, Any] = {"preprocessing": {"mean": 0.5, "std": 0.5, "fit": "squash"}, "img_size": 32}


def make_trainer(**given: Any) -> Any:
    """Makes what a callback sees of a Trainer."""
    logger = SimpleNamespace(experiment=Writer())
    usual = {"is_global_zero": True, "world_size": 1, "global_step": 0, "current_epoch": 0}
    return SimpleNamespace(**{**usual, "loggers": [logger], **given})


def list_logged(trainer: Any) -> list[tuple[str, int | None]]:
    return [key for logger in trainer.loggers for key in logger.experiment.logged]


def test_it_logs_before_the_first_epoch_and_after_every_second() -> None:
    callback = camcli.OverlayCallback(PICTURE, every=2, **VIEW)
    trainer, model = make_trainer(), Learner()
    callback.on_train_start(trainer, model)
    for epoch in range(5):
        trainer.current_epoch, trainer.global_step = epoch, 10 * (epoch + 1)
        callback.on_train_epoch_end(trainer, model)
    assert list_logged(trainer) == [("overlays/picture", step) for step in (0, 20, 40)]
    assert model.training
    callback.on_fit_end(trainer, model)
    assert callback._classifier is None


def test_it_explains_the_weights_of_the_moment() -> None:
    callback = camcli.OverlayCallback(PICTURE, target_category=1, **VIEW)
    trainer, model = make_trainer(), Learner()
    callback.on_train_start(trainer, model)
    with torch.no_grad():
        model[4].weight.normal_()
    trainer.global_step = 1
    callback.on_train_epoch_end(trainer, model)
    first, second = trainer.loggers[0].experiment.logged.values()
    (e,) = camcli.explain(model, PICTURE, target_category=1, **VIEW)
    assert np.array_equal(second, e.overlay(caption=True))
    assert not np.array_equal(first, second)


def test_it_logs_to_every_logger_that_takes_pictures_in_the_first_process_alone() -> None:
    able, other = SimpleNamespace(experiment=Writer()), SimpleNamespace(experiment=Writer())
    loggers = [able, SimpleNamespace(experiment=None), other]
    callback = camcli.OverlayCallback(PICTURE, **VIEW)
    callback.on_train_start(make_trainer(loggers=loggers, is_global_zero=False), Learner())
    assert not able.experiment.logged
    callback.on_train_start(make_trainer(loggers=loggers), Learner())
    assert len(able.experiment.logged) == len(other.experiment.logged) == 1


def test_a_module_inside_is_found_by_its_name() -> None:
    whole = nn.ModuleDict({"net": nn.ModuleDict({"inner": Learner()}), "other": Learner()})
    trainer = make_trainer()
    camcli.OverlayCallback(PICTURE, network="net.inner", **VIEW).on_train_start(trainer, whole)
    assert len(list_logged(trainer)) == 1
    with pytest.raises(UnknownName, match=r"Unknown network 'net.inne'. Closest: 'net.inner'"):
        camcli.OverlayCallback(PICTURE, network="net.inne").on_train_start(trainer, whole)


def test_what_is_wrong_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"argument of OverlayCallback 'metod'.*'method'"):
        camcli.OverlayCallback(PICTURE, metod="gradcam")
    with pytest.raises(UsageError, match="every is a number of epochs, 1 or more, not 0"):
        camcli.OverlayCallback(PICTURE, every=0)
    with pytest.raises(UsageError, match="alpha is a share"):
        camcli.OverlayCallback(PICTURE, alpha=-1)
    with pytest.raises(UnknownName, match="colour map"):
        camcli.OverlayCallback(PICTURE, colormap="jett")
    with pytest.raises(ImageError, match="no such file"):
        camcli.OverlayCallback([PICTURE, tmp_path / "missing.jpg"])
    trainer = make_trainer(loggers=[SimpleNamespace()])
    with pytest.raises(UsageError, match="The Trainer has SimpleNamespace, and overlays need one"):
        camcli.OverlayCallback(PICTURE, **VIEW).on_train_start(trainer, Learner())
    with pytest.raises(UsageError, match="The Trainer has no logger, and overlays need one"):
        camcli.OverlayCallback(PICTURE).on_train_start(make_trainer(loggers=[]), Learner())


class FullyShardedDataParallel(nn.Sequential):
    """Has the name of torch's wrapper, which wants several processes."""


@pytest.mark.filterwarnings("ignore")  # of torch.distributed's own
def test_weights_that_are_spread_over_processes_are_refused() -> None:
    trainer, callback = make_trainer(world_size=2), camcli.OverlayCallback(PICTURE, **VIEW)
    with pytest.raises(UsageError, match=r"share of the weights \(FSDP\)"):
        callback.on_train_start(trainer, FullyShardedDataParallel(Learner()))
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import distribute_tensor

        model, mesh = Learner(), init_device_mesh("cpu", (1,))
        model[-1].weight = nn.Parameter(distribute_tensor(model[-1].weight.detach(), mesh))
        with pytest.raises(UsageError, match=r"share of the weights \(FSDP\)"):
            callback.on_train_start(trainer, model)
    finally:
        distributed.destroy_process_group()
    callback.on_train_start(trainer, Learner())
    assert len(list_logged(trainer)) == 1


def test_it_is_a_callback_of_each_lightning_that_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in lightning_callback.LIGHTNING:
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert type(camcli.OverlayCallback(PICTURE)) is camcli.OverlayCallback
    bases = []
    for name in lightning_callback.LIGHTNING:
        module: Any = ModuleType(name)
        module.Callback = type("Callback", (), {})
        monkeypatch.setitem(sys.modules, name, module)
        bases.append(module.Callback)
        callback = camcli.OverlayCallback(PICTURE, every=3)
        assert isinstance(callback, (camcli.OverlayCallback, *bases)) and callback.every == 3
        assert all(isinstance(callback, base) for base in bases)


def test_a_copy_leaves_the_model_behind() -> None:
    callback = camcli.OverlayCallback(PICTURE, every=3, tag="val", **VIEW)
    callback.on_train_start(make_trainer(), model := Learner())
    callback.log = model.forward  # type: ignore[attr-defined]  # as Lightning does
    for again in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        trainer = make_trainer()
        assert again._classifier is None and not hasattr(again, "log")
        again.on_train_start(trainer, Learner())
        assert list_logged(trainer) == [("val/picture", 0)] and again.every == 3


@pytest.mark.filterwarnings("ignore")  # of Lightning's own
@pytest.mark.parametrize("package", lightning_callback.LIGHTNING)
def test_lightning_trains_to_the_same_weights(package: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pl = pytest.importorskip(package)

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Learner()

        def training_step(self, batch: Any, _: int) -> Any:
            images, classes = batch
            return nn.functional.cross_entropy(self.net(images), classes)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    def train(callbacks: list[Any], folder: str) -> tuple[Any, list[Any]]:
        seed_all()
        model, logger = Module(), pl.loggers.TensorBoardLogger(str(tmp_path / folder))
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=False,
            **quiet,
        )
        # each batch as it is
        trainer.fit(model, torch.utils.data.DataLoader(make_batches(), batch_size=None))
        return model, read_random_states()

    plain, plain_states = train([], "plain")
    callback = camcli.OverlayCallback(PICTURE, every=2, network="net", **VIEW)
    assert isinstance(callback, pl.Callback)
    logged, states = train([callback], "logged")
    assert_equal_weights(logged, plain)
    assert states == plain_states
    assert read_steps(tmp_path / "logged") == [0, 6]
    with pytest.raises(UsageError, match=r"Module has no forward: name .* network='net'"):
        train([camcli.OverlayCallback(PICTURE)], "wrong")


def read_steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob("events*")
    read = EventAccumulator(str(file))
    read.Reload()
    assert read.Tags()["images"] == ["overlays/picture"]
    return [event.step for event in read.Images("overlays/picture")]
