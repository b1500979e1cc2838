"""Image files and pictures from Python -> upright RGB pixels."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from camcli.errors import ImageError, UsageError
from camcli.records import Picture, Source

PictureLike: TypeAlias = (
    "Picture | Source | str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor"
)

UPRIGHT: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# the value that white may have in modes deeper than 8 bits; the first that holds all values counts
WHITE: Mapping[str, tuple[int, ...]] = {
    "I;16": (65535,),
    "I;16L": (65535,),
    "I;16B": (65535,),
    "I;16N": (65535,),
    "I": (255, 65535),
    "F": (1, 255, 65535),
}

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "there is no such file"),
    (IsADirectoryError, "it is a folder"),
    (PermissionError, "there is no permission to read it"),
    (UnidentifiedImageError, "it is no image, or of a kind that Pillow does not know"),
    (MemoryError, "it does not fit into memory"),
)


def read_picture(source: Source) -> Picture:
    """Reads an image file (of several frames, the first); raises ImageError."""
    try:
        _check_ordinary(source.path)
        with _NO_PILLOW_WARNINGS, Image.open(source.path) as image:
            return Picture(_upright_pixels(image), source)
    except Exception as error:  # on damaged files Pillow raises whatever its parsers stumble over
        raise _unreadable(str(source.path), error) from error


def picture_from(value: PictureLike) -> Picture:
    """Makes a picture of what a Python caller has; raises ImageError or UsageError.

    Paths, PIL pictures, arrays [h w], [h w 3] or [h w 4], tensors [h w], [3 h w] or [4 h w]; uint8,
    or float from 0 to 1.
    """
    if isinstance(value, Picture):
        return value
    if isinstance(value, Source):
        return read_picture(value)
    if isinstance(value, str | os.PathLike):
        return read_picture(Source(Path(value)))
    if isinstance(value, Image.Image):
        return _from_pil(value)
    if isinstance(value, Tensor):
        return Picture(_array_pixels(_channels_last(value)))
    if isinstance(value, np.ndarray):
        return Picture(_array_pixels(value))
    raise UsageError(
        f"A picture is a path, a PIL picture, an array or a tensor, not {type(value).__name__}."
    )


class _NoPillowWarnings:
    """Holds Pillow's warnings back while any thread reads.

    `catch_warnings` alone restores the wrong filters when threads leave it in another order.
    """

    def __init__(self) -> None:
        self._lock, self._readers = threading.Lock(), 0
        self._filters = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._readers += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._filters.close()


_NO_PILLOW_WARNINGS = _NoPillowWarnings()


def _from_pil(image: Image.Image) -> Picture:
    try:
        with _NO_PILLOW_WARNINGS:
            return Picture(_upright_pixels(image))
    except Exception as error:  # a lazily opened file is only read here
        raise _unreadable(getattr(image, "filename", "") or "the picture", error) from error


def _check_ordinary(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError
    size = path.stat().st_size
    if not path.is_file():
        raise ImageError("it is no ordinary file")
    if size == 0:
        raise ImageError("it is empty")


def _unreadable(name: str, error: Exception) -> ImageError:
    return ImageError(f"Cannot read {name!r}: {_reason(error)}.")


def _reason(error: Exception) -> str:
    for kind, words in REASONS:
        if isinstance(error, kind):
            return words
    words = str(error).rstrip(".") or type(error).__name__
    if isinstance(error, ImageError):
        return words
    if isinstance(error, Image.DecompressionBombError):
        return f"it has too many pixels ({words})"
    return f"it is truncated or damaged ({words})"


def _upright_pixels(image: Image.Image) -> NDArray[np.uint8]:
    if image.format == "EPS":
        raise ImageError("EPS is a program, which Pillow would hand to Ghostscript to run")
    image.load()
    # asked after loading, since Pillow turns TIFF pictures itself
    turn = UPRIGHT.get(_orientation(image))
    rgb = _rgb(image)
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF is no reason to refuse sound pixels
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in WHITE:
        return Image.fromarray(_eight_bits(np.asarray(image), WHITE[image.mode])).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    over_white = Image.new("RGBA", image.size, "white")
    over_white.alpha_composite(image.convert("RGBA"))
    return over_white.convert("RGB")


def _eight_bits(values: NDArray[Any], whites: tuple[int, ...]) -> NDArray[np.uint8]:
    """Scales deep values to 0..255, by the value of white or else from minimum to maximum."""
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    holding = [white for white in whites if low >= 0 and high <= white]
    black, white = (0.0, float(holding[0])) if holding else (low, high)
    scale = 255 / (white - black) if white > black else 0.0
    return np.rint((finite - black) * scale).astype(np.uint8)


def _channels_last(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()


def _array_pixels(values: NDArray[Any]) -> NDArray[np.uint8]:
    is_picture = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3, 4))
    if not is_picture or values.size == 0:
        raise UsageError(
            f"A picture cannot have shape {values.shape} (height, width, channels). Arrays are "
            "[h w], [h w 3] or [h w 4], tensors [h w], [3 h w] or [4 h w]."
        )
    grey = values.ndim == 3 and values.shape[2] == 1
    return np.asarray(_rgb(Image.fromarray(_bytes(values[..., 0] if grey else values))))


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        raise UsageError(f"A picture is uint8, or float from 0 to 1, not {values.dtype}.")
    scaled = np.rint(values.astype(np.float32) * 255)
    if not (scaled.min() >= 0 and scaled.max() <= 255):  # also false for NaN
        raise UsageError(
            f"A float picture has values from 0 to 1, not {values.min():g} to {values.max():g}; "
            "network inputs that are normalised already go to camcli.heatmaps."
        )
    return scaled.astype(np.uint8)
