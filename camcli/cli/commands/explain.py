"""`camviz IMAGE...`, the default command: parse, run the pipeline, print."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from camcli.cli.commands import preview
from camcli.cli.commands.report import check_page, write_page_of
from camcli.cli.model_loading import load, load_compared
from camcli.cli.options import Flags, with_flags
from camcli.cli.picture_display import Display, choose_display
from camcli.cli.printer import (
    Printer,
    Style,
    format_profile,
    print_error,
)
from camcli.cli.progress import Tally, show_progress
from camcli.cli.results import Results
from camcli.errors import (
    EXIT_FAILED_IMAGES,
    EXIT_INTERRUPTED,
    CheckpointError,
    SourceError,
    UsageError,
)
from camcli.method_terms import BEST
from camcli.utils.paths import is_there
from camcli.utils.profiling import STOPWATCH, stage
from camcli.utils.runtime_tuning import keep_freed_memory, leave_cores_free, resume_collecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from camcli.config import Options
    from camcli.models.load import Classifier
    from camcli.pipeline import StopRequest
    from camcli.pipeline.plan import Plan
    from camcli.pipeline.run_state import RunState, Shard
    from camcli.records import Outcome, Source

EMBEDDED_NOTE = (
    "using the embedded model, EfficientNet-Lite0 with ImageNet's 1,000 classes; choose another "
    "with --model NAME (such as --model resnet50) or --config PRESET"
)


@with_flags
def command(images: list[str], flags: Flags) -> None:
    """Draw where a classifier looks (the default command)."""
    leave_cores_free(os.environ)
    options = resolve_options(flags)
    with stage("import"):
        from camcli.config import refuse_contradictions
    refuse_contradictions(options)
    if flags.preview_model:
        preview.show_model(options, depth=preview.read_depth(flags.depth), as_json=flags.json)
        return
    if flags.depth is not None:
        raise UsageError("--depth is for --preview-model: give that, too.")
    if not images and options.camera is None:
        raise UsageError("No image given. Name pictures or folders: camviz IMAGE... (or --help)")
    printer = Printer(choose_style(flags))
    display = choose_display(printer) if flags.show else None
    if options.report is not None:
        check_report(options)
    sources = find_sources_of(images, flags, options)
    _check_output_place(sources, options)
    _check_sheet_place(options)
    if "model" not in options.model_fields_set and options.checkpoint is None:
        printer.note(EMBEDDED_NOTE)
    finished = _explain_all(sources, options, printer, display)
    if options.report is not None:
        write_page_of(options.save_path, options.report, None, printer)
    if flags.profile:
        print_error(format_profile(STOPWATCH))
    if not finished:
        raise typer.Exit(EXIT_FAILED_IMAGES)


def check_report(options: Options, environ: Mapping[str, str] = os.environ) -> None:
    """Raises UsageError where no page can be made at the end."""
    from camcli.media.sources.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    assert options.report is not None
    check_page(options.report)
    if options.save_path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        raise UsageError(
            f"--report is of a folder's heatmaps, and --save-path {options.save_path} is a file: "
            "name a folder there."
        )
    # brings torch
    from camcli.pipeline.distributed.sharding import find_shard

    if find_shard(environ):
        raise UsageError(
            "--report is of a whole run, and this is a share of one: when all shares have ended, "
            f"camviz merge {options.save_path} and camviz report {options.save_path} make it."
        )


def resolve_options(flags: Flags, environ: Mapping[str, str] = os.environ) -> Options:
    """Lays flags over environment and preset; raises ConfigError or UnknownName."""
    with stage("import"):
        from camcli.config import resolve

    cfg_options = flags.cfg_options or []
    options = resolve(flags.given, config=flags.config, cfg_options=cfg_options, environ=environ)
    check_names(options)
    return options


def check_names(options: Options) -> None:
    """Raises UsageError for a name that is known to be wrong before torch is imported."""
    if "colormap" in options.model_fields_set:
        with stage("import"):
            from camcli.render.colormap import find_colormap

        find_colormap(options.colormap)
    if options.checkpoint and not is_there(options.checkpoint):
        raise CheckpointError(f"There is no checkpoint {str(options.checkpoint)!r}.")
    if options.class_map and not is_there(options.class_map):
        raise UsageError(
            f"Class map {str(options.class_map)!r} cannot be read (No such file or directory)."
        )


def choose_style(flags: Flags) -> Style:
    """Returns how results are printed; raises UsageError for two ways."""
    if flags.json and flags.quiet:
        raise UsageError("--json and --quiet each say what is printed: give one of them.")
    return "json" if flags.json else "paths" if flags.quiet else "text"


def find_sources_of(images: list[str], flags: Flags, options: Options) -> tuple[Source, ...]:
    """Finds the pictures that are named; raises SourceError or UsageError."""
    with stage("import"):
        from camcli.media.sources.listing import camera_source, find_sources
        from camcli.runs import list_outputs

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
            made_in=list_outputs,
            recursive=options.recursive,
            stdin=getattr(sys.stdin, "buffer", None),
            tell=print_error,
        )
    except SourceError:
        from camcli.cli import misplaced_words

        misplaced_words.check_words(images, flags, options)
        raise
    place = options.save_path
    if place.is_dir() and any(_is_folder(i) and place.samefile(i) for i in images):
        raise UsageError(
            f"--save-path {place} is the folder that is to be explained, and would be explained "
            "again with its heatmaps next time: name another folder."
        )
    return sources


def _check_output_place(sources: Sequence[Source], options: Options) -> None:
    with stage("import"):
        from camcli.media.output_place import check_output_place

    check_output_place(options.save_path, sources, options.format)


def _check_sheet_place(options: Options) -> None:
    if options.sheet is None:
        return
    with stage("import"):
        from camcli.render.sheet_vectors import check_sheet

    check_sheet(options.sheet, may_be_kind=True)


def _is_folder(word: str) -> bool:
    try:
        return Path(word).is_dir()
    except OSError:  # an address may be longer than a name can be
        return False


def _explain_all(
    sources: tuple[Source, ...], options: Options, printer: Printer, display: Display | None
) -> bool:
    """Writes and prints everything; False where a picture failed."""
    with stage("import"):
        from camcli.pipeline.distributed import sharding

    shard = sharding.find_shard(os.environ)
    tally = Tally(len(sources))
    results = Results(
        printer,
        tally,
        bool(options.target_layers),
        recommends_best=BEST not in options.method,
        tells_crop=options.preprocessing.fit is None and options.outside == "dim",
        display=display,
    )
    if options.engine == "ray":
        if shard and shard[0]:
            raise UsageError(
                "--engine ray shares a run out by itself: start camviz once, without torchrun or "
                "srun."
            )
        carry_out_plan = _prepare_ray_run(sources, options, results)
    else:
        carry_out_plan = _prepare_local_run(sources, options, results, shard)
    try:
        _print_run(carry_out_plan, results)
    finally:
        if tally.done and tally.total > 1:
            printer.note(tally.summary)
        if tally.left_out:
            printer.note(
                f"left to another run of the same options: {tally.left_out}; should it die, "
                "--resume does them"
            )
        if tally.beyond:
            printer.note(
                f"{tally.beyond} of the heatmaps reach beyond the scale, and are cut off there"
            )
    if results.unprinted:
        return False
    # a launcher would end the other ranks; `camviz merge` reports their failures
    return not tally.failed or (shard is not None and options.engine == "local")


def _prepare_local_run(
    sources: tuple[Source, ...], options: Options, results: Results, shard: Shard | None
) -> Callable[[StopRequest], Iterator[Outcome]]:
    """Prepares a run of this process, or its share of one."""
    with stage("import"):
        from camcli.pipeline import RunCallbacks, carry_out_plan, make_plan
        from camcli.pipeline.writing.output_checks import warn_of_letters

    share: Sequence[Source] = sources
    if shard:
        share, options = _take_share(sources, options, shard, results.printer)
        results.tally.total = len(share)
    classifier = load(options, pretrained=options.pretrained)
    results.printer.warn(classifier.warnings)
    plan = make_plan(classifier, options)
    results.printer.warn(plan.warnings)
    results.printer.warn(warn_of_letters(share, classifier.labels, options))
    if options.compare is not None:
        plan = _add_compared(plan, classifier, options, results.printer)
    # not sooner: what loading a model frees is wanted no more
    keep_freed_memory(os.environ)
    results.report_plan(plan.left_out, len(plan.request.methods))

    def report_start(run: RunState) -> None:
        results.report_start(len(run.sources), run.skipped, run.replaced, plan.batch_size)
        for process in run.other_processes:
            results.printer.note(f"shared with another run of the same options: {process}")

    watch = RunCallbacks(
        report_start,
        results.report_compiled,
        results.report_first_pass,
        results.tally.leave_out,
        results.report_export,
        results.report_sheet,
    )
    return lambda stop: carry_out_plan(plan, share, options, stop, watch, shard)


def _add_compared(plan: Plan, classifier: Classifier, options: Options, printer: Printer) -> Plan:
    """Has a run explain its pictures by the model of --compare, too."""
    from camcli.pipeline import make_plan
    from camcli.pipeline.comparison.model_comparison import compare_plans

    other = load_compared(options, classifier)
    printer.warn(other.warnings)
    own_scales = options.scale == "image" and "scale" in options.model_fields_set
    return compare_plans(plan, make_plan(other, options), own_scales=own_scales)


def _take_share(
    sources: tuple[Source, ...], options: Options, shard: Shard, printer: Printer
) -> tuple[Sequence[Source], Options]:
    """Returns what is a rank's of the sources, and its GPU among the options."""
    from camcli.pipeline.distributed import sharding

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


