"""Bars and curves: what stands in them, and that the same values give the same bytes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from camcli.errors import OutputError, UsageError
from camcli.render import charts
from camcli.render.charts import (
    BEST,
    KNOWS_NOTHING,
    PLAIN,
    Bar,
    BarPanel,
    Line,
    LinePanel,
    StepPanel,
    check_chart,
    draw_bars,
    draw_curves,
    draw_steps,
    save_chart,
    write_chart,
)
from tests.slow import mark_slow

BARS = (
    Bar("gradcam", 0.3, 0.2, 0.4),
    Bar("layercam", 0.5, 0.45, 0.6, is_best=True),
    Bar("uniform", -0.1, -0.2, 0.0, is_baseline=True),
)
PANELS = [BarPanel(f"metric {n}", "higher is better, n = 3", BARS) for n in range(4)]
LINES = [
    LinePanel(
        "Deletion",
        "share removed",
        "mean probability",
        (0.0, 0.5, 1.0),
        (
            Line("gradcam", (0.9, 0.3, 0.1), (0.3, 0.1, 0.2)),
            Line("uniform", (0.9, 0.6, 0.1), (0.1, 0.1, 0.0), is_baseline=True),
        ),
        most=1,
    )
]


def test_each_measure_has_its_bars_with_their_intervals() -> None:
    figure = draw_bars(PANELS)
    # no empty panel stands beside the last one
    assert [axis.get_title(loc="left") for axis in figure.axes] == [p.title for p in PANELS]
    axis = figure.axes[0]
    bars = axis.patches
    assert [bar.get_width() for bar in bars] == [0.3, 0.5, -0.1]
    colours = [to_hex(bar.get_facecolor()) for bar in bars]
    assert colours == [PLAIN, BEST, KNOWS_NOTHING]
    ends = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    for bar in BARS:
        assert (bar.low, bar.high) in ends
    assert [text.get_text() for text in axis.texts] == ["*"]
    # the best is at its place, from the top
    assert axis.texts[0].xy == (0.6, 1) and axis.yaxis_inverted()
    named = [[t.get_text() for t in axis.get_yticklabels()] for axis in figure.axes]
    names = [bar.name for bar in BARS]
    assert named == [names, ["", "", ""], ["", "", ""], names]
    assert "95 % intervals" in figure.get_supxlabel()
    alone = draw_bars([BarPanel("one", "n = 1", (Bar("gradcam", 0.3, is_best=True),))])
    assert "interval" not in alone.get_supxlabel()


def test_curves_have_bands_and_one_legend() -> None:
    figure = draw_curves([*LINES, *LINES])
    axis = figure.axes[0]
    by_name = {line.get_label(): line for line in axis.lines}
    np.testing.assert_array_equal(by_name["gradcam"].get_ydata(), [0.9, 0.3, 0.1])
    np.testing.assert_array_equal(by_name["gradcam"].get_xdata(), [0, 0.5, 1])
    # the band of the method alone
    (band,) = axis.collections
    corners = band.get_paths()[0].vertices
    # cut off where no probability can be
    assert {tuple(np.round(c, 6)) for c in corners} == {
        (0.0, 0.6), (0.0, 1.0), (0.5, 0.2), (0.5, 0.4), (1.0, 0.0), (1.0, 0.3),
    }  # fmt: skip
    assert axis.get_ylim() == (0, 1)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["gradcam", "uniform"]
    assert by_name["gradcam"].get_color() != by_name["uniform"].get_color()
    assert by_name["uniform"].is_dashed() and not by_name["gradcam"].is_dashed()


def test_steps_stand_from_left_to_right_under_their_names() -> None:
    lines = (Line("gradcam", (1.0, 0.4, -0.2), ()), Line("eigencam", (1.0, float("nan"), 1.0), ()))
    figure = draw_steps([StepPanel("rank", "y", ("trained", "fc", "conv"), lines, (0.9, 0.5))])
    (axis,) = figure.axes
    drawn = {str(line.get_label()): line for line in axis.lines}
    np.testing.assert_array_equal(drawn["gradcam"].get_ydata(), [1.0, 0.4, -0.2])
    np.testing.assert_array_equal(drawn["gradcam"].get_xdata(), [0, 1, 2])
    assert np.isnan(drawn["eigencam"].get_ydata()[1])
    assert [text.get_text() for text in axis.get_xticklabels()] == ["trained", "fc", "conv"]
    # zero and the limits lie across the whole panel
    across = [line.get_ydata()[0] for line in axis.lines if str(line.get_label())[0] == "_"]
    assert across == [0, 0.9, 0.5]
    low, high = axis.get_ylim()
    assert -0.5 < low < -0.2 and high > 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gradcam", "eigencam"]
    # of a hundred steps a few are named
    many = StepPanel("rank", "y", [str(n) for n in range(100)], (Line("a", (0.5,) * 100, ()),))
    named = [text.get_text() for text in draw_steps([many]).axes[0].get_xticklabels()]
    assert named[:3] == ["0", "9", "18"] and len(named) == 12


def test_a_chart_is_of_the_kind_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = StepPanel("rank", "y", ("a", "b"), (Line("m", (0.5, 0.2), ()),))
    beginnings = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "PNG": b"\x89PNG"}
    for suffix, beginning in beginnings.items():
        path = tmp_path / "deep" / f"one.{suffix}"
        check_chart(path, "--plot")
        write_chart(draw_steps([panel]), path)
        once = path.read_bytes()
        assert once.startswith(beginning)
        with pytest.raises(UsageError, match="exists already, and nothing is overwritten"):
            check_chart(path, "--plot")
        write_chart(draw_steps([panel]), path)
        assert path.read_bytes() == once
    for wrong in ("one.jpg", "one"):
        with pytest.raises(UsageError, match=r"takes a \.png, \.svg or \.pdf file"):
            check_chart(tmp_path / wrong, "--plot")
    monkeypatch.setattr(charts, "can_draw_charts", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'camviz\[figures\]'"):
        check_chart(tmp_path / "two.png", "--plot")


def test_twenty_methods_look_different() -> None:
    lines = [Line(f"m{n}", (0.1, 0.2, 0.3), (0.0, 0.0, 0.0)) for n in range(20)]
    panel = LinePanel("Deletion", "x", "y", (0.0, 0.5, 1.0), lines, 1)
    drawn = draw_curves([panel]).axes[0].lines
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in drawn}
    assert len(looks) == 20


@pytest.mark.parametrize("kind", mark_slow(["bars", "curves"], ["curves"]))
def test_the_same_values_give_the_same_files(tmp_path: Path, kind: str) -> None:
    def draw(stem: str) -> tuple[Path, Path]:
        figure = draw_bars(PANELS) if kind == "bars" else draw_curves(LINES)
        return save_chart(figure, tmp_path / stem)

    first = draw("one.of")
    # whatever a person's own style is
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.grid": True}):
        second = draw("two.of")
    assert [path.name for path in first] == ["one.of.png", "one.of.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(first[0]) as drawn:
        assert drawn.size[0] > 600
    root = ET.parse(first[1]).getroot()
    assert root.tag.endswith("svg") and b"<dc:date>" not in first[1].read_bytes()
    (tmp_path / "none").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        save_chart(draw_bars(PANELS), tmp_path / "none" / "x")
