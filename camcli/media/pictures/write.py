"""Pictures -> files that are whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ImageError
from camcli.media.atomic_files import write_file
from camcli.media.pictures.color_profiles import convert_to_srgb
from camcli.media.pictures.output_formats import find_format
from camcli.records import FileStamp
from camcli.utils.profiling import stage

# of zlib, for PNG: higher ones take twice the time and more for hardly a smaller file
COMPRESS_LEVEL = 4
SAVING: Mapping[str, Mapping[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},  # thinned-out colour would blur the heatmap
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_deflate"},
    "PNG": {"compress_level": COMPRESS_LEVEL},
}

# the same for OpenCV
JPEG_SETTINGS = (
    cv2.IMWRITE_JPEG_QUALITY,
    SAVING["JPEG"]["quality"],
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)

# formats that hold a colour profile; pixels of others are converted to sRGB
WITH_PROFILE = frozenset({"JPEG", "PNG", "WEBP", "TIFF"})

LONGEST_EDGE: Mapping[str, int] = {"JPEG": 65500, "WEBP": 16383}  # pixels


@stage("write")
def write_picture(pixels: NDArray[np.uint8], path: Path, profile: bytes | None = None) -> FileStamp:
    """Writes pixels [h w 3] in the format of the path's suffix, with the ICC profile of theirs.

    Raises OutputError, or ImageError for a picture that the format cannot hold, or for a name that
    the file system refuses.
    """
    # into memory: Pillow takes a short write into a file for a whole one, as on a full disk
    return write_file(encode_picture(pixels, path, profile), path)


def encode_picture(
    pixels: NDArray[np.uint8], path: Path, profile: bytes | None = None
) -> memoryview:
    """Returns what `write_picture` writes of uint8 RGB [h w 3]; the path says the format.

    `profile` is the ICC profile of the colours.  Raises ImageError where the format holds no
    picture of that size.
    """
    kind = find_format(path)
    edge, longest = max(pixels.shape[:2]), LONGEST_EDGE.get(kind)
    if longest and edge > longest:
        raise ImageError(
            f"Cannot write {str(path)!r}: {kind} holds at most {longest} pixels an edge, and the "
            f"picture has {edge}. Choose --format png, or a --save-path that ends in .png."
        )
    if kind not in WITH_PROFILE:
        pixels, profile = convert_to_srgb(pixels, profile), None
    try:
        if kind == "JPEG" and not profile:
            return _encode_jpeg(pixels)
        return _encode_by_pillow(pixels, kind, profile)
    except (OSError, ValueError, cv2.error) as error:
        raise ImageError(f"Cannot write {str(path)!r} as {kind}: {error}.") from error


def _encode_by_pillow(pixels: NDArray[np.uint8], kind: str, profile: bytes | None) -> memoryview:
    content, embedded = BytesIO(), {"icc_profile": profile} if profile else {}
    Image.fromarray(pixels).save(content, kind, **SAVING.get(kind, {}), **embedded)
    return content.getbuffer()


def _encode_jpeg(pixels: NDArray[np.uint8]) -> memoryview:
    """Encodes pixels [h w 3] by OpenCV: the bytes that Pillow gives, with fewer copies."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    is_done, content = cv2.imencode(".jpg", bgr, JPEG_SETTINGS)
    if not is_done:
        raise ValueError("OpenCV does not encode it")
    return memoryview(content.data)
