"""`camviz verify DIR`: whether all that a run wrote is there, as it was written."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from camcli.cli.options import FOLDER, OutputFolder
from camcli.cli.printer import print_error, print_json, print_text
from camcli.errors import EXIT_FAILED_IMAGES
from camcli.utils.text_files import escape_text

Json = Annotated[
    bool, typer.Option("--json", metavar="", help="One JSON object a file.", show_default=False)
]


def command(folder: OutputFolder = FOLDER, as_json: Json = False) -> None:
    """List what of a run's files is missing, cut off or changed."""
    # imported here: numpy comes with it
    from camcli.runs import is_unfinished, verify_folder

    counts = Counter[str]()
    lost = 0
    for file in verify_folder(folder):
        counts[file.state] += 1
        lost += file.is_lost
        if as_json:
            print_json(vars(file))
        elif file.is_lost:
            print_text(f"{file.state}  {escape_text(str(folder / file.path))}")
    if not as_json:
        states = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        print_text(f"{escape_text(str(folder))}: {counts.total()} files{states and f': {states}'}")
    if is_unfinished(folder):
        print_error("a run into this folder is at work or was cut off: --resume goes on with it")
    if lost:
        print_error(
            "the run's command with --resume makes again what is missing or cut off; delete what "
            "is changed or unreadable first"
        )
        raise typer.Exit(EXIT_FAILED_IMAGES)
