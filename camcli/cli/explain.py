"""`camviz IMAGE...`, the default command: parse, run the pipeline, print."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from camcli.cli import preview
from camcli.cli.loading import load
from camcli.cli.options import Flags, with_flags
from camcli.cli.output import (
    Printer,
    Style,
    drop_output,
    error,
    print_path,
    profile,
    videos_of,
)
from camcli.cli.progress import Tally, progress
from camcli.errors import (
    EXIT_FAILED_IMAGES,
    EXIT_INTERRUPTED,
    PrintError,
    SourceError,
    UsageError,
)
from camcli.process import collect_from_here, keep_freed_memory, leave_cores_free
from camcli.stages import STOPWATCH, stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from camcli.config import Options
    from camcli.pipeline import StopRequest
    from camcli.pipeline.run_state import RunState, Shard
    from camcli.records import Outcome, Record, Source

EMBEDDED_NOTE = (
    "using the embedded model, EfficientNet-Lite0 with ImageNet's 1,000 classes; choose another "
    "with --model NAME (such as --model resnet50) or --config PRESET"
)


@with_flags
def command(images: list[str], flags: Flags) -> None:
    """Draw where a classifier looks, on top of the pictures (the default command)."""
    leave_cores_free(os.environ)
    options = _resolved(flags, os.environ)
    if flags.preview_model:
        preview.show_model(options, as_json=flags.json)
        return
    if not images and options.camera is None:
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
        from camcli.media.sources import camera_source, find_sources
        from camcli.report import made_in

    if options.camera is not None:
        if images:
            raise UsageError(
                f"--camera {options.camera} takes the place of pictures such as {images[0]!r}: "
                "give one of them."
            )
        return (camera_source(options.camera),)
    try:
        # a folder that is explained again would hold the pictures of the last time
        sources = find_sources(
            images,
            leave_out=options.save_path,
            made_in=made_in,
            recursive=options.recursive,
            stdin=getattr(sys.stdin, "buffer", None),
            tell=error,
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
        from camcli.pipeline import sharding

    shard = sharding.find_shard(os.environ)
    tally = Tally(len(sources))
    results = _Results(printer, tally, bool(options.target_layers))
    if options.engine == "ray":
        if shard and shard[0]:
            raise UsageError(
                "--engine ray shares a run out by itself: start camviz once, without torchrun or "
                "srun."
            )
        carry_out_plan = _on_ray(sources, options, results)
    else:
        carry_out_plan = _here(sources, options, results, shard)
    try:
        _carry_out(carry_out_plan, results)
    finally:
        if tally.done and tally.total > 1:
            printer.note(tally.summary)
        if tally.left_out:
            printer.note(f"left to another run of the same options: {tally.left_out}")
        if tally.beyond:
            printer.note(
                f"{tally.beyond} of the heatmaps reach beyond the scale, and are cut off there"
            )
    if results.unprinted:
        return False
    # a launcher would end the other ranks: theirs are told by `camviz merge`
    return not tally.failed or (shard is not None and options.engine == "local")


def _here(
    sources: tuple[Source, ...], options: Options, results: _Results, shard: Shard | None
) -> Callable[[StopRequest], Iterator[Outcome]]:
    """Prepares a run of this process, or its share of one."""
    with stage("import"):
        from camcli.pipeline import RunCallbacks, carry_out_plan, make_plan

    share: Sequence[Source] = sources
    if shard:
        share, options = _share(sources, options, shard, results.printer)
        results.tally.total = len(share)
    classifier = load(options, pretrained=options.pretrained)
    results.printer.warn(classifier.warnings)
    plan = make_plan(classifier, options)
    results.printer.warn(plan.warnings)
    # not sooner: what loading a model frees is wanted no more
    keep_freed_memory(os.environ)
    results.planned(plan.left_out, len(plan.request.methods))

    def begins(run: RunState) -> None:
        results.begun(len(run.sources), run.skipped, run.replaced)
        for process in run.other_processes:
            results.printer.note(f"shared with another run of the same options: {process}")

    watch = RunCallbacks(begins, results.compiled, results.looked_at, results.tally.leave_out)
    return lambda stop: carry_out_plan(plan, share, options, stop, watch, shard)


def _share(
    sources: tuple[Source, ...], options: Options, shard: Shard, printer: Printer
) -> tuple[Sequence[Source], Options]:
    """Returns what is a rank's of the sources, and its GPU among the options."""
    from camcli.pipeline import sharding

    rank, world = shard
    sharding.check_can_shard(options)
    sharding.check_world(options, world)
    share = sharding.take_share(sources, shard)
    printer.note(
        f"rank {rank} of {world}: {len(share)} of {len(sources)} pictures; when all ranks have "
        f"ended, camviz merge {options.save_path} joins their manifests"
    )
    device = sharding.choose_device(options.device, os.environ)
    return share, options.model_copy(update={"device": device})


