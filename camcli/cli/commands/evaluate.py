"""`camviz evaluate IMAGE...`: which method's maps are the truest, beside maps that know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camcli.cli.commands.explain import (
    EMBEDDED_NOTE,
    choose_style,
    find_sources_of,
    resolve_options,
)
from camcli.cli.model_loading import load
from camcli.cli.options import MODEL_FLAGS, Flags, with_some_flags
from camcli.cli.printer import Printer, print_error, print_json, print_path, print_text, show
from camcli.cli.progress import Tally, show_progress
from camcli.errors import EXIT_FAILED_IMAGES, UsageError
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    from rich.table import Table

    from camcli.models.load import Classifier
    from camcli.pipeline.evaluation import Evaluation, Truth
    from camcli.pipeline.evaluation_files import EvaluationFiles
    from camcli.pipeline.evaluation_summary import Collected, ContenderResult, MetricResult
    from camcli.records import Source

ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}
EVALUATION = "Evaluation"

Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="NAMES",
        help="By commas or repeated, or all; default deletion, insertion and road, and with "
        "boxes pointing_game, heat_inside, pixel_ap and box_iou.",
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


@with_some_flags(*MODEL_FLAGS, "save_path", "quiet")
def command(
    images: list[str],
    flags: Flags,
    metrics: Metrics = None,
    boxes: Boxes = None,
    label_map: LabelMap = None,
    box_names: BoxNames = None,
    layers: Layers = None,
) -> None:
    """Measure which method's maps are true, beside maps that know nothing of the network."""
    if not images:
        raise UsageError("No image given. Name pictures or folders: camviz evaluate IMAGE...")
    options = resolve_options(_with_layers(flags, layers))
    printer = Printer(choose_style(flags))
    sources = find_sources_of(images, flags, options)
    asked = [n.strip() for part in metrics or () for n in part.split(",") if n.strip()]
    with stage("import"):
        from camcli.pipeline.evaluation import Evaluation, choose_metrics, plan_evaluation

    # before the model is loaded: a wrong name is told at once
    chosen, left_out = choose_metrics(asked, has_objects=boxes is not None)
    if left_out:
        printer.note(left_out)
    if "model" not in options.model_fields_set and options.checkpoint is None:
        printer.note(EMBEDDED_NOTE)
    classifier = load(options, pretrained=options.pretrained)
    printer.warn(classifier.warnings)
    plan = plan_evaluation(classifier, options)
    printer.warn(plan.warnings)
    for method, why in plan.left_out.items():
        printer.note(f"left out: {method}: {why}")
    truth = read_truth(boxes, label_map, box_names, sources, classifier, printer)
    evaluation = Evaluation(plan, options, chosen, truth)
    if not _evaluate_all(evaluation, sources, printer):
        raise typer.Exit(EXIT_FAILED_IMAGES)


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
    from camcli.pipeline.evaluation import Truth, know_truth

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


def _evaluate_all(evaluation: Evaluation, sources: Sequence[Source], printer: Printer) -> bool:
    """Measures, writes and prints everything; False where a picture failed."""
    from camcli.pipeline.evaluation_files import EvaluationFiles
    from camcli.pipeline.evaluation_summary import Collected

    collected = Collected(evaluation.options.seed)
    with EvaluationFiles(evaluation.options.save_path) as files:
        failures = _measure_all(evaluation, sources, collected, files, printer)
        results = collected.summarise(evaluation.metrics)
        summary = _summarise(evaluation, results, len(sources), failures)
        files.finish(summary)
    if not results:
        raise UsageError("No metric could be measured on any picture; the lines above say why.")
    _print_results(results, summary, files, printer)
    return not failures


def _measure_all(
    evaluation: Evaluation,
    sources: Sequence[Source],
    collected: Collected,
    files: EvaluationFiles,
    printer: Printer,
) -> list[dict[str, str]]:
    from camcli.records import Outcome, Record

    failures: list[dict[str, str]] = []
    tally = Tally(len(sources))
    try:
        with show_progress(tally, printer) as (above, report):
            for scores in evaluation.measure(sources):
                for note in scores.notes:
                    above.note(f"{scores.source}: {note}")
                if scores.error:
                    print_error(scores.error, above.above)
                    failures.append({"picture": str(scores.source), "error": scores.error})
                collected.add(scores)
                files.add(scores)
                record = Record(str(scores.source), error=scores.error)
                tally.add(Outcome(scores.source, (record,)))
                report()
    except KeyboardInterrupt:
        print_error(
            f"stopped after {tally.done} of {tally.total} pictures: their rows are in {files.csv}"
        )
        raise
    return failures


def _summarise(
    evaluation: Evaluation,
    results: Sequence[MetricResult],
    pictures: int,
    failures: Sequence[dict[str, str]],
) -> dict[str, Any]:
    from camcli.pipeline.evaluation_summary import describe_verdict, to_plain

    plan, options = evaluation.plan, evaluation.options
    return {
        "model": plan.classifier.name,
        "methods": list(plan.request.names),
        "combined": {combined.name: str(combined) for combined in plan.request.combined},
        "layers": list(plan.request.layers),
        "layer_reason": plan.layer_reason,
        "layer_fusion": plan.request.layer_fusion,
        "target": plan.request.target.name,
        "seed": options.seed,
        "pictures": pictures,
        "failed": list(failures),
        "metrics": to_plain(results),
        "verdicts": [describe_verdict(result) for result in results],
    }


def _print_results(
    results: Sequence[MetricResult],
    summary: dict[str, Any],
    files: EvaluationFiles,
    printer: Printer,
) -> None:
    paths = [str(path) for path in (files.csv, files.jsonl, files.json)]
    if printer.style == "json":
        print_json({**summary, "files": paths})
        return
    if printer.style == "paths":
        for path in paths:
            print_path(path)
        return
    if results:
        show(_make_table(results))
        several = "; [95 % interval]" if results[0].pictures > 1 else ""
        print_text(f"*: best; ~: no worse than noise; (...): knows nothing of the network{several}")
    for verdict in summary["verdicts"]:
        print_text(verdict)
    printer.note(f"rows: {files.csv}, {files.jsonl}; summary: {files.json}")


def _make_table(results: Sequence[MetricResult]) -> Table:
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
    mark = "*" if is_best else "~" if row.is_noise else " "
    first = f"{row.mean:.3f}{mark}"
    return first if row.low is None else f"{first}\n\\[{row.low:.3f}, {row.high:.3f}]"
