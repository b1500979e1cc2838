"""Reads image files and pictures from Python as upright RGB pixels."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from camcli.errors import ImageError, UsageError, first_line
from camcli.media.pictures import color_profiles
from camcli.media.pictures.color_codes import find_colours
from camcli.media.pictures.exif_orientation import read_orientation, turn_upright
from camcli.media.pictures.heif import is_heif, open_heif
from camcli.media.pictures.rgb_conversion import (
    DEEP_MODES,
    convert_bands,
    convert_to_rgb,
    lay_over_white,
)
from camcli.media.pictures.tiff import (
    TiffPage,
    count_pages,
    describe_first_page,
    limit_bytes,
    read_samples,
)
from camcli.media.sources.byte_stream import open_source
from camcli.records import MAX_PIXELS, Picture, Source
from camcli.utils.warning_filters import ignore_warnings

if TYPE_CHECKING:
    from torch import Tensor

PictureLike: TypeAlias = (
    "Picture | Source | str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor"
)


# as GIF, PNG and WebP begin, of which some move, and what an AVIF that moves has at its fifth byte
MOVING, MOVING_AVIF = (b"GIF8", b"\x89PNG", b"RIFF"), b"ftypavis"


REASONS: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "there is no such file"),
    (IsADirectoryError, "it is a folder"),
    (PermissionError, "there is no permission to read it"),
    (UnidentifiedImageError, "it is no image, or of a kind that Pillow does not know"),
    (MemoryError, "it does not fit into memory"),
)


def read_picture(source: Source, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads an image file (of several frames, the first); raises ImageError.

    Its values are not changed by its colour profile, which goes with them.  More pixels than
    allowed are refused before they are decoded.
    """
    return open_picture(source, max_pixels).decode()


@dataclass(frozen=True)
class OpenPicture:
    """An image file that was read and not decoded yet; `page` is the first one of a TIFF."""

    source: Source
    content: bytes
    max_pixels: int
    image: Image.Image | None
    page: TiffPage | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, as the file announces them and before it is turned."""
        opened = self.image or self.page
        assert opened is not None
        width, height = opened.size
        return height, width

    @property
    def content_size(self) -> int:
        """The file's size in bytes."""
        return len(self.content)

    def decode(self) -> Picture:
        """Decodes the pixels; raises ImageError."""
        try:
            with PILLOW.allow_pixels(self.max_pixels):
                picture = self._decode_content()
                notes = (*picture.notes, *_why_not_all(self.content))
                return replace(picture, source=self.source, notes=notes)
        except Exception as error:  # damaged files raise whatever Pillow's parsers stumble over
            raise unreadable_error(str(self.source), error) from error

    def _decode_content(self) -> Picture:
        if self.image is None:
            assert self.page is not None
            return _make_from_samples(self.content, self.page, self.max_pixels)
        with self.image as image:
            _load_image(image)
            # an icon's picture may be larger than its directory says
            check_size(image, self.max_pixels)
            return _make_from_image(image, self.page, self.content)


def open_picture(source: Source, max_pixels: int = MAX_PIXELS) -> OpenPicture:
    """Reads an image file, of which nothing is decoded yet but its size; raises ImageError."""
    try:
        content = read_content(source, max_pixels)
    except Exception as error:  # behind a URL, a file system raises whatever its client does
        raise unreadable_error(str(source), error, "it cannot be read") from error
    return open_content(source, content, max_pixels)


def open_content(source: Source, content: bytes, max_pixels: int = MAX_PIXELS) -> OpenPicture:
    """Opens the content of an image file that is in memory already; raises ImageError.

    The source gives the picture its name, and is not read.
    """
    try:
        with PILLOW.allow_pixels(max_pixels):
            page = describe_first_page(content)
            if page is not None and page.reader != "pillow":
                check_size(page, max_pixels)
                return OpenPicture(source, content, max_pixels, None, page)
            image = open_heif(content) if is_heif(content) else Image.open(io.BytesIO(content))
            check_size(image, max_pixels)
            return OpenPicture(source, content, max_pixels, image, page)
    except Exception as error:  # as in `decode`
        raise unreadable_error(str(source), error) from error


