"""What is printed: results to standard output as text, paths or JSON, the rest to stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import typer

from camcli.stages import Stage, Stopwatch

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from camcli.records import Record

UNLIMITED = 10_000  # columns
Style = Literal["text", "paths", "json"]


@dataclass(frozen=True)
class Printer:
    """Prints records and notes in one style."""

    style: Style = "text"

    def note(self, message: str) -> None:
        """Says on standard error what is good to know, unless only paths are wanted."""
        if self.style != "paths":
            error(message)

    def record(self, record: Record) -> None:
        """Prints one result, and its warnings and error on standard error."""
        # on a sheet it is not to be seen which of the heatmaps is meant
        about = f"{record.source}: {record.method}" if record.sheet else record.source
        for warning in record.warnings:
            error(f"{about}: {warning}")
        if record.error:
            error(_failure(record))
        if self.style == "json":
            print_json(asdict(record))
        elif not record.error and self.style == "paths":
            for path in record.outputs:
                typer.echo(path)
        elif not record.error and not record.sheet:
            made = f"{record.method}{_at(record)}{_target(record)}"
            _lines().print(_line(record, ", ".join(record.outputs), made))

    def sheet(self, record: Record, methods: int) -> None:
        """Prints that a sheet was written, by the first record of it."""
        if self.style == "paths":
            typer.echo(record.sheet)
        elif self.style == "text":
            made = f"{methods} methods{_at(record)}{_target(record)}"
            _lines().print(_line(record, record.sheet, made))


def error(message: str) -> None:
    """Prints a message to standard error, as `camviz: message`."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("camviz: ", "bold"), safe(message)))


def profile(stopwatch: Stopwatch) -> str:
    """Tells where the time went, in seconds."""
    taken = stopwatch.seconds
    stages = [f"{name} {taken[name]:.2f}" for name in get_args(Stage) if name in taken]
    total = stopwatch.total
    parts = [*stages, f"other {total - sum(taken.values()):.2f}"]
    return f"seconds: {', '.join(parts)}; {total:.2f} in all"


def print_json(value: Mapping[str, Any]) -> None:
    """Prints an object as one line of JSON; what is not finite becomes null."""
    typer.echo(json.dumps(_plain(value), allow_nan=False))


def show(renderable: RenderableType, *, wide: bool = False) -> None:
    """Prints a table, tree or page to standard output; a wide one is not cut at its edge."""
    from rich.console import Console

    Console(highlight=False, width=UNLIMITED if wide else None).print(renderable)


def safe(text: str) -> str:
    """Writes control characters as escapes, so that no name can steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _failure(record: Record) -> str:
    named = record.source in record.error
    return record.error if named else f"{record.source}: {record.error}"


def _line(record: Record, place: str, made: str) -> Any:
    from rich.text import Text

    known = record.label or ("" if record.category is None else f"class {record.category}")
    percent = "" if record.probability is None else f" {record.probability:.1%}"
    parts = (
        Text(safe(place)),
        Text.assemble((safe(known), "bold"), percent),
        Text(safe(made), "dim"),
    )
    # a model without classes has no middle part
    return Text("  ").join(part for part in parts if part)


def _at(record: Record) -> str:
    # some methods look at no layer
    return f" at {', '.join(record.layers)}" if record.layers else ""


def _target(record: Record) -> str:
    if record.contrast_labels:
        return f", in contrast to {', '.join(record.contrast_labels)}"
    return "" if record.target in ("", "logit") else f", {record.target}"


def _lines() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
