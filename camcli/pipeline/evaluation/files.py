"""The files of an evaluation: a row for each picture, method and metric, and a summary.

They are `evaluation.csv`, `.jsonl` and `.json`, or `evaluation-2` and so on.  While an evaluation
is under way, a file in the hidden folder holds its options.  If several processes share an
evaluation, each has rows and a summary of its own, `evaluation.rank-0000-of-0002.jsonl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from camcli.errors import UsageError
from camcli.pipeline.evaluation.evaluation import PictureScores
from camcli.pipeline.evaluation.rows import COLUMNS, encode_csv, list_rows, read_rows
from camcli.records import Source
from camcli.runs import (
    STATE,
    FolderLocks,
    RunInfo,
    describe_differences,
    identify_source,
    unwritable_error,
    write_durably,
    write_json,
)

NAME, TASK = "evaluation", "evaluate"
SHARDS = re.compile(rf"{NAME}(?:-(\d+))?\.rank-(\d+)-of-(\d+)\.jsonl")
WHOLE = re.compile(rf"{NAME}(?:-(\d+))?\.(?:csv|jsonl|json)")


@dataclass(frozen=True)
class EvaluationNames:
    """The names of an evaluation's files in its folder, made of its number and its shard."""

    folder: Path
    number: int = 1
    share: str = ""

    @property
    def stem(self) -> str:
        """The beginning of all of its file names."""
        mark = "" if self.number == 1 else f"-{self.number}"
        return f"{NAME}{mark}"

    @cached_property
    def csv(self) -> Path:
        """The file with the rows as a table; a shard has none."""
        return self.folder / f"{self.stem}.csv"

    @cached_property
    def jsonl(self) -> Path:
        """The file with the rows."""
        return self.folder / f"{self.stem}{self.share}.jsonl"

    @cached_property
    def json(self) -> Path:
        """The file with the summary."""
        return self.folder / f"{self.stem}{self.share}.json"

    @cached_property
    def state(self) -> Path:
        """The file with the options, until the summary holds them."""
        return self.folder / STATE / f"{self.stem}{self.share}.json"

    @property
    def shards(self) -> list[Path]:
        """The existing files with rows of shards."""
        pattern = f"{self.stem}.rank-*.jsonl"
        return sorted(p for p in self.folder.glob(pattern) if SHARDS.fullmatch(p.name))

    def read_description(self) -> Mapping[str, Any] | None:
        """Returns the existing evaluation's `run` and `configuration`; None if no file has them."""
        of_shards = [p.with_suffix(".json") for p in self.shards]
        states = [self.folder / STATE / path.name for path in of_shards]
        for path in (self.state, self.json, *states, *of_shards):
            with suppress(OSError, ValueError, RecursionError):
                content = json.loads(path.read_bytes())
                if isinstance(content, dict) and isinstance(content.get("run"), str):
                    return content
        return None

    def take_away_shards(self) -> None:
        """Removes the shards, once their rows are in the whole evaluation's file."""
        for path in self.shards:
            for other in (
                path.with_suffix(".json"), self.folder / STATE / f"{path.stem}.json", path,
            ):  # fmt: skip
                other.unlink(missing_ok=True)


