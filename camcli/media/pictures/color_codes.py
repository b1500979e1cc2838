"""Makes ICC profiles of colours given by codes or numbers (cICP, nclx, gAMA, cHRM, EXIF).

The codes are those of ITU-T H.273; the chunks those of PNG, third edition, 11.3.2; EXIF tells Adobe
RGB as DCF 2.0 has it, by the interoperability index R03.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from camcli.media.pictures.color_profiles import find_profile

# x and y of red, green, blue and white
Chromaticities = tuple[float, ...]
D65 = (0.3127, 0.329)
SRGB: Chromaticities = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, *D65)
PRIMARIES: Mapping[int, Chromaticities] = {
    1: SRGB,
    5: (0.64, 0.33, 0.29, 0.6, 0.15, 0.06, *D65),
    6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *D65),
    7: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *D65),
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, *D65),
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *D65),
}
# parameters of ICC's curves: a power alone, or sRGB's, as which browsers show BT.709, 601 and 2020
Curve = tuple[float, ...]
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
CURVES: Mapping[int, Curve] = {
    **dict.fromkeys((1, 6, 13, 14, 15), SRGB_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
# Adobe RGB (1998), 4.3.1
ADOBE_RGB: Chromaticities = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *D65)
ADOBE_CURVE: Curve = (563 / 256,)
# EXIF's colour space: 1 is sRGB, 2 what some cameras write for Adobe RGB, and the last none of them
EXIF_ADOBE, UNCALIBRATED = 2, 65535
HIGH_DYNAMIC_RANGE: Mapping[int, str] = {16: "PQ", 18: "HLG"}
UNSPECIFIED = 2

# differences from sRGB below this are invisible, and common: libpng's own threshold
GAMMA, GAMMA_TOLERANCE, PLACE_TOLERANCE = 1 / 2.2, 0.05, 0.005

# what comes in front of a PNG's pixels: its signature, then chunks of a length, a name and a sum
SIGNATURE, CHUNK_HEAD, CHUNK_SUM = 8, 8, 4
# an AVIF's and a HEIC's box of codes, which two of 16 bits follow
NCLX = b"colrnclx"

D50 = (0.9642, 1.0, 0.8249)
# Bradford's cone responses, by which ICC has whites adapted to D50
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


@dataclass(frozen=True)
class Colours:
    """The profile of a picture's colours, if they are not sRGB, and what is to be said of them."""

    profile: bytes | None = None
    notes: tuple[str, ...] = ()


def find_colours(image: Image.Image, content: bytes) -> Colours:
    """Finds the colours of a file: by codes, then its own profile, then numbers or EXIF.

    `content` is the whole file, or empty; Pillow tells no codes.
    """
    codes, own = _find_codes(image, content), find_profile(image.info)
    if codes is not None and (image.format == "PNG" or own is None):
        result = _convert_codes(*codes)
        if result is not None:
            return result
    if own is not None or "srgb" in image.info:
        return Colours(own)
    if image.format != "PNG":
        return _convert_exif(image)
    return Colours(_convert_numbers(image.info.get("gamma"), image.info.get("chromaticity")))


def _find_codes(image: Image.Image, content: bytes) -> tuple[int, int] | None:
    """Returns the codes of primaries and curve."""
    if image.format == "PNG":
        chunk = _find_chunk(content, b"cICP")
        return (chunk[0], chunk[1]) if len(chunk) == 4 else None
    if image.format not in ("AVIF", "HEIF"):
        return None
    start = content.find(NCLX) + len(NCLX)
    if start < len(NCLX) or start + 4 > len(content):
        return None
    primaries, curve = struct.unpack_from(">HH", content, start)
    return primaries, curve


def _find_chunk(content: bytes, name: bytes) -> bytes:
    """Returns what a PNG's chunk in front of the pixels holds; nothing where there is none."""
    start = SIGNATURE
    while start + CHUNK_HEAD <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        kind, data = content[start + 4 : start + CHUNK_HEAD], start + CHUNK_HEAD
        if kind in (name, b"IDAT"):
            return content[data : data + length] if kind == name else b""
        start = data + length + CHUNK_SUM
    return b""


