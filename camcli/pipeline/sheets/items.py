"""A heatmap as it stands on a sheet: what is known of it, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camcli.records import Record
from camcli.render.colormap import ColormapLike
from camcli.render.colour_bar import ColourBar, find_range, make_bar
from camcli.render.overlay import Alpha
from camcli.render.pixels import lay_pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from camcli.pipeline.explanation import Explanation

    Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class SheetItem:
    """One heatmap of a sheet; its pixels and those of its picture are made when they are placed.

    `picture` is equal for heatmaps of one picture.  `shows_values` says whether the colours mean
    raw values, and so whether there is a bar.
    """

    picture: object
    record: Record
    draw: Callable[[], Pixels]
    draw_picture: Callable[[], Pixels]
    bar: ColourBar | None
    shows_values: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return self.shows_values and self.bar is None


def make_record_bar(record: Record, colormap: ColormapLike, alpha: Alpha) -> ColourBar | None:
    """Makes the bar of a map by what its record says; None where it shows nothing."""
    if record.minimum is None or record.maximum is None:
        return None
    signed = record.is_signed
    ends = find_range(record.minimum, record.maximum, record.scale, signed=signed)
    return make_bar(ends, colormap, alpha, signed=signed) if ends else None


def cut_legend(pixels: Pixels, record: Record) -> Pixels:
    """Cuts the legend of concepts away, whose letters would be too small on a sheet."""
    if not record.concepts or record.picture_size is None:
        return pixels
    height, width = record.picture_size
    left = (pixels.shape[1] - width) // 2
    return pixels[:height, left : left + width] if left >= 0 else pixels


def list_items(
    explanations: Sequence[Explanation], alpha: Alpha, colormap: ColormapLike
) -> list[SheetItem]:
    """Lists explanations as what stands on a sheet; raises UnknownName for the colour map."""
    return [_make_item(e, alpha, colormap) for e in explanations]


def _make_item(explanation: Explanation, alpha: Alpha, colormap: ColormapLike) -> SheetItem:
    shows_values = not explanation.concepts and "pixels" not in explanation.details
    bar = make_record_bar(explanation.record, colormap, alpha) if shows_values else None

    def draw() -> Pixels:
        if "pixels" in explanation.details:
            # they say more than the map that is made of them
            return lay_pixels(explanation.picture.canvas, explanation.pixels(), explanation.view)
        return cut_legend(explanation.overlay(alpha, colormap), record)

    picture, record = explanation.picture, explanation.record
    return SheetItem(id(picture), record, draw, lambda: picture.canvas, bar, shows_values)
