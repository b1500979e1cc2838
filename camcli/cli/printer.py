"""Prints results to standard output as text, paths or JSON, and the rest to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import typer

from camcli.errors import PrintError
from camcli.utils.jsonable import encode_json
from camcli.utils.profiling import Stage, Stopwatch
from camcli.utils.text_files import escape_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from camcli.records import Record

UNLIMITED = 10_000  # columns
Style = Literal["text", "paths", "json"]


@dataclass(frozen=True)
class Printer:
    """Prints records and notes in one style; above a progress bar, on the bar's console.

    Warnings of the whole run are not printed again for each record.
    """

    style: Style = "text"
    above: Console | None = None
    printed_warnings: set[str] = field(default_factory=set)

    def note(self, message: str) -> None:
        """Says on standard error what is good to know, unless only paths are wanted."""
        if self.style != "paths":
            print_error(message, self.above)

    def warn(self, warnings: Iterable[str]) -> None:
        """Says on standard error what holds for the whole run."""
        for warning in warnings:
            print_error(warning, self.above)
            self.printed_warnings.add(warning)

    def record(self, record: Record) -> None:
        """Prints one result, and its warnings and error on standard error."""
        self.warn_of(record, record.warnings)
        if record.error:
            print_error(_make_failure(record), self.above)
        if self.style == "json":
            self._print(to_json_line(vars(record)))
        elif not record.error and self.style == "paths":
            for path in record.outputs:
                if path not in list_videos(record):
                    print_path(path)
        elif not record.error and not record.sheet:
            frame = "" if record.frame is None else f", frame {record.frame}"
            made = f"{format_made(record)}{frame}"
            self._print(_format_record(record, ", ".join(record.outputs), made))

    def warn_of(self, record: Record, warnings: Iterable[str]) -> None:
        """Says on standard error what is doubtful about a heatmap."""
        # on a sheet it is not to be seen which of the heatmaps is meant
        name = escape_text(record.source)
        title = f"{name}: {record.method}" if record.sheet else name
        for warning in warnings:
            if warning not in self.printed_warnings:
                print_error(f"{title}: {warning}", self.above)

    def line(self, parts: tuple[str, str, str]) -> None:
        """Prints a file, what it shows, and how it was made."""
        place, shown, made = parts
        self._print(_format_line(place, shown, "", made))

    def sheet(self, record: Record, methods: int) -> None:
        """Prints that a sheet was written, by the first record of it."""
        if self.style == "paths":
            print_path(record.sheet)
        elif self.style == "text":
            made = f"{methods} methods{_format_place(record)}{_format_target(record)}"
            self._print(_format_record(record, record.sheet, made))

    def _print(self, result: Text | str) -> None:
        with convert_print_errors():
            self._show(result)

    def _show(self, result: Text | str) -> None:
        from rich.console import Console
        from rich.text import Text

        if self.above and sys.stdout.isatty():
            # the same terminal as the bar's, which only its own console keeps in order
            self.above.print(Text(result) if isinstance(result, str) else result)
        elif isinstance(result, str):
            typer.echo(result)
        else:
            Console(highlight=False, soft_wrap=True).print(result)


def list_videos(record: Record) -> tuple[str, ...]:
    """Returns the video that a frame's heatmap is in, which is there when all frames are."""
    is_in_one = record.frame is not None and not record.error
    return record.outputs[:1] if is_in_one else ()


def print_error(message: str, console: Console | None = None) -> None:
    """Prints a message to standard error, as `camviz: message`."""
    from rich.text import Text

    to = console or stderr_console()
    lines = "\n".join(escape_text(line) for line in message.split("\n"))
    # a full disk below it, say: there is nowhere else to say it
    with suppress(OSError, ValueError):
        to.print(Text.assemble(("camviz: ", "bold"), lines))


def stderr_console() -> Console:
    """Returns a console on standard error that neither colours nor wraps by itself."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def convert_print_errors() -> Iterator[None]:
    """Raises PrintError where standard output takes no more, but is not a pipe that was left."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:  # a stream that was closed is a ValueError
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise PrintError(
            f"Standard output takes no more: {why}. What is in files is there; nothing else is "
            "printed."
        ) from error


def drop_output() -> None:
    """Has what is printed from now on go nowhere, and Python not complain of it at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def format_profile(stopwatch: Stopwatch) -> str:
    """Tells where the time went, in seconds; what ran beside it has a line of its own."""
    taken, total = stopwatch.seconds, stopwatch.total
    parts = [*_format_seconds(taken), f"other {total - sum(taken.values()):.2f}"]
    first = f"seconds: {', '.join(parts)}; {total:.2f} in all"
    if not stopwatch.of_other_threads:
        return first
    seconds = ", ".join(_format_seconds(stopwatch.of_other_threads))
    return f"{first}\nseconds beside the model: {seconds}"


def _format_seconds(seconds: Mapping[Stage, float]) -> list[str]:
    return [f"{name} {seconds[name]:.2f}" for name in get_args(Stage) if name in seconds]


def print_text(text: str) -> None:
    """Prints a text to standard output."""
    with convert_print_errors():
        typer.echo(text)


def print_json(value: Mapping[str, Any]) -> None:
    """Prints an object as one line of JSON; what is not finite becomes null."""
    print_text(to_json_line(value))


def to_json_line(value: Mapping[str, Any]) -> str:
    """Writes an object as one line of JSON; what is not finite becomes null."""
    return encode_json(value)


def show(renderable: RenderableType, *, wide: bool = False) -> None:
    """Prints a table, tree or page to standard output; a wide one is not cut at its edge."""
    from rich.console import Console

    with convert_print_errors():
        Console(highlight=False, width=UNLIMITED if wide else None).print(renderable)


def screen_width() -> int:
    """Returns how many characters a line of standard output has."""
    from rich.console import Console

    return Console().width


def print_path(path: str) -> None:
    """Prints a path as its bytes, for other programs; on a terminal, with escapes."""
    # typer.echo would take what looks like a colour out of a name
    with convert_print_errors():
        sys.stdout.write(f"{escape_text(path) if sys.stdout.isatty() else path}\n")


def _make_failure(record: Record) -> str:
    named = record.source in record.error
    return record.error if named else f"{escape_text(record.source)}: {record.error}"


def format_made(record: Record) -> str:
    """Says how a heatmap was made: its method, layers and target."""
    return f"{record.method}{_format_place(record)}{_format_target(record)}"


def _format_record(record: Record, place: str, made: str) -> Text:
    known = record.label or ("" if record.category is None else f"class {record.category}")
    percent = "" if record.probability is None else f" {record.probability:.1%}"
    if record.value is not None:
        percent = f" {record.value:.4g}"
    return _format_line(place, known, percent, made)


def _format_line(place: str, shown: str, percent: str, made: str) -> Text:
    from rich.text import Text

    parts = (
        Text(escape_text(place)),
        Text.assemble((escape_text(shown), "bold"), percent),
        Text(escape_text(made), "dim"),
    )
    # a model without classes has no middle part
    return Text("  ").join(part for part in parts if part)


def _format_place(record: Record) -> str:
    # some methods look at no layer
    return f" at {', '.join(record.layers)}" if record.layers else ""


def _format_target(record: Record) -> str:
    if record.contrast_labels:
        return f", in contrast to {', '.join(record.contrast_labels)}"
    return "" if record.target in ("", "logit", "value") else f", {record.target}"
