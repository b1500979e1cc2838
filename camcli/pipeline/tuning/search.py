"""The search: maps are stored, measured in rounds, and the choice is tested on other pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camcli.engine.answer_request import answer_request
from camcli.engine.explain_request import ExplainResult
from camcli.engine.targets import CategoryChoice, LikeliestCategories
from camcli.errors import CamvizError, ImageError, UnknownName, UsageError
from camcli.models.labels import label_name
from camcli.models.state import call_on_model
from camcli.pipeline.evaluation.evaluation import Truth, read_picture, score_classes
from camcli.pipeline.evaluation.map_metrics import measure_all
from camcli.pipeline.stages import PreparedPicture
from camcli.pipeline.tuning.candidates import Candidate, choose_paired, list_pairs
from camcli.pipeline.tuning.map_store import LaidPicture, MapStore
from camcli.pipeline.tuning.schedule import (
    FEWEST_PICTURES,
    FINALISTS,
    PAIRED_BY_BOXES,
    PAIRED_BY_PASSES,
    STEPS,
    Schedule,
    make_schedule,
)
from camcli.pipeline.tuning.tuning_plan import TuningPlan
from camcli.pipeline.writing.output_writer import describe_failure
from camcli.records import Source
from camcli.registry import METRICS

DIGITS = 5  # digits of a score that count
# a candidate's metrics, by the picture's number
Values = dict[int, NDArray[np.float64]]


@dataclass(frozen=True)
class SearchStep:
    """The progress of a stage of the search, and notes about the picture that was done.

    `error` says why the picture could not be read, `useless` why nothing can be measured on it.
    """

    stage: str
    done: int
    total: int
    source: Source
    notes: tuple[str, ...] = ()
    error: str = ""
    useless: str = ""


@dataclass(frozen=True)
class TuningResult:
    """The choice, the scores of the candidates, and the choice's metrics on other pictures.

    `ranking` has the candidates of the last round, by their scores on the pictures that chose.
    `held` has metrics [pictures metrics] of the choice and its rivals on the pictures held back.
    Of the used `sources`, the first ones chose and the last ones were held back.  `passes` is the
    number of passes that were run.  `failed` are the pictures that could not be read, and `useless`
    those on which nothing can be measured.
    """

    chosen: Candidate
    ranking: tuple[tuple[Candidate, float], ...]
    means: dict[Candidate, NDArray[np.float64]]
    held: dict[Candidate, NDArray[np.float64]]
    sources: tuple[Source, ...]
    schedule: Schedule
    passes: int
    failed: tuple[SearchStep, ...]
    useless: tuple[SearchStep, ...]


def tune(
    tuning: TuningPlan,
    sources: Sequence[Source],
    truth: Truth,
    budget: int,
    report: Callable[[SearchStep], None],
) -> TuningResult:
    """Searches the best candidate on two thirds of the pictures, and measures it on the rest.

    The options' seed draws the pictures.  `budget` is the largest number of passes, and `report` is
    called after each picture.  Raises UsageError if fewer than three pictures can be used.
    """
    check_count(len(sources), len(sources))
    order = list(sources)
    Random(tuning.options.seed).shuffle(order)
    schedule = make_schedule(len(order), tuning.size, budget)
    with MapStore() as store:
        search = _Search(tuning, truth, store, report)
        search.lay_maps(order, schedule.pictures, budget)
        check_count(len(store), len(sources))
        schedule = make_schedule(len(store), tuning.size, budget)
        ranking = search.choose(schedule)
        chosen, best_score = ranking[0]
        if not np.isfinite(best_score):
            raise UsageError(
                "No candidate has finite maps for all pictures: try --precision float32."
            )
        rivals = tuple(dict.fromkeys([chosen, tuning.gradcam, tuning.best]))
        held = range(schedule.search, schedule.pictures)
        search.measure(rivals, held, "measuring the choice")
        numbers = range(schedule.rounds[-1])
        return TuningResult(
            chosen,
            ranking,
            {candidate: search.average(candidate, numbers) for candidate, _ in ranking},
            {c: np.stack([search.values[c][number] for number in held]) for c in rivals},
            tuple(store.read(number).source for number in range(schedule.pictures)),
            schedule,
            search.passes,
            tuple(step for step in search.left_out if step.error),
            tuple(step for step in search.left_out if step.useless),
        )


def check_count(usable: int, given: int) -> None:
    """Raises UsageError if there are too few pictures to choose on some and test on others."""
    if usable >= FEWEST_PICTURES:
        return
    what = f"{usable} {'picture' if usable == 1 else 'pictures'}"
    said = f"{what} can be used of {given}" if usable < given else f"{what} given"
    raise UsageError(
        f"{said}: tune needs {FEWEST_PICTURES} or more, of which two thirds choose and a third is "
        "held back; from 21 pictures on, a difference can be told from noise."
    )


def _say(
    source: Source, notes: tuple[str, ...] = (), *, error: str = "", useless: str = ""
) -> SearchStep:
    return SearchStep("maps", 0, 0, source, notes, error, useless)


@dataclass
class _Search:
    """The stored pictures, by number, and the metrics of the candidates."""

    tuning: TuningPlan
    truth: Truth
    store: MapStore
    report: Callable[[SearchStep], None]
    values: dict[Candidate, Values] = field(default_factory=dict)
    left_out: list[SearchStep] = field(default_factory=list)
    passes: int = 0

    def lay_maps(self, order: Sequence[Source], count: int, budget: int) -> None:
        """Stores the maps of `count` pictures, with one batch in memory at a time."""
        waiting, each, looked = list(order), self.tuning.size.map_passes, 0
        while waiting and len(self.store) < count and self.passes + each <= budget:
            affordable = (budget - self.passes) // each
            size = min(self.tuning.plan.batch_size, count - len(self.store), affordable)
            group, waiting = waiting[:size], waiting[size:]
            for step in self._lay_group(group):
                looked += 1
                placed = replace(step, done=min(looked, count), total=count)
                if step.error or step.useless:
                    self.left_out.append(placed)
                self.report(placed)

    def _lay_group(self, group: Sequence[Source]) -> Iterator[SearchStep]:
        """Stores a batch; yields the notes about each picture."""
        prepared: list[PreparedPicture] = []
        steps: dict[int, SearchStep] = {}
        for place, source in enumerate(group):
            try:
                picture = read_picture(source, self.tuning.plan, self.tuning.options)
            except (ImageError, MemoryError, UnknownName) as error:
                steps[place] = _say(source, error=describe_failure(error, source.path))
                continue
            if useless := self._explain_useless(picture):
                steps[place] = _say(source, useless=useless)
            else:
                prepared.append(picture)
        laid = self._lay(prepared)
        for place in range(len(group)):
            yield steps[place] if place in steps else next(laid)

    def _explain_useless(self, prepared: PreparedPicture) -> str:
        """Says before any pass why the picture has no object of the class to explain."""
        if not self.tuning.has_boxes:
            return ""
        if self.truth.find(prepared) is None:
            return "--boxes says nothing about it"
        predicted = prepared.category is None and isinstance(self.tuning.plan.categories, int)
        if predicted and self.truth.classes.categories and not self.truth.list_categories(prepared):
            return "none of its objects has a class of the model"
        return ""

    def _lay(self, prepared: Sequence[PreparedPicture]) -> Iterator[SearchStep]:
        if not prepared:
            return
        plan = self.tuning.plan
        inputs = torch.stack([picture.view.inputs for picture in prepared])
        with call_on_model(plan.classifier.module):
            result = answer_request(
                plan.classifier.module,
                inputs,
                self._choose_categories(prepared),
                plan.request,
                plan.prepack_cache,
            ).to_cpu()
        self.passes += len(prepared) * self.tuning.size.map_passes
        for row, picture in enumerate(prepared):
            yield self._lay_picture(picture, result, row)

    def _lay_picture(
        self, prepared: PreparedPicture, result: ExplainResult, row: int
    ) -> SearchStep:
        source = prepared.picture.source
        assert source is not None and result.categories is not None
        category = int(result.categories[row, 0])
        label = label_name(self.tuning.plan.classifier.labels, category)
        objects: dict[str, Tensor] = {}
        notes: tuple[str, ...] = ()
        if self.tuning.has_boxes:
            try:
                objects, notes = self.truth.see_objects(prepared, category, label)
            except CamvizError as error:
                return _say(source, error=f"{source}: {error}")
            if not objects:
                return _say(source, useless="; ".join(notes))
        image = prepared.view.inputs
        picture = LaidPicture(
            source,
            category,
            (image.shape[-2], image.shape[-1]),
            {
                (method, layer): result.maps[method][layer][row, 0].float().numpy()
                for method, layer in self.tuning.plan.request.parts
            },
            None if self.tuning.has_boxes else image.numpy(),
            {name: tensor.numpy() for name, tensor in objects.items()},
        )
        self.store.add(picture)
        return _say(source, notes)

    def _choose_categories(self, prepared: Sequence[PreparedPicture]) -> CategoryChoice | None:
        """Chooses the given class, or the likeliest annotated one, or the predicted one."""
        named = [picture.category for picture in prepared]
        if not isinstance(self.tuning.plan.categories, int):
            return self.tuning.plan.choice(named)
        return LikeliestCategories(
            tuple(
                self.truth.list_categories(picture) if category is None else (category,)
                for picture, category in zip(prepared, named, strict=True)
            )
        )

    def choose(self, schedule: Schedule) -> tuple[tuple[Candidate, float], ...]:
        """Measures candidates round by round, and ranks those of the last round."""
        tuning = self.tuning
        first, second, last = map(range, schedule.rounds)
        rivals = (tuning.gradcam, tuning.best)
        singles = tuple(dict.fromkeys([*tuning.singles, *rivals]))
        self.measure(singles, first, "single maps")
        ranked = [candidate for candidate, _ in self.rank(tuning.singles, first)]
        most = PAIRED_BY_BOXES if tuning.has_boxes else PAIRED_BY_PASSES
        means = {candidate: self.average(candidate, first) for candidate in ranked}
        paired = choose_paired(ranked, most, means)
        pairs = [pair for pair in list_pairs(paired) if not pair.is_same(tuning.best)]
        others = tuple(dict.fromkeys([*paired, *rivals, *pairs]))
        self.measure(others, second, "pairs")
        if tuning.has_boxes:
            return self.rank(tuple(dict.fromkeys([*singles, *others])), last)
        finalists = [candidate for candidate, _ in self.rank(others, second)[:FINALISTS]]
        self.measure(finalists, last, "finalists")
        return self.rank(finalists, last)

    def rank(
        self, candidates: Sequence[Candidate], numbers: Sequence[int]
    ) -> tuple[tuple[Candidate, float], ...]:
        """Returns candidates with their scores, the best first; equal ones keep their order."""
        scores = {c: self.score(c, numbers) for c in candidates}
        # scores that differ only by rounding are equal
        return tuple(sorted(scores.items(), key=lambda item: -round(item[1], DIGITS)))

    def score(self, candidate: Candidate, numbers: Sequence[int]) -> float:
        """Returns a candidate's mean score; -inf if one of its maps is not finite."""
        values = np.stack([self.values[candidate][number] for number in numbers])
        score = float(compute_scores(self.tuning, values).mean())
        return score if np.isfinite(score) else -np.inf

    def average(self, candidate: Candidate, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Returns a candidate's mean values.  -> [metrics]"""
        values = [self.values[candidate][number] for number in numbers]
        return np.asarray(np.stack(values).mean(0))

    def measure(self, candidates: Sequence[Candidate], numbers: Sequence[int], stage: str) -> None:
        """Measures candidates on pictures where they are not measured yet, a picture at a time."""
        for done, number in enumerate(numbers, 1):
            picture = self.store.read(number)
            new = [c for c in candidates if number not in self.values.setdefault(c, {})]
            if new:
                for candidate, values in zip(new, self._measure(picture, new), strict=True):
                    self.values[candidate][number] = values
            self.report(SearchStep(stage, done, len(numbers), picture.source))

    def _measure(
        self, picture: LaidPicture, candidates: Sequence[Candidate]
    ) -> NDArray[np.float64]:
        """Returns the metrics of the candidates' maps of a picture.  [candidates metrics]"""
        plan, device = self.tuning.plan, self.tuning.plan.classifier.device
        raw = {part: torch.from_numpy(values).to(device) for part, values in picture.raw.items()}
        made = [candidate.make_map(raw, picture.size) for candidate in candidates]
        # methods may make the same map, which is measured only once
        places: dict[bytes, int] = {}
        which = [places.setdefault(m.cpu().numpy().tobytes(), len(places)) for m in made]
        maps = torch.stack([made[which.index(place)] for place in range(len(places))])
        is_finite = maps.flatten(1).isfinite().all(1)

        def score(images: Tensor) -> Tensor:
            self.passes += len(images)
            return score_classes(plan, images)[:, picture.category].to(images.device)

        inputs = {
            "maps": torch.where(is_finite[:, None, None], maps, 0.0),
            "score": score,
            **{name: torch.from_numpy(v).to(device) for name, v in picture.objects.items()},
        }
        if picture.image is not None:
            inputs["image"] = torch.from_numpy(picture.image).to(device)
        metrics = self.tuning.metrics
        measured = measure_all(metrics, inputs, plan.request.chunk, steps=STEPS).values
        values = np.stack([measured[name] for name in metrics], 1)
        values[~is_finite.cpu().numpy()] = np.nan
        return np.asarray(values[which])


def compute_scores(tuning: TuningPlan, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean of the metrics that count; a metric where lower is better counts as 1 minus
    it.

    values [pictures metrics] -> [pictures]
    """
    good = [
        values[:, place] if METRICS[name].direction == "higher" else 1 - values[:, place]
        for place, name in enumerate(tuning.metrics)
        if name in tuning.counting
    ]
    return np.asarray(np.mean(good, 0))
