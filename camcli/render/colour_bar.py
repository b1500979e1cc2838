"""Says what the colours of a map mean: which raw value each of them is."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camcli.methods.postprocessing import SMALLEST_CONTRAST
from camcli.render.colormap import LEVELS, ColormapLike, find_colormap
from camcli.render.overlay import Alpha, Scale, find_opacity, paint_signs

LONGEST = 6  # letters of a number


@dataclass(frozen=True)
class ColourBar:
    """The colours from least to most, uint8 RGB [n 3], and the raw values at its ends."""

    colours: NDArray[np.uint8]
    low: float
    high: float


def find_range(
    minimum: float, maximum: float, scale: Scale | None = None, *, signed: bool = False
) -> Scale | None:
    """Finds the raw values at the ends of a map's colours; None for a map that shows nothing.

    >>> find_range(-2.0, 3.0), find_range(-4.0, 3.0, signed=True), find_range(-2.0, -1.0)
    ((0.0, 3.0), (-4.0, 4.0), None)
    """
    if signed:
        most = max(abs(minimum), abs(maximum)) if scale is None else scale[1]
        return (-most, most) if 0 < most < np.inf else None
    if scale is not None:
        return scale
    low = max(minimum, 0.0)
    # what is constant but for rounding shows nothing
    return (low, maximum) if SMALLEST_CONTRAST * maximum < maximum - low < np.inf else None


def make_bar(
    ends: Scale, colormap: ColormapLike = "jet", alpha: Alpha = 0.5, *, signed: bool = False
) -> ColourBar:
    """Makes the bar of a map between two raw values; raises UnknownName or UsageError.

    Colours are those of the map; where their opacity follows the heat, as they look on white.
    """
    if signed:
        colours = paint_signs(np.linspace(-1, 1, LEVELS, dtype=np.float32))
    else:
        colours = find_colormap(colormap)[:, 0].astype(np.float32)
        if alpha == "auto":
            share = find_opacity(np.linspace(0, 1, LEVELS, dtype=np.float32), alpha)[:, None]
            share = share / share.max()
            colours = 255 * (1 - share) + colours * share
    return ColourBar(np.rint(colours).astype(np.uint8), *ends)


def format_number(value: float) -> str:
    """Writes a number with three digits, and few letters.

    >>> [format_number(n) for n in (0, 1, 0.12345, -37.25, 1234567, 0.00000123)]
    ['0', '1', '0.123', '-37.2', '1.2e6', '1.2e-6']
    """
    short = f"{value:.3g}"
    if len(short) <= LONGEST and "e" not in short:
        return short
    # of e+06 and e-06 the sign and the zeros
    return re.sub(r"e([+-])0*", lambda found: f"e{found[1].strip('+')}", f"{value:.1e}")
