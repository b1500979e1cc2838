"""`camviz merge DIR`: the shards of a run that was shared out become one manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camcli.cli.printer import print_text
from camcli.errors import EXIT_FAILED_IMAGES

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="The output folder.", show_default=False)
]
Incomplete = Annotated[
    bool,
    typer.Option(
        "--incomplete",
        metavar="",
        help="Join what is there; --resume does the rest later.",
        show_default=False,
    ),
]


def command(folder: Folder, incomplete: Incomplete = False) -> None:
    """Join the manifests of a run that several processes shared; see camviz help clusters."""
    # imported here: numpy comes with it
    from camcli.runs import merge_shards

    counts = merge_shards(folder, incomplete=incomplete)
    before = f", {counts.skipped} done before" if counts.skipped else ""
    failed = f", {counts.failed} failed" if counts.failed else ""
    made = f"{counts.pictures} pictures, {counts.heatmaps} heatmaps"
    print_text(f"{folder / 'manifest.jsonl'}: {made}{failed}{before}")
    # the ranks keep it to themselves: a launcher would end the others
    if counts.failed:
        raise typer.Exit(EXIT_FAILED_IMAGES)
