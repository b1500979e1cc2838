"""Raw maps and masks -> files that are whole or not there."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from camcli.media.atomic_files import write_file
from camcli.records import FileStamp
from camcli.utils.profiling import stage

HIGHEST = 2**16 - 1
# by the name of a format, what stands behind the picture's name
MAP_ENDINGS: Mapping[str, str] = {
    "npy": ".npy", "npz": ".npz", "png16": ".map.png", "tif": ".map.tif",
}  # fmt: skip


def name_mask(share: float | None, percentile: float | None) -> str:
    """Returns what stands behind a picture's name: `.mask-0.5.png`, or `.mask-p90.png`."""
    said = f"{share:g}" if percentile is None else f"p{percentile:g}"
    return f".mask-{said}.png"


@stage("write")
def write_map(values: NDArray[np.float32], path: Path, kind: str = "npy") -> FileStamp:
    """Writes a map [h w]; raises OutputError, or ImageError for a name that is refused.

    `npy` and `npz` (compressed, its array is called `map`) are NumPy's, `tif` is a TIFF of float32;
    in all of them a value is what it was.  `png16` has 16 bits: level 0 is the least value or zero,
    whichever is lower, and 65,535 the largest or zero; its texts `low` and `high` say which.  Of
    what is NaN it makes zero.
    """
    return write_file(ENCODERS[kind](values), path)


@stage("write")
def write_mask(mask: NDArray[np.bool_], path: Path) -> FileStamp:
    """Writes a mask [h w] as a grey PNG: 255 inside and 0 outside; raises as `write_map`."""
    return write_file(_encode_picture(Image.fromarray(mask.astype(np.uint8) * 255), "PNG"), path)


def _encode_npy(values: NDArray[np.float32]) -> memoryview:
    content = BytesIO()
    np.save(content, values, allow_pickle=False)
    return content.getbuffer()


def _encode_npz(values: NDArray[np.float32]) -> memoryview:
    content = BytesIO()
    # NumPy's own would write the time, and no two files would be the same
    entry = zipfile.ZipInfo("map.npy")
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(entry, bytes(_encode_npy(values)))
    return content.getbuffer()


def _encode_tif(values: NDArray[np.float32]) -> memoryview:
    return _encode_picture(Image.fromarray(values), "TIFF", compression="tiff_deflate")


def _encode_png16(values: NDArray[np.float32]) -> memoryview:
    # float64, in which the range of any two of float32 is finite
    plain = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
    low, high = min(float(plain.min()), 0.0), max(float(plain.max()), 0.0)
    levels = np.rint((plain - low) * (HIGHEST / ((high - low) or 1.0))).astype(np.uint16)
    said = PngInfo()
    said.add_text("low", repr(low))
    said.add_text("high", repr(high))
    return _encode_picture(Image.fromarray(levels), "PNG", pnginfo=said)


def _encode_picture(picture: Image.Image, kind: str, **options: object) -> memoryview:
    content = BytesIO()
    picture.save(content, kind, **options)
    return content.getbuffer()


ENCODERS: Mapping[str, Callable[[NDArray[np.float32]], memoryview]] = {
    "npy": _encode_npy,
    "npz": _encode_npz,
    "png16": _encode_png16,
    "tif": _encode_tif,
}
