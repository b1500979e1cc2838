"""`camviz completion SHELL`: the script by which a shell completes what is typed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from camcli.cli.completion.shells import find_shell, install, read_script
from camcli.cli.printer import print_error, print_text

Shell = Annotated[
    str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)
]
Install = Annotated[
    bool,
    typer.Option(
        "--install",
        metavar="",
        help="Write it where the shell reads it, as --install-completion does.",
        show_default=False,
    ),
]


def command(shell: Shell, installs: Install = False) -> None:
    """Print, or install, what completes camviz in a shell.

    Options, methods, models, layers, presets, colour maps and topics are completed.
    """
    if installs:
        install_for(shell.lower())
    else:
        print_text(read_script(shell.lower()).rstrip("\n"))


def install_for(shell: str | None = None) -> None:
    """Installs the completion of a shell, or of the person's own, and says where."""
    chosen = shell or find_shell(os.environ)
    written = install(chosen, Path.home(), os.environ)
    for file in written:
        print_text(str(file))
    print_error(f"{chosen} completes camviz from its next start on")
