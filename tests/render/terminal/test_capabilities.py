from __future__ import annotations

import pytest

from camcli.render.terminal.capabilities import CELL, Terminal, find_terminal


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230804"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "201200"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "xterm-sixel"}, "sixel"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "blocks"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({}, "blocks"),
        # tmux stands between, whatever the terminal around it can
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, "blocks"),
    ],
)
def test_the_environment_says_what_a_terminal_can(environ: dict[str, str], protocol: str) -> None:
    found = find_terminal(environ, (80, 24))
    assert found == Terminal(protocol, 80, 24, CELL)  # type: ignore[arg-type]


def test_a_dumb_terminal_draws_nothing() -> None:
    assert find_terminal({"TERM": "dumb"}, (80, 24)) is None


def test_a_letters_size_is_measured_where_the_terminal_says_it() -> None:
    found = find_terminal({}, (100, 50), (900, 1000))
    assert found and found.cell == (9, 20)
    assert find_terminal({}, (0, 0)) == Terminal("blocks", 1, 1, CELL)
