"""The hash that stands for a model's weights."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from camcli.models.state import weights_hash


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("nothing", torch.empty(0))


def test_the_same_weights_have_one_hash() -> None:
    found = weights_hash(Small())
    assert len(found) == 16 and int(found, 16) >= 0
    same = [
        Small(),
        Small().to(memory_format=torch.channels_last),
        nn.DataParallel(Small()),
        Small().eval().requires_grad_(False),
    ]
    assert {weights_hash(module) for module in same} == {found}


@pytest.mark.parametrize(
    "changed",
    [
        lambda m: m.conv.weight.data[3, 2, 2, 2].add_(1e-6),
        lambda m: m.norm.running_mean.add_(1),
        lambda m: m.scale.data.neg_(),
        lambda m: m.double(),
        lambda m: m.bfloat16(),
        lambda m: setattr(m, "other", m.__dict__["_modules"].pop("norm")),
        lambda m: setattr(
            m.conv, "weight", nn.Parameter(m.conv.weight.detach().reshape(4, 9, 3, 1))
        ),
    ],
    ids=["value", "buffer", "scalar", "float64", "bfloat16", "name", "shape"],
)
def test_other_weights_have_another(changed: Callable[[Small], object]) -> None:
    module = Small()
    before = weights_hash(module)
    changed(module)
    assert weights_hash(module) != before


def test_it_leaves_the_weights_alone() -> None:
    module = Small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weights_hash(module)
    assert all(torch.equal(before[name], now) for name, now in module.state_dict().items())
