"""Finds out by the environment what a terminal can draw; it is asked nothing, and cannot hang."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["kitty", "iterm2", "sixel", "blocks"]

# by TERM_PROGRAM, and by how TERM begins
PROGRAMS: Mapping[str, Protocol] = {
    "ghostty": "kitty", "kitty": "kitty", "iterm.app": "iterm2", "wezterm": "iterm2",
    "mintty": "iterm2",
}  # fmt: skip
TERMS: Mapping[str, Protocol] = {
    "xterm-kitty": "kitty", "xterm-ghostty": "kitty", "foot": "sixel", "mlterm": "sixel",
    "contour": "sixel", "yaft": "sixel",
}  # fmt: skip
# what stands between, and hands the protocols on only where it is set up so
MULTIPLEXERS = ("screen", "tmux")
KONSOLE = 220400  # the first with kitty's protocol
CELL = (10, 20)  # a letter's width and height in pixels, where a terminal does not say


@dataclass(frozen=True)
class Terminal:
    """How a terminal draws, its size in letters, and a letter's size in pixels."""

    protocol: Protocol
    columns: int
    rows: int
    cell: tuple[int, int] = CELL


def find_terminal(
    environ: Mapping[str, str], size: tuple[int, int], pixels: tuple[int, int] = (0, 0)
) -> Terminal | None:
    """Finds how to draw in a terminal of so many columns and rows; None where it cannot at all.

    `pixels` are its width and height, 0 where they are not known.
    """
    if environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return None
    columns, rows = max(1, size[0]), max(1, size[1])
    cell = (pixels[0] // columns or CELL[0], pixels[1] // rows or CELL[1])
    return Terminal(_find_protocol(environ), columns, rows, cell)


def _find_protocol(environ: Mapping[str, str]) -> Protocol:
    term = environ.get("TERM", "").lower()
    if "TMUX" in environ or term.startswith(MULTIPLEXERS):
        return "blocks"
    if "KITTY_WINDOW_ID" in environ:
        return "kitty"
    konsole = environ.get("KONSOLE_VERSION", "")
    if konsole.isdecimal() and int(konsole[:9]) >= KONSOLE:
        return "kitty"
    program = environ.get("TERM_PROGRAM", "").lower()
    if program in PROGRAMS:
        return PROGRAMS[program]
    if environ.get("LC_TERMINAL", "").lower() == "iterm2":  # handed on by ssh
        return "iterm2"
    if "sixel" in term:
        return "sixel"
    found = (protocol for begins, protocol in TERMS.items() if term.startswith(begins))
    return next(found, "blocks")
