"""The classifier that camviz begins with: EfficientNet-Lite0 of ImageNet's 1,000 classes."""

from __future__ import annotations

from pathlib import Path

import torch

from camcli.models.embedded.network import EfficientNetLite0
from camcli.models.embedded.weights import is_installed, read_weights
from camcli.models.preprocessing import compute_scale
from camcli.records import Preprocessing

__all__ = [
    "NAME",
    "SIZE",
    "EfficientNetLite0",
    "is_installed",
    "load_embedded",
    "load_labels",
    "make_preprocessing",
]


NAME = "embedded"
SIZE = 224
CROP_PCT = 0.875
MEAN = STD = (0.5, 0.5, 0.5)


def load_labels() -> tuple[str, ...]:
    """Returns the names of its classes, in the order of its logits."""
    text = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def make_preprocessing(size: tuple[int, int] = (SIZE, SIZE)) -> Preprocessing:
    """Returns what it was trained for: the centre of a picture, as timm cuts it out."""
    return Preprocessing(
        size=size,
        scale=compute_scale(size, CROP_PCT),
        mean=MEAN,
        std=STD,
        interpolation="bicubic",
        fit="crop",
    )


def load_embedded() -> tuple[EfficientNetLite0, Preprocessing, tuple[str, ...]]:
    """Returns the trained network, its preprocessing and its labels.  [b 3 H W] -> [b 1000]

    Raises WeightsError where the package with its weights is missing or was changed.
    """
    names = load_labels()
    # built without memory, since drawing weights only to replace them takes longer than reading
    with torch.device("meta"):
        network = EfficientNetLite0(len(names))
    network.load_state_dict(read_weights(), assign=True)
    return network.eval(), make_preprocessing(), names
