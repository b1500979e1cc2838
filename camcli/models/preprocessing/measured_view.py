"""Measures what an image processor or a transform does to pictures, and says it as a view.

A processor is run on flat pictures, on ramps and on noise: the colours, the part of the picture
that is seen and the pixels themselves show what it does, whatever its class is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import CamvizError, ModelError, first_line
from camcli.models.preprocessing.image_resizing import resize_as_torchvision
from camcli.models.preprocessing.view_rules import compute_centre_offset, compute_resized_size
from camcli.records import Centring, ChannelOrder, Interpolation, Preprocessing, Resizer

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]
Size = tuple[int, int]
Resampling: TypeAlias = tuple[Interpolation, Resizer]

# oblong, so that a picture that is squashed is told from one that is cut; and not by whole numbers,
# so that it shows how processors round
TRIAL: Size = (347, 489)
# of a grey level: what rounding of numbers explains, and what is one of another picture
ROUNDING, LEVEL = 0.01, 1.0
# how far the edges that are measured on ramps of whole grey levels may be off, in pixels
UNSURE = 2
# digits of means and deviations that are written down, and how exact what is measured is
DIGITS, FLOAT32 = 4, 3e-7
# larger views are compared with what was measured alone, for each takes its time
LARGE = 2**20
# of the view, where neither a processor nor a configuration has a size
DEFAULT_EDGE = 224
NAMES = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers


@dataclass(frozen=True)
class MeasuredView:
    """What a network sees of pictures, and what is to be said where a view cannot do the same."""

    preprocessing: Preprocessing
    warnings: tuple[str, ...] = ()


def measure_view(
    processor: Any, size: Size | None = None, resamplings: Sequence[Resampling] = ()
) -> MeasuredView:
    """Measures what a processor makes of pictures; `size` (height, width) is for one that has none.

    `resamplings` are the ways to resize that it may have, where it does not say so itself.  Raises
    ModelError where it makes no picture of a picture.
    """
    trial = _Trial(processor, TRIAL)
    black, white, red = (trial.run(_paint(TRIAL, colour)) for colour in ((0,) * 3, (255,) * 3, RED))
    low, span = _centre(black), _centre(white) - _centre(black)
    if len(low) != 3 or not span.all():
        raise ModelError(f"{trial.name} makes no colours of colours: camviz cannot show a picture.")
    order: ChannelOrder = "bgr" if _centre(red)[2] != low[2] else "rgb"
    colours = _Colours(low, span, order)
    _check_colours(trial, colours)
    shape = black.shape[1], black.shape[2]
    other = _Trial(processor, TRIAL[::-1]).run(_paint(TRIAL[::-1], RED)).shape[1:]
    resized = _measure_resized_size(colours.undo(trial.run(_draw_ramps(TRIAL))), TRIAL)
    ways = resamplings or (_read_resampling(processor),)
    # torchvision and timm round to the nearest, processors down
    centrings: tuple[Centring, ...] = ("nearest", "down") if resamplings else ("down",)
    mean, std = _name_colours(processor, colours)
    plain = Preprocessing(
        size=shape,
        scale=resized,
        mean=mean,
        std=std,
        interpolation=ways[0][0],
        fit="squash",
        resizer=ways[0][1],
        centring=centrings[0],
        channel_order=order,
    )
    if shape != other:
        return _cut_to_size(plain, trial.name, size or getattr(processor, "own_size", None))
    noise = draw_noise(TRIAL)
    plains = [
        replace(plain, interpolation=way, resizer=resizer, centring=centring)
        for (way, resizer), centring in product(ways, centrings)
    ]
    return _choose_view(trial, noise, colours.undo(trial.run(noise)), plains)


def run_on_picture(processor: Any, pixels: Pixels) -> Values:
    """Returns what a processor makes of a picture.  [h w 3] -> [c H W]"""
    return _Trial(processor, TRIAL).run(pixels)


RED = (255, 0, 0)


@dataclass(frozen=True)
class _Trial:
    """Runs a processor on pictures of one size."""

    processor: Any
    size: Size

    @property
    def name(self) -> str:
        return type(getattr(self.processor, "processor", self.processor)).__name__

    def run(self, pixels: Pixels) -> Values:
        """Returns what the network would be given.  [h w 3] -> [c H W]"""
        try:
            output = self.processor(images=Image.fromarray(pixels), return_tensors="np")
        except CamvizError:
            raise
        except Exception as error:  # every processor refuses in its own way
            raise ModelError(f"{self.name} takes no picture alone: {first_line(error)}.") from error
        values = output.get("pixel_values")
        shape = None if values is None else np.shape(values)
        if shape is None or len(shape) != 4 or shape[0] != 1:
            made = ", ".join(f"{key} {list(np.shape(value))}" for key, value in output.items())
            raise ModelError(
                f"{self.name} makes {made} of a picture, and camviz explains networks that take "
                "pixels [b c h w]."
            )
        return np.asarray(values[0], np.float64)


@dataclass(frozen=True)
class _Colours:
    """How grey levels from 0 to 255 become values: `low` and `span` [c], in the network's order."""

    low: Values
    span: Values
    order: ChannelOrder

    def undo(self, values: Values) -> Values:
        """Turns values back into grey levels, red first.  [c H W] -> [c H W]"""
        levels = (values - self.low[:, None, None]) / self.span[:, None, None] * 255
        return levels[::-1] if self.order == "bgr" else levels


