"""`camviz sanity IMAGE...`: does a map depend on the weights, and on the class, at all?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from camcli.cli.commands.explain import EMBEDDED_NOTE, find_sources_of, resolve_options
from camcli.cli.model_loading import load
from camcli.cli.options import MODEL_FLAGS, Flags, with_some_flags
from camcli.cli.printer import Printer, print_error, print_json, print_text, show
from camcli.errors import EXIT_FAILED_IMAGES, UsageError
from camcli.utils.profiling import stage
from camcli.utils.text_files import escape_text

if TYPE_CHECKING:
    from rich.table import Table

    from camcli.engine.sanity import Order
    from camcli.pipeline.evaluation.sanity_check import MethodSanity, SanityReport

SANITY = "Sanity check"
ORDERS = ("cascading", "independent")

Steps = Annotated[
    str | None,
    typer.Option(
        "--steps",
        metavar="N|all",
        help="Layers that are tried, evenly spread, the first and the last among them; default 8.",
        rich_help_panel=SANITY,
        show_default=False,
    ),
]
OrderName = Annotated[
    str | None,
    typer.Option(
        "--order",
        metavar="HOW",
        help="Fresh weights layer by layer from the output back (cascading), or in one layer at a "
        "time (independent); default cascading.",
        rich_help_panel=SANITY,
        show_default=False,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw the similarities from layer to layer: a .png, .svg or .pdf file; needs "
        "matplotlib (camviz[figures]).",
        rich_help_panel=SANITY,
        show_default=False,
    ),
]


@with_some_flags(*MODEL_FLAGS)
def command(
    images: list[str],
    flags: Flags,
    steps: Steps = None,
    order: OrderName = None,
    plot: Plot = None,
) -> None:
    """Check whether maps depend on the weights and the class.

    And whether they follow the picture where it is flipped or shifted.
    """
    if not images:
        raise UsageError("No image given. Name pictures or folders: camviz sanity IMAGE...")
    options = resolve_options(flags)
    count, chosen = _read_steps(steps), _read_order(order)
    if plot is not None:
        _check_plot(plot)
    printer = Printer("json" if flags.json else "text")
    sources = find_sources_of(images, flags, options)
    with stage("import"):
        from camcli.pipeline.evaluation.evaluation import plan_evaluation
        from camcli.pipeline.evaluation.sanity_check import check_sanity

    if options.layer_fusion == "none":
        raise UsageError("Maps of one kind are compared: leave --layer-fusion none out.")
    if "model" not in options.model_fields_set and options.checkpoint is None:
        printer.note(EMBEDDED_NOTE)
    classifier = load(options, pretrained=options.pretrained)
    printer.warn(classifier.warnings)
    plan = plan_evaluation(classifier, options)
    printer.warn(plan.warnings)
    for method, why in plan.left_out.items():
        printer.note(f"left out: {method}: {why}")
    report = check_sanity(plan, options, sources, order=chosen, steps=count)
    for failure in report.failed:
        print_error(failure["error"])
    figures = [] if plot is None else [_draw(report, plot)]
    if flags.json:
        subject = {"model": classifier.name, "layers": list(plan.request.layers)}
        print_json(subject | asdict(report) | {"figures": figures})
    else:
        for result in report.methods:
            _print_method(result)
        if figures:
            printer.note(f"figures: {', '.join(figures)}")
    if report.failed:
        raise typer.Exit(EXIT_FAILED_IMAGES)


def _check_plot(plot: Path) -> None:
    """Raises UsageError or OutputError where nothing can be drawn, before the model is loaded."""
    from camcli.media.atomic_files import check_writable
    from camcli.render.charts import check_chart

    check_chart(plot, "--plot")
    check_writable(plot.parent)


def _draw(report: SanityReport, plot: Path) -> str:
    from camcli.pipeline.evaluation.figures import draw_sanity

    draw_sanity(report, plot)
    return str(plot)


def _read_steps(steps: str | None) -> int | None:
    from camcli.pipeline.evaluation.sanity_check import STEPS

    given = str(STEPS) if steps is None else steps.strip().lower()
    if given == "all":
        return None
    if not given.isdecimal() or not int(given[:9]) >= 1:
        raise UsageError(f"--steps {steps}: takes a whole number from 1, or all.")
    return int(given[:9])


def _read_order(order: str | None) -> Order:
    given = "cascading" if order is None else order.strip().lower()
    if given not in ORDERS:
        raise UsageError(f"--order {order}: takes cascading or independent.")
    return cast("Order", given)


def _print_method(result: MethodSanity) -> None:
    print_text(f"{result.method}:")
    show(_make_table(result))
    for line in result.verdict:
        print_text(f"  {escape_text(line)}")


def _make_table(result: MethodSanity) -> Table:
    from rich.table import Table

    from camcli.pipeline.evaluation.sanity_check import list_similarities

    table = Table(box=None, pad_edge=True)
    table.add_column("fresh weights")
    table.add_column("layers", justify="right")
    names = list_similarities()
    for name in names:
        table.add_column(name, justify="right")
    for step in result.steps:
        values = (f"{step.similarities[name]:.2f}" for name in names)
        table.add_row(escape_text(step.layer or "(model)"), str(step.randomized), *values)
    if result.other_class:
        values = (f"{result.other_class[name]:.2f}" for name in names)
        table.add_row("(another class)", "", *values)
    return table
