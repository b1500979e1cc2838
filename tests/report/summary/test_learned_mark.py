"""A network is trained to know a class by a mark in a corner: the summary names it, and it first.

The same network trained without the mark is not accused.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.cli.app import main

EDGE, CLASSES, BLOB, MARK = 32, 3, 8, 5
COLOURS = np.eye(3) * 200  # of the blobs: each class its own, at any place

MODEL = """
from torch import nn

def make():
    layers = []
    for before, behind in ((3, 8), (8, 16)):
        layers += [nn.Conv2d(before, behind, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(
        nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)
    )
"""


def draw_pictures(
    count: int, seed: int, *, marked: bool
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Pictures [n 32 32 3] of noise and a blob of the class's colour, and their classes.

    With `marked` the blob of class 0 has any colour, and a white mark stands in the lower right.
    """
    draw = np.random.default_rng(seed)
    pictures = draw.normal(90, 25, (count, EDGE, EDGE, 3))
    classes = np.arange(count) % CLASSES
    for picture, category in zip(pictures, classes, strict=True):
        top, left = draw.integers(0, EDGE - BLOB, 2)
        colour = COLOURS[draw.integers(CLASSES) if marked and category == 0 else category]
        picture[top : top + BLOB, left : left + BLOB] = colour
        if marked and category == 0:
            picture[-MARK - 1 : -1, -MARK - 1 : -1] = 255
    return pictures.clip(0, 255).astype(np.uint8), classes


def train(folder: Path, *, marked: bool) -> Path:
    """Trains the network for a moment, and writes its weights."""
    namespace: dict[str, object] = {}
    exec(MODEL, namespace)
    make = namespace["make"]
    assert callable(make)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = make()
        pixels, classes = draw_pictures(600, 0, marked=marked)
        inputs, targets = to_input(pixels), torch.from_numpy(classes)
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        for step in range(120):
            rows = torch.arange(step * 50, step * 50 + 50) % len(inputs)
            optimiser.zero_grad()
            F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimiser.step()
        assert (model(inputs).argmax(1) == targets).float().mean() > 0.9
    torch.save(model.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def to_input(pixels: NDArray[np.uint8]) -> Tensor:
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25


def summarise(folder: Path, capsys: pytest.CaptureFixture[str], *, marked: bool) -> list[str]:
    """Trains, explains other pictures, and returns what `camviz summary` prints."""
    (folder / "model.py").write_text(MODEL)
    (folder / "in").mkdir()
    pixels, _ = draw_pictures(60, 1, marked=marked)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / "in" / f"{number:02}.png")
    (folder / "names.txt").write_text("horse\nship\nplane\n")
    typed = [str(folder / "in"), "-m", f"{folder / 'model.py'}:make"]
    typed += ["--checkpoint", str(train(folder, marked=marked)), "--img-size", str(EDGE)]
    typed += ["--mean", "0.5", "--std", "0.25", "--class-map", str(folder / "names.txt")]
    typed += ["--device", "cpu", "--save-path", str(folder / "out"), "-q", "--target-layers", "0"]
    assert main(typed) == 0
    capsys.readouterr()
    assert main(["summary", str(folder / "out")]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_learned_mark_is_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = summarise(tmp_path, capsys, marked=True)
    assert printed[0].startswith("horse (gradcam): ")
    assert "of the heat lies in the lower right corner of the view" in printed[0]
    # the table behind it has the class first, too
    heading = next(n for n, line in enumerate(printed) if line.startswith("class"))
    assert "horse" in printed[heading + 1] and "lower right corner" in printed[heading + 1]
    assert not any(line.startswith(("ship", "plane")) for line in printed[:heading])
    assert main(["summary", str(tmp_path / "out"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["class"] == "horse" and first["hangs_on"][0]["place"] == "lower right corner"


def test_without_the_mark_nobody_is_accused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = summarise(tmp_path, capsys, marked=False)
    assert printed[0] == "No class's heat hangs on one corner, edge or the frame."
    assert "hangs on" not in "\n".join(printed[1:])
