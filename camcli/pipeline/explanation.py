"""Pictures to explanations: what a person in Python gets, and what `outputs` writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from camcli.config import from_keywords
from camcli.engine.clock import Clock
from camcli.engine.precision import chosen
from camcli.engine.run import Answer, Request, answer
from camcli.engine.targets import Contrast, log_probabilities
from camcli.errors import MethodError, OutputError, UnknownName
from camcli.media.geometry import view as view_of
from camcli.media.read import PictureLike, picture_from
from camcli.media.write import PICTURE_SUFFIXES, write_map, write_picture
from camcli.methods import compose
from camcli.models.labels import label
from camcli.models.layers import last_use
from camcli.models.load import Classifier
from camcli.pipeline.plan import Plan, plan
from camcli.records import Box, Concept, Heatmap, Picture, Record, View
from camcli.registry import METHODS, changed_options, depends_on_category, depends_on_layer
from camcli.render import overlay as drawing
from camcli.render.concepts import concepts_overlay, palette
from camcli.render.pixels import drawn_on_grey
from camcli.report import statistics
from camcli.stages import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Item = TypeVar("Item")

# a share of the score that rounding alone does not reach
LARGEST_RESIDUAL = 0.01

CLASSES_OF_A_CONCEPT = 3
SMALLEST_CONCEPT = 1e-6  # as a share of the strongest


@dataclass(frozen=True)
class Explanation:
    """One heatmap of one picture, what it explains, and how sure the model was of it."""

    picture: Picture
    view: Box
    record: Record
    map: Heatmap
    input_size: tuple[int, int]
    details: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """The raw map [h w], signed and not normalised."""
        return self.map.values

    @property
    def method(self) -> str:
        """The method's name."""
        return self.map.method

    @property
    def category(self) -> int | None:
        """The explained class's index, None for a model without classes."""
        return self.map.category

    @property
    def label(self) -> str:
        """The explained class's name."""
        return self.record.label

    @property
    def probability(self) -> float | None:
        """The explained class's softmax probability, 0..1; None for a model without classes."""
        return self.record.probability

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the map, in words; empty where nothing is."""
        return self.record.warnings

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The concepts that a method tells apart, the strongest first; empty for most methods."""
        return self.record.concepts

    @stage("draw")
    def overlay(
        self, alpha: float = 0.5, colormap: str = "jet", scale: drawing.Scale | None = None
    ) -> NDArray[np.uint8]:
        """Draws the heatmap on the original picture.  -> RGB [h w 3]

        The colours go from the map's own least to most heat, or between the raw values of a
        `scale`.  Concepts, where there are some, are drawn in colours of their own, above a legend.
        """
        if self.concepts:
            strengths = self.details["concepts"]
            return concepts_overlay(self.picture, strengths, self.concepts, alpha, box=self.view)
        return drawing.overlay(self.picture, self.map, alpha, colormap, box=self.view, scale=scale)

    @stage("draw")
    def pixels(self) -> NDArray[np.uint8]:
        """Draws what each pixel of the network's input counts, zero in grey.  -> RGB [H W 3]

        Raises MethodError for a method that does not tell.
        """
        if "pixels" not in self.details:
            raise MethodError(
                f"{self.method} gives a map, and nothing for single pixels: guidedbackprop and"
                " guidedgradcam do."
            )
        return drawn_on_grey(self.details["pixels"])

    @stage("draw")
    def sized_map(self, size: str) -> NDArray[np.float32]:
        """Returns the raw map at the layer's, the network input's or the picture's size."""
        if size == "image":
            return drawing.resized_map(self.heatmap, self.view, self.picture.size)
        if size == "input":
            enlarged: NDArray[np.float32] = compose.enlarge(
                torch.from_numpy(self.heatmap), self.input_size
            ).numpy()
            return enlarged
        return self.heatmap

    def save(self, path: str | Path) -> Path:
        """Writes the raw map (.npy) or the overlay (an image suffix).

        Raises OutputError, or ImageError for a picture that is too large for its format.
        """
        path = Path(path)
        if path.suffix.lower() == ".npy":
            write_map(self.heatmap, path)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            write_picture(self.overlay(), path)
        else:
            raise OutputError(f"{path} ends neither in .npy (raw map) nor in an image suffix.")
        return path