def _on_ray(
    sources: tuple[Source, ...], options: Options, results: _Results
) -> Callable[[StopRequest], Iterator[Outcome]]:
    """Prepares a run that workers of Ray share."""
    with stage("import"):
        from camcli.pipeline.ray_backend import WorkerStart, run_on_ray

    def begins(run: WorkerStart) -> None:
        results.printer.warn(run.warnings)
        results.planned(run.left_out, run.methods)
        results.begun(run.sources, len(sources) - run.sources, run.replaced)

    loads = partial(load, pretrained=options.pretrained)
    return lambda stop: run_on_ray(sources, options, loads, stop, begins)


def _carry_out(
    carry_out_plan: Callable[[StopRequest], Iterator[Outcome]], results: _Results
) -> None:
    from camcli.pipeline import StopRequest, handle_interrupts

    collect_from_here()
    stop, tally = StopRequest(), results.tally
    try:
        with (
            handle_interrupts(stop, _say_it_stops, _end_here),
            progress(tally, results.printer) as (above, show),
        ):
            results.printer, results.show = above, show
            for outcome in carry_out_plan(stop):
                tally.add(outcome)
                results.print_all(outcome)
                results.show()
    except KeyboardInterrupt:
        if tally.total > 1:
            error(
                f"stopped after {tally.done} of {tally.total} pictures: the same command with "
                "--resume goes on there"
            )
        raise


def _say_it_stops() -> None:
    # a signal may come in the middle of a print, and Python's streams take no second one
    with suppress(OSError):
        os.write(2, b"\ncamviz: finishing what is in flight; once more, and it stops at once\n")


def _end_here() -> None:
    with suppress(OSError):
        os.write(2, b"camviz: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


@dataclass
class _Results:
    """Prints what a run does, its records, and what they share once."""

    printer: Printer
    tally: Tally
    layer_said: bool
    methods: int = 1
    sheet: str = ""
    show: Callable[[], None] = lambda: None
    # of the one whose frames come
    videos: set[str] = field(default_factory=set)
    unprinted: bool = False

    def planned(self, left_out: Mapping[str, str], methods: int) -> None:
        """Says which methods are left out, and why."""
        self.methods = methods
        for why, names in _reasons(left_out).items():
            self.printer.note(f"left out: {', '.join(names)}: {why}")

    def begun(self, sources: int, skipped: int, replaced: int) -> None:
        """Says what is done already, or done again."""
        self.tally.total = sources
        if skipped:
            total = sources + skipped
            self.printer.note(f"{skipped} of {total} were done before, and are left as they are")
        if replaced:
            self.printer.note(f"heatmaps of the same command are replaced: {replaced}")

    def compiled(self, blocks: int) -> None:
        """Says how much of the model is compiled."""
        self.printer.note(f"compiled blocks of the model: {blocks}")

    def looked_at(self, pictures: int) -> None:
        """Counts what is known before the first picture is drawn."""
        self.tally.look(pictures)
        self.show()

    def print_all(self, outcome: Outcome) -> None:
        """Prints what came of a picture; a run goes on where nothing more can be printed."""
        if self.unprinted:
            return
        try:
            for record in outcome.records:
                self.print(record)
            if outcome.last:
                self.print_videos()
        except PrintError as problem:
            self.unprinted = True
            error(str(problem))
            drop_output()

    def print(self, record: Record) -> None:
        if not self.layer_said and record.layers:
            self.printer.note(f"target layer {', '.join(record.layers)}: {record.layer_reason}")
            self.layer_said = True
        if record.sheet and record.sheet != self.sheet:
            self.sheet = record.sheet
            self.printer.sheet(record, self.methods)
        self.videos.update(videos_of(record))
        self.printer.record(record)

    def print_videos(self) -> None:
        """Prints the paths of a video's videos, which are there only when it has ended."""
        if self.printer.style == "paths":
            for path in sorted(self.videos):
                print_path(path)
        self.videos.clear()


def _reasons(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for method, why in left_out.items():
        reasons.setdefault(why, []).append(method)
    return reasons
