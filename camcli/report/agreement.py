"""Measures how far the maps of several methods agree on a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from camcli.report.stored_heatmaps import StoredHeatmap
from camcli.report.summary import resample_heat, share_heat


def measure_agreement(heatmaps: Sequence[StoredHeatmap]) -> list[float | None]:
    """Returns for each map its mean correlation with those of other methods, None without any.

    Compared are maps of the same picture, model and class; Pearson's correlation of the heat on a
    grid of 16x16, from -1 to 1.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    grids: dict[int, NDArray[np.float64]] = {}
    for number, stored in enumerate(heatmaps):
        heat = stored.heat
        shares = None if heat is None else share_heat(heat)
        if shares is not None:
            grids[number] = _standardise(resample_heat(shares))
            key = (stored.record.model, stored.record.category, *stored.picture)
            groups[key].append(number)
    agreement: list[float | None] = [None] * len(heatmaps)
    for numbers in groups.values():
        for number in numbers:
            method = heatmaps[number].record.method
            others = [n for n in numbers if heatmaps[n].record.method != method]
            if others:
                products = [float(grids[number] @ grids[other]) for other in others]
                agreement[number] = float(np.mean(products))
    return agreement


def _standardise(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = grid.ravel() - grid.mean()
    return np.asarray(flat / (np.linalg.norm(flat) or 1.0))
