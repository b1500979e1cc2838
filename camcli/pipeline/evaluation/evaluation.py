"""Measures the maps of methods, and baseline maps, by metrics picture by picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import camcli.metrics  # noqa: F401  (fills the registry)
from camcli.config import Options
from camcli.engine.answer_request import answer_request
from camcli.engine.explain_request import ExplainResult
from camcli.engine.targets import FixedCategories
from camcli.errors import CamvizError, ImageError, UnknownName, UsageError
from camcli.media.annotations import Annotations, PictureAnnotations, match_pictures
from camcli.media.sources.listing import is_video
from camcli.methods.postprocessing import enlarge, normalise
from camcli.metrics.baseline_maps import BASELINE_MAPS
from camcli.models.inspection.layout import Layout
from camcli.models.labels import LabelMatches, label_name, match_labels
from camcli.models.load import Classifier
from camcli.models.state import call_on_model
from camcli.pipeline import stages
from camcli.pipeline.evaluation.map_metrics import ScoreCurve, compute_agreement, measure_all
from camcli.pipeline.evaluation.seen_objects import see_boxes, see_mask
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.picture_api import group_items
from camcli.pipeline.plan import Plan, make_plan
from camcli.pipeline.stages import PreparedPicture
from camcli.pipeline.workers.read_ahead import read_ahead
from camcli.pipeline.workers.worker_pool import WorkerPool
from camcli.pipeline.writing.output_writer import describe_failure
from camcli.records import Source
from camcli.registry import ALL, METRICS

RANDOM = "randomcam"
LOCALISATION = ("pointing_game", "heat_inside", "pixel_ap", "box_iou")
USUAL_METRICS = ("deletion", "insertion", "road", *LOCALISATION)


@dataclass(frozen=True)
class Contender:
    """A method (at one of several layers if these are not fused), or a baseline map."""

    name: str
    is_baseline: bool = False


@dataclass(frozen=True)
class PictureScores:
    """The metrics of the contenders' maps of one picture: {metric: [contenders]}.

    A metric that cannot be measured on the picture is missing, and `notes` say why.  With an
    `error` there is nothing else.  `kept` is what metrics of the whole data set need of the
    picture, bool [contenders ...], and `curves` are those whose areas are metrics, by name.
    `agreement` is the mean rank correlation of all pairs of the methods' maps; None for fewer than
    two.  `number` is the picture's place among the evaluated ones.  If the values are those of a
    cell in a grid, `grid` is the grid's number.
    """

    source: Source
    category: int | None = None
    label: str = ""
    probability: float | None = None
    contenders: tuple[Contender, ...] = ()
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    kept: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    curves: Mapping[str, ScoreCurve] = field(default_factory=dict)
    agreement: float | None = None
    number: int = 0
    grid: int | None = None


@dataclass(frozen=True)
class Truth:
    """What annotations say about the pictures: objects by path, and the classes that names mean.

    If `classes` knows none of the names, all objects of a picture count for the explained class.
    """

    by_picture: Mapping[Path, PictureAnnotations] = field(default_factory=dict)
    classes: LabelMatches = field(default_factory=lambda: LabelMatches({}))
    notes: tuple[str, ...] = ()
    # the digest of the annotations, by which they are recognised
    digest: str = ""

    @property
    def has_objects(self) -> bool:
        """Whether any picture has a box or a mask, and not labels alone."""
        return any(_has_shape(known) for known in self.by_picture.values())

    def find(self, prepared: PreparedPicture) -> PictureAnnotations | None:
        """Returns a picture's annotations, or None."""
        source = prepared.picture.source
        return self.by_picture.get(source.path) if source else None

    def list_categories(self, prepared: PreparedPicture) -> tuple[int, ...]:
        """Returns the annotated classes of a picture; the likeliest of them is explained.

        There are none if a list names the picture's class, or if the model has none of them.
        """
        known = self.find(prepared)
        if known is None or prepared.category is not None:
            return ()
        categories = self.classes.categories
        return tuple(c for i in known.instances for c in categories.get(i.label, ()))

    def see_objects(
        self, prepared: PreparedPicture, category: int, label: str
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Returns the class's objects as the network sees them: `mask` [H W], `boxes` [n 4].

        Returns nothing but a note if the network sees none, and nothing for a picture without
        annotations.
        """
        known = self.find(prepared)
        if known is None:
            return {}, ()
        if known.instances and not _has_shape(known):
            return {}, ("its annotations are labels alone, without a box or a mask",)
        placed, notes = known.in_pixels(prepared.picture.size)
        categories = self.classes.categories
        names = {n for n, means in categories.items() if category in means} if categories else None
        size = (prepared.view.inputs.shape[-2], prepared.view.inputs.shape[-1])
        mask = see_mask(placed.masks(names)[0], prepared.view.box, size)
        boxes = see_boxes(placed.boxes(names), prepared.view.box, size)
        if not mask.any() or not len(boxes):
            return {}, (*notes, f"the network sees no object of {label!r}")
        return {"mask": torch.from_numpy(mask), "boxes": torch.from_numpy(boxes)}, notes


def _has_shape(known: PictureAnnotations) -> bool:
    return any(i.box is not None or i.outline is not None for i in known.instances)


def know_truth(
    annotations: Annotations,
    sources: Sequence[Source],
    classifier: Classifier,
    meanings: Mapping[str, Sequence[int]] | None = None,
) -> Truth:
    """Matches annotations with pictures; raises AnnotationError if they belong to other pictures.

    `meanings` says which of the model's classes a name means.  Raises UsageError if it knows none
    of the names.
    """
    matches = match_pictures([source.path for source in sources], annotations)
    names = dict.fromkeys(
        i.label for known in matches.by_picture.values() for i in known.instances if i.label
    )
    classes = match_labels(names, classifier.labels, meanings)
    notes = [*annotations.notes, *matches.notes]
    if classes.categories:
        notes += classes.notes
    elif names and meanings is not None:
        raise UsageError(
            f"None of the annotated classes ({_name_some(list(names))}) is in the label map or "
            f"among the model's classes; the map has {_name_some(list(meanings))}. If the classes "
            "are numbers, name them with --box-names."
        )
    elif names:
        notes.append(
            f"none of the annotated classes ({_name_some(list(names))}) is a class of the model: "
            "all objects of a picture count for the explained class; --label-map says what names "
            "mean"
        )
    # what decides the classes of these pictures, and of those that come later
    decides = annotations.digest, meanings, classifier.labels, bool(classes.categories)
    digest = sha256(repr(decides).encode()).hexdigest()
    return Truth(matches.by_picture, classes, tuple(notes), digest[:12])


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def choose_metrics(
    given: Sequence[str], *, has_objects: bool, why: str = "without --boxes"
) -> tuple[tuple[str, ...], str]:
    """Returns the metrics to measure, and a line about those left out because they need boxes.

    `why` says in what case there are no objects.  Raises UnknownName for an unknown metric, and
    UsageError if none is left.
    """
    asked = tuple(METRICS) if ALL in given else tuple(dict.fromkeys(given or USUAL_METRICS))
    for name in asked:
        if name not in METRICS:
            raise UnknownName("metric", name, METRICS, f"All: {', '.join(METRICS)}.")
    if has_objects:
        return asked, ""
    out = [name for name in asked if METRICS[name].needs]
    left = tuple(name for name in asked if name not in out)
    if not left:
        need = "needs" if len(out) == 1 else "need"
        raise UsageError(
            f"{', '.join(out)} {need} boxes or masks of the pictures' objects, and nothing can be "
            f"measured {why}."
        )
    return left, f"left out {why}: {', '.join(out)}" if out else ""


def plan_evaluation(classifier: Classifier, options: Options) -> Plan:
    """Resolves methods, layers and class as a run does, with RandomCAM among the methods.

    Raises UsageError for a model without probabilities, and for options that choose several
    classes.
    """
    methods = options.method if ALL in options.method else (*options.method, RANDOM)
    if options.combine is None:
        given = options.model_copy(update={"method": tuple(dict.fromkeys(methods))})
        return plan_one_class(classifier, given)
    alone = options.model_copy(update={"method": (RANDOM,), "combine": None, "set": {}})
    return _add_beside(plan_one_class(classifier, options), plan_one_class(classifier, alone))


def _add_beside(combined: Plan, single: Plan) -> Plan:
    """Returns a plan for a combination, and for methods that are no part of it."""
    request = replace(
        single.request,
        combined=combined.request.combined,
        layouts={**single.request.layouts, **combined.request.layouts},
        options={**single.request.options, **combined.request.options},
    )
    return replace(
        single,
        request=request,
        doubts={**single.doubts, **combined.doubts},
        combined_reasons=combined.combined_reasons,
        batch_size=min(single.batch_size, combined.batch_size),
    )


def plan_one_class(classifier: Classifier, options: Options) -> Plan:
    """Resolves methods, layers and one class; raises UsageError as `plan_evaluation` does."""
    if classifier.reading.is_value or not classifier.num_classes:
        raise UsageError(
            f"{classifier.name!r} gives no probability of a class, which the metrics measure: "
            "evaluate a classifier."
        )
    if options.top_k or options.threshold is not None or len(options.target_category) > 1:
        raise UsageError(
            "One class a picture is evaluated: leave --top-k and --threshold out, and name one "
            "--target-category at most."
        )
    plan = make_plan(classifier, options)
    if not isinstance(plan.categories, int) and len(plan.categories or ()) != 1:
        raise UsageError("One class a picture is evaluated: name one --target-category.")
    return plan


def read_picture(source: Source, plan: Plan, options: Options) -> PreparedPicture:
    """Reads a picture; raises ImageError (also for a video), and UnknownName for its category."""
    if is_video(source):
        raise ImageError(f"{str(source)!r} is a video, and only pictures are measured.")
    return stages.prepare(stages.decode(stages.open_file(source, options.max_pixels)), plan)


@dataclass(frozen=True)
class Evaluation:
    """The metrics to measure on each picture, and the plan and annotations for it."""

    plan: Plan
    options: Options
    metrics: tuple[str, ...]
    truth: Truth = field(default_factory=Truth)

    def measure(
        self, sources: Sequence[Source], pool: WorkerPool | None = None
    ) -> Iterator[PictureScores]:
        """Measures pictures in their order; a failed one has its error.

        One batch is in memory, and with threads that read beside the model also the next one.
        """
        pool = pool or WorkerPool(0)
        ahead = self.plan.batch_size + 1 if pool.count else 1
        coming = read_ahead(sources, self._read, pool, ahead)
        on_cpu = self.plan.classifier.device.type == "cpu"
        for group in group_items(coming, self.plan.batch_size):
            read = [one for _, one in group if isinstance(one, PreparedPicture)]
            # a model on the CPU gets all cores
            with pool.hold() if on_cpu else nullcontext():
                explained = iter(self._explain(read))
            for source, one in group:
                if isinstance(one, str):
                    yield PictureScores(source, error=one)
                    continue
                with pool.hold() if on_cpu else nullcontext():
                    scores = self._measure_safely(source, *next(explained))
                yield scores

    def _read(self, source: Source) -> PreparedPicture | str:
        """Reads a picture, or says why it cannot be read."""
        try:
            return read_picture(source, self.plan, self.options)
        except (ImageError, MemoryError, UnknownName) as error:
            return describe_failure(error, source.path)

    def _explain(
        self, batch: Sequence[PreparedPicture]
    ) -> list[tuple[PreparedPicture, list[Explanation]]]:
        if not batch:
            return []
        chosen = self._choose_categories(batch)
        return list(zip(chosen, stages.explain_batch(chosen, self.plan), strict=True))

    def _choose_categories(self, batch: Sequence[PreparedPicture]) -> list[PreparedPicture]:
        """Chooses the likeliest of its annotated classes for each picture."""
        true_categories = [self.truth.list_categories(p) for p in batch]
        if not any(true_categories) or not isinstance(self.plan.categories, int):
            return list(batch)
        views = torch.stack([p.view.inputs for p in batch])
        probabilities = score_classes(self.plan, views)
        return [
            replace(p, category=max(own, key=lambda c: float(probabilities[row, c]))) if own else p
            for row, (p, own) in enumerate(zip(batch, true_categories, strict=True))
        ]

    def _measure_safely(
        self, source: Source, prepared: PreparedPicture, explanations: Sequence[Explanation]
    ) -> PictureScores:
        try:
            return self._measure(source, prepared, explanations)
        except (CamvizError, MemoryError) as error:
            return PictureScores(source, error=f"{source}: {error}")

    def _measure(
        self, source: Source, prepared: PreparedPicture, explanations: Sequence[Explanation]
    ) -> PictureScores:
        first = explanations[0]
        assert first.category is not None
        maps = PictureMaps.of(prepared, explanations, self.plan, self.options.layer_fusion)
        objects, notes = self._see_objects(prepared, first.category)
        inputs = maps.inputs(self.plan, first.category) | objects
        measured = [
            m for m in self.metrics if not METRICS[m].of_grids and (not METRICS[m].needs or objects)
        ]
        results = measure_all(measured, inputs, self.plan.request.chunk)
        return PictureScores(
            source,
            first.category,
            first.label,
            first.probability,
            maps.contenders,
            {m: v for m, v in results.values.items() if METRICS[m].conclude is None},
            (*notes, *maps.notes),
            kept={m: v.astype(bool) for m, v in results.values.items() if METRICS[m].conclude},
            curves=results.curves,
            agreement=compute_agreement(maps.unit[: maps.count_methods()]),
        )

    def _see_objects(
        self, prepared: PreparedPicture, category: int
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        if not any(METRICS[name].needs for name in self.metrics):
            return {}, ()
        label = label_name(self.plan.classifier.labels, category)
        return self.truth.see_objects(prepared, category, label)


@dataclass(frozen=True)
class PictureMaps:
    """The contenders' maps [b H W] of one picture, at the size of the network's input."""

    image: Tensor
    contenders: tuple[Contender, ...]
    raw: Tensor
    unit: Tensor
    # for each method's row: its name and its place among the layers
    rows: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        prepared: PreparedPicture,
        explanations: Sequence[Explanation],
        plan: Plan,
        layer_fusion: str,
    ) -> PictureMaps:
        """Takes the maps of a picture's explanations, and adds the baseline maps."""
        image = prepared.view.inputs.to(plan.classifier.device)
        apart = layer_fusion == "none" and len(plan.request.layers) > 1
        contenders, raw, rows, notes = [], [], [], []
        for e in explanations:
            values = torch.from_numpy(e.heatmap).to(image.device)
            is_apart = apart and e.map.layers and not e.record.parts
            layer = f" {e.map.layers[0]}" if is_apart else ""
            if not values.isfinite().all():
                raise UsageError(f"the map of {e.method}{layer} is not finite")
            if e.warnings and float(values.max()) <= 0:
                notes.append(f"{e.method}{layer}: {e.warnings[-1]}")
            contenders.append(Contender(f"{e.method}{layer}", e.method == RANDOM))
            raw.append(enlarge(values, e.input_size))
            rows.append((e.method, plan.request.layers.index(e.map.layers[0]) if layer else 0))
        # methods first, then baseline maps
        order = sorted(range(len(rows)), key=lambda row: contenders[row].is_baseline)
        baselines = [make(image).to(raw[0]) for make in BASELINE_MAPS.values()]
        stack = torch.stack([*(raw[row] for row in order), *baselines])
        unit = normalise(stack)
        # a constant map shows the whole picture
        unit[-1] = 1
        return cls(
            image,
            (*(contenders[row] for row in order), *(Contender(n, True) for n in BASELINE_MAPS)),
            stack,
            unit,
            tuple(rows[row] for row in order),
            tuple(notes),
        )

    def count_methods(self) -> int:
        """Returns how many are maps of methods, which come first."""
        return sum(not contender.is_baseline for contender in self.contenders)

    def inputs(self, plan: Plan, category: int) -> dict[str, Any]:
        """Returns the inputs of metrics, named in `registry.METRIC_INPUTS`."""

        def score(images: Tensor) -> Tensor:
            return score_classes(plan, images)[:, category].to(images.device)

        def explain(images: Tensor, row: int) -> Tensor:
            if row >= len(self.rows):
                make = list(BASELINE_MAPS.values())[row - len(self.rows)]
                return torch.stack([make(image) for image in images])
            method, layer = self.rows[row]
            result = _answer(plan, images, category, (method,))
            maps = list(result.maps[method].values())[layer][:, 0]
            maps = maps.mean(1) if maps.ndim == 4 else maps
            size = (images.shape[-2], images.shape[-1])
            return enlarge(maps.float(), size).to(images.device)

        return {
            "maps": self.raw,
            "unit_maps": self.unit,
            "image": self.image,
            "score": score,
            "explain": explain,
        }


def _answer(plan: Plan, images: Tensor, category: int, methods: tuple[str, ...]) -> ExplainResult:
    choice = FixedCategories(torch.tensor([[category]]).expand(len(images), 1))
    return answer_methods(plan, images, choice, methods)


def score_classes(plan: Plan, images: Tensor) -> Tensor:
    """Returns all classes' probabilities.  [n c H W] -> [n classes]"""
    choice = FixedCategories(torch.zeros(len(images), 1, dtype=torch.int64))
    probabilities = answer_methods(plan, images, choice, ()).probabilities
    assert probabilities is not None
    return probabilities.float()


def answer_methods(
    plan: Plan,
    images: Tensor,
    choice: FixedCategories,
    methods: tuple[str, ...],
    layouts: Mapping[str, Layout] | None = None,
) -> ExplainResult:
    """Explains images [n c H W] by some of the plan's methods; without methods it returns only
    logits.

    Images of another size than the network's have other layouts; `layouts={}` lets them be
    measured.
    """
    request = plan.request.select(methods)
    if layouts is not None:
        request = replace(request, layouts=layouts)
    if not methods:
        request = replace(request, layers=(), layouts={}, layer_fusion="mean", aug_smooth=False)
        request = replace(request, noise=None, eigen_smooth=False)
    with call_on_model(plan.classifier.module):
        return answer_request(plan.classifier.module, images, choice, request, plan.prepack_cache)
