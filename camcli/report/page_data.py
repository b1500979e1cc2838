"""Lays out as plain values what the page shows: heatmaps in columns, pictures, summaries."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camcli.errors import UnknownName
from camcli.records import Box, Record
from camcli.render.colormap import COLORMAPS, LOWERS, RAISES, find_colormap
from camcli.report.agreement import measure_agreement
from camcli.report.known_classes import NOTHING_KNOWN, KnownClasses, judge
from camcli.report.stored_heatmaps import StoredHeatmap
from camcli.report.summary import ClassSummary, measure_placement, round_map
from camcli.report.thumbnails import Thumbnails
from camcli.runs import pack_map

OFFERED = ("jet", "turbo", "viridis", "inferno", "cividis")
DIGITS = 5
THRESHOLD = 0.2  # of a map's maximum, above which places are hot

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Look:
    """How a run drew its overlays, with which the page begins.

    Where the opacity `follows_heat`, as with --alpha auto, alpha is that of full heat.
    """

    colormap: str = "jet"
    alpha: float = 0.5
    follows_heat: bool = False
    threshold: float = THRESHOLD
    dims_outside: bool = True


@dataclass(frozen=True)
class PageContent:
    """All that a page is made of; files are named from the folder that the page stands in."""

    title: str
    heatmaps: Sequence[StoredHeatmap]
    summaries: Sequence[ClassSummary]
    thumbnails: Thumbnails
    known: KnownClasses = NOTHING_KNOWN
    look: Look = Look()
    notes: tuple[str, ...] = ()


@dataclass
class _Names:
    """Texts that occur often, each once, by their number."""

    texts: dict[str, int] = field(default_factory=dict)

    def number(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))


def make_page_data(content: PageContent, page: Path) -> dict[str, Any]:
    """Makes the values that the page's script reads, all fit for JSON."""
    look, pictures = content.look, _Pictures(content)
    names = {name: _Names() for name in ("model", "method", "layer", "target", "label")}
    columns = _make_columns(content, page.parent, pictures, names)
    return {
        "title": content.title,
        "notes": list(content.notes),
        "names": {name: list(found.texts) for name, found in names.items()},
        "colormaps": _encode_colormaps(look.colormap),
        "colormap": look.colormap,
        "dims_outside": look.dims_outside,
        "signs": [list(RAISES), list(LOWERS)],
        "alpha": look.alpha,
        "follows_heat": look.follows_heat,
        "threshold": look.threshold,
        "pictures": pictures.rows,
        "heatmaps": columns,
        "summaries": _describe_summaries(content),
    }


def _encode_colormaps(first: str) -> dict[str, str]:
    """Encodes tables of 256 colours, the run's own one first, as base64 of RGB."""
    names = dict.fromkeys([first, *OFFERED])
    return {name: base64.b64encode(find_colormap(name).tobytes()).decode() for name in names}


def choose_colormap(name: object) -> str:
    """Returns a colour map's name, the default's where nobody knows the name."""
    try:
        find_colormap(str(name))
    except UnknownName:
        return COLORMAPS[0]
    return str(name).lower()


class _Pictures:
    """The pictures of a page, a row each, and their numbers."""

    def __init__(self, content: PageContent) -> None:
        self._thumbnails, self._known = content.thumbnails, content.known
        self._numbers: dict[tuple[str, int | None], int] = {}
        self.rows: list[dict[str, Any]] = []

    def number(self, stored: StoredHeatmap) -> int:
        """Returns a heatmap's picture's place in the rows, where it is put if it is new."""
        if stored.picture not in self._numbers:
            self._numbers[stored.picture] = len(self.rows)
            self.rows.append(self._describe(stored))
        return self._numbers[stored.picture]

    def _describe(self, stored: StoredHeatmap) -> dict[str, Any]:
        record = stored.record
        height, width = record.picture_size or (3, 4)
        return {
            "name": os.path.basename(record.source) or record.source,  # noqa: PTH119 (a URL, too)
            "source": record.source,
            "size": [width, height],
            "frame": record.frame,
            "time": record.time,
            "known": list(self._known.of(record)),
            "thumbnail": self._thumbnails.by_picture.get(stored.picture, -1),
        }


