"""Converts samples of any mode and depth to RGB of 8 bits, transparent parts laid over white."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ImageError
from camcli.media.pictures.bit_depth import Range, scale_alpha, scale_to_eight_bits
from camcli.media.pictures.deep_color import (
    DARK,
    SIXTEEN,
    decode_with_opencv,
    find_stated_range,
    has_deep_colours,
    is_misread_by_pillow,
)
from camcli.media.pictures.tiff import TiffPage, limit_bytes, read_samples, split_bands

# modes deeper than 8 bits
DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
# premultiplied modes, which convert to nothing else
PLAIN: Mapping[str, str] = {"La": "LA", "RGBa": "RGBA"}


def convert_to_rgb(
    image: Image.Image, page: TiffPage | None, content: bytes
) -> tuple[Image.Image, tuple[str, ...]]:
    """Converts a picture's values to RGB, and reports values that had to be stretched."""
    if image.mode in DEEP_MODES:
        return _convert_deep_grey(image, page, content)
    if image.mode == "LAB":
        return _convert_lab(image), ()
    if _needs_deep_reading(image, page, content):
        return _convert_deep_colours(image, page, content)
    return lay_over_white(image), page.left_out if page else ()


def _needs_deep_reading(image: Image.Image, page: TiffPage | None, content: bytes) -> bool:
    """Tells whether the upper 8 bits of deep colours leave open what they mean."""
    if page:
        return page.has_deep_colours and (bool(page.stated) or _is_dark(image))
    if not has_deep_colours(image, content):
        return False
    return is_misread_by_pillow(image) or _is_dark(image)


def _is_dark(image: Image.Image) -> bool:
    colours = np.asarray(image.convert("RGB"))
    if image.has_transparency_data:
        colours = colours[np.asarray(image.convert("RGBA"))[..., 3] > 0]
    return not colours.size or int(colours.max()) <= DARK


def _convert_deep_grey(
    image: Image.Image, page: TiffPage | None, content: bytes
) -> tuple[Image.Image, tuple[str, ...]]:
    values = np.asarray(image)
    if page:
        values = page.with_nodata(values.view(np.uint32) if page.is_wrapped_by_pillow else values)
        return _make_eight_bit_image(values, page.stated, page.own, page.is_inverted)
    own = SIXTEEN if image.format in ("PNG", "PPM") and image.mode != "F" else None
    return _make_eight_bit_image(values, find_stated_range(image, content, values), own)


def _convert_deep_colours(
    image: Image.Image, page: TiffPage | None, content: bytes
) -> tuple[Image.Image, tuple[str, ...]]:
    """Reads colours of more than 8 bits anew; raises ImageError where that cannot be done."""
    if page and content:
        return convert_bands(read_samples(content, page, limit_bytes(math.prod(page.size))), page)
    values = decode_with_opencv(content) if content else None
    if values is None and is_misread_by_pillow(image):
        raise ImageError("Pillow turns white to black in such JPEG 2000: save it as PNG or TIFF")
    if values is None:
        return lay_over_white(image), (
            "of its 16 bits a colour the lower 8 are lost, and it is dark",
        )
    channels = values[..., None] if values.ndim == 2 else values
    alpha = channels[..., 3] if channels.shape[2] == 4 else None
    stated = find_stated_range(image, content, channels[..., :3])
    own = None if image.format == "PNG" else stated
    return _convert_colours(channels[..., :3], alpha, stated, own)


def convert_bands(values: NDArray[Any], page: TiffPage) -> tuple[Image.Image, tuple[str, ...]]:
    """Converts the samples of a TIFF page to RGB, and reports what was left out or stretched."""
    colours, alpha, notes = split_bands(page.with_nodata(values), page)
    rgb, stretched = _convert_colours(colours, alpha, page.stated, page.own, page.is_inverted)
    return rgb, (*notes, *stretched)


def _convert_colours(
    colours: NDArray[Any],
    alpha: NDArray[Any] | None,
    stated: Range | None,
    own: Range | None = None,
    is_inverted: bool = False,
) -> tuple[Image.Image, tuple[str, ...]]:
    if alpha is not None:
        # transparent values are no part of the range
        colours = np.where(alpha.reshape(*alpha.shape, *[1] * (colours.ndim - 2)) > 0, colours, 0)
    grey = colours[..., 0] if colours.ndim == 3 and colours.shape[2] == 1 else colours
    rgb, notes = _make_eight_bit_image(grey, stated, own, is_inverted)
    if alpha is not None:
        rgb.putalpha(Image.fromarray(scale_alpha(alpha)))
    return lay_over_white(rgb), notes


def _make_eight_bit_image(
    values: NDArray[Any], stated: Range | None, own: Range | None, is_inverted: bool = False
) -> tuple[Image.Image, tuple[str, ...]]:
    eight, notes = scale_to_eight_bits(values, stated, own)
    return Image.fromarray(255 - eight if is_inverted else eight).convert("RGB"), notes


def lay_over_white(image: Image.Image) -> Image.Image:
    """Makes RGB of 8 bits, transparent parts laid over white."""
    if not image.has_transparency_data:
        # which copies what is RGB already
        return image if image.mode == "RGB" else image.convert("RGB")
    over_white = Image.new("RGBA", image.size, "white")
    over_white.alpha_composite(image.convert(PLAIN.get(image.mode, image.mode)).convert("RGBA"))
    return over_white.convert("RGB")


def _convert_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only where it is converted in place
    return converted