def overlay(
    picture: PictureLike,
    heatmap: drawing.MapLike,
    alpha: float = 0.5,
    colormap: str = "jet",
    *,
    box: Box | None = None,
) -> NDArray[np.uint8]:
    """Draws a raw heatmap on a picture, inside the box that it shows (all of it).  -> RGB [h w 3]

    The picture is a path, PIL picture, array or tensor.  Raises ImageError or UsageError.
    """
    return drawing.overlay(picture_from(picture), heatmap, alpha, colormap, box=box)


# the others would be passed over in silence
EXPLAINING = (
    "target_layers", "layer_fusion", "vit_like", "num_extra_tokens", "target_category", "top_k",
    "target", "contrast", "contrast_strength", "set", "aug_smooth", "eigen_smooth",
    "noise_smooth", "noise_sigma", "seed", "batch_size", "precision",
)  # fmt: skip
NOT_EXPLAINING = (
    "What loads a model (device, fit, ...) goes to load_model, what draws (alpha, colormap) to "
    "overlay of an explanation."
)


def explain(
    classifier: Classifier, inputs: Any, method: str | Sequence[str] = "gradcam", **options: Any
) -> Iterator[Explanation]:
    """Explains pictures: paths, PIL pictures, arrays [h w 3] or tensors [3 h w], one or many.

    Options are those of the command line that say what is explained (`top_k=2`,
    `target_category=["tabby"]`, ...).  Raises CamvizError, ImageError for an unreadable picture.
    """
    for name in options:
        if name not in EXPLAINING:
            raise UnknownName("option of explain", name, EXPLAINING, NOT_EXPLAINING)
    checked = from_keywords(method=method, **options)
    todo = plan(classifier, checked)
    items = [inputs] if _is_one_picture(inputs) else inputs
    return (
        explanation
        for group in batched(items, todo.batch_size)
        for explanations in explain_batch([prepared(picture_from(i), todo) for i in group], todo)
        for explanation in explanations
    )


def _is_one_picture(value: Any) -> bool:
    if isinstance(value, str | Path | Picture) or not isinstance(value, Iterable):
        return True
    # an array or a tensor of several pictures has four dimensions, a list has none
    return getattr(value, "ndim", 4) <= 3


@dataclass(frozen=True)
class Prepared:
    """A picture, what the network sees of it, and the category that a list names for it."""

    picture: Picture
    view: View
    category: int | None = None


def prepared(picture: Picture, todo: Plan) -> Prepared:
    """Makes a picture ready for the network; raises UnknownName for its category."""
    category = todo.category_named(picture.source.category if picture.source else "")
    return Prepared(picture, view_of(picture, todo.classifier.preprocessing), category)


def explain_batch(batch: Sequence[Prepared], todo: Plan) -> Iterator[list[Explanation]]:
    """Explains some pictures in one pass, which is begun at once; a list for each picture.

    A GPU is not waited for until the first of them is asked for.
    """
    inputs = _stacked([p.view.inputs for p in batch], todo.classifier.device)
    choice = todo.choice([p.category for p in batch])
    clock = Clock(todo.classifier.device)
    found = answer(todo.classifier.module, inputs, choice, todo.request)
    clock.stop()
    return _of_pictures(batch, found, clock, todo)


def _of_pictures(
    batch: Sequence[Prepared], found: Answer, clock: Clock, todo: Plan
) -> Iterator[list[Explanation]]:
    there = found if todo.classifier.device.type == "cpu" else found.fetched()
    seconds = clock.seconds / len(batch)
    for row, p in enumerate(batch):
        yield _timed(list(_explanations(p.picture, p.view, there, row, todo)), seconds)