def _why_not_all(content: bytes) -> Iterator[str]:
    """Says that only the first of several pages or frames is shown."""
    count, kind = count_pages(content), "pages"
    if content.startswith(MOVING) or content[4:12] == MOVING_AVIF:
        # counted by itself, since Pillow begins to read anew
        with Image.open(io.BytesIO(content)) as image:
            count, kind = getattr(image, "n_frames", 1), "frames"
    if count > 1:
        page = describe_first_page(content)
        is_read = page is None or page.reader == "pillow"
        way = "--frames : takes them all" if is_read else "save the others as files of their own"
        yield f"it has {count} {kind}, and the first one is shown: {way}"


def make_picture(value: PictureLike) -> Picture:
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
        return _make_from_pil(value)
    if _is_tensor(value):
        return Picture(_read_array(_channels_last(value)))
    if isinstance(value, np.ndarray):
        return Picture(_read_array(value))
    raise UsageError(
        f"A picture is a path, a PIL picture, an array or a tensor, not {type(value).__name__}."
    )


class _Pillow:
    """Pillow while any thread reads: without warnings, and with the pixels that were asked for.

    Both are settings of the whole process: the last reader puts them back, since threads that each
    restore what they found leave the wrong ones behind when they end in another order.  Pillow's
    limit is touched by readers alone who ask for more than it allows; their own limits are their
    own, for each holds its picture's header against it.
    """

    def __init__(self) -> None:
        self._lock, self._readers = threading.Lock(), 0
        self._settings = ExitStack()

    @contextmanager
    def allow_pixels(self, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
        with self._lock:
            if self._readers == 0:
                self._settings.enter_context(ignore_warnings(r"PIL\."))
            self._readers += 1
            self._allow(max_pixels)
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if self._readers == 0:
                    self._settings.close()

    def begin_anew(self) -> None:
        """Lets go, in a forked process, of what a thread held that was not forked with it."""
        self._lock = threading.Lock()

    def _allow(self, max_pixels: int) -> None:
        limit = Image.MAX_IMAGE_PIXELS
        # Pillow warns at its limit, and refuses at twice as many
        if limit is not None and max_pixels > max(MAX_PIXELS, 2 * limit):
            self._settings.callback(setattr, Image, "MAX_IMAGE_PIXELS", limit)
            Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)


PILLOW = _Pillow()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PILLOW.begin_anew)

# what Pillow has to say it raises as well: on standard error, it would tear the progress bar
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _silence_libtiff() -> None:
    """Keeps libtiff, where it can be reached, from printing the errors that it returns."""
    with suppress(ImportError, AttributeError, OSError):
        from PIL import _imaging

        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


_silence_libtiff()


def _make_from_pil(image: Image.Image) -> Picture:
    try:
        with PILLOW.allow_pixels():
            return _make_from_image(image, _find_page(image))
    except Exception as error:  # a lazily opened file is only read here
        raise unreadable_error(getattr(image, "filename", "") or "the picture", error) from error


def read_content(source: Source, max_pixels: int) -> bytes:
    """Reads a file once and whole, so that header and pixels belong together.

    Pillow by itself would map some files into memory, and the process would die with a file that
    is cut off meanwhile.  Raises ImageError for a file that is empty, that changes
    meanwhile, or that is larger than pictures of `max_pixels` are.
    """
    most = limit_bytes(max_pixels)
    if source.url:
        with open_source(source) as file:
            content = file.read(most + 1)
    else:
        # before it is opened: a pipe would wait for whoever writes to it
        size = find_file_size(source.path)
        if size > most:
            raise too_large_error(f"{size:,} bytes", max_pixels)
        with open_source(source) as file:
            before = _read_version(file)
            content = file.read(size + 1)
            if _read_version(file) != before or len(content) != size:
                raise ImageError("it changed while it was read")
    if not content:
        raise ImageError("it is empty")
    if len(content) > most:
        raise too_large_error(f"more than {most:,} bytes", max_pixels)
    return content


def find_file_size(path: Path) -> int:
    """Returns a file's size in bytes; raises OSError, or ImageError for what is no file."""
    if path.is_dir():
        raise IsADirectoryError
    size = path.stat().st_size
    if not path.is_file():
        raise ImageError("it is no ordinary file")
    return size


