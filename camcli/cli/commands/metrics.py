"""`camviz metrics`: what `camviz evaluate` can measure of maps."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camcli.cli.commands.methods import link_paper
from camcli.cli.printer import print_json, print_text, show
from camcli.errors import UnknownName
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    from camcli.registry import Metric

Name = Annotated[
    str | None,
    typer.Argument(metavar="METRIC", help="One metric, with its options.", show_default=False),
]
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="One JSON object a metric.", show_default=False)
]


def command(name: Name = None, as_json: Json = False) -> None:
    """List the metrics of camviz evaluate, or show one whole."""
    with stage("import"):
        import camcli.metrics  # noqa: F401  (fills the registry)
        from camcli.registry import METRICS

    if name is None:
        if as_json:
            for known in METRICS.values():
                print_json(_describe(known))
        else:
            _show_table(list(METRICS.values()))
        return
    given = name.strip().lower().replace("-", "_")
    if given not in METRICS:
        raise UnknownName("metric", name, METRICS, "All: camviz metrics")
    if as_json:
        print_json(_describe(METRICS[given]))
    else:
        _show_metric(METRICS[given])


def _show_table(metrics: list[Metric]) -> None:
    from rich.table import Table

    heads = ("metric", "about", "better", "range", "passes", "maps", "needs", "paper")
    table = Table(*heads, box=None, pad_edge=False)
    for metric in sorted(metrics, key=lambda one: one.family):
        facts = _describe(metric)
        limits = ", ".join(f"{limit:g}" for limit in metric.range)
        counts = (str(facts["passes"]), str(facts["explanations"]))
        row = (metric.name, metric.family, metric.direction, limits, *counts)
        table.add_row(*row, ", ".join(metric.needs), metric.paper)
    show(table, wide=True)
    print_text(
        "\npasses: forward passes of altered pictures for a map; maps: further maps that are made "
        "for it; a box serves as a mask.\nOne of them: camviz metrics METRIC; to measure: camviz "
        "evaluate --metrics METRIC"
    )


def _show_metric(metric: Metric) -> None:
    from rich.markup import escape
    from rich.table import Table

    facts = _describe(metric)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("metric", metric.name)
    table.add_row("what it says", escape(metric.summary))
    table.add_row("about", metric.family)
    table.add_row("better", metric.direction)
    table.add_row("range", " to ".join(f"{limit:g}" for limit in metric.range))
    table.add_row("forward passes a map", str(facts["passes"]))
    table.add_row("further maps a map", str(facts["explanations"]))
    table.add_row("needs", ", ".join(metric.needs) or "nothing but the picture")
    table.add_row("paper", link_paper(metric.paper))
    for place, option in enumerate(metric.options):
        table.add_row("" if place else "options, in Python", str(option))
    show(table, wide=True)
    boxes = " --boxes FILE" if metric.needs else ""
    print_text(f"\ncamviz evaluate IMAGE...{boxes} --metrics {metric.name}")


def _describe(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "summary": metric.summary,
        "family": metric.family,
        "direction": metric.direction,
        # JSON knows no infinity
        "range": [float(limit) if isfinite(limit) else None for limit in metric.range],
        "passes": metric.count_passes(),
        "explanations": metric.count_explanations(),
        "needs": list(metric.needs),
        "paper": metric.paper,
    }
