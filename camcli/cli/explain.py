"""`camviz IMAGE...`, the default command: parse, run the pipeline, print."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from camcli.cli import preview
from camcli.cli.loading import load
from camcli.cli.options import Flags, with_flags
from camcli.cli.output import Printer, Style, error, profile
from camcli.cli.progress import Tally, progress
from camcli.errors import EXIT_FAILED_IMAGES, SourceError, UsageError
from camcli.stages import STOPWATCH, stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from camcli.config import Options
    from camcli.pipeline.keeping import Kept
    from camcli.pipeline.plan import Plan
    from camcli.records import Record, Source

EMBEDDED_NOTE = (
    "using the embedded model, a small demonstrator of 100 classes; choose another with "
    "--model NAME (such as --model resnet50) or --config PRESET"
)


@with_flags
def command(images: list[str], flags: Flags) -> None:
    """Draw where a classifier looks, on top of the pictures (the default command)."""
    options = _resolved(flags, os.environ)
    if flags.preview_model:
        preview.show_model(options, as_json=flags.json)
        return
    if not images:
        raise UsageError("No image given. Name pictures or folders: camviz IMAGE... (or --help)")
    printer = Printer(_style(flags))
    sources = _sources(images, flags, options)
    if "model" not in options.model_fields_set and options.checkpoint is None:
        printer.note(EMBEDDED_NOTE)
    finished = _explained(sources, options, printer)
    if flags.profile:
        error(profile(STOPWATCH))
    if not finished:
        raise typer.Exit(EXIT_FAILED_IMAGES)


def _resolved(flags: Flags, environ: Mapping[str, str]) -> Options:
    with stage("import"):
        from camcli.config import resolve

    cfg_options = flags.cfg_options or []
    return resolve(flags.given, config=flags.config, cfg_options=cfg_options, environ=environ)


def _style(flags: Flags) -> Style:
    if flags.json and flags.quiet:
        raise UsageError("--json and --quiet each say what is printed: give one of them.")
    return "json" if flags.json else "paths" if flags.quiet else "text"


def _sources(images: list[str], flags: Flags, options: Options) -> tuple[Source, ...]:
    with stage("import"):
        from camcli.media.sources import find_sources

    try:
        # a folder that is explained again would hold the pictures of the last time
        sources = find_sources(
            images,
            leave_out=options.save_path,
            recursive=options.recursive,
            stdin=getattr(sys.stdin, "buffer", None),
        )
    except SourceError:
        from camcli.cli import stray

        stray.check(images, flags, options)
        raise
    place = options.save_path
    if place.is_dir() and any(_is_folder(i) and place.samefile(i) for i in images):
        raise UsageError(
            f"--save-path {place} is the folder that is to be explained, and would be explained "
            "again with its heatmaps next time: name another folder."
        )
    return sources


def _is_folder(word: str) -> bool:
    try:
        return Path(word).is_dir()
    except OSError:  # an address may be longer than a name can be
        return False


def _explained(sources: tuple[Source, ...], options: Options, printer: Printer) -> bool:
    """Writes and prints everything; False where a picture failed."""
    with stage("import"):
        from camcli.pipeline import plan

    classifier = load(options, pretrained=options.pretrained)
    for warning in classifier.warnings:
        error(warning)
    todo = plan(classifier, options)
    for why, methods in _reasons(todo.left_out).items():
        printer.note(f"left out: {', '.join(methods)}: {why}")
    tally = Tally(len(sources))
    try:
        _carry_out(todo, sources, options, printer, tally)
    finally:
        if tally.done and tally.total > 1:
            printer.note(tally.summary)
    return not tally.failed


def _carry_out(
    todo: Plan, sources: tuple[Source, ...], options: Options, printer: Printer, tally: Tally
) -> None:
    from camcli.pipeline import Stop, carried_out, interruptible

    stop = Stop()

    def begins(run: Kept) -> None:
        tally.total = len(run.sources)
        if run.skipped:
            printer.note(
                f"{run.skipped} of {len(sources)} were done before, and are left as they are"
            )
        if run.replaced:
            printer.note(f"heatmaps of the same command are replaced: {run.replaced}")

    try:
        with interruptible(stop, _say_it_stops), progress(tally, printer) as (above, show):
            results = _Results(above, len(todo.request.methods), bool(options.target_layers))
            for outcome in carried_out(todo, sources, options, stop, begins):
                tally.add(outcome)
                for record in outcome.records:
                    results.print(record)
                show()
    except KeyboardInterrupt:
        if tally.total > 1:
            error(
                f"stopped after {tally.done} of {tally.total} pictures: the same command with "
                "--resume goes on there"
            )
        raise


def _say_it_stops() -> None:
    # a signal may come in the middle of a print, and Python's streams take no second one
    os.write(2, b"\ncamviz: finishing what is in flight; once more, and it stops at once\n")


@dataclass
class _Results:
    """Prints records, and what they share once."""

    printer: Printer
    methods: int
    layer_said: bool
    sheet: str = ""

    def print(self, record: Record) -> None:
        if not self.layer_said and record.layers:
            self.printer.note(f"target layer {', '.join(record.layers)}: {record.layer_reason}")
            self.layer_said = True
        if record.sheet and record.sheet != self.sheet:
            self.sheet = record.sheet
            self.printer.sheet(record, self.methods)
        self.printer.record(record)


def _reasons(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for method, why in left_out.items():
        reasons.setdefault(why, []).append(method)
    return reasons
