"""Resizes pixels as torchvision does, which rounds now and then otherwise than Pillow."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

# what Pillow calls nearest looks at the centres of pixels
MODES = {"nearest": InterpolationMode.NEAREST_EXACT}


def resize_as_torchvision(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """Resizes a picture to (height, width), with antialiasing.  [h w] or [h w c] -> the same"""
    channels = pixels if pixels.ndim == 3 else pixels[..., None]
    # the copy lies as processors lay it, channels first, and is torch's to write
    planes = torch.from_numpy(np.array(channels.transpose(2, 0, 1), order="C"))
    mode = MODES.get(interpolation, InterpolationMode(interpolation))
    resized = functional.resize(planes, list(size), interpolation=mode, antialias=True)
    laid_out = np.ascontiguousarray(resized.permute(1, 2, 0).numpy())
    return laid_out if pixels.ndim == 3 else laid_out[..., 0]
