"""Bars with intervals and curves with bands, as PNG and SVG; matplotlib is asked for when drawing.

They are as wide as a page's two columns, in one style, and the same values give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from itertools import cycle
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from camcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = TypeVar("Panel")

HOW_TO_INSTALL = "pip install 'camviz[figures]'"
WIDTH = 7.0  # inches, and points of the type: two columns of a paper
TYPE, SMALL = 8, 7
BARS_IN_ROW, CURVES_IN_ROW, STEPS_IN_ROW, LEGEND_COLUMNS = 3, 2, 3, 4
NAMED_STEPS = 12
# what would differ between two drawings of the same values
METADATA: dict[str, Any] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
PLAIN, BEST, KNOWS_NOTHING, BASELINE_LINE = "#7fa8c9", "#d55e00", "#c8c8c8", "#8c8c8c"
# Okabe and Ito's, which the colour-blind tell apart, without the yellow that paper swallows
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
BASELINE_DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2), (2, 1))
METHOD_DASHES = ((), (5, 1.5), (1, 1))
STYLE = {
    "font.size": TYPE,
    "axes.titlesize": TYPE,
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "svg.hashsalt": "camviz",
    "savefig.dpi": 200,
}


@dataclass(frozen=True)
class Bar:
    """A value with its interval, if it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    is_baseline: bool = False
    is_best: bool = False


@dataclass(frozen=True)
class BarPanel:
    """Bars of one measure: what stands above, and below the axis."""

    title: str
    axis: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Line:
    """A curve [p], and how far its band reaches on each side [p]."""

    name: str
    values: Sequence[float]
    margins: Sequence[float]
    is_baseline: bool = False


@dataclass(frozen=True)
class LinePanel:
    """Curves over the same places [p]: what stands above, below and beside.

    No value is below zero, or above `most`; bands are cut off there.
    """

    title: str
    x_axis: str
    y_axis: str
    places: Sequence[float]
    lines: Sequence[Line]
    most: float


@dataclass(frozen=True)
class StepPanel:
    """Lines from step to step [p], whose names stand below; no value is above 1.

    `limits` are drawn across, as values on whose sides something else holds.
    """

    title: str
    y_axis: str
    steps: Sequence[str]
    lines: Sequence[Line]
    limits: Sequence[float] = ()


def can_draw_charts() -> bool:
    """Tells whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def _in_style(draw: Callable[[Sequence[Panel]], Figure]) -> Callable[[Sequence[Panel]], Figure]:
    """Has a function draw in our style, whatever the person's own one is."""

    @wraps(draw)
    def drawing(panels: Sequence[Panel]) -> Figure:
        from matplotlib import style

        with style.context(["default", STYLE]):
            return draw(panels)

    return drawing


@_in_style
def draw_bars(panels: Sequence[BarPanel]) -> Figure:
    """Draws a panel a measure: baselines grey, the best one in a colour of its own and starred."""
    columns = min(BARS_IN_ROW, len(panels))
    most = max(len(panel.bars) for panel in panels)
    figure, axes = _make_figure(len(panels), columns, 0.65 + 0.16 * most)
    for place, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
        _draw_bar_panel(panel, axis, is_named=place % columns == 0)
    has_intervals = any(bar.low is not None for panel in panels for bar in panel.bars)
    lines = "; lines: 95 % intervals" if has_intervals else ""
    figure.supxlabel(
        f"bars: means over n pictures{lines}; * best; grey: knows nothing of the network",
        fontsize=SMALL,
    )
    return figure


def _draw_bar_panel(panel: BarPanel, axis: Axes, *, is_named: bool) -> None:
    places = range(len(panel.bars))
    for place, bar in zip(places, panel.bars, strict=True):
        colour = BEST if bar.is_best else KNOWS_NOTHING if bar.is_baseline else PLAIN
        axis.barh(place, bar.value, color=colour, height=0.7)
        if bar.low is not None and bar.high is not None:
            axis.plot((bar.low, bar.high), (place, place), color="#333333", linewidth=0.9)
            ends = ([bar.low, bar.high], [place, place])
            axis.plot(*ends, color="#333333", marker="|", markersize=4, linestyle="none")
        if bar.is_best:
            edge = max(bar.value, bar.value if bar.high is None else bar.high, 0)
            axis.annotate(
                "*", (edge, place), (3, -3), textcoords="offset points", fontweight="bold"
            )
    axis.set_yticks(list(places), [bar.name if is_named else "" for bar in panel.bars])
    axis.margins(x=0.08)
    axis.tick_params("y", length=0)
    axis.invert_yaxis()
    axis.axvline(0, color="#333333", linewidth=0.6)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)
    axis.set_title(panel.title, loc="left", fontweight="bold")
    axis.set_xlabel(panel.axis)


