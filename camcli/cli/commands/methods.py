"""`camviz methods`: what can be asked for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from camcli.cli.printer import print_json, print_text, show
from camcli.method_info import METHOD_INFO

Json = Annotated[
    bool, typer.Option("--json", metavar="", help="One JSON object a method.", show_default=False)
]


def command(as_json: Json = False) -> None:
    """List the methods: what each shows, whether it asks a class, its cost and its paper."""
    if as_json:
        for name, card in METHOD_INFO.items():
            print_json({"name": name, **asdict(card), "options": _format_options(name)})
        return
    from rich.table import Table

    heads = ("method", "what it shows", "class", "passes a picture and class", "where", "paper")
    table = Table(*heads, box=None, pad_edge=False)
    for name, card in METHOD_INFO.items():
        asks = "yes" if card.asks_class else "no"
        table.add_row(name, card.shows, asks, card.cost, card.where, card.paper)
    show(table, wide=True)
    print_text("\nOptions of a method, for --set: camviz methods --json")


def _format_options(name: str) -> list[dict[str, Any]]:
    # imported here: signatures are read with torch at hand, which takes seconds
    import camcli.methods  # noqa: F401
    from camcli.registry import METHODS

    return [
        {"name": option.name, "type": option.type.__name__, "default": option.default}
        for option in METHODS[name].options
    ]
