"""The classifier that ships with camviz: a demonstrator for 100 everyday classes."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from camcli.models.embedded.network import Network
from camcli.records import Fit, Preprocessing

NAME = "embedded"
SIZE = 88
FIT: Fit = "squash"


def labels() -> tuple[str, ...]:
    """Returns the names of its classes, in the order of its logits."""
    text = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def preprocessing(size: tuple[int, int] = (SIZE, SIZE)) -> Preprocessing:
    """Returns what it was trained for: the whole picture, at any shape, in view."""
    return Preprocessing(size=size, scale=size, interpolation="bicubic", fit=FIT)


def load() -> tuple[Network, Preprocessing, tuple[str, ...]]:
    """Returns the trained network, its preprocessing and its labels.  [b 3 H W] -> [b 100]"""
    names = labels()
    # built without memory, since drawing weights only to replace them takes longer than reading
    with torch.device("meta"):
        network = Network(len(names))
    weights = load_file(Path(__file__).with_name("weights.safetensors"))
    network.load_state_dict(weights, assign=True)
    return network.eval(), preprocessing(), names
