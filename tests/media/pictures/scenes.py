"""A scene whose quarters are told apart, and how it is saved and read."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.media.pictures.read import read_picture
from camcli.records import Source


def scene(height: int = 40, width: int = 64) -> NDArray[np.uint8]:
    """Four flat quarters of different colour, the upper left one red."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (250, 10, 10)
    pixels[: height // 2, width // 2 :] = (10, 250, 10)
    pixels[height // 2 :, : width // 2] = (10, 10, 250)
    pixels[height // 2 :, width // 2 :] = (240, 240, 240)
    return pixels


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return read_picture(Source(path)).pixels
