"""Puts two maps of one picture on one scale, and subtracts one from the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from camcli.errors import UsageError
from camcli.methods.postprocessing import normalise, scale_signed
from camcli.records import Box, Heatmap, Record
from camcli.render.overlay import enlarge
from camcli.runs import describe_map, pack_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camcli.pipeline.explanation import Explanation

MOST_CELLS = (
    1024  # cells along a difference's longer edge; larger pictures have fewer cells than pixels
)


def compare_maps(
    one: Explanation, other: Explanation, *, own_scales: bool = False
) -> tuple[Explanation, Explanation, Explanation]:
    """Returns two explanations of a picture on one scale, and the difference of their maps.

    The scale goes from zero to the larger maximum.  With `own_scales` each map keeps its own scale,
    and the maps are subtracted as shares of their maxima, so the difference lies between -1 and 1.
    Only drawn values are subtracted (those above zero, or all values of a signed map), at the
    pixels that both models see.  Raises UsageError for maps of two pictures.
    """
    if one.picture.size != other.picture.size:
        raise UsageError(
            "Two maps are compared on one picture, and these belong to pictures of "
            f"{_format_size(one)} and {_format_size(other)} pixels."
        )
    if own_scales:
        first, second = one, other
        shown = _take_shares(one), _take_shares(other)
        most = 1.0
    else:
        shown = _take_raw(one), _take_raw(other)
        most = max(_find_most(values) for values in shown)
        first, second = (_set_scale(e, most) for e in (one, other))
    return first, second, _make_difference(first, second, shown, most)


def _format_size(explanation: Explanation) -> str:
    height, width = explanation.picture.size
    return f"{width}x{height}"


def _take_raw(explanation: Explanation) -> NDArray[np.float32]:
    values = explanation.heatmap
    return values if explanation.is_signed else np.maximum(values, 0)


def _take_shares(explanation: Explanation) -> NDArray[np.float32]:
    raw = torch.from_numpy(explanation.heatmap)
    shares: NDArray[np.float32] = (
        scale_signed(raw) if explanation.is_signed else normalise(raw)
    ).numpy()
    return shares


def _find_most(values: NDArray[np.float32]) -> float:
    most = float(np.abs(values).max())
    return most if np.isfinite(most) else 0.0


def _set_scale(explanation: Explanation, most: float) -> Explanation:
    """Sets a map's scale to go from zero to the common maximum."""
    scale = (0.0, most) if most > 0 else None
    return replace(explanation, scale=scale, record=replace(explanation.record, scale=scale))


def _make_difference(
    one: Explanation,
    other: Explanation,
    shown: tuple[NDArray[np.float32], NDArray[np.float32]],
    most: float,
) -> Explanation:
    values, box = _subtract(shown, (one.view, other.view), one.picture.size)
    scale = (0.0, most) if most > 0 else None
    model, method, subtrahend = _name_difference(one.record, other.record)
    record = replace(
        one.record,
        model=model,
        method=method,
        compared_with=subtrahend,
        layers=(),
        layer_reason="",
        layer_fusion="",
        parts=(),
        combination="",
        probability=None,
        rank=None,
        margin=None,
        top_categories=(),
        top_labels=(),
        top_probabilities=(),
        value=None,
        view=box,
        minimum=float(values.min()),
        maximum=float(values.max()),
        statistics=describe_map(values, box, one.picture.size),
        map=pack_map(values),
        residual=None,
        scale=scale,
        seconds=None,
        warnings=(),
    )
    heatmap = Heatmap(values, method, (), one.category)
    return replace(one, view=box, record=record, map=heatmap, details={}, scale=scale)


def _name_difference(one: Record, other: Record) -> tuple[str, str, str]:
    """Returns the model and the method of a difference, and what was subtracted."""
    if one.model != other.model:
        return f"{one.model} - {other.model}", one.method, other.model
    if one.method != other.method:
        return one.model, f"{one.method} - {other.method}", other.method
    return one.model, one.method, other.label or "another map"


@dataclass(frozen=True)
class _Sampled:
    """A map's values at pixels, and the picture's rows and columns where these are."""

    values: NDArray[np.float32]
    rows: slice
    columns: slice

    def cut(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Returns the values at some of the rows and columns."""
        top, left = rows.start - self.rows.start, columns.start - self.columns.start
        height, width = rows.stop - rows.start, columns.stop - columns.start
        return self.values[top : top + height, left : left + width]


def _subtract(
    maps: tuple[NDArray[np.float32], NDArray[np.float32]],
    views: tuple[Box, Box],
    size: tuple[int, int],
) -> tuple[NDArray[np.float32], Box]:
    """Subtracts two maps where both show the picture: values [h w] at its pixels, and their box."""
    factor = min(1.0, MOST_CELLS / max(size))
    reduced = round(size[0] * factor), round(size[1] * factor)
    down, across = reduced[0] / size[0], reduced[1] / size[1]
    one, other = (
        _sample(values, _resize_box(view, across, down), reduced)
        for values, view in zip(maps, views, strict=True)
    )
    rows, columns = _overlap(one.rows, other.rows), _overlap(one.columns, other.columns)
    values = one.cut(rows, columns) - other.cut(rows, columns)
    box = Box(columns.start, rows.start, columns.stop, rows.stop)
    return np.ascontiguousarray(values), _resize_box(box, 1 / across, 1 / down)


def _sample(values: NDArray[np.float32], view: Box, size: tuple[int, int]) -> _Sampled:
    inside, (rows, columns) = enlarge(values, view, size)
    return _Sampled(inside, rows, columns)


def _resize_box(box: Box, across: float, down: float) -> Box:
    return Box(box.left * across, box.top * down, box.right * across, box.bottom * down)


def _overlap(one: slice, other: slice) -> slice:
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    if start >= stop:
        raise UsageError("The two maps show no common part of the picture.")
    return slice(start, stop)
