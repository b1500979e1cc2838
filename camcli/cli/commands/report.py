"""`camviz report DIR`: a page of a run's heatmaps that opens from disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camcli.cli.options import FOLDER, OutputFolder
from camcli.cli.printer import Printer, print_path, print_text
from camcli.errors import UsageError
from camcli.utils.text_files import escape_text

if TYPE_CHECKING:
    from camcli.report.build import Report

PAGE_SUFFIXES = (".html", ".htm")

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where the page goes; default report.html in DIR.",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE|folders",
        help="What the pictures show, so that predictions are right or wrong: a CSV of path,label, "
        "annotations (camviz help annotations), or folders, where each lies in its class's folder.",
        show_default=False,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", metavar="", help="Print the page's path alone.", show_default=False
    ),
]


def command(
    folder: OutputFolder = FOLDER,
    output: Output = None,
    labels: Labels = None,
    quiet: Quiet = False,
) -> None:
    """Make a page of a finished run's heatmaps to look at.

    No model is run.
    """
    if output is not None:
        check_page(output)
    write_page_of(folder, output, labels, Printer("paths" if quiet else "text"))


def check_page(path: Path) -> None:
    """Raises UsageError for a file that no browser takes for a page."""
    if path.suffix.lower() not in PAGE_SUFFIXES:
        page = path.with_suffix(".html") if path.name else path / "report.html"
        raise UsageError(f"A report is a page: name it {page}, not {path}.")


def write_page_of(folder: Path, output: Path | None, labels: str | None, printer: Printer) -> None:
    """Writes the page of a folder, and prints where it is and what it holds."""
    # imported here: numpy and OpenCV come with it
    from camcli.report.build import write_report

    made = write_report(folder, output, labels)
    for note in made.notes:
        printer.note(note)
    if printer.style == "paths":
        print_path(str(made.page.path))
    elif printer.style == "json":
        printer.note(_describe(made))
    else:
        print_text(_describe(made))


def _describe(made: Report) -> str:
    failed = f", {made.failed} failed" if made.failed else ""
    place = escape_text(str(made.page.path))
    beside = f", with {escape_text(made.page.folder.name)} beside it" if made.page.folder else ""
    size = f"{made.page.size / 1e6:.1f} MB"
    shown = f"{_count(made.heatmaps, 'heatmap')} of {_count(made.pictures, 'picture')}"
    return f"{place}: {shown}{failed}, {size}{beside}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
