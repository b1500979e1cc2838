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
# how a picture is drawn outside the network's view
Outside = Literal["dim", "keep", "crop"]
# how the maps of several methods are combined into one
Combination = Literal["mean", "product"]
# the aim of method best: where the score comes from, what the object covers, or some of both
BestFor = Literal["balanced", "evidence", "extent"]
Precision = Literal["float32", "bf16", "fp16", "auto"]
TargetName = Literal[
    "logit", "probability", "log-probability", "rest", "counterfactual", "contrast"
]
# the meaning of a model's outputs: classes of which one is right, as logits or as probabilities;
# classes that may all be present; or real numbers
Outputs = Literal["logits", "probabilities", "independent", "value"]
# how embeddings are compared
Likeness = Literal["cosine", "l1", "l2"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
# the library that resizes pixels; torch is Pillow, but for one grey level at a few pixels
Resizer = Literal["torch", "pillow", "torchvision"]
# how the half pixel before a centred view is rounded: as in torchvision, or down
Centring = Literal["nearest", "down"]
ChannelOrder = Literal["rgb", "bgr"]

CAMERAS = 100  # OpenCV takes larger numbers for another interface, and crashes on negative ones
MAX_PIXELS = 178_956_970  # the default limit of a picture's pixels, which is also Pillow's


@dataclass(frozen=True)
class Source:
    """Where a picture comes from: its path, and the place its outputs take below the save path.

    A file behind a URL is named by its path there.  `category` is the class that a list names for
    it; empty if the run's options choose.  It has a namesake if another source of the run, with
    outputs in the same place, has the same name up to the suffix.
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

    `profile` is the ICC profile of the pixels' colours.  `shown` are the pixels in sRGB if the
    file's profile is not one of RGB colours.  `notes` say how the pixels were made of the file's
    values, if that is not obvious.

    A video's frame has its number, counted from 0, its time in seconds from the first frame, and
    its duration, None if that is not known yet.
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
        """The pixels [h w 3] that are shown to the user."""
        return self.pixels if self.shown is None else self.shown

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Span:
    """Frames from `start` on, up to `stop` and without it (None: to the end), counted from 0.

    Raises ValueError for an empty span.
    """

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        """Refuses a span that is empty or begins before the first frame."""
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
        """Tells whether a frame is one of every n-th in the span, beginning with the first."""
        inside = self.start <= frame and (self.stop is None or frame < self.stop)
        return inside and (frame - self.start) % every == 0


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in pixels from its upper left corner; edges may be fractional.

    It may reach beyond the picture if the fit pads.
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

    Sizes are (height, width).  `crop`: the picture's shorter edge is resized to `scale`, and the
    centre of `size` is cut out.  `squash`: the whole picture is resized to `scale`, whatever its
    shape, then cut.  `pad`: the longer edge is resized to `scale`, and the rest is filled with
    `mean`.  The last three fields are needed for image processors of transformers: the library that
    resizes, how the centre is rounded, and the order of the channels, also in `mean` and `std`.
    """

    size: tuple[int, int]
    scale: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    fit: Fit = "crop"
    resizer: Resizer = "torch"
    centring: Centring = "nearest"
    channel_order: ChannelOrder = "rgb"


@dataclass(frozen=True)
class View:
    """What the network sees of a picture: input [3 H W], and the box of the picture it shows."""

    inputs: Tensor
    box: Box


@dataclass(frozen=True)
class Detailed:
    """A method's map [b h w], and its further results by name, tensors [b ...]."""

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
    """The contributions of a picture's input [3 H W] and of the biases, l x [c h w], to its score.

    Biases without places, such as a linear head's, are not among them.  `residual` is the score
    minus all of these contributions.
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
    """Statistics of a raw map's values; `above_half` is the share above half of the maximum.

    `peak` is the place of the maximum from the picture's upper left corner, as shares of its width
    and height; `peak_in_view` is the same within the network's view.  `border_distance` is the mean
    distance of the heat from the nearest edge of the view, as a share of the edge across: 0 at the
    border, 1/6 for even heat, 1/2 in the middle.  All three are None if no place speaks for the
    class.
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

    The numbers go from 0 at `low` to 65,535 at `high`; the least significant byte comes first.
    """

    shape: tuple[int, int]
    low: float
    high: float
    levels: str = field(default="", repr=False)


@dataclass(frozen=True)
class FileStamp:
    """What identifies a written file: its size in bytes, and its CRC-32 in 8 hex digits."""

    size: int
    crc32: str

    @classmethod
    def of(cls, content: bytes | memoryview) -> FileStamp:
        """Returns the stamp of a file's content."""
        return cls(len(content), f"{zlib.crc32(content):08x}")


@dataclass(frozen=True)
class Record:
    """One line of a run's results: a heatmap that was written, or a picture that failed.

    The source: `time` is when a video's frame is shown, in seconds from the first one.

    What is explained: `value` is the output of a model of values, which has no probability, and no
    category if it is the only one.  `short_label` is the label's first synonym.  `margin` is the
    class's probability minus that of the likeliest other class.  The `top` fields list the
    picture's likeliest classes.  `target` says which number of the class is explained, empty for a
    method without a class.  `contrast` lists the classes that it is compared with.  `compared_with`
    names what was subtracted, if the map is the difference of two.

    The method: `layer_fusion` says how several layers became one map.  `parts` are METHOD@LAYER for
    the maps that `combination` combines, in the methods best and combined.  `options` are the
    method's options, and `smoothing` those of smoothing, that are not the defaults.  `weights` is
    the hash of the weights.  `seconds` is the heatmap's share of its batch's pass.

    The map: `map` is the raw map, averaged if it is finer than 32 x 32, None if it is not finite.
    `residual` is the part of the score that a map misses that should add up to all of it.
    `concepts` are those that the method separates.  `boxes` surround the hot regions, above the
    share `box_threshold` of the map's maximum; None if they were not asked for.

    The files: `scale` has the raw values that are drawn as no heat and as full heat, if pictures
    share them.  `colormap` and `alpha` say how the map is drawn (no colour map if colours mean
    something else), `drawing` the other drawing options that are not the defaults.  `sheet` is the
    file that shows the heatmap among others.  `files` has the stamps of outputs and sheet; a
    video's are in the last record of its source.  `recipe` is a digest of everything that makes the
    picture: pictures of one source and recipe are the same.
    `beside` has the endings of the files beside it, and how they are made.  `renamed` says why the
    outputs have another name than in an empty folder.
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
    drawing: Mapping[str, Any] = field(default_factory=dict)
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
        """Whether the map shows what raises a value and what lowers it, or is a difference."""
        return bool(self.compared_with) or (self.value is not None and bool(self.target))


@dataclass(frozen=True)
class Outcome:
    """The result of one picture: a record for each heatmap, or one that says why there is none.

    The outcomes of a video's frames are not its `last`.  The last one says how the video ended, and
    has the stamps of the written videos.  `lines` are the records as the manifest has them, where
    they were encoded beside the model.
    """

    source: Source
    records: tuple[Record, ...]
    last: bool = True
    files: Mapping[str, FileStamp] = field(default_factory=dict)
    lines: bytes = b""

    @classmethod
    def failure(cls, source: Source, why: str, frame: int | None = None) -> Outcome:
        """Returns the outcome of a picture, a video or a frame that failed."""
        return cls(source, (Record(str(source), frame, error=why),), last=frame is None)

    @property
    def failed(self) -> bool:
        """Whether a heatmap is missing."""
        return any(record.error for record in self.records)
