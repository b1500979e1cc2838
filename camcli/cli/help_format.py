"""Formats the pages of `--help`: typer's plain ones, a section a panel, in colour.

typer's pages in rich take longer to draw than all the rest of `--help`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import typer
import typer.core

from camcli.cli.foreign_options import check_dashes

Rows = list[tuple[str, str]]
WIDEST = 100  # columns
# what is typed (camviz-out, log-probability) stays in one piece: lines are broken at hyphens
UNBROKEN = "\u2011"


class Command(typer.core.TyperCommand):
    """A command whose page has sections."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Reads what was typed; raises UsageError for a long option behind one dash."""
        check_dashes(args, {o for p in self.params for o in (*p.opts, *p.secondary_opts)})
        return super().parse_args(ctx, args)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Writes arguments and options, a section a panel."""
        _write_sections(formatter, _collect_sections(ctx, self.get_params(ctx)))


class Group(typer.core.TyperGroup):
    """A group of commands whose page has sections."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Writes arguments and options, a section a panel, and the commands."""
        named_commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        commands = [(name, (c.help or "").split("\n\n")[0]) for name, c in named_commands if c]
        _write_sections(
            formatter, {**_collect_sections(ctx, self.get_params(ctx)), "Commands": commands}
        )


def _collect_sections(ctx: typer.Context, params: Iterable[Any]) -> dict[str, Rows]:
    sections: dict[str, Rows] = {}
    for param in params:
        names, text = param.get_help_record(ctx) or ("", "")
        title = "Options"
        if param.param_type_name == "argument":
            # behind its name stands a type of Python's
            title, names = "Arguments", names.partition(" ")[0]
        if names:
            panel = getattr(param, "rich_help_panel", None) or title
            sections.setdefault(panel, []).append((names, text))
    return sections


def _write_sections(formatter: Any, sections: dict[str, Rows]) -> None:
    for title, rows in sections.items():
        whole = [
            (_style_text(names, fg="cyan"), text.replace("-", UNBROKEN)) for names, text in rows
        ]
        with formatter.section(_style_text(title, bold=True)):
            formatter.write_dl(whole, col_max=WIDEST // 3)
    formatter.buffer = [written.replace(UNBROKEN, "-") for written in formatter.buffer]


def _style_text(text: str, **style: Any) -> str:
    # what is no terminal gets none from typer, and a terminal may not want any
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else typer.style(text, **style)
