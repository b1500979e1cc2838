"""A tiny network, weights for it, and the way from a file into it."""

import collections
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.checkpoints.checkpoint import read_checkpoint
from camcli.models.checkpoints.state_dict_matching import fit_checkpoint
from camcli.models.checkpoints.weight_loading import load_into
from camcli.models.model_spec import BuiltModel, ModelSpec
from camcli.records import Preprocessing

State = dict[str, Tensor]


class Tiny(nn.Module):
    """Has the names of a ResNet: a stem, a stage whose names end like the stem's, a classifier."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(
            collections.OrderedDict(conv1=nn.Conv2d(4, 4, 3), bn1=nn.BatchNorm2d(4))
        )
        self.fc = nn.Linear(4, classes)


def state(seed: int = 0, classes: int = 5) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.tensor(7)
        for name, tensor in Tiny(classes).state_dict().items()
    }


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def save_state(folder: Path, content: Any, name: str = "a.pth", **how: Any) -> Path:
    torch.save(content, folder / name, **how)
    return folder / name


def load_state(file: Path, model: nn.Module, *, strict: bool = True) -> tuple[str, ...]:
    built = BuiltModel(model, Preprocessing((8, 8), (8, 8)), 5, "random", ("fc",), ("conv1",))
    actual = fit_checkpoint(read_checkpoint(file), model, None, built.classifiers)
    return load_into(built, actual, ModelSpec("tiny"), strict=strict)