def _check_colours(trial: _Trial, colours: _Colours) -> None:
    """Raises ModelError for a processor that does more to colours than shift and scale them."""
    given = (50, 120, 200)
    seen = colours.undo(trial.run(_paint(TRIAL, given)))
    if np.abs(_centre(seen) - given).max() > ROUNDING:
        raise ModelError(
            f"{trial.name} makes other colours of {given} than a mean and a deviation do: camviz "
            "cannot give the network what it was trained on."
        )


def _paint(size: Size, colour: tuple[int, ...]) -> Pixels:
    return np.full((*size, 3), colour, np.uint8)


def draw_noise(size: Size) -> Pixels:
    """Draws smooth noise, in which neighbours are alike as in photos.  [h w 3]"""
    coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def _draw_ramps(size: Size) -> Pixels:
    """Draws red that rises from left to right, and green from top to bottom.  [h w 3]"""
    down, right = (np.linspace(0, 255, edge).round().astype(np.uint8) for edge in size)
    red, green = np.broadcast_to(right, size), np.broadcast_to(down[:, None], size)
    return np.stack([red, green, np.zeros(size, np.uint8)], -1)


def _centre(values: Values) -> Values:
    """Returns the values in the middle.  [c H W] -> [c]"""
    return values[:, values.shape[1] // 2, values.shape[2] // 2]


def _measure_resized_size(levels: Values, size: Size) -> Size:
    """Measures how large a picture of ramps became before the view was cut out.  [3 H W]"""
    edges = []
    down, right = levels[1][:, levels.shape[2] // 2], levels[0][levels.shape[1] // 2]
    for ramp, edge in ((down, size[0]), (right, size[1])):
        # edges of the picture are flat, and so is what lies beyond
        inner = np.flatnonzero((ramp > 12) & (ramp < 243))
        slope = np.polyfit(inner, ramp[inner], 1)[0] if len(inner) > 2 else np.nan
        edges.append(255 * edge / (edge - 1) / slope)
    if not np.isfinite(edges).all() or min(edges) < 1:
        raise ModelError("The image processor shows no ramp where the picture has one.")
    return round(edges[0]), round(edges[1])


def _read_resampling(processor: Any) -> tuple[Interpolation, Resizer]:
    """Reads what is not measured: the filter, which tells itself by its pixels afterwards."""
    number = getattr(processor, "resample", None)
    name: Any = NAMES[int(number)] if number is not None and int(number) < len(NAMES) else NAMES[2]
    resizer: Resizer = "torchvision" if _is_of_torchvision(processor) else "pillow"
    return name, resizer


def _is_of_torchvision(processor: Any) -> bool:
    return getattr(processor, "backend", "") == "torchvision"


def _name_colours(processor: Any, colours: _Colours) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and std that give the measured values, as they were written down if they do.

    What is measured has the digits of float32.
    """
    mean, std = -colours.low / colours.span + 0.0, 1 / colours.span
    declared = [getattr(processor, name, None) for name in ("image_mean", "image_std")]
    rounded = [[float(f"{value:.{DIGITS}g}") for value in values] for values in (mean, std)]
    for written in (declared, rounded):
        if all(isinstance(values, list | tuple) and len(values) == 3 for values in written):
            m, s = np.asarray(written, float)
            if _is_same(-m / s, colours.low) and _is_same(1 / s, colours.span):
                return tuple(map(float, m)), tuple(map(float, s))
    return tuple(map(float, mean)), tuple(map(float, std))


def _is_same(values: Values, measured: Values) -> bool:
    return bool(np.allclose(values, measured, FLOAT32, FLOAT32))


def _choose_view(
    trial: _Trial, pixels: Pixels, wanted: Values, plains: Sequence[Preprocessing]
) -> MeasuredView:
    """Chooses the view that shows what the processor made of a picture.  wanted [3 H W]"""
    candidates = [candidate for plain in plains for candidate in _list_candidates(plain)]
    if wanted[0].size > LARGE:
        candidates = [
            candidate
            for plain in plains
            for candidate in [c for c in _list_candidates(plain) if c.scale[0] in plain.scale][:2]
        ]
    best, least = plains[0], np.inf
    for candidate in candidates:
        difference = np.abs(_draw_view(pixels, candidate) - wanted).max()
        if difference < least:
            best, least = candidate, float(difference)
        if least <= ROUNDING:
            break
    return MeasuredView(best, _warn_of_difference(trial.name, least))


def _list_candidates(plain: Preprocessing) -> list[Preprocessing]:
    """Lists the views that may be what was measured, the likeliest first: cut, or squashed."""
    around = sorted(range(-UNSURE, UNSURE + 1), key=abs)
    (height, width), shorter = plain.scale, min(plain.scale)
    scales = [(height + down, width + right) for down in around for right in around]
    return [
        *(replace(plain, fit="crop", scale=(shorter + step, shorter + step)) for step in around),
        *(replace(plain, scale=scale) for scale in scales),
    ]


def _draw_view(pixels: Pixels, preprocessing: Preprocessing) -> Values:
    """Draws what a view shows of a picture, in grey levels.  [h w 3] -> [3 H W]"""
    size = pixels.shape[0], pixels.shape[1]
    resized = compute_resized_size(size, preprocessing)
    if preprocessing.resizer == "torchvision":
        whole = resize_as_torchvision(pixels, resized, preprocessing.interpolation)
    else:
        resampling = Image.Resampling[preprocessing.interpolation.upper()]
        whole = np.asarray(Image.fromarray(pixels).resize(resized[::-1], resampling))
    canvas = np.zeros((*preprocessing.size, 3))
    kept, shown = [], []
    for edge, view_edge in zip(resized, preprocessing.size, strict=True):
        first = compute_centre_offset(edge, view_edge, preprocessing.centring)
        start, stop = max(0, first), min(first + view_edge, edge)
        kept.append(slice(start, stop))
        shown.append(slice(start - first, stop - first))
    canvas[tuple(shown)] = whole[tuple(kept)]
    return canvas.transpose(2, 0, 1)


def _warn_of_difference(name: str, levels: float) -> tuple[str, ...]:
    if levels <= ROUNDING:
        return ()
    share = "less than one grey level" if levels < LEVEL else f"up to {levels:.0f} grey levels"
    return (
        f"{name} does what a view of camviz does not: on a picture of noise their pixels differ by "
        f"{share} of 255",
    )


def _cut_to_size(plain: Preprocessing, name: str, size: Size | None) -> MeasuredView:
    """Returns a view of one size for a processor that leaves pictures their shape."""
    edge = DEFAULT_EDGE if plain.scale == TRIAL else min(plain.size)
    size = size or (edge, edge)
    said = (
        f"{name} leaves pictures their shape, and camviz shows the network the middle of each at "
        f"{size[0]}x{size[1]} (--fit squash or --fit pad show it whole, --img-size another size)"
    )
    return MeasuredView(replace(plain, size=size, scale=size, fit="crop"), (said,))
