"""Draws overlays in the terminal, between the lines that name them (`--show`)."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from camcli.cli.printer import Printer, convert_print_errors, list_videos
from camcli.errors import CamvizError, UsageError
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    from camcli.records import Record
    from camcli.render.terminal.capabilities import Terminal


def choose_display(printer: Printer, environ: Mapping[str, str] = os.environ) -> Display | None:
    """Returns what draws a record's picture in the terminal; None, and a word, where none can.

    Raises UsageError where programs read what is printed.
    """
    if printer.style != "text":
        raise UsageError(
            "--show draws between the lines that people read: leave it out, or --json and --quiet."
        )
    if not _is_terminal():
        printer.note("--show: standard output is no terminal, and nothing is drawn there")
        return None
    with stage("import"):
        from camcli.render.terminal.capabilities import find_terminal

    terminal = find_terminal(environ, shutil.get_terminal_size(), _find_pixels())
    if terminal is None:
        printer.note(f"--show: a terminal of the kind {environ['TERM']!r} draws nothing")
        return None
    return Display(printer, terminal)


class Display:
    """Draws each picture once."""

    def __init__(self, printer: Printer, terminal: Terminal) -> None:
        self._printer, self._terminal, self._sheet = printer, terminal, ""

    def __call__(self, record: Record) -> None:
        """Draws the picture that a record names, a sheet at its first record; no videos."""
        if record.error or list_videos(record) or (record.sheet and record.sheet == self._sheet):
            return
        self._sheet = record.sheet
        path = record.sheet or next(iter(record.outputs), "")
        if not path:
            return
        from camcli.pipeline.writing.terminal_output import draw_file

        try:
            text = draw_file(path, self._terminal)
        except (CamvizError, MemoryError) as error:
            self._printer.note(f"--show: {error}")
            return
        with convert_print_errors():
            sys.stdout.write(text)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _find_pixels() -> tuple[int, int]:
    """Returns a terminal's width and height in pixels, 0 where it does not say."""
    with suppress(ImportError, OSError, ValueError):
        import fcntl
        import termios

        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
        _, _, width, height = struct.unpack("HHHH", size)
        return width, height
    return 0, 0
