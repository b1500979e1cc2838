"""`camviz summary DIR`: where the heat of each class lies, and which classes hang on one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camcli.cli.options import FOLDER, OutputFolder
from camcli.cli.printer import print_error, print_json, print_text, show
from camcli.errors import UsageError
from camcli.utils.text_files import escape_text

if TYPE_CHECKING:
    from rich.table import Table

    from camcli.report.summary import ClassSummary

Sort = Annotated[
    str | None,
    typer.Option(
        "--sort",
        metavar="COLUMN",
        help="class, pictures, probability, border, centre, spread, above-half or difference; by "
        "default the classes whose heat hangs on one place come first.",
        show_default=False,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar="",
        help="One JSON object a class, with its mean map, clusters and the pictures that differ.",
        show_default=False,
    ),
]
Csv = Annotated[
    bool, typer.Option("--csv", metavar="", help="A CSV, one line a class.", show_default=False)
]


def command(
    folder: OutputFolder = FOLDER, sort: Sort = None, as_json: Json = False, as_csv: Csv = False
) -> None:
    """Say of each class where its heat lies.

    And which classes hang on one corner, or on the frame.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv each say what is printed: give one of them.")
    # imported here: numpy comes with it
    from camcli.report.stored_heatmaps import read_heatmaps
    from camcli.report.summary import (
        HOW_TO_INSTALL,
        can_cluster,
        check_sort_key,
        sort_summaries,
        summarise_classes,
        to_csv,
        to_object,
    )

    check_sort_key(sort)
    heatmaps = read_heatmaps(folder)
    summaries = sort_summaries(summarise_classes(heatmaps), sort)
    if not summaries:
        raise UsageError(
            f"{str(folder)!r} holds no raw map with heat: its maps are empty, or an older camviz "
            "made them. Run camviz into it again."
        )
    if as_json:
        for summary in summaries:
            print_json(to_object(summary))
    elif as_csv:
        print_text(to_csv(summaries).rstrip("\n"))
    else:
        _print_findings(summaries)
        show(_make_table(summaries), wide=True)
    if not can_cluster():
        print_error(f"the clusters of a class's maps need scikit-learn: {HOW_TO_INSTALL}")


def _print_findings(summaries: Sequence[ClassSummary]) -> None:
    """Says in words which classes hang on one place."""
    for summary in summaries:
        for found in summary.fixed_places:
            print_text(f"{escape_text(summary.name)} ({summary.method}): {found.describe()}.")
    if not any(summary.fixed_places for summary in summaries):
        print_text("No class's heat hangs on one corner, edge or the frame.")


def _make_table(summaries: Sequence[ClassSummary]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = [column for column in COLUMNS if _is_told(column, summaries)]
    for name, justify, _ in columns:
        table.add_column(name, justify="left" if justify == "left" else "right")
    for summary in summaries:
        # labels are no markup
        table.add_row(*(Text(escape_text(tell(summary))) for _, _, tell in columns))
    return table


def _shorten(summary: ClassSummary) -> str:
    """Returns the first of a class's names, and its number."""
    first = summary.name.partition(",")[0]
    return first if summary.category is None or not summary.label else f"{summary.category} {first}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


Column = tuple[str, str, Callable[[Any], str]]

COLUMNS: tuple[Column, ...] = (
    ("class", "left", lambda s: _shorten(s)),
    ("model", "left", lambda s: s.model),
    ("method", "left", lambda s: s.method),
    ("layers", "left", lambda s: " ".join(s.layers)),
    ("pictures", "right", lambda s: str(s.pictures)),
    ("empty", "right", lambda s: str(s.empty)),
    ("probability", "right", lambda s: _percent(s.probability)),
    ("border", "right", lambda s: _percent(s.placement.border)),
    ("centre", "right", lambda s: _percent(s.placement.centre)),
    ("spread", "right", lambda s: f"{s.placement.spread:.2f}"),
    ("above half", "right", lambda s: _percent(s.placement.above_half)),
    ("difference", "right", lambda s: _percent(s.difference)),
    ("clusters", "right", lambda s: str(len(s.clusters))),
    ("hangs on", "left", lambda s: ", ".join(found.place for found in s.fixed_places)),
)
# columns that are left out where all rows say the same, and what says nothing
OF_SEVERAL = ("model", "method", "layers")
OF_ANY = {"empty": "0", "clusters": "0", "hangs on": ""}


def _is_told(column: Column, summaries: Sequence[ClassSummary]) -> bool:
    name, _, tell = column
    cells = {tell(summary) for summary in summaries}
    return len(cells) > 1 if name in OF_SEVERAL else cells != {OF_ANY.get(name)}
