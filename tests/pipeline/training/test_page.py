"""The examples of the handbook's page train a small network and log what they say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import camcli
from tests.documented import is_python, list_blocks
from tests.pipeline.training.writers import Learner, Writer, make_batches

PAGE = Path(camcli.__file__).parent / "docs" / "training.md"
PLAIN, LIGHTNING = (block for block in list_blocks(PAGE) if is_python(block))


def make_names() -> dict[str, Any]:
    """Makes what a reader has at hand."""
    from torchvision import transforms

    transform = transforms.Compose(
        [transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor()]
    )
    photos = [np.random.default_rng(n).integers(0, 256, (36, 48, 3), np.uint8) for n in (0, 1)]
    torch.manual_seed(0)
    return {"model": Learner(2), "photos": photos, "transform": transform}


def test_ten_lines_with_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorboard: Any = ModuleType("torch.utils.tensorboard")
    tensorboard.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    names = make_names() | {"loader": make_batches(2)}
    exec(compile(PLAIN, PAGE.name, "exec"), names)
    logged = names["writer"].logged
    tags = ("overlays/picture", "overlays/picture/2")
    assert list(logged) == [(tag, step) for step in (0, 5, 10, 15) for tag in tags]
    lines = [line for line in PLAIN.splitlines() if "import" not in line and line.strip()]
    assert len(lines) == 10


@pytest.mark.filterwarnings("ignore")  # of Lightning's own
def test_the_callback_with_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    pl = pytest.importorskip("lightning.pytorch")
    monkeypatch.chdir(tmp_path)

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Learner(2)

        def forward(self, images: Any) -> Any:
            return self.net(images)

        def training_step(self, batch: Any, _: int) -> Any:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    loader = torch.utils.data.DataLoader(make_batches(2), batch_size=None)
    names = make_names() | {"loader": loader, "lightning_module": Module()}
    exec(compile(LIGHTNING, PAGE.name, "exec"), names)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = tmp_path.rglob("events*")
    read = EventAccumulator(str(file), {"images": 0})  # all of them
    read.Reload()
    # three batches an epoch
    steps = [event.step for event in read.Images("overlays/picture")]
    assert steps == [0, 15, 30, 45, 60]
