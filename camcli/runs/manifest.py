"""Keeps the manifest of an output folder: what was written, by which run, for which source.

run = RunInfo(configuration, versions, ran_on)          # shard=(rank, world) for a share of a run
with Manifest.open(folder, run, mode) as manifest:  # "new", "resume" or "skip"
    plan = manifest.list_remaining(sources)         # once, before anything is placed
    manifest.claim(source)                          # False: another process has it; any thread
    path = manifest.place(path, source)             # before writing; from any thread
    manifest.append(source, records)                # after writing; one thread, in order
    manifest.finish(counts)                         # only when all is done
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from camcli.errors import CamvizError, OutputError, UsageError
from camcli.records import FileStamp, Record, Source
from camcli.runs.journal import Journal, read_journals
from camcli.runs.jsonl import (
    STATE,
    Line,
    encode_record,
    find_file_size,
    read_lines,
    remove_lines,
    take_back,
    truncate,
    unwritable_error,
)
from camcli.runs.locks import LOCK_FILE, FolderLocks, is_at
from camcli.runs.output_owners import OutputOwners, Rename, beside_recipe, iterate_marked, lock_name
from camcli.runs.resume import check_same_run
from camcli.runs.run_info import Counts, RunInfo, write_summary
from camcli.runs.source_ids import identify_source
from camcli.utils.compact_map import CompactMap, hash_texts

Mode = Literal["new", "resume", "skip"]

WHOLE = "manifest.jsonl"
SHARDS = "manifest.rank-*-of-*.jsonl"
NOTHING: Mapping[str, str] = {}
# the state of a source of this run
DONE, TO_DO, DROPPED = 1, 2, 3


def list_outputs(folder: Path) -> Iterator[Path]:
    """Yields the files that runs wrote into a folder and below, by its manifests."""
    for path in (folder / WHOLE, *folder.glob(SHARDS)):
        # other programs may have files of this name, too
        with suppress(CamvizError):
            for line in read_lines(path):
                yield from (folder / output for output in line.outputs)


class Manifest:
    """`manifest.jsonl` of an output folder, opened by one run.

    `list_remaining` sets `skipped` (the number of sources that were done already) and `replaced`
    (heatmaps of this run that are made again).  `other_processes` work on the same run.
    """

    def __init__(
        self, folder: Path, run: RunInfo, mode: Mode, locks: FolderLocks, shared: bool
    ) -> None:
        self.skipped, self.replaced = 0, 0
        self._folder, self._run, self._mode, self._locks = folder, run, mode, locks
        # of paths that need no further look to be relative; none where they have backslashes
        self._prefix = f"{folder}/" if os.sep == "/" else "\0"
        self._path = folder / run.manifest
        self._began, self._now = datetime.now(UTC), _read_clock(folder)
        self._alone = locks.take(run.manifest, alone=True)
        if not self._alone and not locks.wait(run.manifest):
            raise locks.busy_error()
        if mode == "resume":
            check_same_run(folder, run)
        self._journal = Journal(folder, run)
        # another run of this name that still works was not interrupted
        self._since = self._journal.since if self._alone else 0
        self._owners, self._sources = OutputOwners(), CompactMap()
        self._claims: dict[str, set[str]] = {}
        self._held: dict[str, Record] = {}
        self._file: int | None = None
        # bytes of the manifest that have been read, and those that this process wrote behind them
        self._known, self._own = 0, 0
        self._shared = shared
        self._mutex = threading.Lock()
        self._used = self._finished = False
        self._read()
        self._join()
        self._journal.begin(self._now)

    @classmethod
    def open(
        cls, folder: Path, run: RunInfo, mode: Mode = "new", *, shared: bool = True
    ) -> Manifest:
        """Makes the folder, removes what an interruption left, and reads who owns which output.

        Raises UsageError if `resume` finds another configuration, if a line is not a record, if
        another process rewrites the manifest, or if one works on the same run and `shared` is
        False.  Raises OutputError if nothing can be written.
        """
        locks = FolderLocks(folder, run.journal)
        try:
            return cls(folder, run, mode, locks, shared)
        except BaseException:
            locks.close()
            raise

    def list_remaining(self, sources: Iterable[Source]) -> list[Source]:
        """Returns the sources that still have to be done, in order; drops their old records.

        Raises UsageError if there are old records and another process writes into the folder.
        """
        open_sources, dropped = [], False
        for source in sources:
            owner = self._find_owner(identify_source(source))
            known = self._sources.get(owner)
            if known == DONE:
                self.skipped += 1
                continue
            if known == TO_DO and not self._alone and self._is_elsewhere(source):
                self.skipped += 1
                continue
            open_sources.append(source)
            if known == TO_DO:
                self._sources[owner], dropped = DROPPED, True
        if dropped:
            self._drop()
        self._share()
        return open_sources

    def describe_others(self) -> list[str]:
        """Describes the other processes, and how to go on without one that is silent for long."""
        return [self._locks.describe(process) for process in self.other_processes]

    def claim(self, source: Source) -> bool:
        """Takes a source for this process until its last record; False if another one has it.

        A process that has done it since this run began counts as well.
        """
        if not self._shared:
            return True
        id_ = identify_source(source)
        claim = self._claim_name(id_)
        with self._mutex:
            if not self._locks.take(claim, alone=True):
                return False
            self._catch_up()
            if self._sources.get(self._find_owner(id_)) == DONE:
                self._locks.leave(claim)
                return False
            self._claims.setdefault(id_, set()).add(claim)
        return True

    def place(
        self,
        path: Path,
        source: Source,
        beside: Mapping[str, str] = NOTHING,
        *,
        method: str = "",
        recipe: str = "",
        rename: Rename | None = None,
    ) -> Path:
        """Returns where a source's output may be written: at the path, or under another name.

        `beside` are endings of files beside it (".npy", ".pixels.png"), which need a free name,
        too, and in words how they are made.  A name that this run has already comes first; one that
        another run has is taken where the `recipe` says that the picture is the same.  Else
        `rename` names it by what differs, or a mark tells it apart.  May be called from any thread,
        and again for the same path.  Raises OutputError where no name is free.
        """
        id_ = identify_source(source)
        self._used = True
        with self._mutex:
            for name in self._list_names(path, id_, method, rename):
                files = {name: recipe}
                for ending, made in beside.items():
                    neighbour = name.with_name(name.name + ending)
                    files[neighbour] = beside_recipe(recipe, ending, made)
                if self._claim_files(files, id_):
                    return name
        raise OutputError(
            f"Cannot write {str(path)!r}: this name and the names made of it belong to other "
            "files. Choose another place (--save-path)."
        )

    def _list_names(
        self, path: Path, id_: str, method: str, rename: Rename | None
    ) -> Iterator[Path]:
        """Lists the names that an output may have, the best first."""
        output, text, mine = self._relative(path), f"{self._run.name} {id_}", self._find_owner(id_)
        owner = self._owners.find_owner(output)
        if owner == mine or rename is None:
            yield path
            yield from iterate_marked(path, text)
            return
        if owner is None and self._has_no_outputs(mine):
            # the other names are made where this one is not free
            yield path
        names = [path]
        renamed = rename(self._owners.find_run(output, id_, method))
        names += [renamed] if renamed != path else []
        names += [*iterate_marked(renamed, text), *iterate_marked(path, text)]
        # stable: false, for what is this run's, comes before true
        yield from sorted(names, key=lambda n: self._owners.find_owner(self._relative(n)) != mine)

    def _has_no_outputs(self, owner: int) -> bool:
        """Tells whether no earlier process has written for a source; False where that is open."""
        # records of other ranks are not all looked at
        return self._run.shard is None and self._sources.get(owner) is None

    def append(
        self,
        source: Source,
        records: Sequence[Record],
        *,
        last: bool = True,
        files: Mapping[str, FileStamp] | None = None,
        lines: bytes = b"",
    ) -> None:
        """Writes all records of a source in one piece, or, with `last=False`, some of a video.

        A video ends with `append(source, [])`: its latest record is held back until then, and gets
        the stamps `files` of the finished videos.  A source that failed has one record, with its
        `error`.  `lines` are what `encode` made of the records before.  Raises OutputError.
        """
        id_ = identify_source(source)
        held = self._held.pop(id_, None)
        ready = [*([held] if held else []), *records]
        if ready and not last:
            self._held[id_] = ready.pop()
        if ready:
            if files:
                ready[-1] = replace(ready[-1], files={**ready[-1].files, **files})
            is_as_encoded = lines and not (held or files)
            self._write(lines if is_as_encoded else self.encode(source, ready, last=last))
        if last:
            with self._mutex:
                if self._sources.get(self._find_owner(id_)) == DROPPED:
                    self._sources[self._find_owner(id_)] = DONE
                for claim in self._claims.pop(id_, ()):
                    self._locks.leave(claim)

    def encode(self, source: Source, records: Sequence[Record], *, last: bool = True) -> bytes:
        """Encodes a picture's records; may be called from any thread, and in forked processes."""
        id_, ends = identify_source(source), [*[False] * (len(records) - 1), last]
        return b"".join(map(self._make_line, records, [id_] * len(records), ends))

    def finish(self, counts: Counts) -> None:
        """Writes `run.json`, which marks the run as complete; raises OutputError."""
        try:
            os.fsync(self._open())
        except OSError as error:
            raise unwritable_error(self._path, error) from error
        write_summary(self._folder, self._run, counts, self._began)
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the manifest; without `finish` the run can be resumed."""
        if self._file is not None:
            os.close(self._file)
        with suppress(CamvizError):
            self._catch_up()
        untouched = not self._used and self._file is None and not self._journal.since
        # the journal stays if sources were dropped that no process has done again
        is_over = untouched or (self._finished and DROPPED not in self._sources.values())
        # it also stays for another process that still works on the same run
        if is_over and self._locks.leave_last(self._run.journal):
            self._journal.end()
        self._locks.close()

    def _join(self) -> None:
        """Registers this process with the run; raises UsageError if it must be alone.

        Processes that share a run see each other's sources by their locks.
        """
        locks, task = self._locks, self._run.journal
        self.other_processes = locks.others(task)
        # without locks no process can tell who has a source
        if self.other_processes and not (self._shared and locks.works):
            raise locks.busy_error(task)
        if self._shared:
            locks.wait(task)
        elif not locks.take(task, alone=True):
            raise locks.busy_error(task)

    def _read(self) -> None:
        """Reads which run owns which output, and which sources of this run are done."""
        for run, id_, outputs in read_journals(self._folder):
            for output in outputs:
                self._owners.give(output, hash_texts(run, id_))
            if run == self._run.name:
                self._sources[hash_texts(run, id_)] = DROPPED
        if self._run.shard is None:
            self._learn_shards()
        else:
            self._learn(self._folder / WHOLE)
            if self._since:
                # other ranks may write meanwhile; only this rank's records were interrupted
                self._learn_shards()
        unended, end = self._learn(self._path)
        if self._alone and unended:
            remove_lines(self._path, lambda line: line.owner in unended)
            end = find_file_size(self._path)
        elif self._alone:
            truncate(self._path, end)
        else:
            # their records may be about to be written
            for owner in unended:
                self._sources[owner] = TO_DO
        self._known = end

    def _catch_up(self) -> None:
        """Reads what other processes have added to the manifest since the last call."""
        if find_file_size(self._path) == self._known + self._own:
            return
        for line in read_lines(self._path, self._known):
            self._known = line.start + len(line.text)
            self._owners.learn(line)
            if line.record["run"] == self._run.name and line.record.get("last"):
                self._sources[line.owner] = DONE
        self._own = 0

    def _learn(self, path: Path) -> tuple[set[int], int]:
        """Reads a manifest; returns sources without a last record, and the end of the last line."""
        going: dict[int, bool] = {}
        end = 0
        for line in read_lines(path):
            owner, end = line.owner, line.start + len(line.text)
            self._owners.learn(line)
            is_done = going.get(owner, True) and self._is_done(line)
            going[owner] = is_done
            if line.record.get("last"):
                del going[owner]
                if line.record["run"] == self._run.name:
                    self._sources[owner] = DONE if is_done else TO_DO
        return set(going), end

    def _is_done(self, line: Line) -> bool:
        if line.record["run"] != self._run.name or self._mode == "new":
            return False
        if line.record.get("error") and self._mode == "skip":
            return False
        return all(_is_whole(self._folder / name, stamp) for name, stamp in line.files.items())

    def _learn_shards(self) -> None:
        for path in self._folder.glob(SHARDS):
            for line in read_lines(path):
                if self._run.shard is None and line.record["run"] == self._run.name:
                    raise UsageError(
                        f"{str(self._folder)!r} holds the shards of this run: join them first "
                        f"(camviz merge {self._folder})."
                    )
                self._owners.learn(line)

    def _drop(self) -> None:
        """Removes the records of sources that are done again from the manifest."""
        self._alone = self._alone or self._locks.take(self._run.manifest, alone=True)
        if not self._alone:
            raise self._locks.busy_error()
        self._used = True
        # the journal first: if the run is interrupted now, it must recognise its files later
        self._journal.note(self._list_replaced())
        remove_lines(self._path, self._is_dropped)
        self._known = find_file_size(self._path)

    def _list_replaced(self) -> Iterator[tuple[str, list[str]]]:
        for line in filter(self._is_dropped, read_lines(self._path)):
            self.replaced += not line.record.get("error")
            yield line.record["id"], line.outputs

    def _is_dropped(self, line: Line) -> bool:
        return self._sources.get(line.owner) == DROPPED

    def _share(self) -> None:
        if self._alone:
            self._locks.take(self._run.manifest)
            self._alone = False

    def _claim_name(self, id_: str) -> str:
        """Returns the name of the lock on a source."""
        return f"source {self._run.name} {id_}"

    def _is_elsewhere(self, source: Source) -> bool:
        claim = self._claim_name(identify_source(source))
        if not self._locks.take(claim, alone=True):
            return True
        self._locks.leave(claim)
        return False

    def _find_owner(self, id_: str) -> int:
        return hash_texts(self._run.name, id_)

    def _claim_files(self, files: Mapping[Path, str], id_: str) -> bool:
        """Takes all of some files, with their recipes, for a source, or none of them."""
        keys = {file: lock_name(self._relative(file)) for file in files}
        held = self._claims.setdefault(id_, set())
        new = [key for key in keys.values() if key not in held]
        free = [self._is_free(file, keys[file], id_, files[file]) for file in files]
        if not all(free):
            for key in new:
                self._locks.leave(key)
            return False
        held.update(new)
        for file in files:
            self._owners.give(self._relative(file), self._find_owner(id_))
        return True

    def _is_free(self, file: Path, key: str, id_: str, recipe: str) -> bool:
        output = self._relative(file)
        known = self._owners.find_owner(output)
        is_mine = known in (None, self._find_owner(id_))
        if not is_mine and not self._owners.is_same(output, id_, recipe):
            return False
        # held until the record is written, so that another process sees the record or the lock
        return self._locks.take(key, alone=True) and (known is not None or self._is_ours(file))

    def _is_ours(self, file: Path) -> bool:
        """Tells whether a file without a record is free, or left by an interrupted run."""
        try:
            written = file.lstat().st_mtime_ns
        except OSError:
            return True
        return bool(self._since) and self._since <= written <= self._now

    def _make_line(self, record: Record, id_: str, last: bool) -> bytes:
        content: dict[str, Any] = {"run": self._run.name, "id": id_, "last": last, **vars(record)}
        content["outputs"] = [self._relative(output) for output in record.outputs]
        content["sheet"] = self._relative(record.sheet) if record.sheet else ""
        content["files"] = {self._relative(name): stamp for name, stamp in record.files.items()}
        return encode_record({**content, "versions": self._run.versions})

    def _relative(self, path: str | Path) -> str:
        # relative, since the folder may be moved with its manifest
        inside = str(path).removeprefix(self._prefix)
        if len(inside) < len(str(path)) and not {".", "..", ""} & set(inside.split("/")):
            return inside
        return Path(os.path.relpath(path, self._folder)).as_posix()

    def _write(self, text: bytes) -> None:
        """Appends lines in one call, so that lines of other processes do not come in between."""
        self._share()
        self._locks.beat()
        with self._mutex:
            self._append(text)
            self._own += len(text)

    def _append(self, text: bytes) -> None:
        file, written = self._open(), 0
        if not is_at(file, self._path):
            raise OutputError(
                f"{str(self._path)!r} vanished while it was written, so nothing says any more what "
                "this run did. Begin the run again."
            )
        try:
            while written < len(text):
                written += os.write(file, text[written:])
        except OSError as error:
            take_back(file, written)
            raise unwritable_error(self._path, error) from error

    def _open(self) -> int:
        if self._file is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            try:
                self._file = os.open(self._path, flags, 0o666)
            except OSError as error:
                raise unwritable_error(self._path, error) from error
        return self._file


def _is_whole(path: Path, stamp: FileStamp | None) -> bool:
    """Tells by its size whether a file is whole; the file is not read."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError):  # a null character in a name
        return False
    return size == stamp.size if stamp else size > 0


def _read_clock(folder: Path) -> int:
    """Returns the time in ns by the file system's clock, which may be another machine's."""
    file = folder / STATE / LOCK_FILE
    os.utime(file)
    return file.stat().st_mtime_ns
