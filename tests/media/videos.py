"""Small videos for tests: a red blob moves over grey-blue, by one step a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH, COUNT, FPS = 48, 64, 12, 10.0
BACKGROUND, BLOB = (40, 60, 80), (200, 30, 30)
CODEC = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".webm": "VP80"}


def frame(index: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """The blob stands `4 * index` pixels from the left, in the upper half."""
    pixels = np.full((*size, 3), BACKGROUND, np.uint8)
    pixels[8:24, 4 * index : 4 * index + 16] = BLOB
    return pixels


def written(path: Path, count: int = COUNT, fps: float = FPS) -> Path:
    four = cv2.VideoWriter.fourcc(*CODEC[path.suffix])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, four, fps, (WIDTH, HEIGHT))
    for index in range(count):
        writer.write(np.ascontiguousarray(frame(index)[..., ::-1]))
    writer.release()
    return path


def place_of_blob(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """The blob's middle, (row, column)."""
    rows, columns = np.where(pixels[..., 0] > 120)
    return float(rows.mean()), float(columns.mean())


def index_shown(pixels: NDArray[np.uint8]) -> int:
    return round((place_of_blob(pixels)[1] - 7.5) / 4)


def animated(path: Path, frames: Sequence[NDArray[np.uint8]], **options: object) -> Path:
    first, *others = (Image.fromarray(pixels) for pixels in frames)
    first.save(path, save_all=True, append_images=others, **options)
    return path
