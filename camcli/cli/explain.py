"""`camviz IMAGE...`, the default command: parse, run the pipeline, print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from camcli.cli import preview, stray
from camcli.cli.loading import load
from camcli.cli.options import Flags, with_flags
from camcli.cli.output import Printer, Style, error, profile
from camcli.errors import EXIT_FAILED_IMAGES, SourceError, UsageError
from camcli.stages import STOPWATCH, stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from camcli.config import Options
    from camcli.records import Source

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
        sources = find_sources(images, leave_out=options.save_path)
    except SourceError:
        stray.check(images, flags, options)
        raise
    place = options.save_path
    if any(Path(image).is_dir() and place.is_dir() and place.samefile(image) for image in images):
        raise UsageError(
            f"--save-path {place} is the folder that is to be explained, and would be explained "
            "again with its heatmaps next time: name another folder."
        )
    return sources


def _explained(sources: tuple[Source, ...], options: Options, printer: Printer) -> bool:
    """Writes and prints everything; False where a picture failed."""
    with stage("import"):
        from camcli.pipeline import carried_out, plan

    classifier = load(options, pretrained=options.pretrained)
    for warning in classifier.warnings:
        error(warning)
    todo = plan(classifier, options)
    for why, methods in _reasons(todo.left_out).items():
        printer.note(f"left out: {', '.join(methods)}: {why}")
    failed, sheet = False, ""
    layer_said = bool(options.target_layers)
    for record in carried_out(todo, sources, options):
        if not layer_said and record.layers:
            printer.note(f"target layer {', '.join(record.layers)}: {record.layer_reason}")
            layer_said = True
        if record.sheet and record.sheet != sheet:
            sheet = record.sheet
            printer.sheet(record, len(todo.request.methods))
        printer.record(record)
        failed = failed or bool(record.error)
    return not failed


def _reasons(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for method, why in left_out.items():
        reasons.setdefault(why, []).append(method)
    return reasons
