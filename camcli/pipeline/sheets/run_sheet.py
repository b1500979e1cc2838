"""Draws what a run wrote on one sheet, by its records and files: nothing is kept while it runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.config import Options
from camcli.media.atomic_files import check_writable
from camcli.media.output_place import is_file
from camcli.media.pictures.color_profiles import convert_to_srgb
from camcli.media.pictures.read import open_picture
from camcli.pipeline.sheets.arrangement import arrange
from camcli.pipeline.sheets.items import SheetItem, cut_legend, make_record_bar
from camcli.pipeline.sheets.sheet_files import write_sheet
from camcli.records import Record, Source
from camcli.render.finish import cut_caption, show_outside
from camcli.render.pixels import lay_pixels
from camcli.render.sheet_layout import lay_out
from camcli.render.sheet_vectors import check_sheet
from camcli.runs import WHOLE, identify_source, parse_record, read_manifest
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

RUN_DIGITS = 6
PIXELS = ".pixels.png"


@dataclass(frozen=True)
class DrawnSheet:
    """The files of a sheet, and what is missing on it, in words."""

    files: tuple[Path, ...]
    missing: tuple[str, ...] = ()


def find_sheet_file(options: Options, run: str) -> Path:
    """Returns the file of a run's sheet: the one that is named, or one beside its pictures."""
    assert options.sheet is not None
    if options.sheet.suffix:
        return options.sheet
    suffix = f".{options.sheet}"
    if is_file(options.save_path):
        return options.save_path.with_name(f"{options.save_path.stem}-sheet{suffix}")
    return options.save_path / f"sheet-{run[:RUN_DIGITS]}{suffix}"


def check_run_sheet(options: Options) -> None:
    """Raises UsageError or OutputError where a run's sheet cannot be written."""
    assert options.sheet is not None
    check_sheet(options.sheet, may_be_kind=True)
    if options.sheet.suffix:
        check_writable(options.sheet.parent)


@stage("draw")
def draw_run_sheet(
    made: Iterable[Record], sources: Sequence[Source], options: Options, run: str
) -> DrawnSheet:
    """Draws the pictures of a run that are done, in the order of its sources.

    `made` are the records of a run that keeps no manifest.  What failed, frames of videos, and
    pictures that cannot be read again are left out.  Raises UsageError or OutputError.
    """
    if is_file(options.save_path):
        records: Mapping[str, list[Record]] = {identify_source(sources[0]): list(made)}
    else:
        records = _read_records(options.save_path, run)
    reader = _Reader(options)
    items: list[SheetItem] = []
    failed = videos = 0
    for source in sources:
        own = records.get(identify_source(source), [])
        failed += any(record.error for record in own)
        videos += any(record.frame is not None for record in own)
        items += [
            reader.make_item(source, record)
            for record in own
            if not record.error and record.frame is None and record.outputs
        ]
    missing = [*_count(failed, "picture", "failed"), *_count(videos, "video", "is no picture")]
    if not items:
        return DrawnSheet((), tuple(missing))
    sheet = arrange(items)
    rows = sheet.list_rows(missing.append)
    first = next(rows, None)
    if first is None:
        return DrawnSheet((), tuple(missing))
    pages = lay_out(chain([first], rows), sheet.grid, sheet.notes, sheet.bar)
    return DrawnSheet(write_sheet(pages, find_sheet_file(options, run)), tuple(missing))


def _count(number: int, noun: str, why: str) -> Iterator[str]:
    if number:
        yield f"{number} {noun}{'' if number == 1 else 's'} that {why}"


def _read_records(folder: Path, run: str) -> Mapping[str, list[Record]]:
    """Reads what a run recorded of each picture."""
    by_picture: dict[str, list[Record]] = defaultdict(list)
    for line in read_manifest(folder / WHOLE):
        if line["run"] == run:
            by_picture[line["id"]].append(parse_record(line, folder))
    return by_picture


class _Reader:
    """Reads again what a run read and wrote."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # the original, and the same below single pixels
        self._read_source = lru_cache(1)(self._read)

    def make_item(self, source: Source, record: Record) -> SheetItem:
        """Makes a heatmap ready for a sheet."""
        overlay = Path(record.outputs[0])
        pixels = next((Path(p) for p in record.outputs if p.endswith(PIXELS)), None)
        shows_values = pixels is None and not record.concepts
        options = self._options
        bar = make_record_bar(record, options.colormap, options.alpha) if shows_values else None

        def draw() -> Pixels:
            if pixels is None or record.view is None:
                drawn = self._read(Source(overlay))
                # a sheet has captions of its own
                drawn = cut_caption(drawn) if options.caption else drawn
                return drawn if options.outside == "crop" else cut_legend(drawn, record)
            original = self._read_source(source)
            laid = lay_pixels(original, self._read(Source(pixels)), record.view)
            return show_outside(laid, original, record.view, options.outside)

        def draw_picture() -> Pixels:
            original = self._read_source(source)
            if options.outside != "crop" or record.view is None:
                return original
            return show_outside(original, original, record.view, "crop")

        return SheetItem(identify_source(source), record, draw, draw_picture, bar, shows_values)

    def _read(self, source: Source) -> Pixels:
        picture = open_picture(source, self._options.max_pixels).decode()
        return convert_to_srgb(picture.canvas, picture.profile)
