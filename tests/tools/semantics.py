"""Measures whether maps lie on the object: `python -m tests.tools.semantics FOLDER [METHOD ...]`.

FOLDER holds `photos/NAME.jpg`, `boxes/NAME.txt` with a line an object (its class of COCO, from 0,
then centre x, centre y, width, height, in shares of the photo), and `imagenet.csv`, which says what
classes of ImageNet mean a class of COCO.  A case is a class in a photo: the likeliest class of
ImageNet that means it, where the embedded model has that among its 20 best and the boxes cover less
than half of the photo.  The whole photo is squashed into view and explained for that class at the
default layer.  Prints the table of `camcli/docs/methods.md`; its 95 % intervals are from drawing
photos anew, since cases of one photo are not independent.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import camcli
import camcli.methods  # fills the registry
from camcli.media.network_input import make_view
from camcli.media.pictures.read import make_picture
from camcli.method_info import METHOD_INFO
from camcli.models.load import Classifier
from camcli.registry import METHODS, depends_on_category

Mask = NDArray[np.bool_]  # [h w]
Map = NDArray[np.floating[Any]]  # [h w]

# in the order of their numbers
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
BASELINE = "randomcam"
GAUSSIAN = "a centred Gaussian"
# the standard deviation of the Gaussian, as a share of the picture's edges
WIDTH = 0.25
AMONG_THE_BEST = 20
LARGEST_COVER = 0.5
# hundreds of passes a case: measured on every sixth one, at these settings
SLOW: Mapping[str, Mapping[str, int]] = {
    "scorecam": {"max_channels": 128},
    "sscam": {"max_channels": 32},
    "iscam": {"max_channels": 32},
    "rise": {"masks": 500},
}
EVERY = 6
DRAWS = 5000


@dataclass(frozen=True)
class PhotoCase:
    """A photo, a class of ImageNet that is in it, and where."""

    photo: Path
    category: int
    mask: Mask


@dataclass(frozen=True)
class Scores:
    """Of each case: its photo, whether the map's peak lies in a box, and the share of its heat."""

    photos: tuple[str, ...]
    peaks: tuple[float, ...]
    heat: tuple[float, ...]


def find_cases(classifier: Classifier, folder: Path) -> Iterator[PhotoCase]:
    """Yields the classes in each photo that the classifier sees there."""
    with (folder / "imagenet.csv").open(encoding="utf-8", newline="") as file:
        meanings = {
            COCO.index(row["coco_class"]): [*_indices(row["imagenet_indices"])]
            for row in csv.DictReader(file)
        }
    for path in sorted((folder / "photos").glob("*.jpg")):
        picture = make_picture(path)
        boxes = _read_boxes(folder / "boxes" / f"{path.stem}.txt")
        with torch.no_grad():
            inputs = make_view(picture, classifier.preprocessing).inputs[None]
            logits = classifier.module(inputs)[0]
        best = set(logits.topk(AMONG_THE_BEST).indices.tolist())
        for number in sorted(boxes.keys() & meanings.keys()):
            category = max(meanings[number], key=lambda index: float(logits[index]))
            mask = draw_boxes(boxes[number], picture.size)
            if category in best and 0 < mask.mean() < LARGEST_COVER:
                yield PhotoCase(path, category, mask)


def _indices(text: str) -> Iterator[int]:
    """Reads `281 282` and `151-268`."""
    for word in text.split():
        first, _, last = word.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _read_boxes(file: Path) -> dict[int, list[tuple[float, ...]]]:
    actual: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for number, *box in map(str.split, lines):
        actual[int(number)].append(tuple(map(float, box)))
    return actual


def draw_boxes(boxes: Iterable[tuple[float, ...]], size: tuple[int, int]) -> Mask:
    """Returns which pixels lie in a box: centre x, centre y, width, height, in shares.  -> [h w]"""
    y, x = ((np.arange(edge) + 0.5) / edge for edge in size)
    mask = np.zeros(size, bool)
    for centre_x, centre_y, width, height in boxes:
        rows, columns = abs(y - centre_y) <= height / 2, abs(x - centre_x) <= width / 2
        mask |= rows[:, None] & columns
    return mask


def centre(size: tuple[int, int]) -> Map:
    """Returns a Gaussian in the middle of the picture.  -> [h w]"""
    y, x = ((np.arange(edge) + 0.5) / edge - 0.5 for edge in size)
    return np.exp(-(y[:, None] ** 2 + x**2) / (2 * WIDTH**2))


def score_map(heat: Map, mask: Mask) -> tuple[float, float]:
    """Returns whether the peak lies in the mask, and the share of the positive heat there."""
    positive = np.maximum(heat.astype(np.float64), 0)
    return float(mask.flat[heat.argmax()]), float(positive[mask].sum() / max(positive.sum(), 1e-12))


def map_by(classifier: Classifier, method: str) -> Callable[[PhotoCase], Map]:
    """Returns what draws a case's map at the photo's size by a method.  -> [h w]"""
    settings = SLOW.get(method, {})

    def draw(case: PhotoCase) -> Map:
        if method == GAUSSIAN:
            return centre(case.mask.shape)  # type: ignore[arg-type]
        (explanation,) = camcli.explain(
            classifier, case.photo, method, target_category=str(case.category), set=settings
        )
        return explanation.sized_map("image")

    return draw


def measure(draw: Callable[[PhotoCase], Map], cases: Sequence[PhotoCase]) -> Scores:
    """Scores the maps of some cases."""
    scores = [score_map(draw(case), case.mask) for case in cases]
    peaks, heat = zip(*scores, strict=True)
    return Scores(tuple(case.photo.name for case in cases), peaks, heat)


def interval(photos: Sequence[str], values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean over cases: photos are drawn anew, with all of theirs."""
    _, owners = np.unique(photos, return_inverse=True)
    sums, counts = np.bincount(owners, values), np.bincount(owners)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


def row(name: str, scores: Scores) -> str:
    """Writes a method's row of the handbook."""
    settings = ", ".join(f"{key}={value}" for key, value in SLOW.get(name, {}).items())
    cells = [f"{name} ({settings})" if settings else name]
    for values in (scores.peaks, scores.heat):
        low, high = interval(scores.photos, values)
        cells.append(f"{100 * np.mean(values):.0f} % ({100 * low:.0f} to {100 * high:.0f})")
    return f"| {' | '.join(cells)} | {len(scores.photos)} |"


def main(folder: Path, methods: Iterable[str]) -> None:
    """Prints the table."""
    classifier = camcli.load_model(device="cpu", fit="squash")
    cases = list(find_cases(classifier, folder))
    fitting = (name for name in METHODS if "transformers" not in METHOD_INFO[name].where)
    chosen = tuple(methods) or (GAUSSIAN, BASELINE, *filter(depends_on_category, fitting))
    print("| method | peak in a box | heat in the boxes | cases |\n|---|---|---|---|")
    for name in chosen:
        if name not in SLOW:
            print(row(name, measure(map_by(classifier, name), cases)), flush=True)
    # what is slow is seen on few cases: so are its baselines
    slow = tuple(name for name in chosen if name in SLOW)
    for name in (GAUSSIAN, BASELINE, *slow) if slow else ():
        print(row(name, measure(map_by(classifier, name), cases[::EVERY])), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
