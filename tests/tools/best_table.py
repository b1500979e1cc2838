"""The handbook's table of what best rests on: `python -m tests.tools.best_table` prints it."""

from __future__ import annotations

from camcli.engine.best import TABLE, BestRow, Interval, Measured

HEAD = "| measured on | cases | peak | heat | pixel AP | box |\n|---|---|---|---|---|---|"
PLACES = {"last": "at the default layer", "earlier": "at the earlier layer", "none": ""}
SIGNS = {"product": " times ", "mean": " and "}


def format_table() -> str:
    """Writes a heading and a table for each row: what is best, and each mean beside GradCAM's."""
    return "\n\n".join(map(_format_row, TABLE))


def _format_row(row: BestRow) -> str:
    parts = (f"`{method}` {PLACES[place]}".strip() for method, place in row.parts)
    aims = " and ".join(row.aims)
    title = f"{row.kind.capitalize()}, {aims}: {SIGNS[row.combination].join(parts)}"
    return "\n".join([f"{title}\n\n{HEAD}", *(_format_line(one) for one in row.measured)])


def _format_line(one: Measured) -> str:
    intervals = (one.peak, one.heat, one.pixel_ap, one.box)
    cells = map(_format_cell, intervals, one.gradcam)
    return f"| {' | '.join([one.on, str(one.cases), *cells])} |"


def _format_cell(interval: Interval, gradcam: float) -> str:
    mean, low, high = interval
    return f"{mean:.0f} ({low:.0f} to {high:.0f}), {gradcam:.0f}"


if __name__ == "__main__":
    print(format_table())
