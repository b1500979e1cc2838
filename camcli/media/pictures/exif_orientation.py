"""Turns pictures upright, as the orientation in their EXIF says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

# how Pillow makes upright what has these orientations
UPRIGHT: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_upright(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Returns the pixels [h w 3] of a picture, turned as an orientation from 1 to 8 says."""
    turn = UPRIGHT.get(orientation)
    return np.asarray(image if turn is None else image.transpose(turn))


def read_orientation(image: Image.Image) -> int:
    """Reads the orientation in a picture's EXIF; 1 is upright."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF is no reason to refuse sound pixels
        return 1
