"""The frozen dataclasses that flow through the house; no I/O.

Shape letters: b pictures in a batch, k categories, c channels, h w a map's own grid (or a picture's
pixels), H W the network's input.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Fit = Literal["crop", "squash", "pad"]
Fusion = Literal["mean", "max", "product", "refine", "none"]
# how a picture looks outside what the network saw of it
Outside = Literal["dim", "keep", "crop"]
# how the maps of several methods become one
Combination = Literal["mean", "product"]
# what a map is to be best for: what the score comes from, what the object covers, or some of both
BestFor = Literal["balanced", "evidence", "extent"]
Precision = Literal["float32", "bf16", "fp16", "auto"]
TargetName = Literal[
    "logit", "probability", "log-probability", "rest", "counterfactual", "contrast"
]
# what a model's outputs mean: classes of which one is right, as logits or as probabilities; classes
# that may all be there; or real numbers
Outputs = Literal["logits", "probabilities", "independent", "value"]
# how embeddings are compared
Likeness = Literal["cosine", "l1", "l2"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
# who resizes pixels: the two round now and then to another grey level
Resizer = Literal["pillow", "torchvision"]
# how the half pixel in front of a centred view is rounded, as torchvision does it or down
Centring = Literal["nearest", "down"]
ChannelOrder = Literal["rgb", "bgr"]

CAMERAS = 100  # OpenCV takes larger numbers for another interface, and crashes on negative ones
MAX_PIXELS = 178_956_970  # of a picture, unless more are asked for; Pillow refuses more, too


@dataclass(frozen=True)
class Source:
    """Where a picture comes from: its path, and the place its outputs take below the save path.

    What lies behind a URL has its path there for a name.  `category` is the class that a list asks
    for, empty where the run's own options say it.  It has a namesake where another source of the
    run, whose outputs take the same place, has its name but for the suffix.
    """

    path: Path
    folder: Path = Path()
    url: str = ""
    category: str = ""
    has_namesake: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.url or str(self.path)


@dataclass(frozen=True)
class Picture:
    """An upright picture: pixels uint8 RGB [h w 3], as a network sees them.

    `profile` is the ICC profile that says how their colours look; `shown` are the pixels in sRGB
    where they have a profile of other colours than RGB.  `notes` say how they were made of the
    file's values, where that is not plain.

    A video's frame has its number, counted from 0, its time in seconds from the first one, and how
    long it is shown, None where that is not known yet.
    """

    pixels: NDArray[np.uint8]
    source: Source | None = None
    frame: int | None = None
    time: Fraction | None = None
    duration: Fraction | None = None
    profile: bytes | None = None
    shown: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()

    @property
    def canvas(self) -> NDArray[np.uint8]:
        """The pixels [h w 3] that a person is shown."""
        return self.pixels if self.shown is None else self.shown

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Span:
    """Frames from `start` on, up to `stop` and without it (None: to the end), counted from 0.

    Raises ValueError for what holds no frame.
    """

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        """Refuses what is empty, or begins before the first frame."""
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise ValueError(f"no frames from {self.start} to {self.stop}")

    def __str__(self) -> str:
        return f"{self.start}:{'' if self.stop is None else self.stop}"

    @classmethod
    def parse(cls, text: str) -> Span:
        """Reads `10:50`, `:50` or `10:`; raises ValueError."""
        match = re.fullmatch(r"\s*([0-9]*)\s*:\s*([0-9]*)\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is no span of frames, such as 10:50, :50 or 10:")
        start, stop = match.groups()
        return cls(int(start or 0), int(stop) if stop else None)

    def has(self, frame: int, every: int = 1) -> bool:
        """Tells whether a frame is among every n-th of the span, the first one included."""
        inside = self.start <= frame and (self.stop is None or frame < self.stop)
        return inside and (frame - self.start) % every == 0


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in pixels from its upper left corner; edges may be fractional.

    It may reach beyond the picture, where a fit pads.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """From edge to edge, in pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """From edge to edge, in pixels."""
        return self.bottom - self.top


@dataclass(frozen=True)
class HotBox:
    """A box around a hot region, in pixels of the picture, and how many pixels the region has.

    The right and the bottom edge lie outside (half-open): a single pixel (x, y) is the box x, y,
    x + 1, y + 1.
    """

    box: Box
    area: int


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes network input: resize to `scale`, cut or pad to `size`, normalise.

    Sizes are (height, width).  `crop`: the picture's shorter edge becomes `scale`, and the centre
    of `size` is cut out; `squash`: the whole picture is resized to `scale` whatever its shape, then
    cut; `pad`: the longer edge becomes `scale`, and the rest is filled with `mean`.  The last three
    are as processors of transformers have them: who resizes, how the centre is rounded, and in
    which order the channels stand, of which `mean` and `std` are.
    """

    size: tuple[int, int]
    scale: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    fit: Fit = "crop"
    resizer: Resizer = "pillow"
    centring: Centring = "nearest"
    channel_order: ChannelOrder = "rgb"


@dataclass(frozen=True)
class View:
    """What the network sees of a picture: input [3 H W], and the box of the picture it shows."""

    inputs: Tensor
    box: Box


@dataclass(frozen=True)
class Detailed:
    """A method's map [b h w], and by name what it found out besides, tensors [b ...]."""

    map: Tensor
    details: Mapping[str, Tensor]


@dataclass(frozen=True)
class Concept:
    """One of the concepts of a picture: its colour `#rrggbb`, and the classes it speaks for.

    The likeliest classes come first; a model without classes has none.
    """

    colour: str
    categories: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class FullGradients:
    """What a picture's input [3 H W] and its biases, l x [c h w], put into its score.

    Biases without places, as a linear head's, are not among them.  `residual` is what all together
    leave of the score.
    """

    score: Tensor
    input_term: Tensor
    bias_terms: Sequence[Tensor]
    residual: Tensor


