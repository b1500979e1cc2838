"""`camviz tune IMAGE...`: the method, layers and fusion that are best on one's own pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camcli.cli.commands.evaluate import (
    ARROWS,
    Boxes,
    BoxNames,
    LabelMap,
    format_cell,
    make_tables,
    read_truth,
)
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
from camcli.utils.runtime_tuning import keep_freed_memory, leave_cores_free, resume_collecting

if TYPE_CHECKING:
    from rich.table import Table

    from camcli.pipeline.tuning.search import SearchStep, TuningResult
    from camcli.pipeline.tuning.search_report import HeldMetric
    from camcli.pipeline.tuning.tuning_plan import TuningPlan
    from camcli.records import Source

TUNING = "Search"
# what is searched is not said
SEARCHED = tuple(name for name in MODEL_FLAGS if name not in ("layer_fusion", "eigen_smooth"))

Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="auto|NAMES",
        help="The layers that are searched, as --target-layers; auto, the default, is a handful "
        "from fine to coarse grids.",
        rich_help_panel=TUNING,
        show_default=False,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="N",
        help="Passes of single pictures that may be run, forward and backward; default 6000.",
        rich_help_panel=TUNING,
        show_default=False,
    ),
]
SavePreset = Annotated[
    Path | None,
    typer.Option(
        "--save-preset",
        metavar="FILE",
        help="Where the preset goes; default camviz-tune.toml in --save-path, beside earlier ones.",
        rich_help_panel=TUNING,
        show_default=False,
    ),
]


@with_some_flags(*SEARCHED, "best_for", "save_path", "quiet")
def command(
    images: list[str],
    flags: Flags,
    boxes: Boxes = None,
    label_map: LabelMap = None,
    box_names: BoxNames = None,
    layers: Layers = None,
    budget: Budget = None,
    save_preset: SavePreset = None,
) -> None:
    """Find the method and layers that are best on your pictures.

    How several layers are combined is found, too; the choice is written as a preset.
    """
    leave_cores_free(os.environ)
    if not images:
        raise UsageError("No image given. Name pictures or folders: camviz tune IMAGE...")
    options = resolve_options(_with_layers(flags, layers))
    printer = Printer(choose_style(flags))
    with stage("import"):
        from camcli.pipeline.tuning.preset import check_place
        from camcli.pipeline.tuning.search import check_count
        from camcli.pipeline.tuning.tuning_plan import check_options, plan_tuning

    # before the model is loaded: what is wrong is told at once
    check_options(options, has_boxes=boxes is not None)
    most = _read_budget(budget)
    check_place(save_preset, options.save_path)
    sources = find_sources_of(images, flags, options)
    check_count(len(sources), len(sources))
    if "model" not in options.model_fields_set and options.checkpoint is None:
        printer.note(EMBEDDED_NOTE)
    classifier = load(options, pretrained=options.pretrained)
    printer.warn(classifier.warnings)
    tuning = plan_tuning(classifier, options, has_boxes=boxes is not None)
    for what, why in tuning.left_out.items():
        printer.note(f"left out: {what}: {why}")
    truth = read_truth(boxes, label_map, box_names, sources, classifier, printer)
    if boxes is not None and not truth.has_objects:
        raise UsageError(
            f"--boxes {boxes} has no box or mask of these pictures to rank by: leave it out to "
            "rank by faithfulness."
        )
    # not sooner: what loading a model frees is wanted no more
    keep_freed_memory(os.environ)
    resume_collecting()
    result = _search(tuning, sources, truth, most, printer)
    _print_all(tuning, result, len(sources), most, save_preset, printer)
    if result.failed:
        raise typer.Exit(EXIT_FAILED_IMAGES)


def _with_layers(flags: Flags, layers: str | None) -> Flags:
    if layers is None or layers.strip().lower() == "auto":
        return flags
    if flags.target_layers:
        raise UsageError(
            f"--layers {layers} and --target-layers each name layers: give one of them."
        )
    return Flags(**{**vars(flags), "target_layers": [layers]})


def _read_budget(budget: str | None) -> int:
    from camcli.pipeline.tuning.schedule import BUDGET

    given = (str(BUDGET) if budget is None else budget).strip().replace("_", "")
    if not given.isdecimal() or not 1 <= int(given[:18]) < 10**12:
        raise UsageError(f"--budget {budget}: takes a whole number of passes from 1.")
    return int(given)


def _search(
    tuning: TuningPlan, sources: Sequence[Source], truth: Any, budget: int, printer: Printer
) -> TuningResult:
    from camcli.pipeline.tuning.schedule import make_schedule
    from camcli.pipeline.tuning.search import tune
    from camcli.pipeline.tuning.search_report import describe_score, describe_search

    schedule = make_schedule(len(sources), tuning.size, budget)
    printer.note(describe_search(tuning, schedule, len(sources), budget))
    printer.note(describe_score(tuning))
    try:
        with ExitStack() as stack:
            return tune(tuning, sources, truth, budget, _Stages(printer, stack).report)
    except KeyboardInterrupt:
        print_error("stopped: no preset is written")
        raise


@dataclass
class _Stages:
    """Shows how far each stage of a search is, one after the other."""

    printer: Printer
    stack: ExitStack
    name: str = ""
    tally: Tally = field(default_factory=lambda: Tally(0))
    # what prints meanwhile, above a bar
    above: Printer = field(default_factory=Printer)
    show_step: Callable[[], None] | None = None

    def report(self, step: SearchStep) -> None:
        """Counts a picture, and prints what is to be said of it."""
        from camcli.records import Outcome, Record

        if step.stage != self.name or self.show_step is None:
            self.stack.close()
            self.printer.note(f"{step.stage}, pictures: {step.total}")
            self.name, self.tally = step.stage, Tally(step.total)
            progress = show_progress(self.tally, self.printer)
            self.above, self.show_step = self.stack.enter_context(progress)
        for note in (*step.notes, *filter(None, [step.useless])):
            self.above.note(f"{step.source}: {note}")
        if step.error:
            print_error(step.error, self.above.above)
        self.tally.add(Outcome(step.source, (Record(str(step.source), error=step.error),)))
        self.show_step()


def _print_all(
    tuning: TuningPlan,
    result: TuningResult,
    pictures: int,
    budget: int,
    save_preset: Path | None,
    printer: Printer,
) -> None:
    """Writes the preset, and prints the choice and what it is worth."""
    from camcli.pipeline.tuning.preset import write_preset
    from camcli.pipeline.tuning.search_report import (
        compare_held,
        list_verdicts,
        name_contenders,
        summarise,
    )

    held = compare_held(tuning, result)
    verdicts = list_verdicts(tuning, result, held)
    path = write_preset(tuning, result.chosen, verdicts, save_preset)
    for doubt in tuning.find_doubts(result.chosen):
        printer.note(doubt)
    if printer.style == "json":
        print_json({**summarise(tuning, result, held, pictures, budget), "preset": str(path)})
        return
    if printer.style == "paths":
        # whoever takes the path alone is told of its worth all the same
        for line in verdicts[1:]:
            print_error(line)
        print_path(str(path))
        return
    if held:
        for table in make_tables(held, screen_width(), _make_table):
            show(table)
        print_text(
            f"pictures held back, on which nothing was chosen: {result.schedule.held}; ~: the "
            "difference from the choice may be noise; [95 % interval]"
        )
    for name, candidate in name_contenders(tuning, result).items():
        print_text(f"{name}: {candidate}")
    for line in verdicts:
        print_text(line)
    print_text(f"preset: {path}; use it: camviz IMAGE --config {path}")
    left_out = f"{len(result.failed)} pictures failed, {len(result.useless)} were of no use"
    printer.note(f"{result.passes} passes; {left_out}")


def _make_table(held: Sequence[HeldMetric]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("held back", no_wrap=True)
    for metric in held:
        table.add_column(f"{metric.metric} {ARROWS[metric.direction]}", justify="right")
    for place, row in enumerate(held[0].contenders):
        cells = (format_cell(metric.contenders[place], is_best=False) for metric in held)
        table.add_row(row.name, *cells)
    return table