def _make_columns(
    content: PageContent, folder: Path, pictures: _Pictures, names: Mapping[str, _Names]
) -> Columns:
    heatmaps = content.heatmaps
    differences = {
        id(member.stored): member.difference
        for summary in content.summaries
        for member in summary.members
    }
    agreement, verdicts = measure_agreement(heatmaps), judge(heatmaps, content.known)
    columns: Columns = {}
    for number, stored in enumerate(heatmaps):
        record = stored.record
        row = {
            "picture": pictures.number(stored),
            "model": names["model"].number(record.model),
            "method": names["method"].number(record.method),
            "layer": names["layer"].number(", ".join(record.layers)),
            "target": names["target"].number(record.target),
            "label": names["label"].number(_name_class(record)),
            **_describe_map(stored),
            "view": _place_view(record),
            "scale": list(record.scale) if record.scale else None,
            "probability": _round(record.probability),
            "rank": record.rank,
            "value": record.value,
            "agreement": _round(agreement[number]),
            "verdict": verdicts[number],
            "difference": _round(differences.get(id(stored))),
            "overlay": content.thumbnails.by_overlay.get(number, -1),
            "file": _relate(record.outputs[0], folder) if record.outputs else "",
            "error": record.error,
            "warnings": list(record.warnings),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _name_class(record: Record) -> str:
    if record.label or record.category is None:
        return record.label
    return f"class {record.category}"


def _describe_map(stored: StoredHeatmap) -> dict[str, Any]:
    """Returns a map's values as text, and where its heat lies."""
    packed = None if stored.values is None else pack_map(stored.values)
    heat = stored.heat
    placed = None if heat is None else measure_placement(heat)
    measured = ("border", "centre", "spread", "above_half")
    return {
        "map": packed and [*packed.shape, packed.low, packed.high, packed.levels],
        "signed": stored.is_signed,
        **{name: _round(getattr(placed, name, None)) for name in measured},
    }


def _place_view(record: Record) -> list[float] | None:
    """Returns the view's left and top edge, width and height in shares of the picture."""
    if record.view is None or record.picture_size is None:
        return None
    view, (height, width) = record.view, record.picture_size
    box = Box(view.left / width, view.top / height, view.right / width, view.bottom / height)
    return [round(value, DIGITS) for value in (box.left, box.top, box.width, box.height)]


def _relate(output: str, folder: Path) -> str:
    """Names a file from the page's folder; empty where there is no way, as on another drive."""
    try:
        return Path(os.path.relpath(output, folder)).as_posix()
    except ValueError:
        return ""


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _describe_summaries(content: PageContent) -> list[dict[str, Any]]:
    numbers = {id(stored): number for number, stored in enumerate(content.heatmaps)}

    def number(members: Iterable[Any]) -> list[int]:
        return [numbers[id(member.stored)] for member in members]

    return [
        {
            "class": summary.name,
            "model": summary.model,
            "method": summary.method,
            "layer": ", ".join(summary.layers),
            "target": summary.target,
            "pictures": summary.pictures,
            "empty": summary.empty,
            "probability": _round(summary.probability),
            "border": _round(summary.placement.border),
            "centre": _round(summary.placement.centre),
            "spread": _round(summary.placement.spread),
            "above_half": _round(summary.placement.above_half),
            "difference": _round(summary.difference),
            "map": round_map(summary.mean_map),
            "differing": number(summary.differing),
            "differences": [_round(member.difference) for member in summary.differing],
            "clusters": [
                {
                    "pictures": cluster.size,
                    "map": round_map(cluster.mean_map),
                    "examples": number(cluster.examples),
                    "border": _round(cluster.placement.border),
                    "centre": _round(cluster.placement.centre),
                }
                for cluster in summary.clusters
            ],
            "hangs_on": [
                {
                    "place": found.place,
                    "share": _round(found.share),
                    "words": found.describe(),
                }
                for found in summary.fixed_places
            ],
        }
        for summary in content.summaries
    ]