def _read_version(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def check_size(image: Image.Image | TiffPage, max_pixels: int) -> None:
    """Raises ImageError for a picture of too many pixels."""
    width, height = image.size
    if width * height > max_pixels:
        raise too_large_error(f"{width} x {height} pixels", max_pixels)


def too_large_error(what: str, max_pixels: int) -> ImageError:
    """Says what is too large, and which option allows it."""
    return ImageError(f"its {what} are too many for --max-pixels {max_pixels}")


def unreadable_error(
    name: str, error: Exception, otherwise: str = "it is truncated or damaged"
) -> ImageError:
    """Says that something cannot be read, and why, whatever was raised."""
    return ImageError(f"Cannot read {name!r}: {_find_reason(error, otherwise)}.")


def _find_reason(error: Exception, otherwise: str) -> str:
    for kind, words in REASONS:
        if isinstance(error, kind):
            return words
    words = first_line(error)
    if isinstance(error, ImageError):
        return words
    if isinstance(error, Image.DecompressionBombError):
        return f"it has too many pixels ({words})"
    return f"{otherwise} ({words})"


def _load_image(image: Image.Image) -> None:
    if image.format == "EPS":
        raise ImageError("EPS is a program, which Pillow would hand to Ghostscript to run")
    if image.format == "FITS" and image.mode in DEEP_MODES - {"F"}:
        raise ImageError("Pillow misreads FITS of whole numbers (signs, BZERO): save it as TIFF")
    if 0 in image.size:
        raise ImageError("it has no pixels")
    image.load()


def load_upright_frame(image: Image.Image) -> Picture:
    """Loads the frame at which a moving picture stands, turned as its EXIF says."""
    return _make_from_image(image, _find_page(image))


def _find_page(image: Image.Image) -> TiffPage | None:
    """Describes the page of a TIFF that Pillow has opened; raises ImageError for a misread one."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return None
    page = TiffPage.of(tags)
    if page.is_misread_by_pillow:
        raise ImageError(f"Pillow misreads a TIFF of {page}: give the file's path in its place")
    return page


def _make_from_image(image: Image.Image, page: TiffPage | None, content: bytes = b"") -> Picture:
    """Makes a picture of what Pillow has opened, `content` where it is a whole file."""
    _load_image(image)
    # asked after loading, since Pillow turns TIFF pictures itself
    turn = read_orientation(image)
    rgb, notes = convert_to_rgb(image, page, content)
    colours = find_colours(image, content)
    profile = colours.profile
    shown = None
    if (
        profile
        and image.mode == "CMYK"
        and color_profiles.find_colour_space(profile) == color_profiles.CMYK
    ):
        shown = color_profiles.convert_image_to_srgb(image, profile)
    return _make_upright(rgb, turn, (*notes, *colours.notes), profile, shown)


def _make_from_samples(content: bytes, page: TiffPage, max_pixels: int) -> Picture:
    """Makes a picture of a TIFF that Pillow does not read, or not rightly."""
    values = read_samples(content, page, limit_bytes(max_pixels))
    rgb, notes = convert_bands(values, page)
    return _make_upright(rgb, page.orientation, notes, page.profile)


def _make_upright(
    rgb: Image.Image,
    orientation: int,
    notes: tuple[str, ...],
    profile: bytes | None,
    shown: Image.Image | None = None,
) -> Picture:
    """Turns a picture as its EXIF says, and keeps the profile where it is one of RGB.

    `shown` is the picture in sRGB where its profile is of other colours.
    """
    pixels = turn_upright(rgb, orientation)
    space = color_profiles.find_colour_space(profile) if profile else b""
    if space == color_profiles.GREY and (pixels[..., :1] == pixels).all():
        shown = color_profiles.convert_image_to_srgb(rgb.getchannel(0), profile or b"")
    return Picture(
        pixels,
        profile=profile if space == color_profiles.RGB else None,
        shown=None if shown is None else turn_upright(shown, orientation),
        notes=notes,
    )


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    # who has a tensor has imported torch, which reading files alone does not need
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _channels_last(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()


def _read_array(values: NDArray[Any]) -> NDArray[np.uint8]:
    is_picture = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3, 4))
    if not is_picture or values.size == 0:
        raise UsageError(
            f"A picture cannot have shape {values.shape} (height, width, channels). Arrays are "
            "[h w], [h w 3] or [h w 4], tensors [h w], [3 h w] or [4 h w]."
        )
    grey = values.ndim == 3 and values.shape[2] == 1
    return np.asarray(
        lay_over_white(Image.fromarray(_scale_to_bytes(values[..., 0] if grey else values)))
    )


def _scale_to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
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
