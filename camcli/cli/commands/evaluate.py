"""`camviz evaluate IMAGE...`: which method's maps are the truest, beside maps that know nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from camcli.cli.commands.explain import (
    EMBEDDED_NOTE,
    choose_style,
    find_sources_of,
    resolve_options,
)
from camcli.cli.model_loading import load
from camcli.cli.options import MODEL_FLAGS, Flags, with_some_flags
from camcli.cli.printer import (
    Printer,
    print_error,
    print_json,
    print_path,
    print_text,
    screen_width,
    show,
)
from camcli.cli.progress import Tally, show_progress
from camcli.errors import EXIT_FAILED_IMAGES, UsageError
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from camcli.config import Options
    from camcli.models.load import Classifier
    from camcli.pipeline.evaluation.evaluation import Evaluation, PictureScores, Truth
    from camcli.pipeline.evaluation.evaluation_run import EvaluationRun
    from camcli.pipeline.evaluation.metric_statistics import ContenderResult, MetricResult
    from camcli.pipeline.run_state import Shard
    from camcli.records import Source

Result = TypeVar("Result")

ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}
EVALUATION = "Evaluation"
NO_OBJECTS = "with --boxes that have no box or mask of these pictures"

Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="NAMES",
        help="By commas or repeated, or all (see camviz metrics); default deletion, insertion and "
        "road, and with boxes pointing_game, heat_inside, pixel_ap and box_iou.",
        rich_help_panel=EVALUATION,
        show_default=False,
    ),
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        "--boxes",
        metavar="FILE|FOLDER",
        help="What is known of the pictures: COCO, Pascal VOC, YOLO, Open Images, CSV, CUB, masks, "
        "or folders named after classes; see camviz help annotations.",
        rich_help_panel=EVALUATION,
        show_default=False,
    ),
]
LabelMap = Annotated[
    Path | None,
    typer.Option(
        "--label-map",
        metavar="FILE",
        help="A CSV of name,indices: which of the model's classes an annotated name means.",
        rich_help_panel=EVALUATION,
        show_default=False,
    ),
]
BoxNames = Annotated[
    Path | None,
    typer.Option(
        "--box-names",
        metavar="FILE",
        help="Class names of YOLO's labels, masks or Open Images, where none stand beside them.",
        rich_help_panel=EVALUATION,
        show_default=False,
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="auto|NAMES",
        help="As --target-layers, each layer by itself; auto is the default layer.",
        rich_help_panel=EVALUATION,
        show_default=False,
    ),
]
# beside those of the model
OWN_FLAGS = (
    "text", "template", "best_for", "combine", "workers", "engine", "ray_workers", "save_path",
    "resume", "quiet",
)  # fmt: skip
Plots = Annotated[
    bool,
    typer.Option(
        "--plots/--no-plots",
        metavar="",
        help="Bars and curves as PNG and SVG; they need matplotlib (camviz[figures]); default yes.",
        rich_help_panel=EVALUATION,
        show_default=False,
    ),
]
Disagreements = Annotated[
    int | None,
    typer.Option(
        "--disagreements",
        metavar="N",
        help="Pictures on the sheet of those on which the methods' maps agree least; default 8, 0 "
        "for none.",
        rich_help_panel=EVALUATION,
        show_default=False,
    ),
]


@with_some_flags(*MODEL_FLAGS, *OWN_FLAGS)
def command(
    images: list[str],
    flags: Flags,
    metrics: Metrics = None,
    boxes: Boxes = None,
    label_map: LabelMap = None,
    box_names: BoxNames = None,
    layers: Layers = None,
    plots: Plots = True,
    disagreements: Disagreements = None,
) -> None:
    """Measure which method's maps are true, beside maps of noise.

    The baselines know nothing of the network: noise, a blob in the middle, edges.
    """
    if not images:
        raise UsageError("No image given. Name pictures or folders: camviz evaluate IMAGE...")
    if disagreements is not None and disagreements < 0:
        raise UsageError(f"--disagreements {disagreements}: takes a whole number from 0.")
    options = resolve_options(_with_layers(flags, layers))
    printer = Printer(choose_style(flags))
    sources = find_sources_of(images, flags, options)
    asked = [n.strip() for part in metrics or () for n in part.split(",") if n.strip()]
    with stage("import"):
        from camcli.pipeline.distributed.sharding import choose_device, find_shard
        from camcli.pipeline.evaluation.evaluation import (
            Evaluation,
            choose_metrics,
            plan_evaluation,
        )

    shard = find_shard(os.environ)
    if shard and options.engine == "ray":
        raise UsageError(
            "--engine ray shares an evaluation out by itself: start camviz once, without torchrun "
            "or srun."
        )
    # before the model is loaded: a wrong name is told at once
    chosen, left_out = choose_metrics(asked, has_objects=boxes is not None)
    if left_out:
        printer.note(left_out)
    if "model" not in options.model_fields_set and options.checkpoint is None:
        printer.note(EMBEDDED_NOTE)
    if shard:
        options = options.model_copy(update={"device": choose_device(options.device, os.environ)})
    classifier = load(options, pretrained=options.pretrained)
    printer.warn(classifier.warnings)
    plan = plan_evaluation(classifier, options)
    printer.warn(plan.warnings)
    for method, why in plan.left_out.items():
        printer.note(f"left out: {method}: {why}")
    truth = read_truth(boxes, label_map, box_names, sources, classifier, printer)
    if boxes is not None and not truth.has_objects:
        chosen, left_out = choose_metrics(chosen, has_objects=False, why=NO_OBJECTS)
        if left_out:
            printer.note(left_out)
    evaluation = Evaluation(plan, options, chosen, truth)
    share = _take_share(sources, shard, options, printer) if shard else sources
    drawing = _Drawing(plots, disagreements)
    if not _evaluate_all(evaluation, share, shard, drawing, printer):
        raise typer.Exit(EXIT_FAILED_IMAGES)


def _take_share(
    sources: Sequence[Source], shard: Shard, options: Options, printer: Printer
) -> Sequence[Source]:
    from camcli.pipeline.distributed.sharding import take_share

    share = take_share(sources, shard)
    printer.note(
        f"rank {shard[0]} of {shard[1]}: {len(share)} of {len(sources)} pictures; when all ranks "
        f"have ended, camviz merge {options.save_path} joins what they measured"
    )
    return share


def _with_layers(flags: Flags, layers: str | None) -> Flags:
    if layers is None or layers.strip().lower() == "auto":
        return flags
    if flags.target_layers or flags.layer_fusion:
        raise UsageError(
            f"--layers {layers} and --target-layers with --layer-fusion each name layers: give one "
            "of them."
        )
    return Flags(**{**vars(flags), "target_layers": [layers], "layer_fusion": "none"})


def read_truth(
    boxes: Path | None,
    label_map: Path | None,
    box_names: Path | None,
    sources: Sequence[Source],
    classifier: Classifier,
    printer: Printer,
) -> Truth:
    """Reads what is known of the pictures, and prints what is to be said of it."""
    from camcli.media.annotations import read_annotations
    from camcli.models.labels import read_meanings
    from camcli.pipeline.evaluation.evaluation import Truth, know_truth

    if boxes is None:
        if label_map or box_names:
            option = "--label-map" if label_map else "--box-names"
            raise UsageError(f"{option} is about the objects of --boxes: give that, too.")
        return Truth()
    meanings = read_meanings(label_map, classifier.num_categories) if label_map else None
    truth = know_truth(read_annotations(boxes, names=box_names), sources, classifier, meanings)
    for note in truth.notes:
        printer.note(note)
    return truth


@dataclass(frozen=True)
class _Drawing:
    """Which figures are drawn: charts, and a sheet of so many pictures."""

    has_charts: bool
    disagreements: int | None

    def draw(
        self, evaluating: EvaluationRun, results: Sequence[MetricResult], printer: Printer
    ) -> list[Path]:
        """Draws what was found, and says what could not be drawn; of a share nothing is drawn."""
        if evaluating.shard:
            return []
        from camcli.pipeline.evaluation.figures import (
            DISAGREEMENTS,
            NO_CHARTS,
            draw_charts,
            draw_disagreements,
        )

        collected, names = evaluating.collected, evaluating.files.names
        stem, written = names.folder / names.stem, []
        if self.has_charts:
            written = draw_charts(stem, results, collected.average_curves())
            if results and not written:
                printer.note(NO_CHARTS)
        most = DISAGREEMENTS if self.disagreements is None else self.disagreements
        cells = collected.find_disagreements(most)
        if cells:
            path = stem.with_name(f"{stem.name}-disagreements.png")
            sheet, failures = draw_disagreements(evaluating.evaluation, cells, path)
            for failure in failures:
                print_error(f"not on the sheet: {failure}")
            written += [sheet] if sheet else []
        return written


def _evaluate_all(
    evaluation: Evaluation,
    sources: Sequence[Source],
    shard: Shard | None,
    drawing: _Drawing,
    printer: Printer,
) -> bool:
    """Measures, writes and prints everything; False where a picture failed."""
    from camcli.pipeline.evaluation.evaluation_run import EvaluationRun, describe_run
    from camcli.pipeline.evaluation.files import EvaluationFiles

    options = evaluation.options
    run = describe_run(evaluation, shard)
    with EvaluationFiles(options.save_path, run, resume=options.resume) as files:
        on_ray = _measure_on_ray(evaluation) if options.engine == "ray" else None
        evaluating = EvaluationRun(evaluation, sources, files, shard, printer.note, on_ray)
        if evaluating.skipped:
            printer.note(
                f"{evaluating.skipped} of {len(sources)} were measured before, and are not again"
            )
        _measure_all(evaluating, printer)
        results, summary = evaluating.summarise()
        files.finish(summary)
        drawn = drawing.draw(evaluating, results, printer)
    if not results and not shard:
        raise UsageError("No metric could be measured on any picture; the lines above say why.")
    _print_results(results, summary, files.paths, drawn, printer)
    # a launcher would end the other ranks; `camviz merge` says what failed
    return not evaluating.failures or shard is not None


def _measure_on_ray(
    evaluation: Evaluation,
) -> Callable[[Sequence[Source]], Iterator[PictureScores]]:
    from camcli.pipeline.distributed.ray_evaluation import measure_on_ray

    loads = partial(load, pretrained=evaluation.options.pretrained)
    return partial(measure_on_ray, evaluation, loads)


def _measure_all(evaluating: EvaluationRun, printer: Printer) -> None:
    from camcli.pipeline.workers.worker_pool import start_workers
    from camcli.records import Outcome, Record

    tally = Tally(evaluating.total)
    try:
        with (
            start_workers(_count_threads(evaluating)) as pool,
            show_progress(tally, printer) as (above, report),
        ):
            evaluating.note = above.note
            for scores in evaluating.carry_out(pool):
                for note in scores.notes:
                    above.note(f"{scores.source}: {note}")
                if scores.error:
                    print_error(scores.error, above.above)
                # grids are of pictures that were counted
                if scores.grid is None and tally.done < tally.total:
                    record = Record(str(scores.source), error=scores.error)
                    tally.add(Outcome(scores.source, (record,)))
                    report()
    except KeyboardInterrupt:
        print_error(
            f"stopped after {tally.done} of {tally.total} pictures: the same command with --resume "
            f"goes on there; their rows are in {evaluating.files.paths[0]}"
        )
        raise


def _count_threads(evaluating: EvaluationRun) -> int:
    from camcli.pipeline.workers.worker_pool import default_workers

    if evaluating.total < 2:
        return 0  # nothing could be done beside it
    plan, options = evaluating.evaluation.plan, evaluating.evaluation.options
    given = options.workers
    return default_workers(plan.classifier.device.type) if given is None else given


def _print_results(
    results: Sequence[MetricResult],
    summary: dict[str, Any],
    files: Sequence[Path],
    drawn: Sequence[Path],
    printer: Printer,
) -> None:
    paths, figures = [str(path) for path in files], [str(path) for path in drawn]
    if printer.style == "json":
        print_json({**summary, "files": paths, "figures": figures})
        return
    if printer.style == "paths":
        for path in (*paths, *figures):
            print_path(path)
        return
    if results:
        for table in make_tables(results, screen_width()):
            show(table)
        several = "; [95 % interval]" if results[0].pictures > 1 else ""
        print_text(f"*: best; ~: no worse than noise; (...): knows nothing of the network{several}")
    for verdict in summary["verdicts"]:
        print_text(verdict)
    printer.note(f"rows: {', '.join(paths[:-1])}; summary: {paths[-1]}")
    if figures:
        printer.note(f"figures: {', '.join(figures)}")


def make_tables(
    results: Sequence[Result], width: int, make: Callable[[Sequence[Result]], Table] | None = None
) -> Iterator[Table]:
    """Yields tables below each other, each with as many metrics as fit the width, at least one.

    `make` makes a table of some of the results; by default that of an evaluation.
    """
    from rich.console import Console

    console, shown, make = Console(width=width), 0, make or _make_table
    while shown < len(results):
        count = len(results) - shown
        while count > 1 and _is_too_wide(make(results[shown : shown + count]), console):
            count -= 1
        yield make(results[shown : shown + count])
        shown += count


def _is_too_wide(table: Table, console: Console) -> bool:
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum > (
        console.width
    )


def _make_table(results: Sequence[Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for result in results:
        table.add_column(f"{result.metric} {ARROWS[result.direction]}", justify="right")
    for place, row in enumerate(results[0].contenders):
        cells = (
            format_cell(result.contenders[place], is_best=row.name == result.best)
            for result in results
        )
        table.add_row(f"({row.name})" if row.is_baseline else row.name, *cells)
    return table


def format_cell(row: ContenderResult, *, is_best: bool) -> str:
    """Writes a mean with its mark and interval."""
    if not row.has_value:
        return "- "
    mark = "*" if is_best else "~" if row.is_noise else " "
    first = f"{row.mean:.3f}{mark}"
    return first if row.low is None else f"{first}\n\\[{row.low:.3f}, {row.high:.3f}]"