@dataclass(frozen=True)
class Heatmap:
    """One raw map: values float32 [h w], signed and not normalised, and what it explains.

    `category` is the explained class: the predicted one for methods that do not depend on it, None
    for a model without classes.
    """

    values: NDArray[np.float32]
    method: str
    layers: tuple[str, ...]
    category: int | None


@dataclass(frozen=True)
class Statistics:
    """What a raw map's values are like; `above_half` is the share above half of the maximum.

    `peak` is where the maximum lies, from the picture's upper left corner, in shares of its width
    and height, and `peak_in_view` the same in what the network saw.  `border_distance` is how far
    the heat lies from the nearest edge of the view, on average, in shares of the edge across: 0 at
    the border, 1/6 for heat that is spread evenly, 1/2 in the middle.  All three are None where
    nothing speaks for the class.
    """

    mean: float
    std: float
    above_half: float
    peak: tuple[float, float] | None
    peak_in_view: tuple[float, float] | None = None
    border_distance: float | None = None


@dataclass(frozen=True)
class PackedMap:
    """A raw map of a few cells as text: `levels` is base64 of 16-bit numbers, row by row.

    They go from 0 at `low` to 65,535 at `high`; the least significant byte comes first.
    """

    shape: tuple[int, int]
    low: float
    high: float
    levels: str = field(default="", repr=False)


@dataclass(frozen=True)
class FileStamp:
    """By what a file that was written is known again: bytes, and CRC-32 in 8 hex digits."""

    size: int
    crc32: str

    @classmethod
    def of(cls, content: bytes | memoryview) -> FileStamp:
        """Returns the stamp of a file's content."""
        return cls(len(content), f"{zlib.crc32(content):08x}")


@dataclass(frozen=True)
class Record:
    """One line of a run's results: a heatmap that was written, or a picture that failed.

    `time` is when a video's frame is shown, in seconds from the first one.  `value` is what a model
    of values puts out, which has no probability, and no category where it is the only one.
    `short_label` is the label's first synonym; `margin` is the class's probability less that of
    the likeliest other one; the `top` fields list the likeliest classes of the picture.
    `target` says which number of the class is explained, empty where the method asks no class;
    `contrast` the classes that it was compared with; `layer_fusion` how several layers became one
    map; `parts` METHOD@LAYER for each map of which `combination` made this one, as the methods best
    and combined do; `options` the method's own, and `smoothing` those of smoothing, where they are
    not the defaults; `map` the raw map itself, averaged where it is finer than 32 x 32, None where
    it is not finite; `residual` what a map that should be complete leaves of the score; `concepts`
    those that a method tells apart; `boxes` those around its hot regions, above the share
    `box_threshold` of the map's maximum, None where nobody asked;
    `sheet` the file in which the heatmap stands among others;
    `files` the stamps of outputs and sheet, of a video in the last record of its source.
    `weights` is their hash, `scale` the raw values that are drawn as nothing and as most where
    pictures share them, `colormap` and `alpha` how it is drawn (no colour map where colours say
    something else), `seconds` the heatmap's share of its batch's pass.
    `recipe` is a digest of what the picture is made with: those of one source and recipe are the
    same; `beside` has the endings of what stands beside it, and how that is made; `renamed` says
    why the outputs have another name than they would have in an empty folder.
    `compared_with` names what was subtracted if the map is the difference of two.
    """

    source: str
    frame: int | None = None
    time: float | None = None
    picture_size: tuple[int, int] | None = None
    view: Box | None = None
    model: str = ""
    weights: str = ""
    precision: str = ""
    method: str = ""
    layers: tuple[str, ...] = ()
    layer_reason: str = ""
    layer_fusion: str = ""
    parts: tuple[str, ...] = ()
    combination: str = ""
    category: int | None = None
    label: str = ""
    short_label: str = ""
    probability: float | None = None
    margin: float | None = None
    rank: int | None = None
    top_categories: tuple[int, ...] = ()
    top_labels: tuple[str, ...] = ()
    top_probabilities: tuple[float, ...] = ()
    value: float | None = None
    target: str = ""
    contrast: tuple[int, ...] = ()
    contrast_labels: tuple[str, ...] = ()
    contrast_strength: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    smoothing: Mapping[str, Any] = field(default_factory=dict)
    concepts: tuple[Concept, ...] = ()
    boxes: tuple[HotBox, ...] = ()
    box_threshold: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    statistics: Statistics | None = None
    map: PackedMap | None = None
    residual: float | None = None
    scale: tuple[float, float] | None = None
    colormap: str = ""
    alpha: float | str | None = None
    recipe: str = ""
    outputs: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    renamed: str = ""
    sheet: str = ""
    files: Mapping[str, FileStamp] = field(default_factory=dict)
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    compared_with: str = ""
    error: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether the map says what raises a value and what lowers it, or is a difference."""
        return bool(self.compared_with) or (self.value is not None and bool(self.target))


@dataclass(frozen=True)
class Outcome:
    """What came of one picture: a record for each heatmap, or one that says why there is none.

    Those of a video's frames are not its `last`; behind them comes one that says how it ended, and
    has the stamps of the videos that were written.
    """

    source: Source
    records: tuple[Record, ...]
    last: bool = True
    files: Mapping[str, FileStamp] = field(default_factory=dict)

    @classmethod
    def failure(cls, source: Source, why: str, frame: int | None = None) -> Outcome:
        """Says why a picture, a video or one of its frames is missing."""
        return cls(source, (Record(str(source), frame, error=why),), last=frame is None)

    @property
    def failed(self) -> bool:
        """Whether anything is missing."""
        return any(record.error for record in self.records)
