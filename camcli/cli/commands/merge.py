"""`camviz merge DIR`: the shards of a run that was shared out become one manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camcli.cli.options import FOLDER, OutputFolder
from camcli.cli.printer import print_error, print_text
from camcli.errors import EXIT_FAILED_IMAGES

SHARDS_OF_EVALUATIONS = "evaluation*.rank-*-of-*.jsonl"

Incomplete = Annotated[
    bool,
    typer.Option(
        "--incomplete",
        metavar="",
        help="Join what is there; --resume does the rest later.",
        show_default=False,
    ),
]


def command(folder: OutputFolder = FOLDER, incomplete: Incomplete = False) -> None:
    """Join what several processes wrote; see camviz help clusters.

    Their manifests of one run, or their figures of one evaluation, become one.
    """
    # imported here: numpy comes with it
    from camcli.runs import WHOLE, list_world_sizes, merge_shards

    failed = 0
    if any(folder.glob(SHARDS_OF_EVALUATIONS)):
        failed = _merge_evaluations(folder, incomplete=incomplete)
        if not (list_world_sizes(folder) or (folder / WHOLE).exists()):
            if failed:
                raise typer.Exit(EXIT_FAILED_IMAGES)
            return
    counts = merge_shards(folder, incomplete=incomplete)
    before = f", {counts.skipped} done before" if counts.skipped else ""
    unread = f", {counts.failed} failed" if counts.failed else ""
    made = f"{counts.pictures} pictures, {counts.heatmaps} heatmaps"
    print_text(f"{folder / 'manifest.jsonl'}: {made}{unread}{before}")
    # the ranks keep it to themselves: a launcher would end the others
    if counts.failed or failed:
        raise typer.Exit(EXIT_FAILED_IMAGES)


def _merge_evaluations(folder: Path, *, incomplete: bool) -> int:
    """Joins evaluations and says what they hold; returns how many pictures failed."""
    from camcli.pipeline.evaluation.shard_merge import merge_evaluations

    failed = 0
    for merged in merge_evaluations(folder, incomplete=incomplete):
        failed += merged.failed
        unread = f", {merged.failed} failed" if merged.failed else ""
        print_text(f"{merged.summary}: {merged.pictures} pictures measured{unread}")
        if merged.figures:
            print_error(f"figures: {', '.join(map(str, merged.figures))}")
    return failed
