"""Says of a summary what a table, a CSV file and JSON hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from camcli.errors import UnknownName
from camcli.report.summary.class_summaries import ClassSummary, Cluster, MeasuredHeatmap
from camcli.report.summary.map_geometry import HeatPlacement

DIGITS = 4

Key = Callable[[ClassSummary], Any]

# by what a table can be sorted; numbers from the largest down
SORT_KEYS: Mapping[str, Key] = {
    "class": lambda s: s.name.casefold(),
    "pictures": lambda s: -s.pictures,
    "probability": lambda s: -(-1.0 if s.probability is None else s.probability),
    "border": lambda s: -s.placement.border,
    "centre": lambda s: -s.placement.centre,
    "spread": lambda s: -s.placement.spread,
    "above-half": lambda s: -s.placement.above_half,
    "difference": lambda s: -s.difference,
}


def sort_summaries(summaries: Sequence[ClassSummary], by: str | None) -> list[ClassSummary]:
    """Sorts summaries; left as they are without a key.  Raises UnknownName."""
    key = check_sort_key(by)
    return list(summaries) if key is None else sorted(summaries, key=SORT_KEYS[key])


def check_sort_key(by: str | None) -> str | None:
    """Returns the key of a column as it is listed; raises UnknownName."""
    if by is None:
        return None
    key = by.strip().lower().replace("_", "-").replace(" ", "-")
    if key not in SORT_KEYS:
        raise UnknownName("column to sort by", by, SORT_KEYS, f"All: {', '.join(SORT_KEYS)}.")
    return key


def to_row(summary: ClassSummary) -> dict[str, Any]:
    """Returns the plain values of a class, a column each."""
    return {
        "class": summary.name,
        "category": summary.category,
        "model": summary.model,
        "method": summary.method,
        "layers": " ".join(summary.layers),
        "target": summary.target,
        "pictures": summary.pictures,
        "empty": summary.empty,
        "probability": _round(summary.probability),
        **_describe_placement(summary.placement),
        "difference": _round(summary.difference),
        "clusters": len(summary.clusters),
        "hangs_on": "; ".join(found.place for found in summary.fixed_places),
    }


def to_object(summary: ClassSummary) -> dict[str, Any]:
    """Returns all that is known of a class, as JSON can hold it."""
    return {
        **to_row(summary),
        "layers": list(summary.layers),
        "places": {name: _round(share) for name, share in summary.placement.places.items()},
        "mean_map": round_map(summary.mean_map),
        "differing": [_describe_member(member) for member in summary.differing],
        "clusters": [_describe_cluster(cluster) for cluster in summary.clusters],
        "hangs_on": [
            {**asdict(found), "words": found.describe()} for found in summary.fixed_places
        ],
    }


def to_csv(summaries: Iterable[ClassSummary]) -> str:
    """Writes the rows of classes as CSV, which no spreadsheet takes for formulas."""
    text = io.StringIO()
    rows = [to_row(summary) for summary in summaries]
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _defuse(value) for name, value in row.items()})
    return text.getvalue()


def round_map(values: Any) -> list[list[float]]:
    """Rounds a map of shares for JSON, relative to even heat: 1 is what it would be everywhere."""
    return [[_round(float(v) * values.size) or 0.0 for v in row] for row in values]


def _describe_placement(placement: HeatPlacement) -> dict[str, Any]:
    names = ("border", "centre", "spread", "above_half")
    return {name: _round(getattr(placement, name)) for name in names}


def _describe_member(member: MeasuredHeatmap) -> dict[str, Any]:
    record = member.stored.record
    frame = {} if record.frame is None else {"frame": record.frame}
    return {"source": record.source, **frame, "difference": _round(member.difference)}


def _describe_cluster(cluster: Cluster) -> dict[str, Any]:
    return {
        "pictures": cluster.size,
        **_describe_placement(cluster.placement),
        "mean_map": round_map(cluster.mean_map),
        "examples": [member.stored.record.source for member in cluster.examples],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _defuse(value: Any) -> Any:
    """Puts an apostrophe before what a spreadsheet would run."""
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value
