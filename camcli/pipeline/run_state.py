"""Opens the output folder for a run, which overwrites nothing and may resume an earlier run."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from camcli.config import Options
from camcli.engine.device.precision import choose_precision
from camcli.errors import OutputError
from camcli.media.output_place import is_file
from camcli.models.state import hash_weights
from camcli.pipeline.plan import Plan
from camcli.pipeline.writing.color_scale import Key, read_scales
from camcli.pipeline.writing.output_naming import digest_shared_options
from camcli.records import Outcome, Record, Source
from camcli.registry import ALL
from camcli.render.overlay import Scale
from camcli.runs import Counts, Manifest, Mode, Rename, RunInfo, read_manifest

PACKAGES = ("camviz", "torch", "torchvision", "timm", "transformers")
# options that decide how fast and how far a run goes, and not what it writes
NOT_WRITTEN = frozenset(
    {
        "device", "batch_size", "workers", "processes", "compile", "save_path", "recursive",
        "resume", "skip_existing", "fail_fast", "max_failures", "max_pixels", "max_memory",
        "engine", "ray_workers", "export", "sheet", "report",
    }
)  # fmt: skip
# options whose effect the hash of the weights and the classes' names describe better
RESOLVED_ELSEWHERE = frozenset(
    {"checkpoint", "class_map", "target", "frames", "preprocessing", "layers_sweep", "compare"}
)

Shard = tuple[int, int]


@dataclass(frozen=True)
class OutputClaim:
    """An output that a source is to be written to: its plain path, and what makes it.

    `beside` has the endings of the files beside it, and how they are made; `recipe` is the digest
    of what makes the picture.
    """

    path: Path
    source: Source
    beside: Mapping[str, str] = field(default_factory=dict)
    method: str = ""
    recipe: str = ""


class OutputPlaces(Protocol):
    """What has to be known of a run to write an output."""

    @property
    def weights(self) -> str:
        """The hash of the weights."""

    @property
    def shared_options(self) -> str:
        """The digest of the options that make all pictures; empty if they depend on each other."""

    def place(self, claim: OutputClaim, rename: Rename) -> Path:
        """Returns where an output may be written without overwriting another run's file."""

    def encode(self, source: Source, records: Sequence[Record]) -> bytes:
        """Encodes all records of a picture as lines of the manifest; nothing where none is kept."""


@dataclass
class RunState:
    """A run under way: the sources that it still has to do, and what it has done.

    `skipped` is the number of sources that were done before, `replaced` the number of this run's
    heatmaps that are made again.
    """

    sources: Sequence[Source]
    skipped: int = 0
    replaced: int = 0
    counts: Counts = field(default_factory=Counts)
    manifest: Manifest | None = None
    # the digest of the run's configuration; empty if there is no manifest
    run: str = ""
    weights: str = ""
    # the digest of the options that make all its pictures; empty if they depend on each other
    shared_options: str = ""
    # other processes that work on the same run
    other_processes: Sequence[str] = ()
    # the scales with which finished pictures of this run were drawn
    scales: Mapping[Key, Scale] = field(default_factory=dict)
    _failing: bool = False
    _lost: tuple[Source, OutputError] | None = None

    def claim_sources(self, left_out: Callable[[int], None]) -> Iterator[Source]:
        """Yields the sources that no other process has.

        `left_out` is called with 1 for each source of another process, and with -1 if that process
        turns out to be dead; such sources are yielded last.
        """
        left = []
        for source in self.sources:
            if self.manifest is None or self.manifest.claim(source):
                yield source
            else:
                left.append(source)
                left_out(1)
        self.skipped += len(left)
        for source in left:
            if self.manifest and self.manifest.claim(source):
                self.skipped -= 1
                left_out(-1)
                yield source

    def place(self, claim: OutputClaim, rename: Rename) -> Path:
        """Returns where an output may be written without overwriting another run's file.

        `rename` makes a name that says what differs from another run.
        """
        if self.manifest is None:
            return claim.path
        return self.manifest.place(
            claim.path,
            claim.source,
            claim.beside,
            method=claim.method,
            recipe=claim.recipe,
            rename=rename,
        )

    def encode(self, source: Source, records: Sequence[Record]) -> bytes:
        """Encodes all records of a picture as lines of the manifest; nothing where none is kept."""
        return self.manifest.encode(source, records) if self.manifest else b""

    def add(self, outcome: Outcome) -> Outcome:
        """Records the outcome of a picture and returns it; a video counts as one picture."""
        if not outcome.lines:
            # maps of a compared model have that model's weights
            records = tuple(
                record if record.weights else replace(record, weights=self.weights)
                for record in outcome.records
            )
            outcome = replace(outcome, records=records)
        self._append(outcome)
        made = sum(not record.error for record in outcome.records)
        # a video fails only once, at its first frame that fails
        fails = outcome.failed and not self._failing
        self._failing = self._failing or outcome.failed
        self.counts += Counts(outcome.last and not self._failing, made, fails)
        if outcome.last:
            self._failing = False
        return outcome

    def _append(self, outcome: Outcome) -> None:
        source = outcome.source
        if self._lost and self._lost[0] == source:
            # a video must not end as complete if a frame's record is missing
            raise self._lost[1]
        try:
            if self.manifest:
                self.manifest.append(
                    source,
                    outcome.records,
                    last=outcome.last,
                    files=outcome.files,
                    lines=outcome.lines,
                )
        except OutputError as error:
            self._lost = source, error
            raise

    def finish(self) -> None:
        """Closes the run as complete."""
        if self.manifest:
            self.manifest.finish(replace(self.counts, skipped=self.skipped))


