"""`camviz methods`: what can be asked for."""

from __future__ import annotations

from typing import Annotated

import typer

from camcli.cli.output import print_json, show
from camcli.registry import METHOD_TITLES

Json = Annotated[
    bool, typer.Option("--json", metavar="", help="One JSON object a method.", show_default=False)
]


def command(as_json: Json = False) -> None:
    """List the methods and what each of them shows."""
    if as_json:
        for name, title in METHOD_TITLES.items():
            print_json({"name": name, "shows": title})
        return
    from rich.table import Table

    table = Table("method", "what it shows", box=None, pad_edge=False)
    for name, title in METHOD_TITLES.items():
        table.add_row(name, title)
    show(table)
