"""Makes small pictures of a run's sources, for the page to lay heat on."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from camcli.errors import CamvizError
from camcli.media.pictures.color_profiles import convert_to_srgb
from camcli.media.pictures.read import PILLOW, open_picture
from camcli.media.sources.listing import is_video
from camcli.media.videos import frames
from camcli.records import Record, Source, Span
from camcli.report.stored_heatmaps import StoredHeatmap
from camcli.runs import read_summary

# pixels of the longer edge: the most that all thumbnails fit into BUDGET with
EDGES = (640, 480, 320, 224)
BYTES_PER_PIXEL = 0.15  # of a photo as WebP of this quality, rather more than less
BUDGET = 24 * 2**20
QUALITY = 80
RGB_MODES = ("RGB", "L")

RUN = "run.json"

PictureKey = tuple[str, int | None]


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures as WebP, each once; where they are of a picture, or of one heatmap's overlay.

    An overlay stands in where the original cannot be read any more; its heat is drawn already.
    """

    contents: list[bytes] = field(default_factory=list)
    by_picture: dict[PictureKey, int] = field(default_factory=dict)
    by_overlay: dict[int, int] = field(default_factory=dict)

    def add(self, content: bytes) -> int:
        """Adds a thumbnail and returns its number."""
        self.contents.append(content)
        return len(self.contents) - 1


@dataclass(frozen=True)
class _Original:
    key: PictureKey
    record: Record
    path: Path


def make_thumbnails(
    heatmaps: Sequence[StoredHeatmap], folder: Path, workers: int = 2
) -> Thumbnails:
    """Makes a thumbnail of each picture, read where the run was started, or beside its folder."""
    pictures = {stored.picture: stored for stored in heatmaps if stored.values is not None}
    edge = choose_edge(len(pictures))
    thumbnails = Thumbnails()
    finder = _PictureFinder(folder)
    originals = [
        _Original(key, stored.record, path)
        for key, stored in pictures.items()
        if (path := finder.find(stored.record))
    ]
    with ThreadPoolExecutor(workers) as pool:
        stills = [one for one in originals if one.record.frame is None]
        contents = pool.map(partial(_read_still, edge=edge), stills)
        for one, content in zip(stills, contents, strict=True):
            if content:
                thumbnails.by_picture[one.key] = thumbnails.add(content)
        for key, shown in _read_frames(one for one in originals if one.record.frame is not None):
            thumbnails.by_picture[key] = thumbnails.add(_shrink(shown, edge))
        lost = [
            (number, Path(stored.record.outputs[0]))
            for number, stored in enumerate(heatmaps)
            if stored.picture in pictures and stored.picture not in thumbnails.by_picture
            if stored.record.outputs and not is_video(Source(Path(stored.record.outputs[0])))
        ]
        overlays = pool.map(lambda pair: _read_overlay(pair[1], edge), lost)
        for (number, _), content in zip(lost, overlays, strict=True):
            if content:
                thumbnails.by_overlay[number] = thumbnails.add(content)
    return thumbnails


def choose_edge(pictures: int) -> int:
    """Returns the longer edge of thumbnails, in pixels: smaller ones where there are many."""
    fits = (e for e in EDGES if pictures * e * e * 0.75 * BYTES_PER_PIXEL <= BUDGET)
    return next(fits, EDGES[-1])


class _PictureFinder:
    """Finds the files of sources, as they were named or from the output folder's own places."""

    def __init__(self, folder: Path) -> None:
        ran_on = (read_summary(folder / RUN) or {}).get("ran_on")
        started = ran_on.get("working_folder") if isinstance(ran_on, dict) else None
        known = [folder / started] if isinstance(started, str) and started else []
        self._bases = [*known, Path(), *folder.absolute().parents]

    def find(self, record: Record) -> Path | None:
        """Returns a source's file; None for what lies behind a URL, or is there no more."""
        if not record.source or "://" in record.source:
            return None
        named = Path(record.source)
        bases = [Path()] if named.is_absolute() else self._bases
        return next((base / named for base in bases if _is_file(base / named)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a null in a name
        return False


def _read_still(original: _Original, edge: int) -> bytes | None:
    """Returns a thumbnail of a picture; None where it is unreadable, or of another size by now."""
    size = original.record.picture_size
    try:
        image = _open_reduced(original.path, edge, size)
        if image is None:
            picture = open_picture(Source(original.path)).decode()
            if size is not None and picture.size != tuple(size):
                return None
            image = Image.fromarray(picture.canvas)
            image.info["icc_profile"] = picture.profile
        return _shrink(image, edge)
    except (CamvizError, OSError, ValueError, SyntaxError, MemoryError):
        return None


def _open_reduced(path: Path, edge: int, size: tuple[int, int] | None) -> Image.Image | None:
    """Decodes a JPEG at a fraction of its size, which is several times as fast.

    None for everything else, and for a picture of another size than expected.
    """
    with PILLOW.allow_pixels(), Image.open(path) as image:
        if image.format != "JPEG" or image.mode not in RGB_MODES or size is None:
            return None
        profile = image.info.get("icc_profile")
        if profile and image.mode != "RGB":
            return None
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        if (image.size if turned else image.size[::-1]) != tuple(size):
            return None
        image.draft("RGB", (2 * edge, 2 * edge))
        upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.info["icc_profile"] = profile
        return upright


def _read_frames(originals: Iterable[_Original]) -> Iterator[tuple[PictureKey, Image.Image]]:
    """Yields the frames of videos, each video read once; those before a damaged place."""
    by_path: dict[Path, dict[int, PictureKey]] = defaultdict(dict)
    for one in originals:
        assert one.record.frame is not None
        by_path[one.path][one.record.frame] = one.key
    for path, wanted in by_path.items():
        try:
            for picture in frames(Source(path), 1, Span(min(wanted), max(wanted) + 1)):
                if picture.frame in wanted:
                    yield wanted[picture.frame], Image.fromarray(picture.canvas)
        except CamvizError:
            continue


def _read_overlay(path: Path, edge: int) -> bytes | None:
    try:
        return _shrink(Image.fromarray(open_picture(Source(path)).decode().canvas), edge)
    except (CamvizError, OSError, ValueError):
        return None


def _shrink(image: Image.Image, edge: int) -> bytes:
    """Writes a picture as a thumbnail in sRGB."""
    profile = image.info.get("icc_profile")
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = Image.fromarray(convert_to_srgb(np.asarray(image), profile))
    written = io.BytesIO()
    small.save(written, "WEBP", quality=QUALITY, method=2)
    return written.getvalue()


def count_missing(thumbnails: Thumbnails, heatmaps: Sequence[StoredHeatmap]) -> Mapping[str, int]:
    """Counts the pictures that are shown as drawn overlays, and those that are not shown at all."""
    drawn = {heatmaps[number].picture for number in thumbnails.by_overlay}
    shown = {*thumbnails.by_picture, *drawn}
    pictures = {stored.picture for stored in heatmaps if stored.values is not None}
    return {"overlays": len(drawn), "absent": len(pictures - shown)}