@_in_style
def draw_curves(panels: Sequence[LinePanel]) -> Figure:
    """Draws a panel a curve, with bands; baselines grey and dashed, one legend for all."""
    columns = min(CURVES_IN_ROW, len(panels))
    figure, axes = _make_figure(len(panels), columns, 2.1)
    lines = list({line.name: line for panel in panels for line in panel.lines}.values())
    looks = _choose_looks(lines)
    for panel, axis in zip(panels, axes, strict=True):
        # methods on top
        for line in sorted(panel.lines, key=lambda line: not line.is_baseline):
            look = looks[line.name]
            axis.plot(panel.places, line.values, label=line.name, **look)
            if not line.is_baseline:
                pairs = list(zip(line.values, line.margins, strict=True))
                low = [max(value - margin, 0) for value, margin in pairs]
                high = [min(value + margin, panel.most) for value, margin in pairs]
                axis.fill_between(panel.places, low, high, color=look["color"], alpha=0.15, lw=0)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, min(panel.most, axis.get_ylim()[1]))
        axis.grid(color="#e6e6e6", linewidth=0.5)
        axis.set_axisbelow(True)
        axis.set_title(panel.title, loc="left", fontweight="bold")
        axis.set_xlabel(panel.x_axis)
        axis.set_ylabel(panel.y_axis)
    _draw_legend(figure, axes, lines)
    return figure


@_in_style
def draw_steps(panels: Sequence[StepPanel]) -> Figure:
    """Draws a panel a measure, the steps from left to right, and one legend for all."""
    figure, axes = _make_figure(len(panels), min(STEPS_IN_ROW, len(panels)), 2.8)
    lines = list({line.name: line for panel in panels for line in panel.lines}.values())
    looks = _choose_looks(lines)
    for panel, axis in zip(panels, axes, strict=True):
        places = range(len(panel.steps))
        for limit in (0, *panel.limits):
            axis.axhline(limit, color="#333333", linewidth=0.6, linestyle="-" if not limit else ":")
        for line in panel.lines:
            axis.plot(places, line.values, label=line.name, marker=".", **looks[line.name])
        least = [value for line in panel.lines for value in line.values if isfinite(value)]
        axis.set_ylim(min([0, *least]) - 0.05, 1.05)
        # of many steps some are named, the first among them
        named = places[:: ceil(len(places) / NAMED_STEPS)]
        names = [panel.steps[place] for place in named]
        axis.set_xticks(named, names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_title(panel.title, loc="left", fontweight="bold")
        axis.set_ylabel(panel.y_axis)
    _draw_legend(figure, axes, lines)
    return figure


def _draw_legend(figure: Figure, axes: Sequence[Axes], lines: Sequence[Line]) -> None:
    by_name = {label: handle for axis in axes for handle, label in _list_handles(axis)}
    figure.legend(
        [by_name[line.name] for line in lines],
        [line.name for line in lines],
        loc="outside lower center",
        ncols=min(LEGEND_COLUMNS, len(lines)),
        frameon=False,
    )


def _list_handles(axis: Axes) -> list[tuple[Any, str]]:
    handles, labels = axis.get_legend_handles_labels()
    return list(zip(handles, labels, strict=True))


def _choose_looks(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Gives each method a colour, and each map that knows nothing a grey dash."""
    looks: dict[str, dict[str, Any]] = {}
    methods = [line.name for line in lines if not line.is_baseline]
    for place, name in enumerate(methods):
        dashes = METHOD_DASHES[place // len(LINES) % len(METHOD_DASHES)]
        style: Any = (0, dashes) if dashes else "solid"
        looks[name] = {"color": LINES[place % len(LINES)], "linewidth": 1.4, "linestyle": style}
    others = [line.name for line in lines if line.is_baseline]
    for name, pattern in zip(others, cycle(BASELINE_DASHES), strict=False):
        looks[name] = {"color": BASELINE_LINE, "linewidth": 0.9, "linestyle": (0, pattern)}
    return looks


def _make_figure(panels: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure of so many panels, each of a height in inches."""
    rows = ceil(panels / columns)
    from matplotlib.figure import Figure

    size = (WIDTH * min(1, (columns + 1) / 3), rows * height + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def save_chart(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Writes a figure as PNG and as SVG, and returns the paths; raises OutputError."""
    png, svg = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    for path in (png, svg):
        write_chart(figure, path)
    return png, svg


def check_chart(path: Path, option: str) -> None:
    """Raises UsageError if no chart can be drawn there; `option` is what names the file."""
    if path.suffix.lower() not in METADATA:
        raise UsageError(f"{option} {path}: takes a .png, .svg or .pdf file.")
    if path.exists():
        raise UsageError(
            f"{option} {path} exists already, and nothing is overwritten: name another file."
        )
    if not can_draw_charts():
        raise UsageError(f"{option} is drawn by matplotlib: {HOW_TO_INSTALL}")


def write_chart(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, SVG or PDF, as the suffix says; raises OutputError."""
    from matplotlib import style

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with style.context(["default", STYLE]):
            # laid out once, not before each file and again while it is drawn
            if engine := figure.get_layout_engine():
                engine.execute(figure)
                figure.set_layout_engine(None)
            figure.savefig(path, metadata=METADATA[path.suffix.lower()])
    except OSError as error:
        raise OutputError(
            f"Cannot write {str(error.filename or path)!r}: {error.strerror or error}."
        ) from error
