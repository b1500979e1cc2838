"""Describes the first page of TIFF files, and chooses a reader that reads it rightly.

Pillow 13.0 and OpenCV 5.0 give other values than the file's for some layouts, without an error.
So each reader gets the layouts that it was seen to read as tifffile does; tifffile, an extra, reads
all others.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, TiffImagePlugin

from camcli.errors import ImageError
from camcli.media.pictures.bit_depth import Range, divide_by_alpha
from camcli.media.pictures.color_profiles import find_profile
from camcli.media.pictures.deep_color import decode_with_opencv

Reader = Literal["pillow", "opencv", "tifffile"]

# a file may have so many bytes for each pixel that a picture may have, and so many besides: pixels
# take at most 4, and a file of other frames or none at all must not fill the memory
BYTES_A_PIXEL, BYTES_BESIDE = 8, 2**26

HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BIG = (b"II+\0", b"MM\0+")  # BigTIFF, whose header has eight bytes more

UNSIGNED, SIGNED, FLOAT, UNTYPED = 1, 2, 3, 4  # SampleFormat
GREY = (0, 1)  # WhiteIsZero, BlackIsZero
WHITE_IS_ZERO, RGB = 0, 2
# colours that Pillow knows, besides grey: RGB, palette, CMYK, YCbCr, Lab
COLOURS = (2, 3, 5, 6, 8)
INTERLEAVED, SEPARATE = 1, 2
UNCOMPRESSED = 1
PREMULTIPLIED = 1  # ExtraSamples
ALPHA = (PREMULTIPLIED, 2)
SMIN, SMAX = 340, 341  # SMinSampleValue, SMaxSampleValue
PROFILE = 34675
SUBFILE, NO_PAGE = 254, 0b101  # NewSubfileType: a smaller copy, a mask
NODATA = 42113  # GDAL's

# tifffile raises what it prints, too
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffPage:
    """What a page says of its samples: how many there are of what type, and how they lie."""

    size: tuple[int, int]  # width and height
    samples: int
    bits: tuple[int, ...]
    kind: int
    photometric: int
    planes: int
    compression: int
    extra: tuple[int, ...]
    is_big_endian: bool
    orientation: int
    stated: Range | None
    nodata: float | None
    profile: bytes | None

    @classmethod
    def of(cls, tags: TiffImagePlugin.ImageFileDirectory_v2) -> Self:
        """Reads a page's tags."""
        base = ExifTags.Base
        bits = _to_integers(tags.get(base.BitsPerSample, 1))
        kinds = set(_to_integers(tags.get(base.SampleFormat, UNSIGNED)))
        return cls(
            size=(int(tags[base.ImageWidth]), int(tags[base.ImageLength])),
            samples=int(tags.get(base.SamplesPerPixel, 1)),
            bits=bits,
            kind=kinds.pop() if len(kinds) == 1 else 0,
            photometric=int(tags.get(base.PhotometricInterpretation, 1)),
            planes=int(tags.get(base.PlanarConfiguration, INTERLEAVED)),
            compression=int(tags.get(base.Compression, UNCOMPRESSED)),
            extra=_to_integers(tags.get(base.ExtraSamples, ())),
            is_big_endian=tags.prefix == b"MM",
            orientation=int(tags.get(base.Orientation, 1)),
            stated=_find_stated_range(tags, max(bits)),
            nodata=_parse_nodata(tags.get(NODATA)),
            profile=find_profile({"icc_profile": tags.get(PROFILE)}),
        )

    @property
    def reader(self) -> Reader:
        """The reader that reads it rightly; Pillow reads the upper 8 of 16 bits."""
        if self._is_pillows:
            return "pillow"
        return "opencv" if self.is_read_by_opencv else "tifffile"

    @property
    def own(self) -> Range | None:
        """The range of samples that fill no whole bytes; None for others, whose type has one."""
        deep = max(self.bits)
        return Range(0, 2**deep - 1) if self.kind == UNSIGNED and deep % 8 else None

    @property
    def is_inverted(self) -> bool:
        """Whether zero is white, which OpenCV and tifffile leave as it is."""
        return self.photometric == WHITE_IS_ZERO

    @property
    def has_alpha(self) -> bool:
        """Whether the last band says how opaque a pixel is."""
        return bool(self.extra) and self.extra[-1] in ALPHA

    @property
    def has_premultiplied_alpha(self) -> bool:
        """Whether the colours were multiplied by that share."""
        return bool(self.extra) and self.extra[-1] == PREMULTIPLIED

    @property
    def _is_pillows(self) -> bool:
        if self.photometric not in (*GREY, *COLOURS):
            return True  # nobody's; it says so
        deep, is_separate = max(self.bits), self.planes == SEPARATE and self.samples > 1
        if self.kind not in (UNSIGNED, UNTYPED) or (is_separate and self.samples not in (3, 4)):
            return False
        if self.photometric in COLOURS:
            is_read = not is_separate or self.compression != UNCOMPRESSED
            is_plain = deep <= 8 and (is_read or not self.has_premultiplied_alpha)
            return is_plain or (deep == 16 and self.samples <= 4 and is_read)
        if self.samples > 1:
            # which kinds of a second band it opens depends on its version
            layout = (b"II", self.photometric, (self.kind,), 1, self.bits, self.extra)
            return not self.is_inverted and layout in TiffImagePlugin.OPEN_INFO
        is_known = deep == 16 or (deep == 12 and not self.is_big_endian)
        return deep <= 8 or (is_known and not self.is_inverted)

    @property
    def is_read_by_opencv(self) -> bool:
        """Whether OpenCV reads all bits of it rightly."""
        if self.planes == SEPARATE and self.samples > 1:
            return False
        is_known = self.photometric in GREY and self.samples == 1
        is_known |= self.photometric == RGB and self.samples in (3, 4)
        sizes = {UNSIGNED: (16, 32), SIGNED: (16, 32), FLOAT: (32, 64)}.get(self.kind, ())
        return is_known and len(set(self.bits)) == 1 and self.bits[0] in sizes

    @property
    def is_misread_by_pillow(self) -> bool:
        """Whether Pillow gives other values than the file's, and nothing mends them."""
        deep, is_separate = max(self.bits), self.planes == SEPARATE and self.samples > 1
        is_packed = self.compression != UNCOMPRESSED
        swaps = self.is_big_endian and is_packed and (self.kind in (SIGNED, FLOAT) or deep == 32)
        drops = is_separate and (self.samples not in (3, 4) or (deep > 8 and not is_packed))
        return drops or (deep > 8 and swaps) or (self.kind == SIGNED and deep == 8)

    @property
    def is_wrapped_by_pillow(self) -> bool:
        """Whether Pillow takes numbers without a sign for such with one."""
        return self.kind == UNSIGNED and self.bits == (32,)

    @property
    def has_deep_colours(self) -> bool:
        """Whether Pillow reads no more than the upper 8 bits."""
        return self.photometric == RGB and max(self.bits) == 16

    @property
    def left_out(self) -> tuple[str, ...]:
        """Says which bands Pillow leaves out."""
        if self.photometric in GREY and self.samples == 2 and not self.has_alpha:
            return ("it has 2 bands: the first one is shown",)
        return ()

    def with_nodata(self, values: NDArray[Any]) -> NDArray[Any]:
        """Makes NaN of what the file calls no data."""
        if self.nodata is None:
            return values
        return np.where(values == self.nodata, np.float32("nan"), values)

    def __str__(self) -> str:
        kind = {SIGNED: "signed ", FLOAT: "float "}.get(self.kind, "")
        planes = " in separate planes" if self.planes == SEPARATE and self.samples > 1 else ""
        bands = "band" if self.samples == 1 else "bands"
        return f"{self.samples} {bands} of {kind}{max(self.bits)} bits{planes}"


