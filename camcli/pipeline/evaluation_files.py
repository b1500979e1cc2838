"""The files of an evaluation: a row for each picture, method and metric, and what they say."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from camcli.pipeline.evaluation import PictureScores
from camcli.registry import METRICS
from camcli.runs import unwritable_error
from camcli.utils.jsonable import to_jsonable

NAME = "evaluation"
SUFFIXES = (".csv", ".jsonl", ".json")
COLUMNS = (
    "picture", "category", "label", "probability", "method", "is_baseline", "metric", "direction",
    "value",
)  # fmt: skip


class EvaluationFiles:
    """Writes rows as pictures come, and the summary at the end, beside earlier evaluations.

    Raises OutputError where nothing can be written.
    """

    def __init__(self, folder: Path) -> None:
        self.csv, self.jsonl, self.json = _find_free_names(folder)
        self._open = ExitStack()
        self._files: dict[Path, IO[str]] = {}

    def __enter__(self) -> Self:
        for path in (self.csv, self.jsonl):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                # not over what another process began meanwhile
                file = path.open("x", newline="", encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                self._open.close()
                raise unwritable_error(path, error) from error
            self._files[path] = self._open.enter_context(file)
        self._write(self.csv, [COLUMNS])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, scores: PictureScores) -> None:
        """Writes a picture's rows, at once: an interruption loses no picture that was measured."""
        rows = list(_list_rows(scores))
        self._write(self.csv, [["" if v is None else v for v in row.values()] for row in rows])
        lines = [json.dumps(to_jsonable(row), allow_nan=False) + "\n" for row in rows]
        try:
            self._files[self.jsonl].writelines(lines)
            self._files[self.jsonl].flush()
        except OSError as error:
            raise unwritable_error(self.jsonl, error) from error

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary."""
        text = json.dumps(to_jsonable(summary), indent=2, allow_nan=False) + "\n"
        try:
            self.json.write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable_error(self.json, error) from error

    def _write(self, path: Path, rows: list[Any]) -> None:
        try:
            csv.writer(self._files[path]).writerows(rows)
            self._files[path].flush()
        except OSError as error:
            raise unwritable_error(path, error) from error


def _find_free_names(folder: Path) -> tuple[Path, Path, Path]:
    number = 1
    while True:
        mark = "" if number == 1 else f"-{number}"
        paths = [folder / f"{NAME}{mark}{suffix}" for suffix in SUFFIXES]
        if not any(path.exists() for path in paths):
            return paths[0], paths[1], paths[2]
        number += 1


def _list_rows(scores: PictureScores) -> Iterator[dict[str, Any]]:
    for metric, values in scores.values.items():
        for contender, value in zip(scores.contenders, values.tolist(), strict=True):
            row = (
                str(scores.source),
                scores.category,
                scores.label,
                scores.probability,
                contender.name,
                contender.is_baseline,
                metric,
                METRICS[metric].direction,
                value,
            )
            yield dict(zip(COLUMNS, row, strict=True))
