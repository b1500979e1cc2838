"""Measures whether maps lie on the object: `python -m tests.semantics DATA [METHOD ...]`.

DATA is the folder of `val.npz` (its format: `camcli/models/embedded/train.py`) with one box a
photo, both ends included.  Of the photos whose object covers less than a quarter of the picture
those count that the embedded model classifies correctly; each is explained for its class at the
default layer, and the map enlarged to the photo.  Prints the table of `camcli/docs/methods.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import camcli
from camcli.engine.run import Request, answer, target_layers_of
from camcli.engine.targets import Fixed
from camcli.methods.compose import enlarge, normalise
from camcli.models.embedded.train import Photos
from camcli.models.load import Classifier
from camcli.registry import METHODS, depends_on_category
from tests.localisation import inputs_of, is_small

BASELINE = "randomcam"
GAUSSIAN = "a centred Gaussian"
# the standard deviation of the Gaussian, as a share of the picture's edge
WIDTH = 0.25
BATCH = 50
# thousands of passes a photo: measured on the first so many photos
SLOW: Mapping[str, int] = {"sscam": 50, "iscam": 50, "rise": 50}


@dataclass
class Shares:
    """Of each photo, whether the map's peak lies in the box, and the share of heat in it."""

    peaks: list[bool] = field(default_factory=list)
    heat: list[float] = field(default_factory=list)

    def add(self, maps: Tensor, boxes: NDArray[np.int16]) -> None:
        """Takes normalised maps at the photos' size.  [b h w], boxes [b 4]: x0 y0 x1 y1"""
        for values, (x0, y0, x1, y1) in zip(maps.double().numpy(), boxes.tolist(), strict=True):
            y, x = np.unravel_index(values.argmax(), values.shape)
            self.peaks.append(bool(x0 <= x <= x1 and y0 <= y <= y1))
            inside = values[y0 : y1 + 1, x0 : x1 + 1].sum()
            self.heat.append(float(inside / max(values.sum(), 1e-12)))

    @property
    def peak(self) -> float:
        """The share of peaks in the box."""
        return float(np.mean(self.peaks))

    @property
    def inside(self) -> float:
        """The mean share of heat in the box."""
        return float(np.mean(self.heat))


def semantics(
    classifier: Classifier,
    photos: Photos,
    boxes: NDArray[np.int16],
    methods: Sequence[str],
) -> dict[str, Shares]:
    """Explains every photo that is classified correctly; the Gaussian stands last."""
    size = (photos.pixels.shape[-2], photos.pixels.shape[-1])
    layers, layouts = target_layers_of(classifier.module, inputs_of(classifier, photos, [0]), None)
    found = {name: Shares() for name in (*methods, GAUSSIAN)}
    gaussian = centred(size)
    done = 0
    for indices in torch.arange(len(photos.labels)).split(BATCH):
        inputs = inputs_of(classifier, photos, indices.tolist())
        with torch.no_grad():
            right = classifier.module(inputs).argmax(1) == photos.labels[indices]
        of_photos, labels = boxes[indices[right].numpy()], photos.labels[indices[right], None]
        wanted = tuple(name for name in methods if done < SLOW.get(name, len(photos.labels)))
        request = Request(wanted, layers, layouts)
        maps = answer(classifier.module, inputs[right], Fixed(labels), request).maps
        for name in wanted:
            (raw,) = maps[name].values()
            found[name].add(normalise(enlarge(raw[:, 0], size)), of_photos)
        found[GAUSSIAN].add(gaussian.expand(len(labels), -1, -1), of_photos)
        done += len(labels)
        print(f"{done} photos", file=sys.stderr, flush=True)
    return found


def centred(size: tuple[int, int]) -> Tensor:
    """Returns a Gaussian in the middle of the picture.  -> [h w]"""
    y, x = (torch.linspace(-0.5, 0.5, side) for side in size)
    return torch.exp(-(y[:, None] ** 2 + x**2) / (2 * WIDTH**2))


def small_objects(data: Path) -> tuple[Photos, NDArray[np.int16]]:
    """Reads the validation photos whose object covers less than a quarter, and their boxes."""
    photos = Photos.read(data / "val.npz")
    with np.load(data / "val.npz") as file:
        boxes = file["box"]
    small = is_small(boxes, photos.pixels.shape[-2:])
    return Photos(photos.pixels[small], photos.labels[small]), boxes[small]


def table(found: Mapping[str, Shares]) -> Iterator[str]:
    """Writes the rows of the handbook, the most peaks in the box first."""
    yield "| method | peaks in the box | heat in the box | photos |"
    yield "|---|---|---|---|"
    for name, shares in sorted(found.items(), key=lambda item: -item[1].peak):
        yield f"| {name} | {shares.peak:.1%} | {shares.inside:.1%} | {len(shares.heat)} |"


def main(data: Path, methods: Iterable[str]) -> None:
    """Prints the table."""
    classifier = camcli.load_model(device="cpu")
    fitting = (n for n in METHODS if "transformers" not in camcli.cards.CARDS[n].where)
    chosen = tuple(methods) or (*filter(depends_on_category, fitting), BASELINE)
    print(*table(semantics(classifier, *small_objects(data), chosen)), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