def describe_first_page(content: bytes) -> TiffPage | None:
    """Describes a TIFF's first page; None for what is no TIFF, or for damaged tags."""
    if content[:4] not in HEADERS:
        return None
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if content[:4] in BIG else 8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        return TiffPage.of(tags)
    except Exception:  # Pillow is asked for the picture next, and says what is wrong
        return None


def count_pages(content: bytes) -> int:
    """Counts a TIFF's pages, without smaller copies of them, and masks; 0 for what is no TIFF."""
    if content[:4] not in HEADERS:
        return 0
    count, seen = 0, set[int]()
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if content[:4] in BIG else 8])
        file = io.BytesIO(content)
        while tags.next and tags.next not in seen:
            seen.add(tags.next)
            file.seek(tags.next)
            tags.load(file)
            count += not int(tags.get(SUBFILE, 0)) & NO_PAGE
    except Exception:  # as above: what is damaged ends here
        return count
    return count


def limit_bytes(pixels: int) -> int:
    """Returns how many bytes a file of so many pixels may have, and what is read of it."""
    return BYTES_A_PIXEL * pixels + BYTES_BESIDE


def read_samples(content: bytes, page: TiffPage, max_bytes: int) -> NDArray[Any]:
    """Reads the samples of a file's first page as they are.  -> [h w] or [h w bands]

    Raises ImageError, or whatever tifffile raises for a damaged file.
    """
    values = decode_with_opencv(content) if page.is_read_by_opencv else None
    if values is None:
        values = _read_with_tifffile(content, page, max_bytes)
    if values.dtype.kind not in "uif":
        raise ImageError(f"it is a TIFF of {values.dtype} samples, which are no picture")
    return values