def _timed(explanations: Sequence[Explanation], seconds: float) -> list[Explanation]:
    """Gives each heatmap of a picture its share of the picture's share of the pass."""
    own = round(seconds / len(explanations), 6)
    return [replace(e, record=replace(e.record, seconds=own)) for e in explanations]


def _stacked(inputs: Sequence[Tensor], device: torch.device) -> Tensor:
    """Lays inputs [3 H W] together on the device.  -> [b 3 H W]"""
    # channels last, as views are and networks want them: nothing is moved around
    views = [one.permute(1, 2, 0) for one in inputs]
    if device.type != "cuda":
        return torch.stack(views).permute(0, 3, 1, 2)
    # pinned memory is fetched by the GPU itself, while the CPU goes on
    like = views[0]
    pinned = torch.empty(len(views), *like.shape, dtype=like.dtype, pin_memory=True)
    together = torch.stack(views, out=pinned).permute(0, 3, 1, 2)
    return together.to(device, non_blocking=True)


def _explanations(
    picture: Picture, view: View, found: Answer, row: int, todo: Plan
) -> Iterator[Explanation]:
    height, width = view.inputs.shape[-2:]
    probabilities = None if found.probabilities is None else found.probabilities[row]
    categories = [None] if found.categories is None else found.categories[row].tolist()
    for slot, category in enumerate(categories):
        for method, layers in found.maps.items():
            asks_class = depends_on_category(method)
            if slot and not asks_class:
                continue  # one map for all classes, which stands under the predicted one
            shown = category
            base = _record(picture, view, todo)
            if probabilities is not None:
                shown = category if asks_class else int(probabilities.argmax())
                base = _with_class(base, shown, probabilities, todo)
            if asks_class:
                compared = None if found.references is None else found.references[row, slot]
                base = _with_target(base, compared, todo)
            for name, maps in layers.items():
                fused = todo.request.layers if depends_on_layer(method) else ()
                used = (name,) if name else fused
                values = maps[row, slot].float().contiguous().numpy()
                details = {
                    detail: found.details[method, name, detail][row, slot].numpy()
                    for detail in METHODS[method].details
                }
                record = replace(
                    base,
                    method=method,
                    layers=used,
                    layer_reason=todo.layer_reason if used else "",
                    layer_fusion=todo.request.layer_fusion if len(used) > 1 else "",
                    options=changed_options(method, todo.request.options.get(method, {})),
                    smoothing=_smoothing(todo.request),
                    concepts=_concepts(details, todo),
                    statistics=statistics(values, view.box, picture.size),
                    minimum=float(values.min()),
                    maximum=float(values.max()),
                    residual=float(details["residual"]) if "residual" in details else None,
                    warnings=(
                        *base.warnings,
                        *why_empty(values, method, len(used)),
                        *_used_again(used, found),
                        *_why_incomplete(details),
                    ),
                )
                heatmap = Heatmap(values, method, used, shown)
                yield Explanation(picture, view.box, record, heatmap, (height, width), details)