def _convert_codes(primaries: int, curve: int) -> Colours | None:
    """Makes a profile of codes; None where they say nothing, or nothing that is known."""
    if curve in HIGH_DYNAMIC_RANGE:
        said = (
            f"its colours have a high dynamic range ({HIGH_DYNAMIC_RANGE[curve]}), which is not"
            " shown: they look flat, in the overlay as to the network"
        )
        return Colours(notes=(said,))
    if UNSPECIFIED in (primaries, curve):
        return None
    if primaries not in PRIMARIES or curve not in CURVES:
        said = f"its colours (codes {primaries} and {curve}) are not known, and taken for sRGB"
        return Colours(notes=(said,))
    return Colours(_build_profile(PRIMARIES[primaries], CURVES[curve]))


def _convert_exif(image: Image.Image) -> Colours:
    """Makes a profile of what EXIF says of RGB."""
    if image.mode == "CMYK":
        return Colours()
    try:
        exif = image.getexif()
        tags = exif.get_ifd(ExifTags.IFD.Exif)
        space, index = tags.get(ExifTags.Base.ColorSpace), ""
        if ExifTags.IFD.Interop in tags:  # Pillow 11 raises where it is asked for one that is none
            index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex, "")
    except Exception:  # damaged EXIF is no reason to refuse sound pixels
        return Colours()
    if space == EXIF_ADOBE or (space == UNCALIBRATED and str(index).startswith("R03")):
        return Colours(_build_profile(ADOBE_RGB, ADOBE_CURVE))
    if space == UNCALIBRATED:
        said = "its EXIF says that its colours are not sRGB, and not which: they are taken for sRGB"
        return Colours(notes=(said,))
    return Colours()


def _convert_numbers(gamma: float | None, chromaticities: Sequence[float] | None) -> bytes | None:
    places = SRGB
    if chromaticities:
        # Pillow gives the white first
        places = (*chromaticities[2:], *chromaticities[:2])
    if np.allclose(places, SRGB, rtol=0, atol=PLACE_TOLERANCE):
        places = SRGB
    is_srgb = not gamma or abs(gamma / GAMMA - 1) < GAMMA_TOLERANCE
    return _build_profile(places, SRGB_CURVE if is_srgb else (1 / (gamma or GAMMA),))


def _build_profile(places: Chromaticities, curve: Curve) -> bytes | None:
    """Builds an ICC profile (4.3); None for sRGB's own colours, and for places that are none."""
    if (places, curve) == (SRGB, SRGB_CURVE) or min(places[1::2]) <= 0:
        return None
    whole = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in zip(*[iter(places)] * 2)]).T  # noqa: B905
    colours, white = whole[:, :3], whole[:, 3]
    try:
        matrix = colours * np.linalg.solve(colours, white)
    except np.linalg.LinAlgError:  # three places on a line
        return None
    cones = (BRADFORD @ np.array(D50)) / (BRADFORD @ white)
    to_d50 = np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD
    red, green, blue = (to_d50 @ matrix).T
    if not np.isfinite(to_d50 @ matrix).all():
        return None
    shape = (
        b"para\0\0\0\0"
        + struct.pack(">HH", 0 if len(curve) == 1 else 3, 0)
        + _encode_fixed_point(curve)
    )
    tags = {
        b"desc": _encode_text("RGB as the file tells it"),
        b"cprt": _encode_text("No copyright"),
        b"wtpt": b"XYZ \0\0\0\0" + _encode_fixed_point(D50),
        b"chad": b"sf32\0\0\0\0" + _encode_fixed_point(to_d50.ravel()),
        **{
            tag: b"XYZ \0\0\0\0" + _encode_fixed_point(c)
            for tag, c in ((b"rXYZ", red), (b"gXYZ", green))
        },
        b"bXYZ": b"XYZ \0\0\0\0" + _encode_fixed_point(blue),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), shape),
    }
    return _pack_profile(tags)


def _pack_profile(tags: Mapping[bytes, bytes]) -> bytes:
    start, table, data = 132 + 12 * len(tags), b"", b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI", start + len(data), b"", 0x04300000) + b"mntrRGB XYZ " + bytes(12)
    head += b"acsp" + bytes(28) + _encode_fixed_point(D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _encode_fixed_point(numbers: Sequence[float] | NDArray[np.float64]) -> bytes:
    """Writes numbers with 16 bits behind the point."""
    return b"".join(struct.pack(">i", round(float(number) * 65_536)) for number in numbers)


def _encode_text(words: str) -> bytes:
    encoded = words.encode("utf-16-be")
    head = struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28)
    return b"mluc\0\0\0\0" + head + encoded
