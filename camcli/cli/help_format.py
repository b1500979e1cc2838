"""Formats the pages of `--help`: typer's plain ones, a section a panel, in colour.

typer's pages in rich take longer to draw than all the rest of `--help`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import typer
import typer.core

from camcli.cli.foreign_options import check_dashes
from camcli.option_info import OPTION_INFO

Rows = list[tuple[str, str]]
# what most people use; `--help-all` shows the rest
FEW = (
    "images", "model", "checkpoint", "class_map", "target_layers", "preview_model", "method",
    "target_category", "top_k", "contrast", "fit", "device", "batch_size", "save_path", "colormap",
    "alpha", "boxes", "resume", "json", "quiet", "config",
)  # fmt: skip
EXAMPLES = {
    "camviz cat.jpg": "where the model looked",
    "camviz cat.jpg -m resnet50 --method gradcam++": "another model and method",
    "camviz photos/ --top-k 3 --save-path maps": "a folder, three classes each",
    "camviz cat.jpg --target-category tabby --boxes": "a class, and a box around it",
    "camviz cat.jpg -m resnet18 --checkpoint my.pth": "your own weights",
    "camviz --preview-model -m vit_base_patch16_224": "layers to choose from",
}
ALL_OPTIONS = "All options: camviz --help-all. The handbook: camviz help."
WHOLE = "camcli.cli.whole"  # in a context: all options are shown
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


class DefaultCommand(Command):
    """The command whose page has the options that most people use, and examples."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Writes arguments and options, the few or all of them."""
        write_default_options(ctx, formatter, self.get_params(ctx))


class Group(typer.core.TyperGroup):
    """A group of commands, on whose page the default one's options stand."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Writes arguments and options, a section a panel, and the commands."""
        named_commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        commands = [(name, (c.help or "").split("\n\n")[0]) for name, c in named_commands if c]
        write_default_options(ctx, formatter, self.get_params(ctx), commands)


def write_default_options(
    ctx: typer.Context, formatter: Any, params: Iterable[Any], commands: Rows | None = None
) -> None:
    """Writes the default command's options, commands, and examples where not all is shown."""
    whole = bool(ctx.meta.get(WHOLE))
    shown = [param for param in params if whole or param.name in FEW]
    sections = _collect_sections(ctx, shown, {} if whole else OPTION_INFO)
    _write_sections(formatter, sections | ({"Commands": commands} if commands else {}))
    if not whole:
        _write_sections(formatter, {"Examples": list(EXAMPLES.items())}, widest=WIDEST // 2)
        formatter.write_paragraph()
        formatter.write_text(ALL_OPTIONS)


def _collect_sections(
    ctx: typer.Context, params: Iterable[Any], texts: Mapping[str, str] | None = None
) -> dict[str, Rows]:
    """Collects what is said of each parameter by its panel; other texts may say it in short."""
    sections: dict[str, Rows] = {}
    for param in params:
        names, text = param.get_help_record(ctx) or ("", "")
        title = "Options"
        if param.param_type_name == "argument":
            # behind its name stands a type of Python's
            title, names = "Arguments", names.partition(" ")[0]
        if names:
            panel = getattr(param, "rich_help_panel", None) or title
            said = (texts or {}).get(param.name, text)
            sections.setdefault(panel, []).append((names, said))
    return sections


def _write_sections(formatter: Any, sections: dict[str, Rows], widest: int = WIDEST // 3) -> None:
    for title, rows in sections.items():
        whole = [
            (_style_text(names, fg="cyan"), text.replace("-", UNBROKEN)) for names, text in rows
        ]
        with formatter.section(_style_text(title, bold=True)):
            formatter.write_dl(whole, col_max=widest)
    formatter.buffer = [written.replace(UNBROKEN, "-") for written in formatter.buffer]


def _style_text(text: str, **style: Any) -> str:
    # what is no terminal gets none from typer, and a terminal may not want any
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else typer.style(text, **style)
