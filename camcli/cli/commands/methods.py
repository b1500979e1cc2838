"""`camviz methods`: what can be asked for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from camcli.cli.printer import print_json, print_text, show
from camcli.method_info import METHOD_INFO
from camcli.registry import find_method_name, list_options

PAPERS = {"arXiv:": "https://arxiv.org/abs/", "doi:": "https://doi.org/"}

Name = Annotated[
    str | None,
    typer.Argument(metavar="METHOD", help="One method, with its options.", show_default=False),
]
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="One JSON object a method.", show_default=False)
]


def command(name: Name = None, as_json: Json = False) -> None:
    """List the methods, or show one with its options and paper."""
    if name is not None:
        _show_method(find_method_name(name), as_json=as_json)
    elif as_json:
        for known in METHOD_INFO:
            print_json(_describe(known))
    else:
        _show_table()


def _show_table() -> None:
    from rich.table import Table

    heads = ("method", "what it shows", "class", "passes a picture and class", "where", "paper")
    table = Table(*heads, box=None, pad_edge=False)
    for name, card in METHOD_INFO.items():
        asks = "yes" if card.asks_class else "no"
        table.add_row(name, card.shows, asks, card.cost, card.where, card.paper)
    show(table, wide=True)
    print_text("\nOne with its options: camviz methods METHOD")


def _show_method(name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_describe(name))
        return
    from rich.table import Table

    card = METHOD_INFO[name]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("method", name)
    table.add_row("what it shows", card.shows)
    table.add_row("asks a class", "yes" if card.asks_class else "no: its map is the same for all")
    table.add_row("passes a picture and class", card.cost)
    table.add_row("where", card.where)
    table.add_row("paper", link_paper(card.paper))
    options = list_options(name)
    for place, option in enumerate(options):
        table.add_row("" if place else "options", str(option))
    show(table, wide=True)
    given = "".join(f" --set {option.name}={option.default}" for option in options[:1])
    print_text(f"\ncamviz IMAGE --method {name}{given}")


def link_paper(paper: str) -> str:
    """Returns where a paper is read, behind its name."""
    for kind, place in PAPERS.items():
        if paper.startswith(kind):
            return f"{paper}  {place}{paper.removeprefix(kind)}"
    return paper


def _describe(name: str) -> dict[str, Any]:
    options = [
        {"name": option.name, "type": option.type.__name__, "default": option.default}
        for option in list_options(name)
    ]
    return {"name": name, **asdict(METHOD_INFO[name]), "options": options}
