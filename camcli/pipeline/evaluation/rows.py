"""Turns the results of a picture into lines of JSON and CSV, and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcli.errors import OutputError, UsageError
from camcli.metrics.localization.max_box_accuracy import IOUS
from camcli.pipeline.evaluation.evaluation import Contender, PictureScores
from camcli.pipeline.evaluation.map_metrics import ScoreCurve
from camcli.records import Source
from camcli.registry import METRICS
from camcli.utils.jsonable import encode_json

COLUMNS = (
    "picture", "category", "label", "probability", "method", "is_baseline", "metric", "direction",
    "value", "agreement", "grid",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """The row of a picture, method and metric: the columns of the CSV, and what only JSON holds."""

    cells: Mapping[str, Any]
    more: Mapping[str, Any]

    def encode(self) -> bytes:
        """Encodes the row as a line of JSON in ASCII; names that are not UTF-8 survive."""
        content = {**self.cells, **self.more}
        return encode_json(content).encode("ascii") + b"\n"


def list_rows(scores: PictureScores, id_: str) -> list[Row]:
    """Lists a picture's rows, the last one marked as such; none if nothing was measured."""
    rows = []
    for metric in [*scores.values, *scores.kept]:
        for place, contender in enumerate(scores.contenders):
            value = scores.values[metric][place] if metric in scores.values else None
            given = (
                str(scores.source),
                scores.category,
                scores.label,
                scores.probability,
                contender.name,
                contender.is_baseline,
                metric,
                METRICS[metric].direction,
                None if value is None else float(value),
                scores.agreement,
                scores.grid,
            )
            cells = dict(zip(COLUMNS, given, strict=True))
            rows.append(Row(cells, {"id": id_, **_list_more(scores, metric, place)}))
    if rows:
        rows[-1] = Row(rows[-1].cells, {**rows[-1].more, "last": True})
    return rows


def _list_more(scores: PictureScores, metric: str, place: int) -> dict[str, Any]:
    """Returns what only JSON holds: curves, and what a metric of the whole data set keeps."""
    more: dict[str, Any] = {"number": scores.number}
    curves = {
        name: {"shares": list(curve.shares), "scores": curve.scores[place].tolist()}
        for name, curve in scores.curves.items()
        if name == metric or (name.startswith(f"{metric}_") and name not in scores.values)
    }
    if curves:
        more["curves"] = curves
    if metric in scores.kept:
        more["reached"] = [_find_runs(line) for line in scores.kept[metric][place]]
        more["of"] = scores.kept[metric].shape[-1]
    return more


def _find_runs(line: NDArray[np.bool_]) -> list[list[int]]:
    """Lists the runs of true values in a line: the first index and the one behind the last."""
    changes = np.flatnonzero(np.diff(np.pad(line, 1).astype(np.int8))).tolist()
    return [[start, stop] for start, stop in zip(changes[::2], changes[1::2], strict=True)]


def encode_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Encodes rows as CSV; unknown values are empty."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["" if v is None else v for v in row] for row in rows])
    return text.getvalue()


def read_rows(path: Path) -> Iterator[tuple[str, PictureScores]]:
    """Yields each picture's id and what was measured of it, in a file's order.

    Incomplete pictures are left out.

    Raises OutputError if the file cannot be read, and UsageError for a line that is not a row.
    """
    group: list[dict[str, Any]] = []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"Cannot read {str(path)!r}: {error.strerror}.") from error
    with file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return
            row = _parse(text, number, path)
            if group and group[-1]["id"] != row["id"]:
                # an incomplete picture, behind which a later process went on
                group.clear()
            group.append(row)
            if row.get("last"):
                yield row["id"], _join_rows(group)
                group.clear()


NEEDED = ("picture", "method", "is_baseline", "metric", "value", "id", "number")


def _parse(text: bytes, number: int, path: Path) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        row = json.loads(text)
        if isinstance(row, dict) and all(n in row for n in NEEDED) and row["metric"] in METRICS:
            return row
    raise UsageError(
        f"Line {number} of {str(path)!r} is not a row of an evaluation that can be resumed: it was "
        "torn, changed, or written by an older version. Remove it, or leave --resume out to begin "
        "another evaluation."
    )


def _join_rows(group: Sequence[Mapping[str, Any]]) -> PictureScores:
    first = group[0]
    contenders = tuple(
        Contender(row["method"], row["is_baseline"])
        for row in group
        if row["metric"] == first["metric"]
    )
    by_metric: dict[str, list[Mapping[str, Any]]] = {}
    for row in group:
        by_metric.setdefault(row["metric"], []).append(row)
    curves: dict[str, ScoreCurve] = {}
    for rows in by_metric.values():
        for name, curve in rows[0].get("curves", {}).items():
            scores = np.array([row["curves"][name]["scores"] for row in rows], np.float64)
            curves[name] = ScoreCurve(tuple(curve["shares"]), scores)
    return PictureScores(
        Source(Path(first["picture"])),
        first["category"],
        first["label"],
        first["probability"],
        contenders,
        {
            metric: np.array([nan if r["value"] is None else r["value"] for r in rows], np.float64)
            for metric, rows in by_metric.items()
            if METRICS[metric].conclude is None
        },
        kept={m: _join_kept(rows) for m, rows in by_metric.items() if METRICS[m].conclude},
        curves=curves,
        agreement=first.get("agreement"),
        number=first["number"],
        grid=first.get("grid"),
    )


def _join_kept(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    kept = np.zeros((len(rows), len(IOUS), rows[0]["of"]), bool)
    for place, row in enumerate(rows):
        for line, runs in zip(kept[place], row["reached"], strict=True):
            for start, stop in runs:
                line[start:stop] = True
    return kept
