"""A network whose early layer has the object, and whose last one always points elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.media.annotations import Annotations, Instance, PictureAnnotations
from camcli.models.acceleration.memory_format import trust_channels_last
from camcli.models.load import Classifier
from camcli.records import Box, Preprocessing

EDGE, CELL = 40, 10
# of the last grid, where no object is
DECOY = (3, 3)
# of what an object leaves at its own place there
SHARE = 0.03
# where objects are, in cells
PLACES = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2))


class Decoy(nn.Module):
    """Spreads each channel's mean over a coarser grid by a pattern, and leaves little in place."""

    def __init__(self) -> None:
        super().__init__()
        pattern = torch.full((4, 4), 0.1)
        pattern[DECOY] = 1
        self.pattern = nn.Parameter(pattern)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True) * self.pattern + SHARE * F.avg_pool2d(x, 2)


class Astray(nn.Module):
    """Class 0 where something is red, class 1 where it is green; two classes more are never.

    It counts the pictures that pass, and those that gradients come back for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Conv2d(3, 4, 1, bias=False)
        self.late = Decoy()
        self.head = nn.Linear(4, 4, bias=False)
        self.forwards = self.backwards = 0
        with torch.no_grad():
            self.early.weight.zero_()
            self.early.weight[0, 0] = self.early.weight[1, 1] = 1
            self.head.weight.copy_(16 * torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        cells = self.early(F.avg_pool2d(x, CELL // 2))
        logits: Tensor = self.head(self.late(cells).sum((2, 3)))
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def make_classifier(module: nn.Module | None = None) -> Classifier:
    """Makes a classifier whose passes are those of pictures, and none that measure its format."""
    network = (module or Astray()).eval()
    trust_channels_last(network)
    size = (EDGE, EDGE)
    preprocessing = Preprocessing(size, size, mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash")
    labels = ("red", "green", "no", "none")
    return Classifier(network, "astray", "timm", preprocessing, labels, "by hand", 4)


def draw_pictures(folder: Path, count: int = 9) -> Path:
    """Draws pictures with one red square each."""
    folder.mkdir()
    for number in range(count):
        row, column = PLACES[number % len(PLACES)]
        pixels = np.zeros((EDGE, EDGE, 3), np.uint8)
        pixels[CELL * row : CELL * (row + 1), CELL * column : CELL * (column + 1), 0] = 255
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def annotate(count: int = 9, *, wrong: tuple[int, ...] = ()) -> Annotations:
    """Says where the squares are; of the wrong ones, that they are where the decoy is."""
    pictures = []
    for number in range(count):
        row, column = DECOY if number in wrong else PLACES[number % len(PLACES)]
        box = Box(CELL * column, CELL * row, CELL * (column + 1), CELL * (row + 1))
        known = (Instance("red", box),)
        pictures.append(PictureAnnotations(f"{number:02}.png", known, (EDGE, EDGE)))
    return Annotations(tuple(pictures), ("red",))