def _prepare_ray_run(
    sources: tuple[Source, ...], options: Options, results: Results
) -> Callable[[StopRequest], Iterator[Outcome]]:
    """Prepares a run that workers of Ray share."""
    with stage("import"):
        from camcli.pipeline.distributed.ray_backend import WorkerStart, run_on_ray

    def report_start(run: WorkerStart) -> None:
        results.printer.warn(run.warnings)
        results.report_plan(run.left_out, run.methods)
        skipped = len(sources) - run.sources
        results.report_start(run.sources, skipped, run.replaced, run.batch_size)

    loads = partial(load, pretrained=options.pretrained)
    return lambda stop: run_on_ray(sources, options, loads, stop, report_start)


def _print_run(
    carry_out_plan: Callable[[StopRequest], Iterator[Outcome]], results: Results
) -> None:
    from camcli.pipeline import StopRequest, handle_interrupts

    resume_collecting()
    stop, tally = StopRequest(), results.tally
    try:
        with (
            handle_interrupts(stop, _announce_stop, _exit_at_once),
            # a bar and pictures would draw over each other
            nullcontext((results.printer, _do_nothing))
            if results.display
            else show_progress(tally, results.printer) as (above, show),
        ):
            results.printer, results.show = above, show
            for outcome in carry_out_plan(stop):
                tally.add(outcome)
                results.print_all(outcome)
                results.show()
    except KeyboardInterrupt:
        if tally.total > 1:
            print_error(
                f"stopped after {tally.done} of {tally.total} pictures: the same command with "
                "--resume goes on there"
            )
        raise


def _do_nothing() -> None:
    pass


def _announce_stop() -> None:
    # a signal may come in the middle of a print, and Python's streams take no second one
    with suppress(OSError):
        os.write(2, b"\ncamviz: finishing what is in flight; once more, and it stops at once\n")


def _exit_at_once() -> None:
    with suppress(OSError):
        os.write(2, b"camviz: interrupted\n")
    os._exit(EXIT_INTERRUPTED)
