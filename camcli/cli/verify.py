"""`camviz verify DIR`: whether all that a run wrote is there, as it was written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from camcli.cli.output import error, print_json, say
from camcli.errors import EXIT_FAILED_IMAGES
from camcli.texts import escape

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="The output folder.", show_default=False)
]
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="One JSON object a file.", show_default=False)
]


def command(folder: Folder, as_json: Json = False) -> None:
    """Read every file that a manifest names; list what is missing, cut off or changed."""
    # imported here: numpy comes with it
    from camcli.report import is_unfinished, verify

    counts = Counter[str]()
    lost = 0
    for file in verify(folder):
        counts[file.state] += 1
        lost += file.is_lost
        if as_json:
            print_json(vars(file))
        elif file.is_lost:
            say(f"{file.state}  {escape(str(folder / file.path))}")
    if not as_json:
        states = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        say(f"{escape(str(folder))}: {counts.total()} files{states and f': {states}'}")
    if is_unfinished(folder):
        error("a run into this folder is at work or was cut off: --resume goes on with it")
    if lost:
        error(
            "the run's command with --resume makes again what is missing or cut off; delete what "
            "is changed or unreadable first"
        )
        raise typer.Exit(EXIT_FAILED_IMAGES)
