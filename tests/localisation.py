"""Measures the embedded model on the validation photos: `python -m tests.localisation DATA`.

DATA is the folder of `val.npz` (its format: `camcli/models/embedded/train.py`) with one box a
photo, both ends included.  Grad-CAM at the default layer for the true class; the map is enlarged
to the photo, and its box is that of the largest component above 20 % of its maximum
(arXiv:1512.04150 sec. 3.2).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import camcli
from camcli.engine.run import Request, answer, target_layers_of
from camcli.engine.targets import Fixed
from camcli.media.geometry import view
from camcli.methods.compose import enlarge, normalise
from camcli.models.embedded.train import Photos
from camcli.models.load import Classifier
from camcli.records import Picture

THRESHOLD = 0.2
SMALL = 0.25  # of the picture's area


@dataclass(frozen=True)
class Measured:
    """Per photo: whether the class is right, the boxes' overlap, and where the heat lies."""

    right: NDArray[np.bool_]
    overlap: NDArray[np.float64]
    peak_inside: NDArray[np.bool_]
    heat_inside: NDArray[np.float64]
    small: NDArray[np.bool_]

    def row(self) -> dict[str, float]:
        """The figures of the model card, as shares."""
        return {
            "top-1": self.right.mean(),
            "IoU >= 0.5": (self.overlap >= 0.5).mean(),
            "peak in box": self.peak_inside.mean(),
            "small: peak in box": self.peak_inside[self.small].mean(),
            "small: heat in box": self.heat_inside[self.small].mean(),
        }


def measure(classifier: Classifier, photos: Photos, boxes: NDArray[np.int16]) -> Measured:
    """Runs Grad-CAM for the true class of every photo.  boxes [n 4]: x0 y0 x1 y1"""
    layers, layouts = target_layers_of(classifier.module, inputs_of(classifier, photos, [0]), None)
    request = Request(("gradcam",), layers, layouts)
    right, rows = [], []
    size = (photos.pixels.shape[-2], photos.pixels.shape[-1])
    for indices in torch.arange(len(photos.labels)).split(250):
        inputs = inputs_of(classifier, photos, indices.tolist())
        labels = photos.labels[indices]
        found = answer(classifier.module, inputs, Fixed(labels[:, None]), request)
        right += (found.logits.argmax(1) == labels).tolist()
        (maps,) = found.maps["gradcam"].values()
        heat = enlarge(normalise(maps[:, 0]), size).double().numpy()
        rows += [_one(h, boxes[i]) for h, i in zip(heat, indices.tolist(), strict=True)]
    overlap, peak, inside = (np.array(column) for column in zip(*rows, strict=True))
    return Measured(np.array(right), overlap, peak, inside, is_small(boxes, size))


def is_small(boxes: NDArray[np.int16], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tells of which photos [h w] the object covers less than a quarter.  [n 4] -> [n]

    As the data's own figures count: from the first to the last row and column, 1,154 photos.
    """
    area = (boxes[:, 2] - boxes[:, 0] + 0.0) * (boxes[:, 3] - boxes[:, 1])
    return np.asarray(area < SMALL * size[0] * size[1])


def inputs_of(classifier: Classifier, photos: Photos, indices: list[int]) -> Tensor:
    """Returns the network's inputs for some of the photos.  -> [b 3 H W]"""
    pictures = [Picture(photos.pixels[i].permute(1, 2, 0).numpy()) for i in indices]
    return torch.stack([view(p, classifier.preprocessing).inputs for p in pictures])


def _one(heat: NDArray[np.float64], box: NDArray[np.int16]) -> tuple[float, bool, float]:
    x0, y0, x1, y1 = (int(v) for v in box)
    mask = (heat > THRESHOLD * heat.max()).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    overlap = 0.0
    if count > 1:
        left, top, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
        found = (left, top, left + width - 1, top + height - 1)
        overlap = _iou(found, (x0, y0, x1, y1))
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    inside = heat[y0 : y1 + 1, x0 : x1 + 1].sum() / max(heat.sum(), 1e-12)
    return overlap, bool(x0 <= x <= x1 and y0 <= y <= y1), float(inside)


def _iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    both = max(width, 0) * max(height, 0)
    areas = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
    return both / (areas - both)


def main(data: Path, sizes: list[int]) -> None:
    """Prints a row for each input size (the model's own where none is given)."""
    photos = Photos.read(data / "val.npz")
    with np.load(data / "val.npz") as file:
        boxes = file["box"]
    for size in sizes or [None]:
        classifier = camcli.load_model(img_size=size, device="cpu")
        row = measure(classifier, photos, boxes).row()
        print(classifier.preprocessing.size[0], {k: f"{v:.1%}" for k, v in row.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])
