"""`camviz models [PATTERN]`: what can be named after `-m`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from camcli.cli.printer import print_error, print_json, show

if TYPE_CHECKING:
    from camcli.models.catalogue import CatalogueEntry

Pattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="A piece of a name, 'wild*cards', or hf: the Hub's models on this machine.",
        show_default=False,
    ),
]
Here = Annotated[
    bool,
    typer.Option(
        "--here",
        metavar="",
        help="Only models whose weights are on this machine.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="One JSON object a model.", show_default=False)
]


def command(pattern: Pattern = "", here: Here = False, as_json: Json = False) -> None:
    """List the models, and whose weights are on this machine."""
    from camcli.models.catalogue import find_models

    entries = find_models(pattern)
    listed = [entry for entry in entries if entry.weights == "here"] if here else entries
    if not listed:
        print_error(f"{len(entries)} found, none with its weights on this machine")
    elif as_json:
        for entry in listed:
            print_json(asdict(entry))
    else:
        _show_table(listed)


def _show_table(entries: Sequence[CatalogueEntry]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("name", "from", "input"):
        table.add_column(title)
    for title in ("classes", "parameters"):
        table.add_column(title, justify="right")
    table.add_column("weights")
    weights = (Text(e.weights, "green" if e.weights == "here" else "") for e in entries)
    # one row of long cells: rich is slow for thousands of rows
    table.add_row(
        "\n".join(entry.name for entry in entries),
        "\n".join(entry.library for entry in entries),
        "\n".join("x".join(map(str, e.input_size)) if any(e.input_size) else "-" for e in entries),
        "\n".join(f"{entry.classes or '-'}" for entry in entries),
        "\n".join(f"{entry.parameters:,}" if entry.parameters else "-" for entry in entries),
        Text("\n").join(weights),
    )
    show(table, wide=True)
