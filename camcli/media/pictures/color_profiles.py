"""Keeps colour profiles (ICC) for overlays, or converts pixels to sRGB."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# of an ICC profile's header: how long it is, the colours that it is of, and its signature
HEADER, SPACE, SIGNATURE = 128, slice(16, 20), slice(36, 40)
RGB, GREY, CMYK = b"RGB ", b"GRAY", b"CMYK"


def find_profile(info: Mapping[Any, Any]) -> bytes | None:
    """Returns the ICC profile in what Pillow tells of a picture, if it begins as profiles do."""
    profile = info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) <= HEADER or profile[SIGNATURE] != b"acsp":
        return None
    return profile


def find_colour_space(profile: bytes) -> bytes:
    """Returns the four letters of the colours that a profile is of."""
    return profile[SPACE]


def convert_image_to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Converts a picture of a profile's colours to sRGB; None where the profile is damaged."""
    from PIL import ImageCms

    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def convert_to_srgb(pixels: NDArray[np.uint8], profile: bytes | None) -> NDArray[np.uint8]:
    """Converts pixels [h w 3] to sRGB; those without a profile, or with a damaged one, are left."""
    converted = convert_image_to_srgb(Image.fromarray(pixels), profile) if profile else None
    return pixels if converted is None else np.asarray(converted)