def _concepts(details: Mapping[str, NDArray[np.float32]], todo: Plan) -> tuple[Concept, ...]:
    """Names the classes that each concept speaks for, if there are concepts."""
    if "concept_logits" not in details:
        return ()
    probabilities = log_probabilities(torch.from_numpy(details["concept_logits"])).exp()
    best = probabilities.topk(min(CLASSES_OF_A_CONCEPT, probabilities.shape[1]))
    peaks = details["concepts"].max((1, 2))
    # what rounding left of a concept speaks for nothing
    there = (peaks > SMALLEST_CONCEPT * peaks.max()).tolist()
    colours, names = palette(len(probabilities)), todo.classifier.labels
    found = zip(colours, there, best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(
        Concept(colour, tuple(c), tuple(label(names, i) for i in c), tuple(p))
        if is_there
        else Concept(colour, (), (), ())
        for colour, is_there, c, p in found
    )


def _smoothing(request: Request) -> dict[str, Any]:
    """Names the options of smoothing that are no defaults."""
    views = {"aug_smooth": request.aug_smooth, "eigen_smooth": request.eigen_smooth}
    chosen: dict[str, Any] = {name: True for name, asked in views.items() if asked}
    if noise := request.noise:
        drawn = {"noise_smooth": noise.samples, "noise_sigma": noise.sigma, "seed": noise.seed}
        chosen.update(drawn)
    return chosen


def _record(picture: Picture, view: View, todo: Plan) -> Record:
    return Record(
        source=str(picture.source or ""),
        frame=picture.frame,
        picture_size=picture.size,
        view=view.box,
        model=todo.classifier.name,
        precision=chosen(todo.request.precision, todo.classifier.device),
    )


def _with_class(record: Record, category: int, probabilities: Tensor, todo: Plan) -> Record:
    """Adds what is known of the explained class.  [n]"""
    return replace(
        record,
        category=category,
        label=label(todo.classifier.labels, category),
        probability=float(probabilities[category]),
        rank=int((probabilities > probabilities[category]).sum()) + 1,
    )


def _with_target(record: Record, references: Tensor | None, todo: Plan) -> Record:
    """Adds what is explained of the class, and the classes that it is compared with.  [r]"""
    target, labels = todo.request.target, todo.classifier.labels
    if not isinstance(target, Contrast) or references is None:
        return replace(record, target=target.name)
    others = tuple(c for c in references.tolist() if c != record.category)
    alone = "the only class to compare with is the explained one: nothing is taken from its logit"
    return replace(
        record,
        target=target.name,
        contrast=others,
        contrast_labels=tuple(label(labels, c) for c in others),
        contrast_strength=target.strength,
        warnings=() if others else (alone,),
    )


def _used_again(layers: Iterable[str], found: Answer) -> Iterator[str]:
    for layer in layers:
        if found.calls[layer] > 1:
            yield f"layer {layer!r} {last_use(found.calls[layer])}"


def _why_incomplete(details: Mapping[str, NDArray[np.float32]]) -> Iterator[str]:
    """Says how much of a score a map leaves out that should explain all of it."""
    if "residual" not in details:
        return
    residual, score = float(details["residual"]), float(details["score"])
    if abs(residual) > LARGEST_RESIDUAL * abs(score):
        yield (
            f"input and biases put {score - residual:.3g} into a score of {score:.3g}: they make up"
            " the logits of networks in straight pieces (ReLU, BatchNorm), and less where"
            " activations are smooth, or gates, attention and norms look at the picture"
        )


def why_empty(
    values: NDArray[np.float32], method: str = "gradcam", layers: int = 1
) -> Iterator[str]:
    """Says why a raw map [h w] shows nothing, with the likely cause; nothing where it does show.

    A map of several layers is empty where one of them is, or where they do not meet; a map of none
    is one of the whole network.
    """
    raw, asks_class = torch.from_numpy(values), depends_on_category(method)
    seen = "this layer" if layers else "the picture"
    if compose.normalise(raw).any():
        return
    if not raw.isfinite().all():
        yield "the map is not finite: activations or gradients overflowed (half precision?)"
    elif not raw.any() and layers > 1:
        yield (
            "the layers' maps together are zero everywhere: one or all of them are empty, or no "
            "place is hot in each; --layer-fusion none shows them one by one"
        )
    elif not raw.any() and asks_class:
        yield (
            f"the map is zero everywhere: the score does not depend on {seen} (a dead layer, a "
            "head that is zero, a layer behind the last attention, or a probability of 0 or 1), or "
            "the layer says the same everywhere"
        )
    elif not raw.any():
        yield f"the map is zero everywhere: {seen} is dead, or says the same everywhere"
    elif raw.max() <= 0 and asks_class:
        yield f"the map is negative everywhere: {seen} speaks against the class at every place"
    elif raw.max() <= 0:
        yield "the map is negative everywhere, and only what is above zero is drawn"
    else:
        choice = "; choose an earlier one" if layers else ""
        yield f"the map is constant: {seen} says the same everywhere{choice}"


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Groups items, at most `size` together."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
