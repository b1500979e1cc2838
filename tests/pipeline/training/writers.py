"""What stands in the place of people's loggers, and a network that has much to lose."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Writer:
    """Takes pictures as TensorBoard's SummaryWriter does."""

    def __init__(self, *_: Any) -> None:
        self.logged: dict[tuple[str, int | None], Any] = {}

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int | None = None, dataformats: str = "CHW"
    ) -> None:
        assert dataformats == "HWC" and img_tensor.dtype == np.uint8
        self.logged[tag, global_step] = img_tensor


class Learner(nn.Sequential):
    """Batch norms with their statistics, dropout that draws numbers, three classes."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.3),
            nn.Conv2d(6, 6, 3, 2, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, num_classes),
        )


def make_batches(num_classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(4, 3, 32, 32, generator=generator),
            torch.randint(0, num_classes, (4,), generator=generator),
        )
        for _ in range(3)
    ]


def read_random_states() -> list[Any]:
    """Reads where the generators stand that a training draws of."""
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]


def seed_all() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    """Asserts that all weights and statistics are the same, bit for bit."""
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, theirs[name]), name
        assert value.stride() == theirs[name].stride(), name
