"""Reads colours of 16 bits, of which Pillow reads the upper 8, and the range of their samples."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.media.pictures.bit_depth import Range
from camcli.media.pictures.opencv_messages import silence_opencv

# where Pillow's 8 bits reach no further, the range may be one of 14 bits or fewer
DARK = 63
SIXTEEN = Range(0, 65_535, "16 bits")

PNG_HEAD = 24  # bytes in front of the bit depth
# a JPEG 2000 code stream begins so; 38 bytes further its first component tells its precision
CODE_STREAM, PRECISION_AT = b"\xff\x4f\xff\x51", 42


def decode_with_opencv(content: bytes) -> NDArray[Any] | None:
    """Reads grey, RGB or RGBA as it is, [h w] or [h w c]; None where OpenCV cannot."""
    try:
        with silence_opencv():
            read: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # it raises for some files, and returns None for others
        return None
    if read is None:
        return None
    if read.ndim == 2:
        return np.asarray(read)
    # 5.0 gives grey a third axis, 4.x does not
    order = {1: 0, 3: [2, 1, 0], 4: [2, 1, 0, 3]}[read.shape[2]]
    return np.asarray(read[..., order])


def has_deep_colours(image: Image.Image, content: bytes) -> bool:
    """Tells whether Pillow gives 8 bits of a PNG, JPEG 2000 or PPM that has more of them."""
    if image.format == "PNG":
        return content[PNG_HEAD : PNG_HEAD + 1] == b"\x10"
    if image.format == "JPEG2000":
        return _read_precision(content) > 8
    return image.format == "PPM" and _is_of_sixteen_bits(content)


def is_misread_by_pillow(image: Image.Image) -> bool:
    """Tells whether 8 bits made of more are other values than the file's.

    Pillow 13.0 rounds those of JPEG 2000 up beyond 255, so that white is black.
    """
    return image.format == "JPEG2000"


def find_stated_range(image: Image.Image, content: bytes, values: NDArray[Any]) -> Range | None:
    """Returns what a PNG, JPEG 2000 or PPM says of the range of its samples.

    Pillow scales grey values of the two latter to 16 bits; PFM's are float, and as they are.
    """
    if image.format == "PNG" and values.size:
        bits = _read_significant_bits(content)
        return _find_significant_range(bits, values) if bits else None
    if image.format == "JPEG2000" and 8 < (bits := _read_precision(content)) < 16:
        return SIXTEEN if image.mode == "I;16" else Range(0, 2**bits - 1)
    if image.format == "PPM" and image.mode != "F" and not _is_of_sixteen_bits(content):
        return SIXTEEN
    return None


def _is_of_sixteen_bits(content: bytes) -> bool:
    return bool(re.match(rb"P[2356](\s+|#[^\n]*\n)+\d+\s+\d+\s+65535\s", content))


def _read_precision(content: bytes) -> int:
    start = content.find(CODE_STREAM)
    at = start + PRECISION_AT
    return (content[at] & 0x7F) + 1 if start >= 0 and at < len(content) else 0


def _read_significant_bits(content: bytes) -> int:
    """Returns the most bits that a PNG of 16 calls significant (sBIT); 0 where it says nothing."""
    start = 8
    while start + 8 <= len(content):
        length, kind = (
            int.from_bytes(content[start : start + 4], "big"),
            content[start + 4 : start + 8],
        )
        if kind == b"sBIT":
            return max(content[start + 8 : start + 8 + length], default=0)
        if kind in (b"PLTE", b"IDAT"):
            return 0
        start += length + 12
    return 0


def _find_significant_range(bits: int, values: NDArray[Any]) -> Range | None:
    """Finds out whether samples were scaled to 16 bits, as the standard asks, or left as they were.

    Those that were scaled repeat their upper bits in the lower ones, or have zeros there.
    """
    if not 8 < bits < 16 or values.dtype != np.uint16:
        return None
    own = Range(0, 2**bits - 1, "sBIT")
    if values.max() > own.white:
        return SIXTEEN
    upper = values >> (16 - bits)
    repeated = (upper << (16 - bits)) | (upper >> (2 * bits - 16))
    is_scaled = np.array_equal(upper << (16 - bits), values) or np.array_equal(repeated, values)
    return SIXTEEN if is_scaled else own