class EvaluationFiles:
    """Writes rows as pictures come, and the summary at the end; earlier evaluations stay.

    `resume` goes on with the existing evaluation of the same options, whose results are in
    `read_done` and `grids`.  Raises UsageError if all existing ones have other options, and
    OutputError if nothing can be written.
    """

    def __init__(self, folder: Path, run: RunInfo | None = None, *, resume: bool = False) -> None:
        self._run = run or RunInfo({})
        self._resumes = resume
        self._folder = folder
        self._open = ExitStack()
        self._files: dict[Path, IO[str]] = {}
        self._known: Sequence[Path] = ()
        # results of an earlier process: grids by their number, and their cells by the pictures' ids
        self.grids: dict[int, dict[str, PictureScores]] = {}
        self.names = EvaluationNames(folder, share=self._run.share)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files for the user: rows and summary."""
        if self._run.shard:
            return self.names.jsonl, self.names.json
        return self.names.csv, self.names.jsonl, self.names.json

    def __enter__(self) -> Self:
        locks = FolderLocks(self._folder, TASK)
        self._open.callback(locks.close)
        try:
            self._begin(locks)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def _begin(self, locks: FolderLocks) -> None:
        before = self._find_same() if self._resumes else None
        self.names = before or self._find_free()
        if not locks.take(self.names.jsonl.name, alone=True):
            raise UsageError(
                f"Another process is writing {str(self.names.jsonl)!r}: wait for it, or choose "
                "another --save-path."
            )
        locks.others()  # forgets dead processes
        description = {"run": self._run.name, "configuration": self._run.configuration}
        write_json(self.names.state, description)
        if before:
            self._keep_whole_rows()
        for path in self.paths[:-1]:
            try:
                # not over the files that another process has begun meanwhile
                file = path.open("a" if before else "x", newline="", encoding="utf-8",
                                 errors="surrogateescape")  # fmt: skip
            except OSError as error:
                raise unwritable_error(path, error) from error
            self._files[path] = self._open.enter_context(file)
        if not before and not self._run.shard:
            self._write(self.names.csv, encode_csv([COLUMNS]))

    def _find_free(self) -> EvaluationNames:
        number = 1
        while True:
            names = EvaluationNames(self._folder, number, self._run.share)
            whole = EvaluationNames(self._folder, number)
            own = [names.jsonl, names.json, whole.csv, whole.jsonl, whole.json]
            if not any(path.exists() for path in own) and (self._run.shard or not whole.shards):
                return names
            number += 1

    def _find_same(self) -> EvaluationNames | None:
        """Finds the latest evaluation of the same options; None if there is none at all."""
        described = []
        for number in list_numbers(self._folder):
            names = EvaluationNames(self._folder, number)
            if description := names.read_description():
                described.append(description)
                if description["run"] == self._run.name:
                    return replace(names, share=self._run.share)
        if not described:
            return None
        before = described[0].get("configuration")
        changes = describe_differences(
            before if isinstance(before, Mapping) else {}, self._run.configuration
        )
        raise UsageError(
            f"--resume: the evaluation in {str(self._folder)!r} has {', '.join(changes)}. Give the "
            "same options, or leave --resume out to begin another one there."
        )

    def _keep_whole_rows(self) -> None:
        """Removes incomplete rows, and adds rows that are in other files."""
        own, whole = self.names.jsonl, EvaluationNames(self._folder, self.names.number)
        parts = [own] if self._run.shard else [own, *whole.shards]
        for id_, scores in _read_once(parts):
            if scores.grid is not None:
                self.grids.setdefault(scores.grid, {})[id_] = scores
        write_durably(own, encode_pictures(parts, with_grids=False))
        if not self._run.shard:
            write_durably(self.names.csv, encode_table(own))
            whole.take_away_shards()
        # rows of a shard that was joined before are in the whole evaluation's file
        self._known = [own, whole.jsonl] if self._run.shard else [own]

    def read_done(self, sources: Sequence[Source]) -> Iterator[PictureScores]:
        """Yields what was measured of these sources before, with their numbers."""
        places = {identify_source(source): place for place, source in enumerate(sources)}
        for id_, scores in _read_once(self._known):
            place = places.get(id_)
            if place is not None and scores.grid is None:
                yield replace(scores, source=sources[place], number=place)

    def add(self, scores: PictureScores) -> None:
        """Writes a picture's rows at once, so that an interruption loses no measured picture."""
        rows = list_rows(scores, identify_source(scores.source))
        if not self._run.shard:
            self._write(self.names.csv, encode_csv(list(row.cells.values()) for row in rows))
        self._write(self.names.jsonl, b"".join(row.encode() for row in rows).decode("ascii"))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary."""
        described = {"run": self._run.name, "configuration": self._run.configuration}
        write_json(self.names.json, {**summary, **described})
        self.names.state.unlink(missing_ok=True)

    def _write(self, path: Path, text: str) -> None:
        try:
            self._files[path].write(text)
            self._files[path].flush()
        except OSError as error:
            raise unwritable_error(path, error) from error


def list_numbers(folder: Path) -> list[int]:
    """Lists the numbers of the evaluations in a folder, the latest one first."""
    if not folder.is_dir():
        return []
    matches = (WHOLE.fullmatch(p.name) or SHARDS.fullmatch(p.name) for p in folder.iterdir())
    return sorted({int(match[1] or 1) for match in matches if match}, reverse=True)


def _read_once(parts: Iterable[Path]) -> Iterator[tuple[str, PictureScores]]:
    """Yields the results of each picture, and of each cell of a grid, only once."""
    known: set[tuple[str, bool]] = set()
    for path in parts:
        for id_, scores in read_rows(path):
            key = (id_, scores.grid is not None)
            if key not in known:
                known.add(key)
                yield id_, scores


def encode_pictures(parts: Iterable[Path], *, with_grids: bool) -> Iterator[bytes]:
    """Encodes the rows of several files; each picture's rows appear once."""
    for id_, scores in _read_once(parts):
        if with_grids or scores.grid is None:
            yield from (row.encode() for row in list_rows(scores, id_))


def encode_table(jsonl: Path) -> Iterator[bytes]:
    """Yields the rows as lines of the table."""
    yield encode_csv([COLUMNS]).encode("ascii")
    for id_, scores in read_rows(jsonl):
        rows = encode_csv(list(row.cells.values()) for row in list_rows(scores, id_))
        yield rows.encode("utf-8", "surrogateescape")
