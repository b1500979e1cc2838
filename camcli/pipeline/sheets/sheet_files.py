"""Writes sheets to files, whole or not at all, and replaces nothing but sheets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from camcli.media.atomic_files import write_file
from camcli.render.sheet_layout import Page
from camcli.render.sheet_painting import MAKER, write_png
from camcli.render.sheet_vectors import check_replaceable, check_sheet, write_pdf, write_svg

# of pages that have a file each
WRITERS = {".png": write_png, ".svg": write_svg}


def write_sheet(pages: Iterable[Page], path: Path) -> tuple[Path, ...]:
    """Writes pages: all into one PDF, or each into a PNG or SVG, `sheet-2.png` the second.

    Returns the files.  Raises UsageError or OutputError.
    """
    check_sheet(path)
    if path.suffix.lower() == ".pdf":
        write_file(memoryview(write_pdf(pages)), path)
        return (path,)
    return tuple(_write_each(pages, path))


def _write_each(pages: Iterable[Page], path: Path) -> Iterator[Path]:
    write, number = WRITERS[path.suffix.lower()], 1
    for number, page in enumerate(pages, start=1):
        place = _name_page(path, number)
        check_replaceable(place)
        write_file(memoryview(write(page)), place)
        yield place
    _remove_old_pages(path, number + 1)


def _name_page(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _remove_old_pages(path: Path, number: int) -> None:
    """Removes the pages of a longer sheet that stood there, which would pass for this one's."""
    while (place := _name_page(path, number)).is_file() and MAKER.encode() in place.read_bytes():
        place.unlink()
        number += 1
