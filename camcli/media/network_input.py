"""Computes what the network sees of a picture, and where in the picture that is.

Sizes are (height, width).  The same pixels as timm's and torchvision's own transforms give, to one
grey level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from camcli.errors import ModelError
from camcli.models.preprocessing import compute_centre_offset, compute_resized_size
from camcli.records import Box, Picture, Preprocessing, Resizer, View
from camcli.utils.profiling import stage

Size = tuple[int, int]

# torch's filters are Pillow's, rounded otherwise at a few pixels: by one grey level where a picture
# becomes that much smaller
SHRINKING = frozenset({"bilinear", "bicubic"})
LEAST_SHRINKING = 1.4
# Pillow 13 begins with the columns of a picture that is tall, or shrinks more in height, and torch
# with the rows: what is cut off at black and white between the two passes then differs
MOST_UPRIGHT, SAME_SHAPE = 1.8, 1.02
# a picture's modes, by their numbers of channels
MODES: Mapping[int, str] = {1: "L", 3: "RGB"}

LARGEST_RESIZED = 2**24  # pixels


@dataclass(frozen=True)
class Placement:
    """How the view lies: the picture's size after resizing, and the view's upper left corner in it.

    The corner is (top, left), negative where the view reaches beyond the picture; `box` is the view
    in pixels of the original picture.
    """

    resized: Size
    offset: tuple[int, int]
    box: Box


def compute_placement(picture_size: Size, preprocessing: Preprocessing) -> Placement:
    """Computes which part of a picture of this size the network sees."""
    resized = compute_resized_size(picture_size, preprocessing)
    (height, width), centring = preprocessing.size, preprocessing.centring
    top = compute_centre_offset(resized[0], height, centring)
    left = compute_centre_offset(resized[1], width, centring)
    # one division each, so that an edge that meets the picture's edge does so exactly
    box = Box(
        left=left * picture_size[1] / resized[1],
        top=top * picture_size[0] / resized[0],
        right=(left + width) * picture_size[1] / resized[1],
        bottom=(top + height) * picture_size[0] / resized[0],
    )
    return Placement(resized, (top, left), box)


@stage("decode")
def make_view(picture: Picture, preprocessing: Preprocessing) -> View:
    """Resizes, cuts or pads, and normalises a picture: inputs float32 [c H W].

    One channel is grey; six, nine, ... are red, green and blue again and again, as timm repeats the
    weights of the first layer.  Raises ModelError for other numbers.
    """
    channels = len(preprocessing.mean)
    if channels != 1 and channels % 3:
        raise ModelError(
            f"A picture has 1 or 3 channels, and this model takes {channels}: "
            "camcli.heatmaps(module, inputs) in Python takes tensors of any number of channels."
        )
    placement = compute_placement(picture.size, preprocessing)
    canvas = _draw_canvas(picture, preprocessing, placement)
    normalised = _normalise(canvas, preprocessing)
    return View(torch.from_numpy(normalised).permute(2, 0, 1), placement.box)


def _normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Normalises pixels, repeated for as many channels as are asked for.  [H W 3] -> [H W c]"""
    pixels = pixels.reshape(*preprocessing.size, -1)
    if preprocessing.channel_order == "bgr":
        pixels = pixels[..., ::-1]
    mean, std = (np.asarray(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    channels = len(mean)
    if channels != pixels.shape[2]:
        pixels = np.tile(pixels, channels // pixels.shape[2])
    # whole rows at once, faster than looking values up; channels stay last, as networks want them
    height, width = preprocessing.size
    values = pixels.astype(np.float32).reshape(height, width * channels)
    values /= 255
    values -= np.tile(mean, width)
    values /= np.tile(std, width)
    return values.reshape(height, width, channels)


def _draw_canvas(
    picture: Picture, preprocessing: Preprocessing, placement: Placement
) -> NDArray[np.uint8]:
    """Draws the view in grey levels.  -> [H W c]"""
    bands = min(len(preprocessing.mean), 3)
    height, width = preprocessing.size
    rows = _Visible.of(placement.offset[0], height, placement.resized[0])
    columns = _Visible.of(placement.offset[1], width, placement.resized[1])
    pixels = _as_bands(picture.pixels, bands)
    if _can_shrink(picture.size, placement.resized, preprocessing):
        whole = _shrink(pixels, placement.resized, preprocessing.interpolation)
        seen = whole[rows.first : rows.last, columns.first : columns.last]
    else:
        resampling = Image.Resampling[preprocessing.interpolation.upper()]
        image, resizer = Image.fromarray(pixels), preprocessing.resizer
        part = _resize_part(image, placement.resized, rows, columns, resampling, resizer)
        seen = np.asarray(part)
    seen = seen.reshape(*seen.shape[:2], bands)
    if seen.shape[:2] == (height, width):
        return seen
    order = -1 if preprocessing.channel_order == "bgr" else 1
    fill = [round(255 * m) for m in preprocessing.mean[:bands]][::order]
    canvas = np.full((height, width, bands), fill if preprocessing.fit == "pad" else 0, np.uint8)
    inside = slice(rows.start, None), slice(columns.start, None)
    canvas[inside][: seen.shape[0], : seen.shape[1]] = seen
    return canvas


def _as_bands(pixels: NDArray[np.uint8], bands: int) -> NDArray[np.uint8]:
    """Returns pixels in red, green and blue, or in grey.  -> [h w 3] or [h w]"""
    if pixels.ndim == (3 if bands == 3 else 2):
        return pixels
    return np.asarray(Image.fromarray(pixels).convert(MODES[bands]))


def _can_shrink(size: Size, resized: Size, preprocessing: Preprocessing) -> bool:
    """Tells whether torch may resize a picture in the place of Pillow."""
    if preprocessing.resizer != "torch" or preprocessing.interpolation not in SHRINKING:
        return False
    height, width = size[0] / resized[0], size[1] / resized[1]
    rows_first = size[0] <= MOST_UPRIGHT * size[1] and height <= SAME_SHAPE * width
    small = resized[0] * resized[1] <= LARGEST_RESIZED
    return rows_first and min(height, width) >= LEAST_SHRINKING and small


def _shrink(pixels: NDArray[np.uint8], resized: Size, interpolation: str) -> NDArray[np.uint8]:
    """Shrinks pixels along both axes, with antialiasing.  [h w] or [h w c] -> [h' w' c]"""
    # what Pillow decoded is read-only, which torch warns of
    owned = pixels if pixels.flags.writeable else pixels.copy()
    planes = torch.from_numpy(owned.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)[None]
    shrunk = functional.interpolate(planes, size=resized, mode=interpolation, antialias=True)
    # planes, which OpenCV puts side by side faster than NumPy (camviz help speed)
    return np.asarray(cv2.merge(list(shrunk[0].numpy())), np.uint8)


@dataclass(frozen=True)
class _Visible:
    """Along one axis: which pixels of the resized picture are in view, and where in it."""

    first: int
    last: int
    start: int

    @classmethod
    def of(cls, offset: int, view_edge: int, resized_edge: int) -> _Visible:
        first = max(0, offset)
        return cls(first, min(offset + view_edge, resized_edge), first - offset)


def _resize_part(
    image: Image.Image,
    resized: Size,
    rows: _Visible,
    columns: _Visible,
    resampling: Image.Resampling,
    resizer: Resizer,
) -> Image.Image:
    if resized[0] * resized[1] <= LARGEST_RESIZED:
        # both axes at once: resizing one, cutting, and then the other changes some pixels by one
        whole = _resize_whole(image, resized, resampling, resizer)
        return whole.crop((columns.first, rows.first, columns.last, rows.last))
    # 30,000 by 20 pixels would be blown up to 384,000 by 256: resize only what is in view, which is
    # the same but for rounding, since Pillow's filter looks beyond its box
    left, right = (x * image.width / resized[1] for x in (columns.first, columns.last))
    top, bottom = (y * image.height / resized[0] for y in (rows.first, rows.last))
    size = columns.last - columns.first, rows.last - rows.first
    return image.resize(size, resampling, box=(left, top, right, bottom))


def _resize_whole(
    image: Image.Image, resized: Size, resampling: Image.Resampling, resizer: Resizer
) -> Image.Image:
    if resizer != "torchvision":
        return image.resize(resized[::-1], resampling)
    from camcli.models.preprocessing.image_resizing import resize_as_torchvision

    pixels = np.asarray(image)
    return Image.fromarray(resize_as_torchvision(pixels, resized, resampling.name.lower()))
