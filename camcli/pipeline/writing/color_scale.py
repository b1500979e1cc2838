"""Finds the raw values at the ends of a run's colour scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from camcli.pipeline.explanation import Explanation
from camcli.records import Record
from camcli.render.overlay import Scale

# maps of different methods or layers have different ranges and meanings
Key = tuple[str, tuple[str, ...]]


def scale_key(record: Record) -> Key:
    """Returns the key of a heatmap's scale; heatmaps with the same key share one."""
    return record.method, record.layers


@dataclass(frozen=True)
class ColorScales:
    """One scale for a whole run, or one for each method and layers, or each map's own."""

    common: Scale | None = None
    by_key: Mapping[Key, Scale] = field(default_factory=dict)

    def of(self, explanation: Explanation) -> Scale | None:
        """Returns a heatmap's scale if it shares one; concepts have their own colours.

        A compared heatmap has its own scale.
        """
        if explanation.concepts:
            return None
        if explanation.scale:
            return explanation.scale
        return self.by_key.get(scale_key(explanation.record), self.common)


def read_scales(records: Iterable[Mapping[str, Any]]) -> dict[Key, Scale]:
    """Finds the scales with which heatmaps were drawn, from the lines of a manifest."""
    return {
        (record["method"], tuple(record["layers"])): tuple(record["scale"])
        for record in records
        if _has_scale(record)
    }


def _has_scale(record: Mapping[str, Any]) -> bool:
    """Tells whether a line, which somebody may have changed, has a valid scale and its key."""
    layers, scale = record.get("layers"), record.get("scale")
    return (
        isinstance(record.get("method"), str)
        and isinstance(layers, list)
        and all(isinstance(layer, str) for layer in layers)
        and isinstance(scale, list)
        and len(scale) == 2
        and all(isinstance(value, int | float) and isfinite(value) for value in scale)
        and scale[0] < scale[1]
    )