def split_bands(
    values: NDArray[Any], page: TiffPage
) -> tuple[NDArray[Any], NDArray[Any] | None, tuple[str, ...]]:
    """Splits samples into grey [h w] or colours [h w 3], alpha [h w], and a note on them.

    Of many bands the first three are shown.
    """
    bands = values[..., None] if values.ndim == 2 else values
    alpha = bands[..., -1] if page.has_alpha and bands.shape[2] > 1 else None
    colours = bands if alpha is None else bands[..., :-1]
    if alpha is not None and page.has_premultiplied_alpha:
        colours = divide_by_alpha(colours, alpha)
    count = colours.shape[2]
    if count < 3:
        notes = () if count == 1 else ("it has 2 bands: the first one is shown",)
        return colours[..., 0], alpha, notes
    is_rgb = page.photometric == RGB and count == 3
    which = "they" if count == 3 else "the first three"
    said = f"it has {count} bands: {which} are taken for red, green and blue"
    return colours[..., :3], alpha, () if is_rgb else (said,)


def _read_with_tifffile(content: bytes, page: TiffPage, max_bytes: int) -> NDArray[Any]:
    if page.photometric not in (*GREY, RGB):
        raise ImageError(f"it is a TIFF of {page} whose colours nobody here reads rightly")
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(
            f"it is a TIFF of {page}, which neither Pillow nor OpenCV reads rightly: "
            "pip install 'camviz[tiff]'"
        ) from error
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        first = file.pages[0]
        if first.nbytes > max_bytes:
            raise ImageError(
                f"its samples take {first.nbytes:,} bytes, more than --max-pixels allows"
            )
        values = np.asarray(first.asarray())
        return values.transpose(1, 2, 0) if first.axes == "SYX" else values


def _to_integers(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),)


def _find_stated_range(tags: Mapping[int, Any], bits: int) -> Range | None:
    """Returns what SMinSampleValue and SMaxSampleValue say, where it is more than the type does."""
    least, most = (_to_floats(tags.get(tag)) for tag in (SMIN, SMAX))
    if not most:
        return None
    black, white = min(least, default=0.0), max(most)
    says_nothing = (black, white) in ((0, 2**bits - 1), (-(2.0 ** (bits - 1)), 2 ** (bits - 1) - 1))
    return None if says_nothing or not black < white else Range(black, white, "SMaxSampleValue")


def _to_floats(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, tuple | list) else () if value is None else (value,)
    return tuple(float(v) for v in values)


def _parse_nodata(value: Any) -> float | None:
    try:
        return None if value is None else float(str(value).strip("\0 "))
    except ValueError:
        return None
