"""Runs an evaluation from its first picture to its summary: earlier results, pictures, grids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from camcli.models.state import hash_weights
from camcli.pipeline.evaluation.evaluation import Evaluation, PictureScores
from camcli.pipeline.evaluation.files import EvaluationFiles
from camcli.pipeline.evaluation.grid_game import EDGE, Cell, GridGame, choose_grids
from camcli.pipeline.evaluation.metric_statistics import (
    Collected,
    MetricResult,
    describe_verdict,
    to_plain,
)
from camcli.pipeline.run_state import Shard, describe_configuration
from camcli.pipeline.workers.worker_pool import WorkerPool
from camcli.records import Source
from camcli.registry import METRICS
from camcli.runs import RunInfo, identify_source


def describe_run(evaluation: Evaluation, shard: Shard | None = None) -> RunInfo:
    """Returns what identifies an evaluation: options, model, metrics and annotations."""
    weights = hash_weights(evaluation.plan.classifier.module)
    configuration = describe_configuration(evaluation.plan, evaluation.options, weights)
    own = {"metrics": list(evaluation.metrics), "annotations": evaluation.truth.digest}
    return RunInfo({**configuration, **own}, shard=shard)


def _ignore(_: str) -> None:
    pass


@dataclass
class EvaluationRun:
    """Measures what is not measured yet, writes it, and collects all results.

    `sources` are those of this process, `places` their numbers among all evaluated pictures, and
    `failures` the pictures that could not be measured.  `note` is called with lines for the user.
    `measure`, if given, measures pictures in their order outside of this process.
    """

    evaluation: Evaluation
    sources: Sequence[Source]
    files: EvaluationFiles
    shard: Shard | None = None
    note: Callable[[str], None] = _ignore
    measure: Callable[[Sequence[Source]], Iterator[PictureScores]] | None = None
    collected: Collected = field(init=False)
    failures: list[Mapping[str, str]] = field(default_factory=list)
    skipped: int = 0

    def __post_init__(self) -> None:
        """Collects what was measured before."""
        self.collected = Collected(self.evaluation.options.seed)
        done: set[str] = set()
        for scores in self.files.read_done(self.sources):
            done.add(identify_source(scores.source))
            self.collected.add(self._number(scores))
        self._remaining = [
            (place, source)
            for place, source in enumerate(self.sources)
            if identify_source(source) not in done
        ]
        self.skipped = len(done)

    @property
    def total(self) -> int:
        """How many pictures still have to be measured."""
        return len(self._remaining)

    def carry_out(self, pool: WorkerPool) -> Iterator[PictureScores]:
        """Measures pictures in their order, then grids; writes each one when it is measured."""
        remaining = [source for _, source in self._remaining]
        measure = self.measure or partial(self.evaluation.measure, pool=pool)
        measured = measure(remaining)
        for (place, _), scores in zip(self._remaining, measured, strict=True):
            yield self._take(self._number(replace(scores, number=place)))
        if any(METRICS[name].of_grids for name in self.evaluation.metrics):
            yield from self._measure_grids()

    def _number(self, scores: PictureScores) -> PictureScores:
        """Gives a picture its number among the pictures of all processes."""
        rank, world = self.shard or (0, 1)
        return replace(scores, number=scores.number * world + rank)

    def _take(self, scores: PictureScores) -> PictureScores:
        if scores.error:
            self.failures.append({"picture": str(scores.source), "error": scores.error})
        else:
            self.collected.add(scores)
            self.files.add(scores)
        return scores

    def _measure_grids(self) -> Iterator[PictureScores]:
        seed = self.evaluation.options.seed
        grids = choose_grids(self.collected.cells, seed)
        classes = len({cell.category for cell in self.collected.cells})
        if not grids:
            self.note(
                f"{GridGame.metric} is left out: a grid needs {EDGE * EDGE} pictures of different "
                f"classes, and the pictures have {classes}"
            )
            return
        rank, world = self.shard or (0, 1)
        game = GridGame(self.evaluation)
        if game.refusal:
            self.note(f"{GridGame.metric} is left out: {game.refusal}")
            return
        size = "reduced to the network's size" if game.is_reduced else "each at its full size"
        self.note(
            f"{GridGame.metric}: {len(grids)} grids of {EDGE} x {EDGE} pictures of different "
            f"classes, {size}, drawn by --seed {seed}"
        )
        for place, grid in enumerate(grids):
            number = place * world + rank
            before = self._find_before(number, grid)
            for scores in before or game.measure(grid, number, self.collected.contenders):
                taken = self._take(scores)
                if not before:
                    yield taken

    def _find_before(self, number: int, grid: Sequence[Cell]) -> list[PictureScores]:
        """Returns what an earlier process measured of the same grid; empty if it was another one.

        The same grid has the same pictures in the same cells.
        """
        known = self.files.grids.get(number, {})
        ids = [identify_source(cell.source) for cell in grid]
        if list(known) != ids:
            return []
        return [
            replace(known[id_], source=cell.source, number=cell.number)
            for id_, cell in zip(ids, grid, strict=True)
        ]

    def summarise(self) -> tuple[tuple[MetricResult, ...], dict[str, Any]]:
        """Returns the results of the metrics, and the summary that is written."""
        results = self.collected.summarise(self.evaluation.metrics)
        subject = describe_evaluation(self.evaluation)
        return results, make_summary(subject, results, len(self.sources), self.failures)


def describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the part of a summary that describes the evaluation, without results."""
    plan, options = evaluation.plan, evaluation.options
    return {
        "model": plan.classifier.name,
        "methods": list(plan.request.names),
        "combined": {combined.name: str(combined) for combined in plan.request.combined},
        "layers": list(plan.request.layers),
        "layer_reason": plan.layer_reason,
        "layer_fusion": plan.request.layer_fusion,
        "target": plan.request.target.name,
        "seed": options.seed,
    }


def make_summary(
    subject: Mapping[str, Any],
    results: Sequence[MetricResult],
    pictures: int,
    failures: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Returns the summary of an evaluation, as JSON holds it."""
    return {
        **subject,
        "pictures": pictures,
        "failed": sorted(failures, key=lambda failure: failure["picture"]),
        "metrics": to_plain(results),
        "verdicts": [describe_verdict(result) for result in results],
    }