@contextmanager
def open_run(
    plan: Plan, sources: Sequence[Source], options: Options, shard: Shard | None = None
) -> Iterator[RunState]:
    """Opens the manifest of the output folder; a run into a single file has none.

    Raises UsageError if an earlier run cannot be resumed, and OutputError if nothing can be
    written.
    """
    weights = hash_weights(plan.classifier.module)
    if is_file(options.save_path):
        yield RunState(sources, weights=weights)
        return
    description = _RunDescription(plan, options, weights)
    run = RunInfo(description.configuration, description.versions, description.ran_on, shard)
    # all pictures share one scale, for which one process has to see them all
    shared = options.scale != "run"
    with Manifest.open(options.save_path, run, description.mode, shared=shared) as manifest:
        remaining = manifest.list_remaining(sources)
        yield RunState(
            remaining,
            manifest.skipped,
            manifest.replaced,
            manifest=manifest,
            run=run.name,
            weights=weights,
            shared_options=digest_shared_options(description.configuration),
            other_processes=manifest.describe_others(),
            scales=_read_scales(options.save_path / run.manifest, run) if manifest.skipped else {},
        )


def _read_scales(path: Path, run: RunInfo) -> Mapping[Key, Scale]:
    return read_scales(line for line in read_manifest(path) if line["run"] == run.name)


def describe_configuration(plan: Plan, options: Options, weights: str) -> Mapping[str, Any]:
    """Returns the options that decide what is written, with their resolved values."""
    typed = options.model_dump(exclude=set(NOT_WRITTEN | RESOLVED_ELSEWHERE))
    classifier, request = plan.classifier, plan.request
    names = classifier.labels
    # of all methods: a sheet for each picture or, with one sheet for all, an overlay each
    apart = {"apart": True} if ALL in options.method and not plan.on_sheets else {}
    compared = {}
    if other := plan.other:
        compared = {
            "compared": [other.classifier.name, plan.other_weights],
            "compared_layers": other.request.all_layers,
        }
    return {
        **typed,
        **apart,
        **compared,
        "frames": str(options.frames or ""),
        "model": classifier.name,
        "weights": weights,
        "labels": sha256("\n".join(names).encode()).hexdigest()[:12] if names else "",
        "preprocessing": asdict(classifier.preprocessing),
        "layers": request.all_layers,
        "combined": [str(combined) for combined in request.combined],
        "target": request.target.name,
        "precision": choose_precision(request.precision, classifier.device),
    }


def _relate_working_folder(save_path: Path) -> str:
    """Returns the run's working folder relative to its outputs, since both may be moved."""
    try:
        return Path(os.path.relpath(Path.cwd(), save_path)).as_posix()
    except (OSError, ValueError):  # the folder was removed, or is on another drive
        return ""


@dataclass(frozen=True)
class _RunDescription:
    """Describes a run for its manifest."""

    plan: Plan
    options: Options
    weights: str

    @property
    def mode(self) -> Mode:
        if self.options.resume:
            return "resume"
        return "skip" if self.options.skip_existing else "new"

    @cached_property
    def configuration(self) -> Mapping[str, Any]:
        """The options that decide what is written."""
        return describe_configuration(self.plan, self.options, self.weights)

    @property
    def ran_on(self) -> Mapping[str, Any]:
        return {
            "device": str(self.plan.classifier.device),
            "batch_size": self.plan.batch_size,
            "compile": self.options.compile,
            # relative names of pictures start from here
            "working_folder": _relate_working_folder(self.options.save_path),
        }

    @property
    def versions(self) -> Mapping[str, str]:
        versions = {"python": platform.python_version()}
        for name in PACKAGES:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:  # camviz is run from its source
                continue
        return versions
