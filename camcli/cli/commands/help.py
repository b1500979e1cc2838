"""`camviz help [TOPIC]`: the handbook, a page a topic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camcli.cli.printer import print_text, show
from camcli.errors import UnknownName

# first steps first; pages that it does not name come last
READING_ORDER = (
    "start", "moving", "inputs", "choosing", "reading", "methods", "layers", "models",
    "weights", "compare", "transformers", "figures", "paper", "runs", "report",
    "serve", "annotations", "metrics", "study", "presets", "speed", "clusters", "python",
    "notebook", "training", "benchmarks", "architecture",
)  # fmt: skip

TABLES = "tables"

Topic = Annotated[
    str | None, typer.Argument(metavar="TOPIC", help="A page's name.", show_default=False)
]


def command(topic: Topic = None) -> None:
    """Show a page of the handbook, or the list of pages."""
    pages = topics()
    if topic is not None and topic.lower().startswith(f"{TABLES}/"):
        pages = list_tables()
    if topic is None:
        _show_list(pages)
    elif topic.lower() in pages:
        from rich.markdown import Markdown

        show(Markdown(pages[topic.lower()].read_text(encoding="utf-8")))
    else:
        raise UnknownName("topic", topic, pages, f"Topics: {', '.join(pages)}")


def topics() -> dict[str, Path]:
    """Returns the pages of the handbook in the order to read them, name -> file."""
    folder = Path(__file__).parents[2] / "docs"
    pages = {path.stem: path for path in sorted(folder.glob("*.md"))}
    return {name: pages[name] for name in [*READING_ORDER, *pages] if name in pages}


def list_tables() -> dict[str, Path]:
    """Returns the tables that are too long for a page, name -> file."""
    folder = Path(__file__).parents[2] / "docs" / TABLES
    return {f"{TABLES}/{path.stem}": path for path in sorted(folder.glob("*.md"))}


def read_title(page: Path) -> str:
    """Returns what a page says it is about."""
    with page.open(encoding="utf-8") as lines:
        return next(lines).lstrip("# ").strip()


def _show_list(pages: dict[str, Path]) -> None:
    from rich.table import Table

    table = Table("topic", "what it tells", box=None, pad_edge=False)
    for name, path in pages.items():
        table.add_row(name, read_title(path))
    show(table)
    print_text("\nRead one: camviz help TOPIC")
